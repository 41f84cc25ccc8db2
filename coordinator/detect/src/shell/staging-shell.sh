#!/bin/sh
# Runs a command of Make, with every directory of the system that it names put below $KILN_STAGING. Files that the
# system has (programs, above all) are left where they are.
case "${1:-}" in
    -*) ;;
    *) exec "${KILN_SHELL:-sh}" "$@" ;;
esac
for command do :; done
delimiter="[[:space:]\"'=:;(|&\`]"
top='usr|etc|opt|var|srv|lib|lib64|libexec|bin|sbin|share|include|home|root'
named="$(printf '%s\n' "$command" | grep -oE "(^|$delimiter)/($top)(/[A-Za-z0-9_.+@~%-]+)*" | sed -E "s#^$delimiter##" | LC_ALL=C sort -ur)"
if [ -n "$named" ]; then
    place="s#(^|$delimiter)/($top)(/|$delimiter|[<>)]|\$)#\\1$KILN_STAGING/\\2\\3#g"
    command="$(printf '%s\nx' "$command" | sed -E -e "$place" -e "$place")"
    command="${command%?x}"
    for path in $named; do
        if [ -d "$path" ]; then
            directory="$path"
        elif [ -e "$path" ]; then
            case "${path##*/}" in install|chown|chgrp|ldconfig) real="${path##*/}" ;; *) real="$path" ;; esac
            escaped="$(printf '%s' "$path" | sed 's/[.+]/\\&/g')"
            command="$(printf '%s\nx' "$command" | sed -E "s#$KILN_STAGING$escaped($delimiter|[<>)]|\$)#$real\\1#g")"
            command="${command%?x}"
            continue
        else
            directory="${path%/*}"
            [ -d "$directory/" ] || continue
        fi
        if [ ! -d "$KILN_STAGING$directory" ]; then
            mkdir -p "$KILN_STAGING$directory"
            echo "$KILN_STAGING$directory" >> "$KILN_STAGING/../staged-directories"
        fi
    done
fi
flags=
while [ "$#" -gt 1 ]; do
    flags="$flags $1"
    shift
done
exec "${KILN_SHELL:-sh}" ${flags:--c} "$command"
