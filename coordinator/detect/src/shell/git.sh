#!/bin/sh
# `git` in a step. The sources of a step have no `.git`; what a build usually asks about them is answered from what
# Kiln knows of the commit. Repositories that the build itself makes or fetches, and all other commands, are git's own.
refuse() {
    echo "fatal: $*" >&2
    exit 128
}

asked="$*"
root="$(cd "$(dirname "$0")/../.." && pwd -P)"

# Builds throw away what git prints to stderr, so that the note is also kept for the end of the step.
unknown() {
    words="the build runs \`git $asked\`, but the sources of a step have no .git, and Kiln knows only the commit and what \`git describe\` says; give it the answer with \`kiln build --env NAME=VALUE\`"
    echo "$words" >> "$root/.kiln/notes"
    refuse "kiln: $words"
}

real() {
    PATH="${PATH#*:}"
    command -v git > /dev/null || refuse "kiln: there is no git on this worker for \`git $asked\`"
    exec git "$@"
}

# A repository below the project's root, or outside it, is no concern of this script.
directory="$PWD"
options=
number=0
for argument do
    if [ "$options" = value ]; then
        options=
    elif [ "$options" = directory ]; then
        options=
        directory="$(cd "$directory" && cd "$argument" 2>/dev/null && pwd -P)" || real "$@"
    else
        case "$argument" in
            -C) options=directory ;;
            -c) options=value ;;
            --git-dir=*|--work-tree=*|--no-pager|--no-optional-locks|--no-replace-objects|-P|-p) ;;
            *) break ;;
        esac
    fi
    number=$((number + 1))
done
here="$(cd "$directory" && pwd -P)"
case "$here/" in "$root"/*) ;; *) real "$@" ;; esac
while [ "$here" != "$root" ]; do
    if [ -e "$here/.git" ]; then real "$@"; fi
    here="${here%/*}"
done
if [ -e "$root/.git/objects" ]; then real "$@"; fi
[ "$number" = 0 ] || shift "$number"
verb="${1:-}"
[ "$#" = 0 ] || shift

# Prints the commit in so many digits.
short() {
    printf '%s\n' "$KILN_COMMIT" | cut -c "1-${1:-7}"
}

known() {
    [ -n "${KILN_COMMIT:-}" ] || refuse "not a git repository (or any of the parent directories): .git"
}

is_head() {
    case "$1" in HEAD|@|'HEAD^{commit}'|'HEAD^0'|"$KILN_COMMIT") return 0 ;; *) return 1 ;; esac
}

# The digits of the commit in what git described: 7 where it names a tag.
digits() {
    hash="${KILN_DESCRIBE##*-g}"
    case "$KILN_COMMIT" in "$hash"*) echo "${#hash}" ;; *) echo 7 ;; esac
}

describe() {
    [ -z "${KILN_COMMIT:-}" ] || [ -n "${KILN_DESCRIBE:-}" ] || unknown
    always= long= exact= abbrev= mark= match=
    for argument do
        case "$argument" in
            --always) always=1 ;;
            --long) long=1 ;;
            --exact-match|--candidates=0) exact=1 ;;
            --abbrev=*) abbrev="${argument#*=}" ;;
            --dirty|--broken) mark=-dirty ;;
            --dirty=*|--broken=*) mark="${argument#*=}" ;;
            --match=*) match="${argument#*=}" ;;
            --match) match=-next ;;
            --contains|--all|--exclude|--exclude=*) unknown ;;
            -*) ;;
            *) if [ "$match" = -next ]; then match="$argument"; else is_head "$argument" || unknown; fi ;;
        esac
    done
    known
    [ "${KILN_DIRTY:-}" = true ] || mark=
    tag="$KILN_DESCRIBE"
    count=0
    after="${KILN_DESCRIBE##*-g}"
    if [ "$after" != "$KILN_DESCRIBE" ]; then
        before="${KILN_DESCRIBE%-g*}"
        case "$KILN_COMMIT:${before##*-}" in
            "$after"*:*[!0-9]*) ;;
            "$after"*:?*) tag="${before%-*}"; count="${before##*-}" ;;
        esac
    elif case "$KILN_COMMIT" in "$tag"*) true ;; *) false ;; esac; then
        tag=
    fi
    if [ -n "$tag" ] && [ -n "$match" ]; then
        case "$tag" in $match) ;; *) unknown ;; esac
    fi
    if [ -z "$tag" ]; then
        [ -n "$always" ] || refuse "No names found, cannot describe anything."
        [ "${abbrev:-7}" -ge 4 ] || abbrev=40
        echo "$(short "${abbrev:-${#KILN_DESCRIBE}}")$mark"
    elif [ "$abbrev" = 0 ]; then
        echo "$tag$mark"
    elif [ "$count" = 0 ] && [ -z "$long" ]; then
        echo "$tag$mark"
    else
        [ -z "$exact" ] || refuse "no tag exactly matches '$KILN_COMMIT'"
        echo "$tag-$count-g$(short "${abbrev:-$(digits)}")$mark"
    fi
}

rev_parse() {
    digits=
    for argument do
        case "$argument" in
            --short) digits="$(digits)" ;;
            --short=*) digits="${argument#*=}" ;;
            --verify|-q|--quiet|--sq|--) ;;
            --abbrev-ref|--symbolic-full-name) echo HEAD; return ;;
            --is-inside-work-tree) known; echo true ;;
            --is-bare-repository|--is-inside-git-dir|--is-shallow-repository) known; echo false ;;
            --show-toplevel) known; echo "$root" ;;
            --git-dir|--absolute-git-dir|--git-common-dir) known; echo "$root/.git" ;;
            --show-prefix) known; case "$directory" in "$root") echo ;; *) echo "${directory#"$root"/}/" ;; esac ;;
            --show-cdup) known; echo "$directory" | sed "s,^$root,,; s,/[^/]*,../,g" ;;
            -*) unknown ;;
            *) known; is_head "$argument" || unknown; short "${digits:-40}" ;;
        esac
    done
}

# What `log` and `show` print of the last commit, in the words of a format.
format() {
    format=
    for argument do
        case "$argument" in
            --format=*|--pretty=*) format="${argument#*=}" ;;
            --oneline|-p|--patch|--stat|--name-only|--name-status|--graph) unknown ;;
            -1|-n1|-n|1|-s|--no-patch|--max-count=1|--no-show-signature|--no-color|--no-decorate|--date=*|--abbrev=*|--abbrev-commit|--) ;;
            -*) unknown ;;
            *) is_head "$argument" || unknown ;;
        esac
    done
    known
    case "$format" in
        format:*) format="${format#format:}" ;;
        tformat:*) format="${format#tformat:}" ;;
    esac
    [ -n "$format" ] || unknown
    text="$(printf '%s' "$format" | sed "s/%H/$KILN_COMMIT/g; s/%h/$(short "$(digits)")/g; s/%n/\\
/g")"
    case "$text" in *%*) unknown ;; esac
    printf '%s\n' "$text"
}

# Whether the sources differ from the commit is known; in what is not.
changed() {
    known
    case " $* " in
        *' --cached '*|*' --staged '*) exit 0 ;;
        *' --quiet '*|*' --exit-code '*) [ "${KILN_DIRTY:-}" != true ] || exit 1 ;;
        *) [ "${KILN_DIRTY:-}" != true ] || echo " M (files that differ from the commit)" ;;
    esac
}

# Submodules are there, or they are not.
submodules() {
    case "${1:-}" in update|init|sync|status|foreach) ;; *) unknown ;; esac
    [ -f "$root/.gitmodules" ] || exit 0
    sed -n 's/^[[:space:]]*path[[:space:]]*=[[:space:]]*//p' "$root/.gitmodules" | while IFS= read -r path; do
        [ -n "$(ls -A "$root/$path" 2>/dev/null)" ] ||
            refuse "kiln: the submodule \`$path\` is empty; run \`git submodule update --init --recursive\` before \`kiln build\`"
    done
}

case "$verb" in
    describe) describe "$@" ;;
    rev-parse) rev_parse "$@" ;;
    log|show) format "$@" ;;
    status|diff|diff-index|diff-files|update-index) changed "$@" ;;
    submodule) submodules "$@" ;;
    show-ref)
        known
        case " $* " in *' --head '*) ;; *) unknown ;; esac
        digits="$(printf '%s\n' "$*" | sed -n 's/.*--hash=\([0-9]*\).*/\1/p')"
        case " $* " in *' --hash'*) short "${digits:-40}" ;; *) echo "$KILN_COMMIT HEAD" ;; esac
        ;;
    symbolic-ref) known; refuse "ref HEAD is not a symbolic ref" ;;
    branch)
        known
        case " $* " in *' --show-current '*) ;; *) unknown ;; esac
        ;;
    rev-list|name-rev|ls-files|ls-tree|cat-file|for-each-ref|shortlog|tag|blame|remote|reflog|stash|archive) known; unknown ;;
    fetch|pull|checkout|commit|add|reset|clean|worktree) known; unknown ;;
    *) real ${verb:+"$verb"} "$@" ;;
esac
