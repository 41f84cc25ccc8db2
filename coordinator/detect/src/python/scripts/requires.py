"""Writes what packages built from the sources need to run, as their build backends say.

requires.py OUTPUT [DIRECTORY[EXTRA,EXTRA]=BACKEND]...
"""

import json
import os
import subprocess
import sys

try:
    from pip._vendor.packaging.requirements import Requirement
    from pip._vendor.packaging.utils import canonicalize_name
except ImportError:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name


def metadata(directory, backend):
    report = ".kiln/report.json"
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-index"]
    command += ["--no-deps", "--no-build-isolation", "--report", report, directory]
    path = os.path.join(backend, "bin") + os.pathsep + os.environ["PATH"]
    subprocess.run(command, env=dict(os.environ, PATH=path, PYTHONPATH=backend), check=True)
    with open(report) as file:
        return json.load(file)["install"][0]["metadata"]


def wanted(line, extras):
    requirement = Requirement(line)
    if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ["", *extras]):
        return None
    requirement.marker = None
    return requirement


def needed(name, lines, extras):
    while True:
        found = [requirement for requirement in (wanted(line, extras) for line in lines) if requirement]
        # An extra may name others of its own package.
        more = {extra for r in found if canonicalize_name(r.name) == name for extra in r.extras} - extras
        if not more:
            return found
        extras |= more


def main(output, *packages):
    ours, found = set(), []
    for package in packages:
        place, backend = package.rsplit("=", 1)
        directory, _, extras = place.rstrip("]").partition("[")
        described = metadata(directory, os.path.abspath(backend))
        name = canonicalize_name(described["name"])
        ours.add(name)
        found += needed(name, described.get("requires_dist", []), {extra for extra in extras.split(",") if extra})
    lines = {str(r) for r in found if canonicalize_name(r.name) not in ours}
    with open(output, "w") as file:
        file.write("".join(line + "\n" for line in sorted(lines)))


main(*sys.argv[1:])
