//! The staging directory, in which builds with many files collect what goes into the artifact.
//!
//! Invariants: everything that Kiln's own commands write outside a tool's usual places is below `.kiln`, which no
//! project uses; and files collected there never overwrite others.

use crate::tree;

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
    // What a hint names, such as `main`, is not run.
    let words = tree::shell_word(&format!("kiln: {hint}"));
    format!("if [ -z \"$(find {OUT} -type f 2>/dev/null | head -n 1)\" ]; then\n    echo {words} >&2\n    exit 1\nfi\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_said_as_it_is_and_nothing_in_it_is_run() {
        let hint = "it's empty: call `exit 7` $(exit 8) or \"$HOME\"";
        let mut shell = std::process::Command::new("sh");
        let ran = shell.args(["-euc", &refuse_empty(hint)]).current_dir("/").output().unwrap();
        assert_eq!(String::from_utf8_lossy(&ran.stderr), format!("kiln: {hint}\n"));
        assert_eq!(ran.status.code(), Some(1));
    }
}
