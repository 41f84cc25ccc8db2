#!/bin/sh
# `install` without owners, which only root can set.
PATH="${PATH#*:}"
skip=
for argument do
    shift
    if [ -n "$skip" ]; then
        skip=
        continue
    fi
    case "$argument" in
        -o|-g|--owner|--group) skip=1 ;;
        --owner=*|--group=*|-o[a-z]*|-g[a-z]*) ;;
        *) set -- "$@" "$argument" ;;
    esac
done
exec install "$@"
