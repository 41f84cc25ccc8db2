//! What workers do for a Dockerfile: commands in roots, downloads and checkouts.

use async_trait::async_trait;
use kiln_dockerfile::instruction::Network;
use kiln_dockerfile::{Fetch, GitSource, Run};
use kiln_planner::plan;
use kiln_proto::digest::Digest;
use kiln_proto::root::{self as contract, Mount};
use kiln_proto::v1::{self, CacheMount};

use crate::assemble::Error;

/// The SSH agent with whose keys repositories are fetched.
pub const DEFAULT_AGENT: &str = "default";

/// Runs commands in roots.
#[async_trait]
pub trait Commands: Sync + std::fmt::Debug {
    /// Told what will be asked for: the names of the instructions that run on workers, and how many others change files.
    fn begin(&self, steps: Vec<String>, copies: usize);

    /// Runs a command.
    async fn run(&self, command: &Command) -> Result<Ran, Error>;

    /// Whether all these commands have results from earlier builds, so that none would run. Nothing is reported.
    async fn are_cached(&self, commands: &[&Command]) -> Result<bool, Error>;

    /// Downloads the file at a URL, whose checksum is verified if it has one. `name` is the instruction's, for people.
    async fn fetch(&self, name: &str, fetch: &Fetch, login: Option<&Login>) -> Result<Download, Error>;

    /// Fetches the files of a repository. `name` is the instruction's, for people.
    async fn checkout(&self, name: &str, source: &GitSource) -> Result<Checkout, Error>;
}

/// What a server is told of whoever downloads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// The name of the secret that has it.
    pub secret: String,
    /// Whether it is a bearer token rather than the value of the header `Authorization`.
    pub is_token: bool,
}

impl Login {
    /// What these secrets, by their ids, have for the server of a URL: `HTTP_AUTH_HEADER_HOST` or `HTTP_AUTH_TOKEN_HOST`, with the port where
    /// the URL has one, or without. Ids that are names have `_` for what names cannot have. Source: BuildKit's documentation of secrets.
    pub(super) fn of(url: &str, secrets: &[String]) -> Option<Self> {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let host = host.rsplit('@').next().unwrap_or_default().to_ascii_lowercase();
        let alone = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name.to_owned(),
            _ => host.clone(),
        };
        let plain = |host: &str| host.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let hosts = [host.clone(), alone.clone(), plain(&host), plain(&alone)];
        let kinds = [("HTTP_AUTH_HEADER_", false), ("HTTP_AUTH_TOKEN_", true)];
        kinds.into_iter().find_map(|(prefix, is_token)| {
            let ids = hosts.iter().map(|host| format!("{prefix}{host}"));
            let id = ids.into_iter().find(|id| secrets.contains(id))?;
            Some(Self { secret: contract::secret_name(&id), is_token })
        })
    }
}

/// A file that was downloaded.
#[derive(Debug, Clone, Copy)]
pub struct Download {
    /// The file.
    pub file: Digest,
    /// When it was modified, as its server says, in seconds since the epoch.
    pub modified: Option<i64>,
}

/// The files of a repository at a commit.
#[derive(Debug, Clone, Copy)]
pub struct Checkout {
    /// The tree of its files.
    pub files: Digest,
    /// When it was committed, in seconds since the epoch.
    pub committed: i64,
}

/// A command of a Dockerfile, as a worker runs it.
#[derive(Debug, Clone)]
pub struct Command {
    /// Its name for people.
    pub name: String,
    /// The platform of its stage.
    pub platform: plan::Platform,
    /// The command and its environment.
    pub run: Run,
    /// The root that it runs in, and the blob with its times.
    pub root: Digest,
    /// The blob with the times of the root's nodes.
    pub times: Digest,
    /// How much memory it may use, in bytes, unless that is the default.
    pub memory_bytes: Option<u64>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// The caches of its cache mounts. Their ids are `NAMESPACE/ID`, with an empty namespace for the project's own.
    pub caches: Vec<CacheMount>,
    /// The directory with the content of mounts, if any has some.
    pub mounted: Option<Digest>,
    /// Names of the secrets that it mounts.
    pub secrets: Vec<String>,
    /// Those of them whose values are a part of its key.
    pub keyed: Vec<String>,
    /// Hosts that it can resolve.
    pub hosts: Vec<v1::Host>,
    /// Whether results of earlier builds are not used.
    pub no_cache: bool,
    /// What runs beside it.
    pub service: Option<contract::Service>,
}

/// What a command left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What it changed in its root.
    pub layer: Digest,
    /// The blob with the times of that.
    pub times: Digest,
}

/// The network of a command, as the worker's property has it.
pub fn network(run: &Run) -> &'static str {
    match run.network {
        Network::Default => contract::NETWORK_DEFAULT,
        Network::None => contract::NETWORK_NONE,
        Network::Host => contract::NETWORK_HOST,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_told_the_secret_that_is_named_after_it_and_no_other_one() {
        let of = |url: &str, ids: &[&str]| {
            let ids: Vec<String> = ids.iter().map(|id| (*id).to_owned()).collect();
            Login::of(url, &ids).map(|login| (login.secret, login.is_token))
        };
        let token = |id: &str| Some((contract::secret_name(id), true));
        let url = "https://files.example.com:8443/a/b?x=https://other.example/";
        for id in [
            "HTTP_AUTH_TOKEN_files.example.com:8443",
            "HTTP_AUTH_TOKEN_files.example.com",
            "HTTP_AUTH_TOKEN_files_example_com",
        ] {
            assert_eq!(of(url, &["HTTP_AUTH_TOKEN_other.example", id]), token(id));
        }
        let both = ["HTTP_AUTH_TOKEN_a.example", "HTTP_AUTH_HEADER_a.example"];
        assert_eq!(of("https://u:p@A.example/x", &both), Some((contract::secret_name(both[1]), false)));
        assert_eq!(of("https://a.example.evil/HTTP_AUTH_TOKEN_a.example", &both), None);
        assert_eq!(of("https://evil#a.example", &both), None);
    }
}
