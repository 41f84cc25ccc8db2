"""Checks objects of operators against their custom resources' definitions, as PyPI's `cloudcoil-models-…` have them.

Reads a file of objects as JSON; prints what does not fit, and how many objects were checked. A field that a definition does not know is missing
from what its model writes.
"""

import importlib
import json
import sys

PLACES = {
    "cert-manager.io/v1": "cloudcoil.models.cert_manager.v1",
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}


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


checked = 0
for thing in json.load(open(sys.argv[1])):
    place = PLACES[thing["apiVersion"]]
    name = f"{thing['kind']} {thing['metadata']['name']}"
    model = getattr(importlib.import_module(place), thing["kind"])
    try:
        made = model.model_validate(thing, strict=False)
    except ValueError as error:
        sys.exit(f"{name}: {error}")
    written = made.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for field in unknown(thing, written, ""):
        sys.exit(f"{name}: unknown field `{field}`")
    checked += 1
print(checked)
