# CMake repeats a download for 85 seconds. Of a server that cannot be found or reached the user hears at once.
reachable() {
    mkdir -p .kiln
    cat > .kiln/reach.cmake <<'END'
file(DOWNLOAD "${URL}" STATUS status TIMEOUT 30 RANGE_END 0)
list(GET status 0 code)
list(GET status 1 words)
if(code EQUAL 6 OR code EQUAL 7)
  message(FATAL_ERROR "cannot be reached: ${words}")
endif()
END
    for url do
        for pause in 0 1 4; do
            sleep "$pause"
            cmake -DURL="$url" -P .kiln/reach.cmake > .kiln/reached 2>&1 || true
            words="$(sed -n 's/.*\(cannot be reached: .*\)/\1/p' .kiln/reached)"
            [ -n "$words" ] || break
        done
        if [ -n "$words" ]; then
            echo "kiln: \`$url\` $words" >&2
            exit 1
        fi
    done
}

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
