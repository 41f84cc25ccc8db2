//! The file that `--notify` names: the operator's hooks, and the keys that sign what projects ask for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use kiln_auth::check_name;
use kiln_images::registry::{Pattern, Reach};
use kiln_plan::{Ending, Notify};
use serde::Deserialize;
use url::Url;

use crate::keys::Secrets;

/// Matches every tenant.
const EVERY: &str = "*";

/// Calls cannot be configured.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot use the hooks in `{}`: {reason}", .path.display())]
    File { path: PathBuf, reason: String },
    #[error("cannot set up HTTP for webhooks: {0}")]
    Tls(#[from] reqwest::Error),
}

/// The whole file. Its files are read again for each call.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is called, by name.
    #[serde(default)]
    hooks: BTreeMap<String, Hook>,
    /// Keys for projects, by name.
    #[serde(default)]
    keys: BTreeMap<String, Key>,
}

/// One `[hooks.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hook {
    /// What is called, wherever it is.
    url: Option<Url>,
    /// A file with it, if whoever knows it may post there.
    url_file: Option<PathBuf>,
    /// The file with the secret that signs the calls.
    secret_file: Option<PathBuf>,
    /// Tenants by name; `""` is the default tenant, `"*"` all.
    #[serde(default = "default_tenant")]
    tenants: Vec<String>,
    /// Globs of projects; all if absent.
    projects: Option<Vec<String>>,
    /// Globs of branches; all if absent.
    branches: Option<Vec<String>>,
    /// Which ends it is told of.
    events: Option<Vec<String>>,
    /// Also told of builds of sources with changes that are not committed.
    #[serde(default)]
    uncommitted: bool,
    /// Compiled from the above.
    #[serde(skip)]
    compiled: Compiled,
}

#[derive(Debug, Default)]
struct Compiled {
    projects: Option<GlobSet>,
    branches: Option<GlobSet>,
    events: Vec<Ending>,
}

/// One `[keys.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    /// The file with its secret.
    secret_file: PathBuf,
    /// The tenants whose projects may name it, as for hooks.
    #[serde(default = "default_tenant")]
    tenants: Vec<String>,
    /// The hosts to which it signs calls, as `--allow-registry` names them.
    hosts: Vec<String>,
    #[serde(skip)]
    reach: Vec<Pattern>,
}

/// Somebody who is told.
#[derive(Debug)]
pub(crate) struct Subscription<'a> {
    /// The hook's name; empty for a project's own.
    pub(crate) hook: &'a str,
    /// What is called, if it can be read now.
    pub(crate) url: Option<String>,
    /// The name of the key of a project's.
    pub(crate) key: Option<String>,
    pub(crate) projects: Option<GlobSet>,
    pub(crate) branches: Option<GlobSet>,
    pub(crate) events: Vec<Ending>,
    pub(crate) uncommitted: bool,
}

fn default_tenant() -> Vec<String> {
    vec![String::new()]
}

fn has(tenants: &[String], tenant: &str) -> bool {
    tenants.iter().any(|one| one == tenant || one == EVERY)
}

fn globs(what: &str, patterns: &[String]) -> Result<GlobSet, String> {
    let mut set = GlobSetBuilder::new();
    for pattern in patterns {
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        set.add(glob.map_err(|error| format!("`{what}`: invalid pattern `{pattern}`: {}", error.kind()))?);
    }
    set.build().map_err(|error| format!("`{what}`: {error}"))
}

fn check_tenants(tenants: &[String]) -> Result<(), String> {
    if tenants.is_empty() {
        return Err("`tenants` is empty; expected names, `\"\"` for the default tenant or `\"*\"` for all".to_owned());
    }
    tenants.iter().filter(|name| !name.is_empty() && *name != EVERY).try_for_each(|name| check_name("tenant", name))
}

impl Hook {
    fn check(&mut self, name: &str) -> Result<(), String> {
        check_name("hook", name)?;
        check_tenants(&self.tenants)?;
        if self.url.is_some() == self.url_file.is_some() {
            return Err("expected either `url` or `url_file`".to_owned());
        }
        self.url()?;
        self.secret_file.as_deref().map(Secrets::read).transpose()?;
        let mut events = Vec::new();
        for text in self.events.iter().flatten() {
            let wrong = || format!("`events`: unknown event `{text}`; expected {}", Ending::EXPECTED);
            events.push(Ending::read(text).ok_or_else(wrong)?);
        }
        if events.is_empty() {
            events = Ending::DEFAULT.to_vec();
        }
        let read =
            |what: &str, patterns: &Option<Vec<String>>| patterns.as_ref().map(|all| globs(what, all)).transpose();
        let (projects, branches) = (read("projects", &self.projects)?, read("branches", &self.branches)?);
        self.compiled = Compiled { projects, branches, events };
        Ok(())
    }

    fn url(&self) -> Result<Url, String> {
        let url = match (&self.url, &self.url_file) {
            (Some(url), _) => url.clone(),
            (None, Some(path)) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
                text.trim().parse().map_err(|error| format!("`{}` holds no URL: {error}", path.display()))?
            }
            (None, None) => return Err("it has no `url`".to_owned()),
        };
        if matches!(url.scheme(), "http" | "https") && url.host_str().is_some() {
            return Ok(url);
        }
        Err(format!("`url` begins with `{}:`; expected `https://…` or `http://…`", url.scheme()))
    }
}

impl Key {
    fn check(&mut self, name: &str) -> Result<(), String> {
        check_name("key", name)?;
        check_tenants(&self.tenants)?;
        Secrets::read(&self.secret_file)?;
        if self.hosts.is_empty() {
            return Err("`hosts` is empty; expected the hosts to which it signs calls, such as `ci.example`".to_owned());
        }
        let read = |text: &String| {
            text.parse().map_err(|_| format!("`hosts`: `{text}` is no host, `*.DOMAIN` or block of addresses"))
        };
        self.reach = self.hosts.iter().map(read).collect::<Result<_, _>>()?;
        Ok(())
    }
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
        for (name, hook) in &mut config.hooks {
            hook.check(name).map_err(|reason| wrong(format!("hook `{name}`: {reason}")))?;
        }
        for (name, key) in &mut config.keys {
            key.check(name).map_err(|reason| wrong(format!("key `{name}`: {reason}")))?;
        }
        Ok(config)
    }

    /// The hooks of a tenant's builds.
    pub(crate) fn of_tenant<'a>(&'a self, tenant: &str) -> impl Iterator<Item = Subscription<'a>> {
        let hooks: Vec<_> = self.hooks.iter().filter(|(_, hook)| has(&hook.tenants, tenant)).collect();
        hooks.into_iter().map(|(name, hook)| Subscription {
            hook: name,
            url: hook.url().ok().map(String::from),
            key: None,
            projects: hook.compiled.projects.clone(),
            branches: hook.compiled.branches.clone(),
            events: hook.compiled.events.clone(),
            uncommitted: hook.uncommitted,
        })
    }

    /// Where a hook is, and what signs calls to it. Files are read each time, so that they can be replaced.
    ///
    /// # Errors
    /// In words, if it is not for this tenant any more, or a file cannot be used.
    pub(crate) fn hook(&self, name: &str, tenant: &str) -> Result<(Url, Option<Secrets>), String> {
        let hook = self.hooks.get(name).filter(|hook| has(&hook.tenants, tenant));
        let hook = hook.ok_or_else(|| format!("the coordinator's configuration has no hook `{name}` any more"))?;
        Ok((hook.url()?, hook.secret_file.as_deref().map(Secrets::read).transpose()?))
    }

    /// What signs a tenant's calls to this URL with the key of this name.
    ///
    /// # Errors
    /// In words, if there is no such key for this tenant and this host.
    pub(crate) fn key(&self, name: &str, tenant: &str, url: &Url) -> Result<Secrets, String> {
        let key = self.keys.get(name).filter(|key| has(&key.tenants, tenant));
        let key = key.ok_or_else(|| format!("the coordinator's configuration has no key `{name}` for this project"))?;
        if !Reach::public(key.reach.clone()).names(url) {
            let host = url.host_str().unwrap_or_default();
            return Err(format!(
                "the key `{name}` signs no calls to `{host}`; the coordinator's configuration has its `hosts`"
            ));
        }
        Secrets::read(&key.secret_file)
    }
}

impl<'a> Subscription<'a> {
    /// That of a project.
    pub(crate) fn of_project(notify: &Notify) -> Self {
        // A pattern that is not one has been refused with the file.
        let branches = globs("branches", &notify.branches).unwrap_or_default();
        Self {
            hook: "",
            url: Some(notify.url.clone()),
            key: notify.key.clone(),
            projects: None,
            branches: (!notify.branches.is_empty()).then_some(branches),
            events: notify.events.clone(),
            uncommitted: notify.uncommitted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n";

    fn read(text: &str) -> Result<(Config, tempfile::TempDir), String> {
        let directory = tempfile::tempdir().unwrap();
        let (file, secret) = (directory.path().join("notify.toml"), directory.path().join("key"));
        std::fs::write(&secret, SECRET).unwrap();
        std::fs::write(directory.path().join("url"), "https://chat.example/T0/secret\n").unwrap();
        std::fs::write(&file, text.replace("DIR", directory.path().to_str().unwrap())).unwrap();
        let read = Config::read(&file).map_err(|error| error.to_string())?;
        Ok((read, directory))
    }

    #[test]
    fn a_key_signs_for_its_tenants_and_its_hosts_only() {
        let keys =
            "[keys.ci]\nsecret_file = \"DIR/key\"\ntenants = [\"shop\"]\nhosts = [\"ci.example\", \"*.corp.example\"]";
        let (config, _directory) = read(keys).unwrap();
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(config.key("ci", "shop", &url("https://ci.example/x")).is_ok());
        assert!(config.key("ci", "shop", &url("https://a.corp.example:8443/")).is_ok());
        for (name, tenant, to) in [
            ("ci", "shop", "https://evil.example/"),
            ("ci", "shop", "https://ci.example.evil.example/"),
            ("ci", "", "https://ci.example/"),
            ("ci", "bank", "https://ci.example/"),
            ("other", "shop", "https://ci.example/"),
        ] {
            assert!(
                config.key(name, tenant, &url(to)).is_err(),
                "expected `{name}` not to sign for `{tenant}` to `{to}`"
            );
        }
    }

    #[test]
    fn hooks_are_of_their_tenants_and_can_be_in_a_file() {
        let hooks = "[hooks.chat]\nurl_file = \"DIR/url\"\n[hooks.all]\nurl = \"http://10.0.0.1/\"\ntenants = [\"*\"]";
        let (config, _directory) = read(hooks).unwrap();
        let names = |tenant: &str| config.of_tenant(tenant).map(|one| one.hook.to_owned()).collect::<Vec<_>>();
        assert_eq!((names(""), names("shop")), (vec!["all".to_owned(), "chat".to_owned()], vec!["all".to_owned()]));
        assert_eq!(config.hook("chat", "").unwrap().0.as_str(), "https://chat.example/T0/secret");
        assert!(config.hook("chat", "shop").is_err() && config.hook("gone", "").is_err());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, word) in [
            ("[hooks.a]\n", "hook `a`: expected either `url` or `url_file`"),
            ("[hooks.a]\nurl = \"ftp://x/\"", "begins with `ftp:`"),
            ("[hooks.a]\nurl = \"https://x/\"\nevents = [\"broken\"]", "unknown event `broken`"),
            ("[hooks.a]\nurl = \"https://x/\"\nbranches = [\"[\"]", "`branches`: invalid pattern"),
            ("[hooks.a]\nurl = \"https://x/\"\ntenants = []", "`tenants` is empty"),
            ("[hooks.a]\nurl = \"https://x/\"\nsecret_file = \"DIR/url\"", "holds no secret"),
            ("[keys.a]\nsecret_file = \"DIR/key\"\nhosts = []", "key `a`: `hosts` is empty"),
            ("[keys.a]\nsecret_file = \"DIR/none\"\nhosts = [\"x\"]", "cannot read"),
            ("[hook.a]", "unknown field `hook`"),
        ] {
            let words = read(text).err().unwrap_or_else(|| panic!("expected a refusal of `{text}`"));
            assert!(words.contains(word) && words.contains("notify.toml"), "expected `{word}` in: {words}");
        }
    }
}
