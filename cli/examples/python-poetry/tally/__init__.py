"""Counts the words of a text."""

import sys
from collections import Counter

from tabulate import tabulate


def main() -> None:
    counts = Counter(sys.stdin.read().split())
    print(tabulate(sorted(counts.items()), headers=["word", "count"]))
