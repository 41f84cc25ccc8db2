//! The file that `--webhooks` names: where deliveries are received, and what each webhook builds.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use kiln_planner::plan::Platform;
use kiln_proto::secret;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::forge::{Forge, Push};
use super::repository;
use super::submodules::Allowed;
use kiln_auth::{check_name, tls};

/// Minimum length of a signing secret: a shorter one could be guessed.
const MIN_SECRET_BYTES: usize = 16;

/// The file of webhooks is not usable.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("the webhooks in `{}` cannot be used: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error("cannot listen for webhooks at `{at}`")]
    Bind {
        at: SocketAddr,
        #[source]
        source: std::io::Error,
    },
}

/// The whole file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where deliveries are received, at `/webhooks/NAME`.
    #[serde(default = "listen")]
    pub listen: SocketAddr,
    /// The listener's certificate chain, in PEM, from an authority that the forge trusts.
    certificate: Option<PathBuf>,
    /// That certificate's key.
    key: Option<PathBuf>,
    /// Allow other machines to deliver over plain HTTP: a proxy in front of the coordinator speaks TLS.
    #[serde(default)]
    insecure: bool,
    /// The webhooks by name.
    hooks: BTreeMap<String, Hook>,
}

/// Where deliveries are received, which stays as it is while the coordinator runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Listens {
    pub(super) address: SocketAddr,
    /// Its certificate; without one, all connections come from one address, that of a proxy.
    pub(super) tls: Option<tls::Files>,
}

/// One webhook.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Hook {
    /// The forge that delivers.
    pub(super) forge: Forge,
    /// The file with the signing secret of deliveries.
    secret_file: PathBuf,
    /// The repositories whose pushes are built: URLs as the forge gives them, with `*` for a part of a path.
    repositories: Vec<String>,
    /// Branches whose pushes are built; the repository's default branch if not set.
    branches: Option<Vec<String>>,
    /// Tags that are built.
    #[serde(default)]
    tags: Vec<String>,
    /// The tenant that owns the builds; the webhook's name if not set, the default tenant if empty.
    tenant: Option<String>,
    /// The project's directory in the repository.
    #[serde(default)]
    pub(super) directory: PathBuf,
    /// Like `kiln build --platform`.
    #[serde(default)]
    platforms: Vec<String>,
    /// Like `kiln build --target`.
    #[serde(default)]
    pub(super) targets: Vec<String>,
    /// Like `kiln build --allow-emulation`.
    #[serde(default)]
    pub(super) allow_emulation: bool,
    /// Fetch submodules too.
    #[serde(default)]
    submodules: bool,
    /// Where submodules may come from besides the repository's own owner, in the form of `repositories`. The token is
    /// sent only to the repository's host.
    #[serde(default)]
    submodule_repositories: Vec<String>,
    /// The file with the forge's token, which is used to fetch and to report statuses.
    token_file: Option<PathBuf>,
    /// The URL of the forge's API, if it is not on the repository's host.
    pub(super) api: Option<url::Url>,
    /// The name of the commit status.
    #[serde(default = "context")]
    pub(super) context: String,
    /// The link of a status; `{build}` is replaced by the build's id, `{commit}` by the commit.
    pub(super) link: Option<String>,
    /// Secrets for steps, each in a file.
    #[serde(default)]
    secrets: BTreeMap<String, PathBuf>,
    /// Compiled patterns of the fields above.
    #[serde(skip)]
    patterns: Patterns,
}

#[derive(Debug, Clone, Default)]
struct Patterns {
    name: String,
    repositories: GlobSet,
    submodules: GlobSet,
    branches: GlobSet,
    tags: GlobSet,
}

fn listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8981))
}

fn context() -> String {
    "kiln".to_owned()
}

fn globs(what: &str, patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        set.add(glob.map_err(|error| format!("`{what}`: invalid pattern `{pattern}`: {}", error.kind()))?);
    }
    set.build().map_err(|error| format!("`{what}`: {error}"))
}

/// A file's text without a final newline, which editors add.
fn word(path: &Path) -> Result<Zeroizing<String>, String> {
    let text = std::fs::read_to_string(path).map(Zeroizing::new);
    let mut text = text.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
    let kept = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(kept);
    Ok(text)
}

impl Config {
    /// Reads and checks the file, and the files that it names.
    ///
    /// # Errors
    /// If anything in it is wrong, with the reason.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        config.check().map_err(wrong)?;
        Ok(config)
    }

    fn check(&mut self) -> Result<(), String> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err("`certificate` and `key` must be set together".to_owned());
        }
        if self.certificate.is_none() && !self.listen.ip().is_loopback() && !self.insecure {
            return Err(format!(
                "`listen = \"{}\"` is reachable from other machines, and without `certificate` and `key` nothing is encrypted; if \
                 a proxy in front of it speaks TLS, set `insecure = true`",
                self.listen
            ));
        }
        if self.hooks.is_empty() {
            return Err("it has no `[hooks.NAME]`".to_owned());
        }
        for (name, hook) in &mut self.hooks {
            hook.check(name).map_err(|reason| format!("hook `{name}`: {reason}"))?;
        }
        Ok(())
    }

    /// The webhooks by name.
    pub(super) fn hooks(self) -> BTreeMap<String, Arc<Hook>> {
        self.hooks.into_iter().map(|(name, hook)| (name, Arc::new(hook))).collect()
    }

    /// Its listener.
    pub(super) fn listens(&self) -> Listens {
        Listens { address: self.listen, tls: self.tls() }
    }

    /// The listener's certificate, if it has one.
    fn tls(&self) -> Option<tls::Files> {
        let (certificate, key) = (self.certificate.clone()?, self.key.clone()?);
        Some(tls::Files { certificate, key, own: None, client_ca: None, protocols: tls::HTTP_1 })
    }
}

impl Hook {
    fn check(&mut self, name: &str) -> Result<(), String> {
        check_name("webhook", name)?;
        if !self.tenant(name).is_empty() {
            check_name("tenant", &self.tenant(name))?;
        }
        if self.repositories.is_empty() {
            return Err("`repositories` is empty; expected URLs such as `https://forge.example/team/*`".to_owned());
        }
        for pattern in self.repositories.iter().chain(&self.submodule_repositories) {
            repository::check(pattern)?;
        }
        if !self.submodules && !self.submodule_repositories.is_empty() {
            return Err("`submodule_repositories` has no effect without `submodules = true`".to_owned());
        }
        if self.directory.is_absolute() || self.directory.components().any(|part| part.as_os_str() == "..") {
            return Err(format!("`directory = {:?}` is not inside the repository", self.directory));
        }
        self.platforms()?;
        let secret = self.secret()?;
        if secret.len() < MIN_SECRET_BYTES {
            return Err(format!(
                "`{}` holds {} bytes; expected at least {MIN_SECRET_BYTES}, such as `openssl rand -hex 32` prints",
                self.secret_file.display(),
                secret.len()
            ));
        }
        self.token()?;
        self.secrets()?;
        let normal = |addresses: &[String]| -> Vec<String> {
            addresses.iter().map(|address| repository::normal(address)).collect()
        };
        self.patterns = Patterns {
            name: name.to_owned(),
            repositories: globs("repositories", &normal(&self.repositories))?,
            submodules: globs("submodule_repositories", &normal(&self.submodule_repositories))?,
            branches: globs("branches", self.branches.as_deref().unwrap_or_default())?,
            tags: globs("tags", &self.tags)?,
        };
        Ok(())
    }

    /// Where the submodules of a repository may come from; `None` if they are not fetched.
    pub(super) fn submodules(&self, repository: &str) -> Option<Allowed> {
        let more = self.patterns.submodules.clone();
        self.submodules.then(|| Allowed { repository: repository.to_owned(), more })
    }

    /// Its name.
    pub(super) fn name(&self) -> &str {
        &self.patterns.name
    }

    fn tenant(&self, name: &str) -> String {
        self.tenant.clone().unwrap_or_else(|| name.to_owned())
    }

    /// The tenant that owns the builds; empty for the default tenant.
    pub(super) fn whose(&self) -> String {
        self.tenant(self.name())
    }

    /// The platforms to build for; empty for the project's own.
    pub(super) fn platforms(&self) -> Result<Vec<String>, String> {
        let read = |text: &String| text.parse::<Platform>().map(|platform| platform.to_string());
        self.platforms.iter().map(read).collect::<Result<_, _>>().map_err(|error| format!("`platforms`: {error}"))
    }

    /// The signing secret of deliveries; read each time, so that it can be replaced.
    pub(super) fn secret(&self) -> Result<Zeroizing<String>, String> {
        word(&self.secret_file)
    }

    /// Whether build results are reported to the forge.
    pub(super) fn reports(&self) -> bool {
        self.token_file.is_some()
    }

    /// The forge's token, if there is one.
    pub(super) fn token(&self) -> Result<Option<Zeroizing<String>>, String> {
        let token = self.token_file.as_deref().map(word).transpose()?;
        match token {
            Some(token) if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Err("`token_file` holds no token: expected one word of visible characters".to_owned())
            }
            token => Ok(token),
        }
    }

    /// Values for the steps' secrets.
    pub(super) fn secrets(&self) -> Result<Vec<kiln_proto::v1::Secret>, String> {
        let read = |(name, path): (&String, &PathBuf)| {
            if !secret::is_name(name) {
                return Err(format!("`secrets`: invalid secret name `{name}`; expected letters, digits and `_`"));
            }
            let value = word(path)?;
            match secret::problem(&value) {
                Some(problem) => Err(format!("the secret `{name}` {problem}")),
                None => Ok(kiln_proto::v1::Secret { name: name.clone(), value: value.to_string() }),
            }
        };
        self.secrets.iter().map(read).collect()
    }

    /// Whether pushes to the repository with this URL are built.
    pub(super) fn builds_repository(&self, address: &str) -> bool {
        self.patterns.repositories.is_match(repository::normal(address))
    }

    /// Whether a push to its reference is built; an error says why not.
    pub(super) fn builds_reference(&self, push: &Push) -> Result<(), String> {
        let own_default = [push.default_branch.clone()];
        let (what, name, is_built, listed) = if let Some(branch) = push.reference.strip_prefix("refs/heads/") {
            match &self.branches {
                Some(listed) => ("branch", branch, self.patterns.branches.is_match(branch), listed.as_slice()),
                None => ("branch", branch, branch == push.default_branch, own_default.as_slice()),
            }
        } else if let Some(tag) = push.reference.strip_prefix("refs/tags/") {
            ("tag", tag, self.patterns.tags.is_match(tag), self.tags.as_slice())
        } else {
            return Err(format!("`{}` is neither a branch nor a tag", push.reference));
        };
        match listed {
            _ if is_built => Ok(()),
            [] => Err(format!("{what} `{name}` is not built: none is configured")),
            listed => Err(format!("{what} `{name}` is not built; only those that match `{}` are", listed.join("`, `"))),
        }
    }
}
