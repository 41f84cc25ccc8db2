//! Caches of steps: directories that outlive the steps that use them, and are no part of their keys.

use crate::paths::path_problem;

/// Where the sources are in every step.
const BUILD: &str = "/build";
/// Where steps may write beside their sources.
const TMP: &str = "/tmp";
/// The home directory of steps, which `~` stands for.
const HOME: &str = "/tmp/home";
/// Most bytes of a path.
const MAX_PATH: usize = 512;
/// Directories that are the sandbox's own.
const RESERVED: [&str; 4] = ["/dev", "/kiln", "/proc", "/sys"];

/// A directory that outlives the step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    /// Its name in the project: steps that name the same one, on the same system, share it.
    pub key: String,
    /// Who may have it at the same time.
    pub sharing: Sharing,
}

/// Who may have a cache at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Everyone: each has a copy of its own, and what they leave is merged.
    #[default]
    Shared,
    /// One step on each worker; further ones begin with an empty one that is thrown away.
    Private,
    /// One step; others wait for it.
    Locked,
}

impl Sharing {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Shared, Self::Private, Self::Locked];

    /// The value in a `kiln.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Shared => "shared",
            Self::Private => "private",
            Self::Locked => "locked",
        }
    }
}

/// Where the cache at this path of a `kiln.toml` is in a step: an absolute path. A path that is neither absolute nor begins with `~/` is
/// relative to the sources.
///
/// # Errors
/// Why there can be no cache at the path, and where there can.
pub fn cache_target(path: &str) -> Result<String, &'static str> {
    let plain = path.strip_suffix('/').unwrap_or(path);
    let plain = if plain == "~" { HOME } else { plain };
    let (top, below) = match (plain.strip_prefix("~/"), plain.strip_prefix('/')) {
        (Some(below), _) => (HOME, below),
        (None, Some(below)) => ("", below),
        (None, None) => (BUILD, plain),
    };
    if path_problem(below).is_some() || below.contains(char::is_control) {
        return Err(
            "is not a directory's plain path: expected one below the project, such as `.gradle-cache`, one that \
                    begins with `~/`, or an absolute one, without `.` and `..`",
        );
    }
    if path.len() > MAX_PATH {
        return Err("is longer than 512 bytes: choose a shorter path");
    }
    let target = format!("{top}/{below}");
    let is_reserved = RESERVED.iter().any(|top| within(&target, top));
    if is_reserved || [BUILD, TMP, HOME].contains(&target.as_str()) {
        return Err("is the sandbox's own: choose a directory below the project, below `~/` or below `/tmp`");
    }
    Ok(target)
}

/// Whether a step on a worker's own system can have a cache at this absolute path. Everything else there is read-only.
pub fn is_writable_on_system(target: &str) -> bool {
    within(target, BUILD) || within(target, TMP)
}

/// Whether an absolute path is a directory or something below it.
fn within(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path in the sources of a cache that is among them.
pub fn below_sources(target: &str) -> Option<&str> {
    target.strip_prefix(BUILD)?.strip_prefix('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_is_below_the_sources_the_home_directory_or_anywhere_in_an_image() {
        for (path, target) in [
            (".gradle-cache", "/build/.gradle-cache"),
            ("a/b/", "/build/a/b"),
            ("~/.m2/repository", "/tmp/home/.m2/repository"),
            ("/var/cache/x", "/var/cache/x"),
            ("/build/x", "/build/x"),
            ("/tmpx", "/tmpx"),
        ] {
            assert_eq!(cache_target(path).as_deref(), Ok(target), "{path}");
        }
        for path in ["", ".", "/", "../x", "a/../b", "a//b", "./a", "a\nb", "/a/../b", "a\0"] {
            assert!(cache_target(path).is_err(), "{path:?}");
        }
        for path in ["~", "~/", "/build", "/tmp", "/tmp/", "/tmp/home", "/proc/self", "/sys", "/dev/shm", "/kiln/call"]
        {
            assert!(cache_target(path).is_err_and(|words| words.contains("sandbox's own")), "{path}");
        }
    }

    #[test]
    fn on_a_workers_system_a_cache_is_where_steps_may_write() {
        assert!(is_writable_on_system("/build/x") && is_writable_on_system("/tmp/x"));
        assert!(
            !is_writable_on_system("/usr/x") && !is_writable_on_system("/tmpx") && !is_writable_on_system("/buildx")
        );
        assert_eq!(
            (below_sources("/build/a/b"), below_sources("/buildx/a"), below_sources("/tmp/a")),
            (Some("a/b"), None, None)
        );
    }
}
