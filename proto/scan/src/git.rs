//! Facts from git about a directory: commit, local changes, remote, tracked and ignored files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::Error;
use super::programs::{InIndex, of_index};

/// Facts about a checkout. Empty if unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// The commit, in full.
    pub commit: String,
    /// Whether the directory differs from the commit.
    pub dirty: bool,
    /// The output of `git describe --tags --always`.
    pub describe: String,
    /// The remote's URL without credentials.
    pub repository: String,
    /// The commit's time, in seconds since the epoch.
    pub commit_time: i64,
    /// The branch that is checked out; empty if none is.
    pub branch: String,
}

/// The root of the checkout that contains a directory.
pub fn work_tree(dir: &Path) -> Option<PathBuf> {
    dir.ancestors().find(|dir| dir.join(".git").exists()).map(Path::to_owned)
}

/// The paths in the index below a directory, relative to it, without duplicates. `None` outside a repository. A
/// submodule is a single path.
///
/// # Errors
/// [`Error::Git`] if git fails: without its index it is unknown which files belong to the project.
pub fn tracked(dir: &Path) -> Result<Option<Vec<String>>, Error> {
    let Some(paths) = listed(dir, &["ls-files", "-z", "--cached", "--", "."])? else { return Ok(None) };
    let mut paths =
        paths.into_iter().map(|path| path.map_err(|path| Error::Name { path })).collect::<Result<Vec<_>, _>>()?;
    // A path with a merge conflict has several entries.
    paths.dedup();
    Ok(Some(paths))
}

/// What the index says of the files below a directory, by path relative to it. Nothing outside a repository.
#[cfg_attr(unix, allow(dead_code))]
pub(super) fn staged(dir: &Path) -> HashMap<String, InIndex> {
    if work_tree(dir).is_none() {
        return HashMap::new();
    }
    let listed = command(dir, &["ls-files", "-z", "--stage", "--", "."]).map(|output| output.stdout);
    of_index(&listed.unwrap_or_default())
}

/// Whether git ignores a directory as a whole.
pub(super) fn is_ignored(dir: &Path) -> bool {
    work_tree(dir).is_some_and(|tree| tree != dir)
        && command(dir, &["check-ignore", "-q", "."]).is_ok_and(|output| output.status.success())
}

/// The paths below a directory, relative to it, that git ignores and does not track. A directory with only such files
/// is listed once, with a trailing `/`. Empty outside a repository.
///
/// # Errors
/// As for [`tracked`].
pub fn ignored(dir: &Path) -> Result<Vec<String>, Error> {
    let arguments = ["ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory", "--", "."];
    Ok(listed(dir, &arguments)?.unwrap_or_default().into_iter().flatten().collect())
}

/// The paths that a git command lists, with those that are not UTF-8 as errors.
fn listed(dir: &Path, arguments: &[&str]) -> Result<Option<Vec<Result<String, PathBuf>>>, Error> {
    if work_tree(dir).is_none() {
        return Ok(None);
    }
    let failed = |reason: String| Error::Git { path: dir.to_owned(), reason };
    let output = command(dir, arguments).map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        if words.contains("not a git repository") {
            return Ok(None);
        }
        return Err(failed(words.trim().replace('\n', "; ")));
    }
    let paths = output.stdout.split(|byte| *byte == 0).filter(|path| !path.is_empty());
    let text = |path: &[u8]| {
        let shown = |_| PathBuf::from(String::from_utf8_lossy(path).into_owned());
        String::from_utf8(path.to_vec()).map_err(shown)
    };
    Ok(Some(paths.map(text).collect()))
}

/// Collects facts about a directory, or only these parts of it. Runs git's commands in parallel, because they mostly
/// wait for the disk. Everything is empty without git, a checkout or a commit.
pub fn facts(dir: &Path, parts: &[String]) -> Facts {
    if work_tree(dir).is_none() {
        return Facts::default();
    }
    std::thread::scope(|scope| {
        let mut arguments = vec!["status", "--porcelain", "-z", "--"];
        arguments.extend(parts.iter().map(String::as_str));
        if parts.is_empty() {
            arguments.push(".");
        }
        let status = scope.spawn(move || git(dir, &arguments));
        let remote = scope.spawn(|| git(dir, &["config", "--get-regexp", r"^remote\..*\.url$"]));
        let branch = scope.spawn(|| git(dir, &["symbolic-ref", "--quiet", "--short", "HEAD"]));
        let Some((commit, describe, commit_time)) = head(dir) else { return Facts::default() };
        let status = status.join().ok().flatten();
        let remote = remote.join().ok().flatten().unwrap_or_default();
        Facts {
            commit,
            // If the status is unavailable, the build must not be taken for the commit's.
            dirty: status.is_none_or(|text| !text.is_empty()),
            describe,
            repository: remote_url(&remote),
            commit_time,
            branch: branch.join().ok().flatten().unwrap_or_default().trim().to_owned(),
        }
    })
}

fn head(dir: &Path) -> Option<(String, String, i64)> {
    let text = git(dir, &["log", "-1", "--no-show-signature", "--format=%H%n%ct%n%h%n%(describe:tags=true)"])?;
    let mut lines = text.lines();
    let (commit, time, short) = (lines.next()?, lines.next()?, lines.next()?);
    let describe = match lines.next().unwrap_or_default() {
        "" => short.to_owned(),
        // git before 2.35 repeats placeholders that it does not know.
        text if text.starts_with("%(") => git(dir, &["describe", "--tags", "--always"])?.trim().to_owned(),
        text => text.to_owned(),
    };
    Some((commit.to_owned(), describe, time.parse().ok()?))
}

fn command(dir: &Path, arguments: &[&str]) -> std::io::Result<Output> {
    Command::new("git")
        // The tree may be someone else's: its configuration must not run a program here.
        .args(["-c", "core.fsmonitor=false", "-C"])
        .arg(dir)
        .args(arguments)
        // A hook's variables refer to the repository that runs it.
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .env_remove("GIT_PREFIX")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
}

fn git(dir: &Path, arguments: &[&str]) -> Option<String> {
    let output = command(dir, arguments).ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The URL of `origin`, or else of the first remote.
fn remote_url(config: &str) -> String {
    let remotes: Vec<(&str, &str)> = config.lines().filter_map(|line| line.split_once(' ')).collect();
    let origin = remotes.iter().find(|(key, _)| *key == "remote.origin.url").or(remotes.first());
    origin.map_or_else(String::new, |(_, url)| without_credentials(url))
}

/// The URL without password, token and query. The user of an SSH URL is kept: it does not identify the caller.
fn without_credentials(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let rest = rest.split(['?', '#']).next().unwrap_or_default();
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = match authority.rsplit_once('@') {
        None => authority.to_owned(),
        Some((user, host)) if scheme.contains("ssh") => {
            format!("{}@{host}", user.split(':').next().unwrap_or_default())
        }
        Some((_, host)) => host.to_owned(),
    };
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_do_not_leave_the_machine() {
        for (url, expected) in [
            ("https://me:secret@host.example/a/b.git", "https://host.example/a/b.git"),
            ("https://token@host.example:8443/a", "https://host.example:8443/a"),
            ("https://host.example/a?private_token=x", "https://host.example/a"),
            ("ssh://git:secret@host.example:22/a", "ssh://git@host.example:22/a"),
            ("git@host.example:a/b.git", "git@host.example:a/b.git"),
            ("/srv/git/a", "/srv/git/a"),
            ("https://me:p@ss@host.example/a@b", "https://host.example/a@b"),
        ] {
            assert_eq!(without_credentials(url), expected);
        }
    }

    #[test]
    fn origin_is_preferred() {
        let config = "remote.fork.url https://f.example/x\nremote.origin.url https://o.example/x\n";
        assert_eq!(remote_url(config), "https://o.example/x");
        assert_eq!(remote_url(""), "");
    }

    fn run(dir: &Path, arguments: &[&str]) {
        let output = Command::new("git").arg("-C").arg(dir).args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    #[test]
    fn only_changes_below_the_directory_make_it_dirty() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        assert_eq!(facts(root, &[]), Facts::default());
        std::fs::create_dir(root.join("a")).unwrap();
        std::fs::write(root.join("a/x"), "1").unwrap();
        run(root, &["init", "-q"]);
        run(root, &["add", "."]);
        let commit = ["-c", "user.name=n", "-c", "user.email=e@x.example", "commit", "-q", "-m", "one"];
        run(root, &commit);
        let clean = facts(&root.join("a"), &[]);
        assert_eq!((clean.commit.len(), clean.dirty, clean.commit_time > 0), (40, false, true));
        assert!(clean.commit.starts_with(&clean.describe), "without a tag `{}` is the short commit", clean.describe);
        std::fs::write(root.join("b"), "1").unwrap();
        assert!(!facts(&root.join("a"), &[]).dirty);
        assert!(facts(root, &[]).dirty);
        run(root, &["-c", "user.name=n", "-c", "user.email=e@x.example", "tag", "v1"]);
        assert_eq!(facts(root, &[]).describe, "v1");
    }
}
