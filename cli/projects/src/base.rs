//! The files of a commit beside the working tree.
//!
//! Invariant: the repository, its index and its working tree are only read; no hook of the repository runs.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_scan::git;

/// Why the files of a commit cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("`{}` is not in a git repository, so nothing can have changed since `{reference}`", .dir.display())]
    NoRepository { dir: PathBuf, reference: String },
    #[error("git knows no commit `{reference}`: {message}; fetch it, as in `git fetch origin {reference}`")]
    NoCommit { reference: String, message: String },
    #[error("the files of `{reference}` cannot be checked out: {message}")]
    CheckOut { reference: String, message: String },
    #[error("cannot make a directory for the files of a commit")]
    Directory(#[source] std::io::Error),
}

/// The files of a commit.
#[derive(Debug)]
pub struct Base {
    files: tempfile::TempDir,
    top: PathBuf,
    /// The commit, in full.
    pub commit: String,
}

impl Base {
    /// Checks out the commit that a name stands for in the repository that contains a directory.
    ///
    /// # Errors
    /// If there is no repository, or no such commit.
    pub fn check_out(dir: &Path, reference: &str) -> Result<Self, Error> {
        let reference = reference.to_owned();
        let dir = std::path::absolute(dir).map_err(Error::Directory)?;
        let Some(top) = git::work_tree(&dir) else { return Err(Error::NoRepository { dir, reference }) };
        let wanted = format!("{reference}^{{commit}}");
        let commit = run(&top, &["rev-parse", "--verify", "--end-of-options", &wanted]);
        let commit = match commit {
            Ok(commit) => commit,
            Err(message) => return Err(Error::NoCommit { reference, message }),
        };
        let files = tempfile::Builder::new().prefix("kiln-base-").tempdir().map_err(Error::Directory)?;
        let check_out = || {
            let objects = run(&top, &["rev-parse", "--git-path", "objects"])?;
            run(files.path(), &["init", "--quiet", "--template="])?;
            let alternates = files.path().join(".git/objects/info");
            std::fs::create_dir_all(&alternates).map_err(|error| error.to_string())?;
            let objects = top.join(objects);
            std::fs::write(alternates.join("alternates"), format!("{}\n", objects.display()))
                .map_err(|error| error.to_string())?;
            run(files.path(), &["-c", "core.hooksPath=/dev/null", "checkout", "--quiet", "--detach", &commit])
        };
        match check_out() {
            Ok(_) => Ok(Self { files, top, commit }),
            Err(message) => Err(Error::CheckOut { reference, message }),
        }
    }

    /// Where a directory of the working tree is among the files of the commit; `None` if it was not there.
    pub fn at(&self, dir: &Path) -> Option<PathBuf> {
        let dir = std::path::absolute(dir).ok()?;
        // `..` and links in what was given.
        let dir = dir.canonicalize().unwrap_or(dir);
        let top = self.top.canonicalize().unwrap_or_else(|_| self.top.clone());
        let there = self.files.path().join(dir.strip_prefix(top).ok()?);
        there.is_dir().then_some(there)
    }
}

fn run(dir: &Path, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new("git")
        .args(arguments)
        .current_dir(dir)
        .env("LC_ALL", "C")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        // The repository of a hook that starts this.
        .env_remove("GIT_DIR")
        .env_remove("GIT_INDEX_FILE")
        .env_remove("GIT_WORK_TREE")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("git cannot be started: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    match output.status.success() {
        true => Ok(text(&output.stdout)),
        false => Err(text(&output.stderr).lines().last().unwrap_or_default().trim_start_matches("fatal: ").to_owned()),
    }
}
