# Collects the files of the artifact in .kiln/out. Nothing is ever overwritten there.
mkdir -p .kiln/out
# The inputs of a step have one old age, so whatever is younger was made by the build.
touch -d 2010-01-01 .kiln/age

# Reports a line as a warning of the build, when the step ends.
note() {
    echo "$*" >> .kiln/notes
}
trap '[ ! -e .kiln/notes ] || LC_ALL=C sort -u .kiln/notes | sed "s/^/kiln: note: /" >&2' EXIT

# Reads paths and copies the files into a directory. Files that share a name keep their directories, unless their
# content is the same.
gather() {
    LC_ALL=C sort > .kiln/paths
    : > .kiln/chosen
    while IFS= read -r file; do
        same=
        name="${file##*/}"
        while IFS= read -r other; do
            if [ "${other##*/}" = "$name" ] && [ ! -L "$file" ] && [ ! -L "$other" ] && cmp -s "$file" "$other"; then
                same=1
            fi
        done < .kiln/chosen
        [ -n "$same" ] || echo "$file" >> .kiln/chosen
    done < .kiln/paths
    sed 's,.*/,,' .kiln/chosen | LC_ALL=C sort | uniq -d > .kiln/shared
    # A directory that is kept must not meet a file of its name.
    : > .kiln/kept
    while IFS= read -r file; do
        if grep -Fxq -e "${file##*/}" .kiln/shared; then echo "${file#./}" | sed 's,/.*,,' >> .kiln/kept; fi
    done < .kiln/chosen
    all=
    while IFS= read -r file; do
        grep -Fxq -e "${file##*/}" .kiln/shared || ! grep -Fxq -e "${file##*/}" .kiln/kept || all=1
    done < .kiln/chosen
    while IFS= read -r file; do
        place="${file##*/}"
        if [ -n "$all" ] || grep -Fxq -e "$place" .kiln/shared; then place="${file#./}"; fi
        place="$1/$(echo "$place" | sed 's,^\.kiln/build/,,')"
        mkdir -p "$(dirname "$place")"
        cp -P "$file" "$place"
    done < .kiln/chosen
}

# Prints the files that the build has made: executables, shared libraries or archives, as the first word of their
# content says.
made() {
    find . -path ./.kiln/out -prune -o -path '*/CMakeFiles' -prune -o -path '*/meson-private' -prune -o \
        \( -type f -o -type l \) -newer .kiln/age "$@" -print
}

starts_with() {
    while IFS= read -r file; do
        if [ "$(head -c 4 "$file" 2>/dev/null | od -An -tx1 | tr -d ' \n')" = "$1" ]; then echo "$file"; fi
    done
}

# Hands over the executables and libraries that lie where the build has left them.
collect() {
    made ! -type l -perm -u+x ! -name '*.so' ! -name '*.so.*' ! -name '*.o' | starts_with 7f454c46 | gather .kiln/out/bin
    made \( -name '*.so' -o -name '*.so.*' \) | starts_with 7f454c46 | gather .kiln/out/lib
    made ! -type l -name '*.a' | starts_with 213c6172 | gather .kiln/out/lib
}

has_files() {
    [ -n "$(find "$1" ! -type d -print 2>/dev/null | head -n 1)" ]
}
