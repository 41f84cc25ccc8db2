# Programs that only root could run, for the time of an installation into a staging directory.
mkdir -p .kiln/rootless
for name in chown chgrp ldconfig; do
    printf '#!/bin/sh\nexit 0\n' > ".kiln/rootless/$name"
done
printf '#!/bin/sh\nexec "$@"\n' > .kiln/rootless/sudo
cp .kiln/install-without-owners .kiln/rootless/install
chmod +x .kiln/rootless/*

# Runs a command that installs.
rootless() {
    env PATH="$PWD/.kiln/rootless:$PATH" "$@"
}

# Runs the `install` of a Makefile that has no DESTDIR, or only in places: whatever its commands would write to the
# system goes below the staging directory.
install_below() {
    chmod +x .kiln/staging-shell
    KILN_STAGING="$PWD/.kiln/out"
    KILN_SHELL=sh
    if "$@" -n -p install 2>/dev/null | grep -Eq '^SHELL .*bash'; then KILN_SHELL=bash; fi
    export KILN_STAGING KILN_SHELL
    if ! rootless "$@" SHELL="$PWD/.kiln/staging-shell" install; then
        find .kiln/out -mindepth 1 -delete
        note "\`make install\` failed, so the artifact only has the programs and libraries that the build made; make the Makefile honour DESTDIR"
        return 0
    fi
    if [ -e .kiln/staged-directories ]; then
        LC_ALL=C sort -ru .kiln/staged-directories | while IFS= read -r directory; do
            rmdir -p --ignore-fail-on-non-empty "$directory" 2>/dev/null || true
        done
        mkdir -p .kiln/out
    fi
    # What was written down of the staging directory means the system.
    find .kiln/out -type l | while IFS= read -r link; do
        target="$(readlink "$link")"
        case "$target" in "$KILN_STAGING"/*) ln -sfn "${target#"$KILN_STAGING"}" "$link" ;; esac
    done
    find .kiln/out -type f | while IFS= read -r file; do
        if grep -Fq "$KILN_STAGING" "$file"; then
            if grep -Iq . "$file"; then
                sed "s,$KILN_STAGING,,g" "$file" > .kiln/text && cat .kiln/text > "$file"
            else
                note "\`${file#.kiln/out}\` has a path of the build in it: let the Makefile honour DESTDIR"
            fi
        fi
    done
}

# Whether the Makefile has a target `install`.
has_install() {
    ! "$@" -n install 2>&1 | grep -q "No rule to make target .install"
}

# Installs by a Makefile that a configure script has written, if it can.
install_configured() {
    has_install "$@" || return 0
    if grep -qs DESTDIR GNUmakefile makefile Makefile; then rootless "$@" install; else install_below "$@"; fi
}

# CMake keeps a list of what it has installed. A path that is there twice was overwritten.
note_installed_twice() {
    [ -e .kiln/build/install_manifest.txt ] || return 0
    LC_ALL=C sort .kiln/build/install_manifest.txt | uniq -d | while IFS= read -r path; do
        note "two rules install \`$path\`, so that only the last is there; give one another name or DESTINATION"
    done
}
