"""schema.py FILE: checks answers against the description that the farm serves."""

import json
import sys

import jsonschema

with open(sys.argv[1]) as file:
    given = json.load(file)
for one in given["answers"]:
    schema = {**one["schema"], "components": given["document"]["components"]}
    validator = jsonschema.Draft202012Validator(schema)
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(one["answer"])]
    if errors:
        sys.exit(f"{one['path']}: {errors[:5]}")
