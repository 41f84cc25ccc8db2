//! Several projects of one command: directories, or patterns that stand for them.
//!
//! Invariant: each directory comes once, sorted as given, and none is left out without being named.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use globset::{Glob, GlobMatcher};
use kiln_detect::Error as NotDetected;
use kiln_planner::plan;

/// Directories that hold what tools made, and no projects of one's own.
const ASIDE: [&str; 3] = ["node_modules", "target", "vendor"];
/// How deep `**` looks.
const DEEPEST: usize = 12;

/// A pattern that stands for no directory.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("`{pattern}` matches no directory; expected one such as `services/*`")]
    Nothing { pattern: String },
    #[error("`{pattern}` is not a pattern: {message}")]
    Pattern { pattern: String, message: String },
}

/// What was given, in two groups.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Directories, relative to the current one or absolute, as given.
    pub directories: Vec<PathBuf>,
    /// What a shell's pattern matches besides directories.
    pub files: Vec<PathBuf>,
}

/// Whether this is a pattern rather than the name of something that exists.
pub fn is_pattern(given: &Path) -> bool {
    !given.exists() && given.to_string_lossy().contains(['*', '?', '[', '{'])
}

/// The directories that are given by themselves or by patterns: `*`, `?`, `[…]`, `{…}`, and `**` for any number of directories.
///
/// # Errors
/// If a pattern is invalid or matches nothing.
pub fn expand(given: &[PathBuf]) -> Result<Given, Error> {
    let mut all = Given::default();
    let mut seen = BTreeSet::new();
    for path in given {
        let found = if is_pattern(path) { matched(path)? } else { vec![path.clone()] };
        for path in found.into_iter().filter(|path| seen.insert(plain(path))) {
            if path.is_file() { all.files.push(path) } else { all.directories.push(path) }
        }
    }
    Ok(all)
}

/// A path without `.` and a slash at its end, for comparison.
fn plain(path: &Path) -> PathBuf {
    path.components().filter(|part| !matches!(part, Component::CurDir)).collect()
}

fn matched(pattern: &Path) -> Result<Vec<PathBuf>, Error> {
    let text = pattern.to_string_lossy().into_owned();
    let invalid = |error: globset::Error| Error::Pattern { pattern: text.clone(), message: error.kind().to_string() };
    let mut places = vec![PathBuf::new()];
    for part in pattern.components() {
        let name = part.as_os_str().to_string_lossy().into_owned();
        places = if name == "**" {
            places.iter().flat_map(|place| below(place, DEEPEST)).collect()
        } else if name.contains(['*', '?', '[', '{']) {
            let matcher = Glob::new(&name).map_err(invalid)?.compile_matcher();
            places.iter().flat_map(|place| children(place, Some(&matcher))).collect()
        } else {
            places.iter().map(|place| place.join(&name)).filter(|path| path.is_dir()).collect()
        };
    }
    let mut seen = BTreeSet::new();
    // `**` stands for the current directory too.
    places.iter_mut().filter(|place| place.as_os_str().is_empty()).for_each(|place| *place = PathBuf::from("."));
    places.retain(|place| seen.insert(place.clone()));
    if places.is_empty() { Err(Error::Nothing { pattern: text }) } else { Ok(places) }
}

/// The directories in a directory, sorted. Hidden ones are left out, as a shell does.
fn children(directory: &Path, matcher: Option<&GlobMatcher>) -> Vec<PathBuf> {
    let here = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let entries = std::fs::read_dir(here).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| !name.starts_with('.') && !ASIDE.contains(&name.as_str()))
        .filter(|name| matcher.is_none_or(|matcher| matcher.is_match(name)))
        .collect();
    names.sort();
    names.into_iter().map(|name| directory.join(name)).collect()
}

/// A directory and those below it.
fn below(directory: &Path, depth: usize) -> Vec<PathBuf> {
    let mut found = vec![directory.to_owned()];
    if depth > 0 {
        found.extend(children(directory, None).iter().flat_map(|child| below(child, depth.saturating_sub(1))));
    }
    found
}

/// What to say of a directory without a project; `None` if there is one that cannot be planned.
pub fn no_project(error: &plan::Error) -> Option<String> {
    match error {
        plan::Error::Detect(NotDetected::Empty | NotDetected::Unknown { .. }) => Some("no project is here".to_owned()),
        // It names the directories that are projects.
        plan::Error::Detect(NotDetected::Below { .. }) => Some(error.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn patterns_stand_for_directories_and_files_are_named_apart() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["services/api", "services/web", "services/.hidden", "services/web/node_modules/x", "libs/core"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("services/README.md"), "").unwrap();
        let of = |given: &[&str]| {
            let given: Vec<PathBuf> = given.iter().map(|path| dir.path().join(path)).collect();
            let found = expand(&given)?;
            let short = |all: Vec<PathBuf>| -> Vec<String> {
                all.iter().map(|path| path.strip_prefix(dir.path()).unwrap().display().to_string()).collect()
            };
            Ok::<_, Error>((short(found.directories).join(" "), short(found.files).join(" ")))
        };
        let services = ("services/api services/web".to_owned(), String::new());
        assert_eq!(of(&["services/*"]).unwrap(), services);
        assert_eq!(of(&["services/{api,web}", "services/api/", "services/./web"]).unwrap(), services);
        assert_eq!(
            of(&["**"]).unwrap().0,
            " libs libs/core services services/api services/web",
            "the directory itself comes first"
        );
        let shell = of(&["services/README.md", "services/api"]).unwrap();
        assert_eq!(shell, ("services/api".to_owned(), "services/README.md".to_owned()));
        assert_eq!(of(&["services/none"]).unwrap().0, "services/none", "what it is not is said when it is read");
        assert!(of(&["apps/*"]).unwrap_err().to_string().contains("matches no directory"));
        assert!(of(&["services/[a"]).unwrap_err().to_string().contains("is not a pattern"));
    }
}
