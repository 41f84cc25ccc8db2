"""Makes an archive's Python programs start from wherever it is unpacked.

arrange.py ROOT                packages lie in ROOT, commands in ROOT/bin
arrange.py ROOT PACKAGES OWN   sources lie in ROOT, packages in ROOT/PACKAGES; OWN lists those built from the sources
"""

import ast
import os
import sys

PROGRAMS = {"app.py", "asgi.py", "bot.py", "main.py", "manage.py", "run.py", "server.py", "worker.py", "wsgi.py"}
# What an environment has behind the standard library never hides it; a link beside a program would.
UNLINKED = {"__pycache__", "bin", "etc", "include", "share"}.union(getattr(sys, "stdlib_module_names", ()))
FIND = (
    "import os, sys; _at = ([i for i, p in enumerate(sys.path) if p.endswith('-packages')] + [len(sys.path)])[0]; "
    "sys.path[_at:_at] = [%s]\n"
)


def relocate(path, levels):
    """Lets a script find packages in the directories that many levels above it, where an environment has its own."""
    with open(path, "rb") as file:
        lines = file.read().decode("utf-8", "surrogateescape").splitlines(True)
    first = lines[0].rstrip() if lines else ""
    if first == "#!/bin/sh" and len(lines) > 2 and "exec" in lines[1][:8]:
        lines = lines[3:]  # how an installer writes an interpreter whose path is long
    elif first.startswith("#!") and "python" in first:
        lines = lines[1:]
    else:
        return
    try:
        at = head_of("".join(lines))
    except SyntaxError:
        at = None  # written for another version of Python
    if at is not None:
        while at < 2 and at < len(lines) and lines[at].startswith("#"):
            at += 1
        places = ["os.path.dirname(" * level + "os.path.realpath(__file__)" + ")" * level for level in levels]
        lines.insert(at, FIND % ", ".join(places))
    with open(path, "wb") as file:
        file.write("".join(["#!/usr/bin/env python3\n"] + lines).encode("utf-8", "surrogateescape"))


def head_of(text):
    """How many lines must stay first: those of the docstring and of imports from `__future__`."""
    lines = 0
    for index, node in enumerate(ast.parse(text.encode("utf-8", "surrogateescape")).body):
        docstring = index == 0 and isinstance(node, ast.Expr) and isinstance(getattr(node.value, "value", None), str)
        if not docstring and not (isinstance(node, ast.ImportFrom) and node.module == "__future__"):
            break
        lines = node.end_lineno
    return lines


def relocate_all(directory, levels):
    for name in sorted(os.listdir(directory)) if os.path.isdir(directory) else []:
        path = os.path.join(directory, name)
        if os.path.isfile(path) and not os.path.islink(path):
            relocate(path, levels)


def is_package(directory):
    return os.path.exists(os.path.join(directory, "__init__.py"))


def module_of(name):
    return name.split(".")[0] if name.endswith((".py", ".so")) else name


def link(packages, directory, built, skip=()):
    """Links packages into a directory of sources, where Python would not take what the sources have instead."""
    files = {module_of(name) for name in os.listdir(directory) if name.endswith((".py", ".so"))}
    for name in sorted(os.listdir(packages)):
        here, there = os.path.join(packages, name), os.path.join(directory, name)
        module = module_of(name)
        if module in skip or name == "__pycache__":
            continue
        if os.path.isdir(here) and os.path.isdir(there) and not os.path.islink(there):
            # What was built from these sources may add to them, as compiled modules do.
            if built is True or name in (built or ()):
                link(here, there, True)
            elif not is_package(there):
                link(here, there, None)
        elif not os.path.lexists(there) and module not in files and not is_package(os.path.join(directory, module)):
            os.symlink(os.path.relpath(here, directory), there)


def link_commands(commands, directory):
    if not os.path.lexists(directory):
        os.mkdir(directory)
    for name in sorted(os.listdir(commands)) if os.path.isdir(directory) else []:
        there = os.path.join(directory, name)
        if not os.path.lexists(there):
            os.symlink(os.path.relpath(os.path.join(commands, name), directory), there)


def program_directories(root, packages):
    """The root and, where no program lies in it, the directories below that hold one."""
    found = [root]
    if any(name.endswith(".py") for name in os.listdir(root)):
        return found
    for directory, below, files in os.walk(root):
        depth = len(os.path.relpath(directory, root).split(os.sep)) if directory != root else 0
        foreign = {packages, "bin"} if depth == 0 else ()
        below[:] = sorted(n for n in below if depth < 2 and n not in foreign and not n.startswith("."))
        if depth > 0 and PROGRAMS.intersection(files) and not is_package(directory):
            found.append(directory)
    return found


def main(root, packages=None, own=None):
    if packages is None:
        relocate_all(os.path.join(root, "bin"), [2])
        return
    place = os.path.join(root, packages)
    commands = os.path.join(place, "bin")
    relocate_all(commands, [2, 3])
    built = set()
    if os.path.exists(own):
        with open(own) as file:
            built = set(file.read().splitlines())
    for directory in program_directories(root, packages):
        link(place, directory, built, UNLINKED)
    if os.path.isdir(commands):
        link_commands(commands, os.path.join(root, "bin"))


main(*sys.argv[1:])
