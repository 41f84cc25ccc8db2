"""Checks Kubernetes' objects against the schemas of Kubernetes (PyPI's `kubernetes-validate`), and those of its operators against the
definitions of their custom resources, as PyPI's `cloudcoil-models-…` have them.

Reads names of YAML files, one a line, and answers each with a line of JSON: `objects`, and the `problems` that they have. A field that a
definition does not know is missing from what its model writes.
"""

import functools
import importlib
import json
import sys

import jsonschema
import yaml
from kubernetes_validate import SchemaNotFoundError, latest_version, utils

PLACES = {
    "cert-manager.io/v1": "cloudcoil.models.cert_manager.v1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
# 1.33 is the first version in which everything that the base uses is enabled.
VERSIONS = ("1.33", latest_version())

# Its schemas are megabytes, which it would read again for each object.
utils.schema_contents = functools.cache(utils.schema_contents)


def unknown(given, written, path):
    """The fields of `given` that are not in `written`."""
    if isinstance(given, dict) and isinstance(written, dict):
        for name, value in given.items():
            if name not in written:
                yield f"{path}.{name}"
            else:
                yield from unknown(value, written[name], f"{path}.{name}")
    elif isinstance(given, list) and isinstance(written, list):
        for number, (one, other) in enumerate(zip(given, written)):
            yield from unknown(one, other, f"{path}[{number}]")


def of_operator(thing):
    """What does not fit an operator's object."""
    try:
        model = getattr(importlib.import_module(PLACES[thing["apiVersion"]]), thing["kind"])
        made = model.model_validate(thing, strict=False)
    except (AttributeError, ValueError) as error:
        return [str(error)]
    written = made.model_dump(mode="json", by_alias=True, exclude_unset=True)
    return [f"unknown field `{field}`" for field in unknown(thing, written, "")]


def of_kubernetes(thing):
    """What does not fit another object, in any of the versions."""
    problems = []
    for version in VERSIONS:
        try:
            # An unknown field is an error.
            utils.validate(thing, version, strict=True)
        except SchemaNotFoundError as error:
            problems.append(error.message)
        except jsonschema.ValidationError as error:
            problems.append(f"in {version}, {error.json_path}: {error.message}")
    return problems


@functools.cache
def problems(text):
    """What does not fit the object that this is as JSON: most are the same in many variants."""
    thing = json.loads(text)
    name = f"{thing['kind']} {thing['metadata']['name']}"
    found = of_operator(thing) if thing["apiVersion"] in PLACES else of_kubernetes(thing)
    return [f"{name}: {problem}" for problem in found]


loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
for name in sys.stdin:
    with open(name.strip()) as file:
        objects = [thing for thing in yaml.load_all(file, loader) if thing]
    found = [problem for thing in objects for problem in problems(json.dumps(thing, sort_keys=True))]
    print(json.dumps({"objects": objects, "problems": found}), flush=True)
