//! A gem's `.gemspec` and `version.rb`, and its entry in `Gemfile.lock`.
//!
//! Invariant: only the gems under `PATH` in the lock file lose their version: they are the tree's.

use super::NONE;

/// `VERSION = "1.2.3"`, `spec.version = "1.2.3"`.
pub(super) fn source(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.split_once('=') {
            Some((left, right))
                if left.trim_end().to_lowercase().ends_with("version") && right.trim().starts_with(['"', '\'']) =>
            {
                out.push_str(&format!("{left}= \"{NONE}\"\n"));
            }
            _ => out.push_str(line),
        }
    }
    Some(out)
}

pub(super) fn lock(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut section = "";
    for line in text.split_inclusive('\n') {
        if line.starts_with(|c: char| c.is_ascii_uppercase()) {
            section = line.trim();
        }
        // Four blanks and a name: a gem of the section; deeper lines are what it needs.
        let gem = line.strip_prefix("    ").filter(|l| section == "PATH" && !l.starts_with(' '));
        match gem.and_then(|l| l.split_once(" (")) {
            Some((name, _)) => out.push_str(&format!("    {name} ({NONE})\n")),
            None => out.push_str(line),
        }
    }
    Some(out)
}
