"""Renders a greeting."""

import sys

from jinja2 import Template


def main() -> None:
    names = sys.argv[1:] or ["world"]
    print(Template("hello {{ names | join(' and ') }}").render(names=names))


if __name__ == "__main__":
    main()
