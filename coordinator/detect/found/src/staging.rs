//! The staging directory, in which builds with many files collect what goes into the artifact.
//!
//! Invariants: everything that Kiln's own commands write outside a tool's usual places is below `.kiln`, which no
//! project uses; and files collected there never overwrite others.

/// The directory that becomes an archive.
pub const OUT: &str = ".kiln/out";

/// A command that moves the whole tree into the archive's directory, except for what `leave` names.
pub fn move_tree(leave: &[&str]) -> String {
    let leave: String = leave.iter().map(|name| format!("|{name}")).collect();
    format!(
        "mkdir -p {OUT}\nfor file in .* *; do\n    case \"$file\" in\n        .|..|.kiln|'*'{leave}) ;;\n        \
         *) mv \"$file\" {OUT}/ ;;\n    esac\ndone\n"
    )
}

/// A command that collects executables and libraries from the build tree if nothing was installed. Needs the
/// shell functions that gather files.
pub const COLLECT_IF_EMPTY: &str = "has_files .kiln/out || collect\n";

/// A command that fails with a message if the archive's directory is empty.
pub fn refuse_empty(hint: &str) -> String {
    format!(
        "if [ -z \"$(find {OUT} -type f 2>/dev/null | head -n 1)\" ]; then\n    \
         echo \"kiln: {hint}\" >&2\n    exit 1\nfi\n"
    )
}
