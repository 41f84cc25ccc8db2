//! `Gemfile.lock`.

use super::Package;

/// The gems under `specs:`, indented by four spaces; their dependencies are indented further.
pub(super) fn lock(text: &str) -> Vec<Package> {
    let mut in_gems = false;
    let mut found = Vec::new();
    for line in text.lines() {
        if !line.starts_with(' ') {
            in_gems = matches!(line.trim(), "GEM" | "GIT");
        }
        let Some(spec) = line.strip_prefix("    ").filter(|spec| in_gems && !spec.starts_with(' ')) else { continue };
        let Some((name, version)) = spec.trim_end().strip_suffix(')').and_then(|spec| spec.split_once(" (")) else {
            continue;
        };
        found.push(Package::new("gem", name, version));
    }
    found
}
