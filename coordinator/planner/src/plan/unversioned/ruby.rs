//! A gem's `.gemspec` and `version.rb`, and its entry in `Gemfile.lock`.
//!
//! Invariant: only gems under `PATH` in the lock file, which are the tree's own, lose their version, and of these only
//! gems that nothing else requires by version.

use super::NONE;
use kiln_detect::lock::{self, Lock};

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

/// Requirements between the tree's gems also lose their version, because bundler would otherwise report a difference.
pub(super) fn lock(text: &str) -> Option<String> {
    let bare = Lock::read(text).bare;
    let mut out = String::with_capacity(text.len());
    let mut section = "";
    for line in text.split_inclusive('\n') {
        let depth = line.len().saturating_sub(line.trim_start_matches(' ').len());
        if depth == 0 {
            section = line.trim();
        }
        let (name, version) = lock::entry(line);
        let own = version.is_some() && bare.contains(name);
        match (section, depth) {
            ("PATH", 4) | ("CHECKSUMS", 2) if own => out.push_str(&format!("{}{name} ({NONE})\n", " ".repeat(depth))),
            ("PATH", 6) if own => out.push_str(&format!("      {name}\n")),
            _ => out.push_str(line),
        }
    }
    Some(out)
}
