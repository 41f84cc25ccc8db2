import sys

sys.exit(0 if sys.argv[1:] == ["check"] else 1)
