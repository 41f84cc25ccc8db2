//! The commands that a step calls, and the versions that it asks of them.
//!
//! An entry of `tools` is `NAME`, or `NAME VERSIONS` with versions as Cargo writes them (`=3.12`, `>=1.22`, `^20 || ^22`). A `?` at the end
//! makes another version a warning, and a file in parentheses is where the versions were found.

use semver::{Version, VersionReq};

/// An entry of `tools`, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool<'a> {
    /// The command.
    pub name: &'a str,
    /// The versions; none: any will do.
    versions: &'a str,
    /// Another version is only warned of.
    pub recommended: bool,
    /// The file that asks.
    file: Option<&'a str>,
}

impl<'a> Tool<'a> {
    /// Reads an entry. What does not read as versions bounds nothing.
    pub fn read(entry: &'a str) -> Self {
        let (name, rest) = entry.trim().split_once(char::is_whitespace).unwrap_or((entry.trim(), ""));
        let (rest, file) = match rest.trim().strip_suffix(')').and_then(|rest| rest.rsplit_once('(')) {
            Some((rest, file)) => (rest.trim(), Some(file)),
            None => (rest.trim(), None),
        };
        let (versions, recommended) = match rest.strip_suffix('?') {
            Some(versions) => (versions.trim(), true),
            None => (rest, false),
        };
        Tool { name, versions, recommended, file }
    }

    /// Why a tool that says this of its version is not what is asked for; `None` where it is, or where nobody can tell.
    pub fn unmet(&self, said: &str) -> Option<String> {
        let found = version(said)?;
        let wanted: Vec<VersionReq> = self.versions.split("||").filter_map(|part| part.trim().parse().ok()).collect();
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted.matches(&found)) {
            return None;
        }
        let asks = self.file.map_or_else(|| "the step".to_owned(), |file| format!("`{file}`"));
        Some(format!("has {} {found}, but {asks} requires {}", self.name, self.versions))
    }
}

/// The first version in a tool's words, with zeros for what it leaves out.
fn version(said: &str) -> Option<Version> {
    let start = said.find(|c: char| c.is_ascii_digit())?;
    let end = said[start..].find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(said.len() - start);
    let mut parts = said[start..start + end].split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    Some(Version::new(next(), next(), next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_far_as_they_are_asked_for() {
        let unmet = |entry: &str, said: &str| Tool::read(entry).unmet(said).is_some();
        assert!(!unmet("cc", "cc (Debian 12.2.0) 12.2.0"));
        assert!(!unmet("python3 =3.11", "Python 3.11.2"));
        assert!(unmet("python3 =3.12 (.python-version)", "Python 3.11.2"));
        assert!(!unmet("go >=1.19", "go version go1.19.8 linux/amd64"));
        assert!(unmet("go >=1.22", "go version go1.19.8 linux/amd64"));
        assert!(!unmet("node ^18 || ^20", "v20.20.2"));
        assert!(unmet("cargo =1.75.0", "cargo 1.95.0 (f2d3ce0bd 2026-03-21)"));
        assert!(!unmet("node lts/iron", "v20.20.2"), "what is no version bounds nothing");
    }

    #[test]
    fn a_mismatch_names_both_versions_and_the_file() {
        let tool = Tool::read("node ^22? (package.json)");
        assert!(tool.recommended);
        assert_eq!(tool.unmet("v20.1.0").unwrap(), "has node 20.1.0, but `package.json` requires ^22");
    }
}
