//! A repository, fetched by the user's own git with the user's own credentials.
//!
//! Invariant: nothing outside of the checkout is read, wherever links in it lead.

use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_dockerfile::GitSource;
use tempfile::TempDir;

use crate::Error;

/// A repository's files.
pub(crate) struct Checkout {
    /// The directory that is wanted.
    pub(crate) directory: PathBuf,
    /// The temporary directory that has it.
    pub(crate) kept: TempDir,
}

impl Checkout {
    /// A file of the checkout.
    pub(crate) fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let absent = || Error::NoFile { file: path.to_owned(), place: "the repository".to_owned() };
        let full = self.directory.join(path).canonicalize().map_err(|_| absent())?;
        if !full.starts_with(self.kept.path().canonicalize().map_err(Error::Temporary)?) {
            return Err(absent());
        }
        std::fs::read(full).map_err(|_| absent())
    }
}

/// Fetches a repository.
pub(crate) fn fetch(source: &GitSource, keep_git_dir: bool) -> Result<Checkout, Error> {
    let kept = tempfile::Builder::new().prefix("kiln-context-").tempdir().map_err(Error::Temporary)?;
    let git = Git { root: kept.path(), remote: &source.remote };
    git.run(&["init", "--quiet", "."])?;
    let wanted = if source.reference.is_empty() { "HEAD" } else { source.reference.as_str() };
    // Not every server can send one commit alone, and none finds one by the beginning of its name.
    match git.run(&["fetch", "--quiet", "--depth", "1", "--", &source.remote, wanted]) {
        Ok(_) => git.run(&["checkout", "--quiet", "FETCH_HEAD"])?,
        Err(_) => {
            let all =
                ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*", "+HEAD:refs/remotes/origin/HEAD"];
            git.run(&[&["fetch", "--quiet", "--", &source.remote], &all[..]].concat())?;
            let remote = format!("origin/{wanted}");
            let short = wanted.strip_prefix("refs/heads/").map(|branch| format!("origin/{branch}"));
            let names = [Some(remote), short, Some(wanted.to_owned())];
            let found = names
                .into_iter()
                .flatten()
                .find_map(|name| git.run(&["rev-parse", "--quiet", "--verify", &format!("{name}^{{commit}}")]).ok());
            let commit = found.ok_or_else(|| git.failed(format!("it has no branch, tag or commit `{wanted}`")))?;
            git.run(&["checkout", "--quiet", commit.trim()])?
        }
    };
    let commit = git.run(&["rev-parse", "HEAD"])?;
    if !commit.trim().starts_with(&source.checksum) {
        let (expected, found) = (&source.checksum, commit.trim());
        return Err(git.failed(format!("expected commit `{expected}`, found `{found}`")));
    }
    if !source.skips_submodules {
        git.run(&["remote", "add", "origin", &source.remote])?;
        git.run(&["submodule", "--quiet", "update", "--init", "--recursive", "--depth", "1"])?;
    }
    if source.keep_git_dir.unwrap_or(keep_git_dir) {
        // The URL may have a password, and the files can become a part of an image.
        let _ = git.run(&["remote", "remove", "origin"]);
        let _ = std::fs::remove_file(kept.path().join(".git/FETCH_HEAD"));
    } else {
        std::fs::remove_dir_all(kept.path().join(".git")).map_err(Error::Temporary)?;
    }
    let root = kept.path().canonicalize().map_err(Error::Temporary)?;
    let directory =
        root.join(&source.directory).canonicalize().ok().filter(|found| found.starts_with(&root) && found.is_dir());
    let directory = directory.ok_or_else(|| git.failed(format!("it has no directory `{}`", source.directory)))?;
    Ok(Checkout { directory, kept })
}

struct Git<'a> {
    root: &'a Path,
    remote: &'a str,
}

impl Git<'_> {
    fn run(&self, arguments: &[&str]) -> Result<String, Error> {
        // The files' modes are git's, whatever the user's umask.
        let output = Command::new("sh")
            .args(["-c", "umask 022 && exec git \"$@\"", "git"])
            .args(arguments)
            .current_dir(self.root)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .env_remove("GIT_INDEX_FILE")
            .stdin(std::process::Stdio::null())
            .output()
            .map_err(|error| self.failed(format!("cannot run git: {error}")))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let last = said.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("git failed");
        Err(self.failed(last.trim().to_owned()))
    }

    fn failed(&self, reason: String) -> Error {
        Error::Fetch { remote: without_password(self.remote), reason }
    }
}

/// A URL as it may be shown.
pub(crate) fn without_password(url: &str) -> String {
    match url.split_once("://") {
        Some((scheme, rest)) => {
            let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
            format!("{scheme}://{host}{path}")
        }
        None => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> GitSource {
        let text = format!("https://host/x.git{text}");
        GitSource::read(&text).unwrap().unwrap()
    }

    fn repository() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        let git = Git { root: dir.path(), remote: "test" };
        git.run(&["init", "--quiet", "-b", "main", "."]).unwrap();
        std::fs::create_dir(dir.path().join("app")).unwrap();
        std::fs::write(dir.path().join("app/Dockerfile"), "FROM scratch\n").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("outside")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("app/leak")).unwrap();
        for arguments in
            [&["add", "."][..], &["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm", "one"], &["tag", "v1"]]
        {
            git.run(arguments).unwrap();
        }
        dir
    }

    #[test]
    fn a_reference_and_a_directory_are_fetched_without_git_s_own_files() {
        let repository = repository();
        let remote = format!("file://{}", repository.path().display());
        let fetched = |text: &str| fetch(&GitSource { remote: remote.clone(), ..source(text) }, false);
        for text in ["", "#main", "#v1", "#v1:app", "?ref=main&subdir=app"] {
            let checkout = fetched(text).unwrap();
            let path = if text.contains("app") { "Dockerfile" } else { "app/Dockerfile" };
            assert_eq!(checkout.read(path).unwrap(), b"FROM scratch\n", "{text}");
            assert!(!checkout.kept.path().join(".git").exists());
        }
        assert!(
            fetch(&GitSource { remote: remote.clone(), ..source("") }, true).unwrap().kept.path().join(".git").exists()
        );
        let wrong = |text: &str| fetched(text).err().unwrap().to_string();
        assert!(wrong("#absent").contains("no branch, tag or commit `absent`"));
        assert!(wrong("#main:absent").contains("no directory `absent`"));
        assert!(wrong("#main:outside").contains("no directory `outside`"), "a link leads out of the repository");
        assert!(wrong("?checksum=0123456").contains("expected commit `0123456`"));
        assert!(fetched("#main:app").unwrap().read("leak").is_err(), "a link leads out of the repository");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(without_password("https://user:hunter2@host/x.git"), "https://host/x.git");
        assert_eq!(without_password("git@host:x"), "git@host:x");
    }
}
