//! The tools that a step requires, with their versions.
//!
//! An entry of `tools` is `NAME`, or `NAME VERSIONS` with Cargo's version syntax (`=3.12`, `>=1.22`, `^20 || ^22`). A
//! trailing `?` turns another version into a warning, and a file in parentheses is the source of the requirement.

use semver::{Version, VersionReq};

/// A parsed entry of `tools`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tool<'a> {
    /// The command.
    pub name: &'a str,
    /// The required versions; empty for any.
    versions: &'a str,
    /// Whether another version only causes a warning.
    pub recommended: bool,
    /// The file that the requirement comes from.
    file: Option<&'a str>,
}

impl<'a> Tool<'a> {
    /// Parses an entry. Unparsable versions allow any version.
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

    /// Why a tool that reports this version does not meet the requirement; `None` if it does, or if that is unknown.
    pub fn unmet(&self, output: &str) -> Option<String> {
        let found = version(output)?;
        let wanted: Vec<VersionReq> = self.versions.split("||").filter_map(|part| part.trim().parse().ok()).collect();
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted.matches(&found)) {
            return None;
        }
        let asks = self.file.map_or_else(|| "the step".to_owned(), |file| format!("`{file}`"));
        Some(format!("has {} {found}, but {asks} requires {}", self.name, self.versions))
    }
}

/// The first version number in a tool's output, padded with zeros.
fn version(output: &str) -> Option<Version> {
    let numbers = output.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = numbers.split(|c: char| !c.is_ascii_digit() && c != '.').next().filter(|number| !number.is_empty())?;
    let mut parts = number.split('.').map(|part| part.parse::<u64>().unwrap_or(0));
    let mut next = || parts.next().unwrap_or(0);
    Some(Version::new(next(), next(), next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_far_as_they_are_asked_for() {
        let unmet = |entry: &str, output: &str| Tool::read(entry).unmet(output).is_some();
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
