//! Checks out a commit from a forge to this disk, with git.
//!
//! Each repository is kept without file contents (`--filter=blob:none`), so a push transfers only what it needs, and
//! history and tags are available for the version. A commit is checked out to a directory of its own, which is removed
//! after the scan.
//!
//! Invariant: git runs without a terminal, without the repository's hooks and for a bounded time, and sends the token
//! only to the host that the configuration names.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use zeroize::Zeroizing;

use super::submodules::{self, Allowed};

/// How long one git command may take.
const GIT_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Bytes of git's output that are read.
const MAX_OUTPUT_BYTES: u64 = 256 << 10;

/// A commit that cannot be checked out.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub(super) enum Error {
    #[error("cannot run git; install it on the machine of the coordinator")]
    NoGit(#[source] std::io::Error),
    #[error("`git {command}` failed: {stderr}")]
    Failed { command: &'static str, stderr: String },
    #[error("`git {command}` took longer than {} minutes", GIT_TIMEOUT.as_secs() / 60)]
    Late { command: &'static str },
    #[error("the repository has no directory `{}` at this commit", .path.display())]
    NoDirectory { path: PathBuf },
    #[error("the submodule `{path}` {words}")]
    Submodule { path: String, words: String },
    #[error("cannot create the directory of the repository")]
    Disk(#[from] std::io::Error),
}

impl Error {
    /// Whether another attempt may succeed.
    pub(super) fn may_pass(&self) -> bool {
        !matches!(self, Self::NoDirectory { .. } | Self::NoGit(_) | Self::Submodule { .. })
    }
}

/// A user name and the forge's token.
pub(super) type Token<'a> = Option<(&'static str, &'a Zeroizing<String>)>;

/// How a repository is fetched.
#[derive(Debug)]
pub(super) struct Remote<'a> {
    /// Its URL.
    pub(super) url: &'a str,
    /// Credentials for an HTTP server: a user name and the forge's token.
    pub(super) token: Option<(&'static str, Zeroizing<String>)>,
    /// If its submodules are fetched too, where they may come from.
    pub(super) submodules: Option<Allowed>,
}

/// Fetched repositories, each in a directory of its own.
#[derive(Debug)]
pub(super) struct Checkouts {
    directory: PathBuf,
    /// git's own locks fail instead of waiting.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

/// A commit's files, which are removed when this is dropped.
#[derive(Debug)]
pub(super) struct Checkout {
    files: tempfile::TempDir,
}

impl Checkout {
    /// The project's directory.
    pub(super) fn project(&self, below: &Path) -> Result<PathBuf, Error> {
        let missing = || Error::NoDirectory { path: below.to_owned() };
        let root = self.files.path().canonicalize()?;
        let project = root.join(below).canonicalize().map_err(|_| missing())?;
        // A symbolic link in the repository may point anywhere.
        if project.is_dir() && project.starts_with(&root) { Ok(project) } else { Err(missing()) }
    }
}

impl Checkouts {
    /// Opens this directory. Removes what an earlier run checked out and left behind.
    pub(super) fn open(directory: PathBuf) -> std::io::Result<Self> {
        let files = directory.join("files");
        let _ = std::fs::remove_dir_all(&files);
        std::fs::create_dir_all(&files)?;
        Ok(Self { directory, locks: Mutex::default() })
    }

    /// Fetches the commit that this reference points to, and checks its files out.
    ///
    /// # Errors
    /// If git fails, with its own message.
    pub(super) async fn check_out(
        &self,
        remote: &Remote<'_>,
        reference: &str,
        commit: &str,
    ) -> Result<Checkout, Error> {
        let name = short_hash(remote.url);
        let lock = self.locks.lock().entry(name.clone()).or_default().clone();
        let _alone = lock.lock().await;
        let repository = self.directory.join(name);
        let token = remote.token.as_ref().map(|(user, token)| (*user, token));
        let git = Git { repository: &repository, url: remote.url, token };
        std::fs::create_dir_all(&repository)?;
        // Each of these may be repeated: an earlier run may have been killed in between.
        git.run("init", &["--quiet", "--bare", "--template=", "."]).await?;
        let facts = [("url", remote.url), ("promisor", "true"), ("partialclonefilter", "blob:none")];
        for (name, value) in facts {
            git.run("config", &[&format!("remote.origin.{name}"), value]).await?;
        }
        // Under a name for each reference, so that the next push to it transfers only what is new.
        let own = format!("+{commit}:refs/kiln/{}", short_hash(reference));
        let fetch =
            ["--quiet", "--force", "--no-auto-gc", "--filter=blob:none", "origin", &own, "+refs/tags/*:refs/tags/*"];
        git.run("fetch", &fetch).await?;
        let files = tempfile::Builder::new().prefix("commit-").tempdir_in(self.directory.join("files"))?;
        let place = files.path().to_string_lossy().into_owned();
        // A lock left by a coordinator that was killed protects nothing any more.
        git.run("worktree", &["prune"]).await?;
        git.run("worktree", &["add", "--quiet", "--force", "--detach", &place, commit]).await?;
        if let Some(allowed) = &remote.submodules {
            submodules::fetch(allowed, token, files.path()).await?;
        }
        git.run("gc", &["--auto", "--quiet"]).await?;
        Ok(Checkout { files })
    }
}

/// The first 128 bits.
fn short_hash(text: &str) -> String {
    format!("{:.32}", hex::encode(Sha256::digest(text)))
}

/// git in a directory, for content fetched from one URL.
pub(super) struct Git<'a> {
    pub(super) repository: &'a Path,
    pub(super) url: &'a str,
    pub(super) token: Token<'a>,
}

impl Git<'_> {
    /// Runs a command for its effect.
    pub(super) async fn run(&self, command: &'static str, arguments: &[&str]) -> Result<(), Error> {
        self.ask(command, arguments).await.map(drop)
    }

    /// Runs a command for its output.
    pub(super) async fn ask(&self, command: &'static str, arguments: &[&str]) -> Result<String, Error> {
        let scheme = self.url.split_once("://").map_or("https", |(scheme, _)| scheme);
        // The modes of files are git's, whatever this process's umask: Dockerfiles copy them.
        let mut git = Command::new("sh");
        git.current_dir(self.repository)
            .args(["-c", "umask 022 && exec git \"$@\"", "git"])
            .args(["-c", "core.hooksPath=/dev/null", "-c", "gc.autoDetach=false"])
            // URLs that a repository names are fetched with the same restrictions, and a redirect would bypass every
            // check.
            .args(["-c", "http.followRedirects=false", "-c", "protocol.allow=never", "-c"])
            .arg(format!("protocol.{scheme}.allow=always"))
            .arg(command)
            .args(arguments)
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C")
            .envs(self.credentials())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // git starts other processes, which are ended with it.
            .process_group(0)
            .kill_on_drop(true);
        for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            git.env_remove(variable);
        }
        let mut child = git.spawn().map_err(Error::NoGit)?;
        let group = Group(child.id());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let ended = tokio::time::timeout(GIT_TIMEOUT, async {
            let (printed, words) = tokio::join!(read(out), read(err));
            (child.wait().await, printed, words)
        })
        .await;
        let Ok((status, printed, words)) = ended else { return Err(Error::Late { command }) };
        std::mem::forget(group);
        if status?.success() {
            return Ok(String::from_utf8_lossy(&printed).into_owned());
        }
        Err(Error::Failed { command, stderr: String::from_utf8_lossy(&words).trim().replace('\n', "; ") })
    }

    /// The token in environment variables rather than arguments, which other processes can see; only for the
    /// repository's host.
    fn credentials(&self) -> Vec<(&'static str, String)> {
        let Some((user, token)) = &self.token else { return Vec::new() };
        let Ok(url) = url::Url::parse(self.url) else { return Vec::new() };
        if !matches!(url.scheme(), "http" | "https") {
            return Vec::new();
        }
        let pair = Zeroizing::new(format!("{user}:{}", token.as_str()));
        vec![
            ("GIT_CONFIG_COUNT", "1".to_owned()),
            ("GIT_CONFIG_KEY_0", format!("http.{}/.extraHeader", url.origin().ascii_serialization())),
            ("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {}", STANDARD.encode(pair.as_bytes()))),
        ]
    }
}

/// Reads a stream to its end; anything beyond the limit is dropped, so that git can go on.
async fn read(stream: Option<impl tokio::io::AsyncRead + Unpin>) -> Vec<u8> {
    let mut kept = Vec::new();
    if let Some(mut stream) = stream {
        let _ = (&mut stream).take(MAX_OUTPUT_BYTES).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
    }
    kept
}

/// A process group that is killed when this is dropped.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let leader = self.0.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(leader) = leader {
            let _ = rustix::process::kill_process_group(leader, rustix::process::Signal::KILL);
        }
    }
}
