"""Leaves tests out of a run of pytest, as the list beside it says: see `run.sh`."""

import os
import re


def _name(item):
    """The class and name of a test as in pytest's report. A parameter may have colons."""
    head, bracket, parameters = item.nodeid.partition("[")
    names = head.split("::")
    names[0] = re.sub(r"\.py$", "", names[0].replace("/", "."))
    return ".".join(names[:-1]) + " " + names[-1] + bracket + parameters


def _lines(name):
    with open(os.path.join(os.environ["KILN_TESTS"], name), encoding="utf-8") as file:
        return file.read().splitlines()


def wanted(names):
    """Whether each of these tests is to run."""
    shard, shards = int(os.environ.get("KILN_SHARD", 1)), int(os.environ.get("KILN_SHARDS", 1))
    known = dict(reversed(line.split("\t", 1)) for line in _lines("list"))
    passed = set(_lines("passed")) if os.environ["KILN_TESTS_MODE"] == "only" else set()
    chosen, turn = [], 0
    for name in names:
        of = int(known.get(name, 0))
        if not 1 <= of <= shards:
            of = turn % shards + 1
            turn += 1
        chosen.append(of == shard and name not in passed)
    return chosen


def pytest_collection_modifyitems(config, items):
    chosen = wanted([_name(item) for item in items])
    left_out = [item for item, wanted in zip(items, chosen) if not wanted]
    items[:] = [item for item, wanted in zip(items, chosen) if wanted]
    config.hook.pytest_deselected(items=left_out)
    config.kiln_left_out = bool(left_out)


def pytest_sessionfinish(session, exitstatus):
    # Without tests, pytest fails; here they are another part's.
    if exitstatus == 5 and getattr(session.config, "kiln_left_out", False):
        session.exitstatus = 0
