//! Fetches a commit's submodules one by one, each only from where it may come.
//!
//! A commit names the URLs of its submodules, and anyone who may push can change them. So submodules must come from the
//! owner of the repository or from a place that the configuration allows, over the forge's own protocol and without
//! redirects.

use std::path::{Component, Path};

use globset::GlobSet;

use super::checkout::{Error, Git};
use super::repository;

/// Maximum depth of nested submodules.
const MAX_DEPTH: usize = 8;
/// Maximum submodules of one commit, nested ones included.
const MAX_SUBMODULES: usize = 200;

/// Where submodules may come from.
#[derive(Debug, Clone)]
pub(super) struct Allowed {
    /// The repository that was pushed to.
    pub(super) repository: String,
    /// Others that are allowed besides repositories of the same owner.
    pub(super) more: GlobSet,
}

impl Allowed {
    /// The URL to fetch a submodule from, if it is allowed. `url` is the one in `.gitmodules`, `base` that of the
    /// repository.
    pub(super) fn address(&self, base: &str, url: &str) -> Option<String> {
        let address = self.by_the_forges_protocol(resolve(base, url)?);
        let is_path =
            |part: &str| !part.is_empty() && part != "." && part != ".." && !part.contains(['%', '\\', '?', '#']);
        let (_, path) = split(&address)?;
        if repository::check(&address).is_err() || !path.split('/').all(is_path) {
            return None;
        }
        let normal = repository::normal(&address);
        let is_owners = owner(&self.repository).is_some_and(|owner| normal.starts_with(&owner));
        (is_owners || self.more.is_match(&normal)).then_some(address)
    }

    /// Rewrites `git@forge:owner/name` and `ssh://git@forge/owner/name` on the repository's own forge to the protocol
    /// that the repository is fetched with.
    fn by_the_forges_protocol(&self, address: String) -> String {
        let own = url::Url::parse(&self.repository).ok();
        let named = url::Url::parse(&address).ok().filter(|url| url.scheme() == "ssh");
        match (own, named) {
            (Some(own), Some(named))
                if matches!(own.scheme(), "http" | "https") && own.host_str() == named.host_str() =>
            {
                format!("{}{}", own.origin().ascii_serialization(), named.path())
            }
            _ => address,
        }
    }
}

/// Scheme with host, and the path without its leading slash.
fn split(address: &str) -> Option<(&str, &str)> {
    let (_, rest) = address.split_once("://")?;
    let (_, path) = rest.split_once('/')?;
    Some((address.strip_suffix(path)?.strip_suffix('/')?, path.trim_end_matches('/')))
}

/// The prefix shared by all repositories of an owner. On a disk, it is the directory that contains the repository.
fn owner(repository: &str) -> Option<String> {
    let normal = repository::normal(repository);
    let (host, path) = split(&normal)?;
    let owner = if host == "file://" { path.rsplit_once('/')?.0 } else { path.split_once('/')?.0 };
    Some(format!("{host}/{owner}/"))
}

/// An absolute URL: `./` and `../` are relative to the repository, `host:path` means SSH.
fn resolve(base: &str, url: &str) -> Option<String> {
    if url.contains("://") {
        return Some(url.to_owned());
    }
    if !url.starts_with("./") && !url.starts_with("../") {
        let (host, path) = url.split_once(':').filter(|(host, _)| !host.contains('/') && !host.starts_with('-'))?;
        return Some(format!("ssh://{host}/{}", path.trim_start_matches('/')));
    }
    let (host, path) = split(base)?;
    let mut parts: Vec<&str> = path.split('/').collect();
    for part in url.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(format!("{host}/{}", parts.join("/")))
}

/// Fetches the submodules of the commit that is checked out in `at`, recursively.
pub(super) async fn fetch(allowed: &Allowed, token: super::checkout::Token<'_>, at: &Path) -> Result<(), Error> {
    let mut numbers = 0..MAX_SUBMODULES;
    let mut waiting = vec![(at.to_owned(), allowed.repository.clone(), 0..MAX_DEPTH)];
    while let Some((at, base, depths)) = waiting.pop() {
        // A link could lead to a file on the coordinator's machine.
        if !std::fs::symlink_metadata(at.join(".gitmodules")).is_ok_and(|found| found.is_file()) {
            continue;
        }
        let git = Git { repository: &at, url: &base, token: None };
        for (name, path) in listed(&git).await? {
            let refused = |words: &str| Error::Submodule { path: path.clone(), words: words.to_owned() };
            let mut deeper = depths.clone();
            if deeper.next().is_none() || numbers.next().is_none() {
                return Err(refused(&format!(
                    "exceeds the limit of {MAX_SUBMODULES} submodules, nested at most {MAX_DEPTH} deep"
                )));
            }
            if !Path::new(&path).components().all(|part| matches!(part, Component::Normal(_))) {
                return Err(refused("is outside the repository"));
            }
            let key = format!("submodule.{name}.url");
            let url = git.ask("config", &["--file", ".gitmodules", "--get", &key]).await?;
            let url = url.trim();
            let address = allowed.address(&base, url).ok_or_else(|| {
                refused(&format!(
                    "has the URL `{url}`, which is neither of the same owner nor among the webhook's `submodule_repositories`"
                ))
            })?;
            git.run("submodule", &["--quiet", "init", "--", &path]).await?;
            git.run("config", &[&key, &fetched_from(&address)]).await?;
            // The token is meant for the forge and must not be sent to another host.
            let is_forges =
                split(&address).zip(split(&allowed.repository)).is_some_and(|(one, other)| one.0 == other.0);
            let of_it = Git { repository: &at, url: &address, token: token.filter(|_| is_forges) };
            of_it.run("submodule", &["--quiet", "update", "--depth=1", "--", &path]).await?;
            waiting.push((at.join(&path), address, deeper));
        }
    }
    Ok(())
}

/// Forges redirect a URL without `.git` to the one with it, and redirects are not followed.
fn fetched_from(address: &str) -> String {
    let is_http = address.starts_with("http://") || address.starts_with("https://");
    let address = address.trim_end_matches('/');
    if is_http && !address.ends_with(".git") { format!("{address}.git") } else { address.to_owned() }
}

/// Names and paths of the submodules that `.gitmodules` lists.
async fn listed(git: &Git<'_>) -> Result<Vec<(String, String)>, Error> {
    let words = git.ask("config", &["--file", ".gitmodules", "--null", "--list"]).await?;
    let entries = words.split('\0').filter_map(|entry| entry.split_once('\n'));
    let paths = entries.filter_map(|(key, path)| {
        let name = key.strip_prefix("submodule.")?.strip_suffix(".path")?;
        Some((name.to_owned(), path.to_owned()))
    });
    Ok(paths.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(more: &[&str], url: &str) -> Option<String> {
        let mut set = globset::GlobSetBuilder::new();
        for pattern in more {
            set.add(globset::GlobBuilder::new(pattern).literal_separator(true).build().unwrap());
        }
        let repository = "https://forge.example/team/shop.git".to_owned();
        Allowed { repository, more: set.build().unwrap() }.address("https://forge.example/team/shop.git", url)
    }

    #[test]
    fn a_submodule_is_of_the_same_owner_or_allowed() {
        let library = Some("https://forge.example/team/library.git".to_owned());
        for url in [
            "https://forge.example/team/library.git",
            "../library.git",
            "git@forge.example:team/library.git",
            "ssh://git@forge.example/team/library.git",
        ] {
            assert_eq!(address(&[], url), library, "{url}");
        }
        assert!(address(&["https://other.example/libs/*"], "https://other.example/libs/zlib").is_some());
        assert!(address(&["https://forge.example/libs/*"], "../../libs/zlib").is_some());
    }

    #[test]
    fn nothing_else_is_fetched_however_it_is_written() {
        for url in [
            "https://forge.example/bank/library.git",
            "../../bank/library.git",
            "https://forge.example:444/team/library",
            "http://forge.example/team/library",
            "https://forge.example.evil.example/team/library",
            "https://forge.example/team/../bank/library",
            "https://forge.example/team/%2e%2e/bank/library",
            "https://forge.example/teams/library",
            "https://me@forge.example/team/library",
            "file:///srv/git/team/library",
            "/srv/git/team/library",
            "git://forge.example/team/library",
            "ext::sh -c id",
            "ssh://-oProxyCommand=id/team/x",
            "-u:team/library",
            "http://169.254.169.254/latest/meta-data",
            "git@other.example:team/library.git",
            "../../../../library",
        ] {
            assert_eq!(address(&[], url), None, "{url}");
        }
        assert_eq!(address(&["https://other.example/libs/*"], "https://other.example/libs/a/b"), None);
    }
}
