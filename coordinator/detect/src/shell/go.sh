# Compiles the programs among the packages of these patterns. Programs that share a name keep their directories.
programs() {
    tab="$(printf '\t')"
    go list -e -find -f "{{if eq .Name \"main\"}}{{.Dir}}$tab{{.ImportPath}}{{end}}" "$@" |
        sed "s,^$(pwd -P),.," | LC_ALL=C sort -u > .kiln/programs
    # Examples and development tools are only included if there is nothing else.
    aside='^[^'"$tab"']*/(examples?|samples?|demos?|hack|scripts?|tools?|tests?|e2e|benchmarks?|internal)(/|'"$tab"')'
    if grep -Evq "$aside" .kiln/programs && grep -E "$aside" .kiln/programs > .kiln/aside; then
        cut -f 1 .kiln/aside | sed 's/.*/`&`/' | tr '\n' ' ' | sed 's/ *$//; s/ /, /g' > .kiln/words
        note "programs for development and examples are left out: $(cat .kiln/words); a step of a \`kiln.toml\` can build them"
        grep -Ev "$aside" .kiln/programs > .kiln/kept && mv .kiln/kept .kiln/programs
    fi
    cut -f 2 .kiln/programs | sed -E 's,(.)/v[0-9]+$,\1,; s,.*/,,' | paste - .kiln/programs > .kiln/named
    cut -f 1 .kiln/named | LC_ALL=C sort | uniq -d > .kiln/shared
    set --
    while IFS="$tab" read -r name directory package; do
        if grep -Fxq -e "$name" .kiln/shared; then
            place=".kiln/out/$name"
            [ "$directory" = . ] || place=".kiln/out/${directory#./}"
            mkdir -p "$(dirname "$place")"
            compile -o "$place" "$package"
        else
            set -- "$@" "$package"
        fi
    done < .kiln/named
    [ "$#" = 0 ] || compile -o .kiln/out/ "$@"
}
