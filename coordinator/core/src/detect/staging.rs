//! Where builds that leave many files gather what they hand over.
//!
//! Invariant: everything that Kiln's own commands write beside a tool's usual places lies under `.kiln`, which no
//! project has.

/// The directory that becomes an archive.
pub(super) const OUT: &str = ".kiln/out";

/// A command that moves the whole tree into the archive's directory, but for what `leave` names.
pub(super) fn move_tree(leave: &[&str]) -> String {
    let leave: String = leave.iter().map(|name| format!("|{name}")).collect();
    format!(
        "mkdir -p {OUT}\nfor file in .* *; do\n    case \"$file\" in\n        .|..|.kiln|'*'{leave}) ;;\n        \
         *) mv \"$file\" {OUT}/ ;;\n    esac\ndone\n"
    )
}

/// A command that copies executables which the build has made into the archive's directory. Inputs are old and have
/// one age, so what is younger was made here.
pub(super) const COLLECT_EXECUTABLES: &str = "\
mkdir -p .kiln/out/bin
touch -d 2010-01-01 .kiln/age
find . -path ./.kiln/out -prune -o -path '*/CMakeFiles' -prune -o -path '*/meson-private' -prune -o \\
    -type f -perm -u+x -newer .kiln/age -print | LC_ALL=C sort | while read -r file; do
    case \"$(head -c 4 \"$file\" | od -An -tx1 | tr -d ' ')\" in
        7f454c46) cp \"$file\" .kiln/out/bin/ ;;
    esac
done
";

/// A command that fails with words where the archive's directory stayed empty.
pub(super) fn refuse_empty(hint: &str) -> String {
    format!(
        "if [ -z \"$(find {OUT} -type f 2>/dev/null | head -n 1)\" ]; then\n    \
         echo \"kiln: {hint}\" >&2\n    exit 1\nfi\n"
    )
}
