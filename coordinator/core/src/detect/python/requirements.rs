//! Requirements files: which one counts, and whether it pins what it names.
//!
//! Invariant: hashes are required exactly where every requirement has one, for pip refuses anything else.

use super::super::tree;
use crate::plan::Source;

/// What a requirements file says.
pub(super) struct Requirements {
    /// The file and those it includes.
    pub(super) files: Vec<String>,
    /// Whether every requirement has a hash.
    pub(super) hashed: bool,
    /// What is loose about it.
    pub(super) note: Option<String>,
}

/// The file that names what production needs.
pub(super) fn main_file(source: &dyn Source) -> Option<String> {
    let usual = ["requirements.txt", "requirements.lock", "requirements-prod.txt", "requirements/base.txt"];
    tree::first_of(source, &usual).map(str::to_owned)
}

/// Reads a requirements file and those it includes.
pub(super) fn read(source: &dyn Source, file: &str) -> Requirements {
    let mut files = vec![file.to_owned()];
    let (mut requirements, mut loose): (usize, Vec<String>) = (0, Vec::new());
    let mut hashes = 0;
    let mut next = 0;
    while let Some(path) = files.get(next).cloned() {
        next += 1;
        let text = tree::text(source, &path).unwrap_or_default().replace("\\\n", " ").replace("\\\r\n", " ");
        for line in text.lines().map(|l| l.split(" #").next().unwrap_or(l).trim()) {
            let included = ["-r", "-c", "--requirement", "--constraint"].iter().find_map(|o| line.strip_prefix(o));
            if let Some(included) = included {
                let included = tree::join(tree::parent(&path), included.trim_start_matches([' ', '=']).trim());
                files.extend(included.filter(|p| !files.contains(p) && tree::has(source, p)));
            } else if !line.is_empty() && !line.starts_with(['#', '-']) {
                requirements += 1;
                hashes += usize::from(line.contains("--hash="));
                if !line.contains("==") && !line.contains("--hash=") {
                    loose.push(name(line).to_owned());
                }
            }
        }
    }
    let hashed = requirements > 0 && hashes == requirements;
    let note = if !loose.is_empty() {
        let names = crate::plan::list(loose.iter().take(5).map(String::as_str));
        Some(format!(
            "`{file}` does not pin {names}, so two builds of one commit could differ: pin with `==` and hashes"
        ))
    } else if requirements > 0 && !hashed {
        Some(format!("`{file}` pins versions without hashes: what those versions need in turn may be unpinned"))
    } else {
        None
    };
    Requirements { files, hashed, note }
}

/// The name of the package that a requirement means.
pub(super) fn name(requirement: &str) -> &str {
    let end = requirement.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')));
    &requirement[..end.unwrap_or(requirement.len())]
}

/// The form in which two names of one package are equal.
pub(super) fn normalised(name: &str) -> String {
    let mut out = String::new();
    for part in name.to_lowercase().split(['-', '_', '.']).filter(|p| !p.is_empty()) {
        if !out.is_empty() {
            out.push('-');
        }
        out.push_str(part);
    }
    out
}
