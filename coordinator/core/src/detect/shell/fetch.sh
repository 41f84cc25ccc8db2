# Lets CMake fetch what FetchContent and CPM name. Only the files that CMake reads are here, so that it may well fail
# after that; what counts is that each download it began has ended.
fetch_contents() {
    status=0
    "$@" -DFETCHCONTENT_BASE_DIR="$PWD/.kiln/fetched" || status="$?"
    mkdir -p .kiln/fetched
    for begun in .kiln/fetched/*-subbuild; do
        [ -d "$begun" ] || continue
        if [ -z "$(find "$begun" -name '*-populate-done' | head -n 1)" ]; then
            echo "kiln: \`$(basename "$begun" -subbuild)\` could not be fetched" >&2
            exit 1
        fi
    done
    rm -rf .kiln/fetched/*-subbuild .kiln/fetched/*-build .kiln/fetched/*-src/.git
    [ "$status" != 0 ] || return 0
    if [ -z "$(ls .kiln/fetched)" ]; then
        echo "kiln: CMake failed before it fetched anything; it sees only its own files here and those that they name" >&2
        exit "$status"
    fi
    echo "kiln: the dependencies are fetched; what CMake says above about missing files is of no concern here" >&2
}
