# Runs a build command with as many jobs as there is room for: one for each processor, and more where the farm runs
# compilers. Where it fails as commands do that ran before what they need was there, it is run again with one job, on the
# files that were there before.
in_parallel() {
    jobs="${KILN_JOBS:-$(nproc)}"
    find . -print | LC_ALL=C sort > .kiln/before
    {
        {
            status=0
            "$@" -j "$jobs" || status="$?"
            echo "$status" > .kiln/status
        } 2>&1 >&3 | tee .kiln/errors >&2
    } 3>&1
    status="$(cat .kiln/status)"
    if [ "$status" = 0 ] || [ "$jobs" = 1 ]; then return "$status"; fi
    grep -Eq "$UNORDERED" .kiln/errors || return "$status"
    echo "kiln: this failure can come from running several jobs at a time; trying again with one job" >&2
    find . -print | LC_ALL=C sort | LC_ALL=C comm -13 .kiln/before - | LC_ALL=C sort -r | while IFS= read -r path; do
        case "$path" in
            ./.kiln/before|./.kiln/errors|./.kiln/status) ;;
            *) if [ -d "$path" ] && [ ! -L "$path" ]; then rmdir "$path" 2>/dev/null || true; else rm -f "$path"; fi ;;
        esac
    done
    status=0
    "$@" -j 1 || status="$?"
    if [ "$status" != 0 ]; then
        echo "kiln: it fails with one job too, so the error above is the project's own" >&2
        return "$status"
    fi
    note "the build fails with several jobs at a time, and was repeated with one: a rule does not name all that it needs; complete the rule, or put \`.NOTPARALLEL:\` into the Makefile"
}
UNORDERED='No such file|No rule to make|[Cc]annot (find|open|access|stat)|[Nn]ot found|File exists|truncated|Text file busy|not recognized|[Mm]alformed|unterminated'

# In a step without the network CMake repeats a download for 85 seconds. It does not where the name of a proxy fails.
fail_at_once_without_network() {
    if ! tail -n +3 /proc/net/dev | grep -vq '^ *lo:'; then
        export http_proxy=http://this-step-has-no-network.invalid https_proxy=http://this-step-has-no-network.invalid
    fi
}

# CMake writes the path of the compiler that it finds into what it makes. Where the worker answers compiler calls, CMake is told so by
# its launcher, and need not find what stands in for the compiler.
with_plain_compilers() {
    case "${CMAKE_C_COMPILER_LAUNCHER-}" in
        */kiln-call) env PATH="${PATH#"${CMAKE_C_COMPILER_LAUNCHER%/*}:"}" "$@" ;;
        *) "$@" ;;
    esac
}
