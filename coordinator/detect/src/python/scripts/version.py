"""Prints the version of the commit being built as Python writes versions: v3.1.4-2-gabc1234 is 3.1.5.dev2+gabc1234."""

import os
import re

try:
    from pip._vendor.packaging.version import InvalidVersion, Version
except ImportError:
    from packaging.version import InvalidVersion, Version

text = os.environ.get("KILN_VERSION", "")
commit = os.environ.get("KILN_COMMIT", "")
dirty = os.environ.get("KILN_DIRTY") == "true" or text.endswith("-dirty")
text = text[: -len("-dirty")] if text.endswith("-dirty") else text
tag, distance = text, 0
after = re.fullmatch(r"(.+)-(\d+)-g([0-9a-f]+)", text)
if after:
    tag, distance = after[1], int(after[2])

version = None
if not (commit and commit.startswith(text)):
    # Tags are written `1.2`, `v1.2`, `release-1.2`, `name/v1.2`.
    for match in re.finditer(r"(?:^|[-_/.])v?(?=\d)", tag, re.IGNORECASE):
        try:
            version = Version(tag[match.end() :])
            break
        except InvalidVersion:
            continue

local = "g" + commit[:7] if commit else ""
local = ".".join(part for part in (local, "dirty" if dirty else "") if part)
if version is None:
    print("0.1.dev0" + ("+" + local if local else ""))
elif distance == 0 and not dirty:
    print(version)
else:
    # The next version, still to come, as setuptools_scm has it.
    if version.pre:
        base = "%s%s%d" % (version.base_version, version.pre[0], version.pre[1] + 1)
    else:
        release = list(version.release)
        release[-1] += 1
        base = ("%d!" % version.epoch if version.epoch else "") + ".".join(map(str, release))
    print("%s.dev%d" % (base, distance) + ("+" + local if local else ""))
