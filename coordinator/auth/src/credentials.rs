//! The file given with `--credentials`: the credentials with which tenants' steps fetch.
//!
//! Invariant: a tenant only gets entries that name it. Values are read from their files when they are needed, so that
//! they can be replaced. They are sent to a worker with the lease that needs them, and are in no key, record or log.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use kiln_images::name::ImageName;
use kiln_images::registry;
use kiln_proto::v1::Credential;
use kiln_proto::v1::credential::Use;
use kiln_proto::{property, reapi, secret};
use serde::Deserialize;
use zeroize::Zeroizing;

use kiln_state::Current;

use crate::check_name;

/// Matches every tenant.
const EVERY: &str = "*";

/// Why a credentials file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the credentials in `{}`: {reason}", .path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with the file.
    pub reason: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    credentials: BTreeMap<String, Entry>,
}

/// One `[credentials.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    /// Tenants by name; `""` is the default tenant, `"*"` all.
    tenants: Vec<String>,
    /// Secret names, and the files with their values.
    #[serde(default)]
    secrets: BTreeMap<String, PathBuf>,
    /// Variables, which may contain `${NAME}` for a secret.
    #[serde(default)]
    variables: BTreeMap<String, String>,
    /// Files below a step's home directory, which may contain `${NAME}` for a secret.
    #[serde(default)]
    files: BTreeMap<String, String>,
    /// A Docker `config.json` for image registries.
    docker_config: Option<PathBuf>,
}

/// The credentials of one tenant. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    file: Current<File>,
    /// Whether images are also fetched with the credentials of the coordinator's user.
    own: bool,
    tenant: String,
}

impl Credentials {
    /// Reads and checks the file, if there is one, for the default tenant.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: Option<&Path>, own: bool) -> Result<Self, Error> {
        let Some(path) = path else { return Ok(Self { own, ..Self::default() }) };
        let wrong = |reason: String| Error { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        for (name, entry) in &file.credentials {
            entry.check().map_err(|reason| wrong(format!("`credentials.{name}`: {reason}")))?;
        }
        Ok(Self { file: Current::new(file), own, tenant: String::new() })
    }

    /// The same file for another tenant.
    #[must_use]
    pub fn of_tenant(&self, tenant: &str) -> Self {
        Self { tenant: tenant.to_owned(), ..self.clone() }
    }

    /// Takes over another file, for all tenants. Whether the user's own credentials are used stays as it is.
    pub fn replace(&self, by: &Self) {
        self.file.set((*by.file.get()).clone());
    }

    fn entries<'a>(&self, file: &'a File) -> impl Iterator<Item = (&'a String, &'a Entry)> {
        let is_theirs = |entry: &Entry| entry.tenants.iter().any(|tenant| tenant == EVERY || *tenant == self.tenant);
        file.credentials.iter().filter(move |(_, entry)| is_theirs(entry))
    }

    /// Credentials for image registries.
    ///
    /// # Errors
    /// If a file cannot be read.
    pub fn of_images(&self) -> Result<registry::Credentials, registry::Error> {
        let own = if self.own { registry::Credentials::of_user()? } else { registry::Credentials::none() };
        let file = self.file.get();
        let given = self.entries(&file).filter_map(|(_, entry)| entry.docker_config.as_deref());
        let given = given.map(registry::Credentials::read).collect::<Result<Vec<_>, _>>()?;
        Ok(given.into_iter().chain([own]).fold(registry::Credentials::none(), registry::Credentials::and))
    }

    /// Credentials for an action: for fetching if it may access the network, and for its image's registry.
    ///
    /// # Errors
    /// If a file cannot be read or a helper fails.
    pub async fn of_action(
        &self,
        action: &reapi::Action,
        command: &reapi::Command,
        network: bool,
    ) -> Result<Vec<Credential>, String> {
        let mut given = Vec::new();
        let file = self.file.get();
        if network {
            for (name, entry) in self.entries(&file) {
                given.extend(entry.of_steps().map_err(|reason| format!("the farm's credentials `{name}`: {reason}"))?);
            }
        }
        // The worker looks up its user's own credentials itself.
        let theirs = Self { own: false, ..self.clone() };
        if let Some(registry) = image(action, command).as_ref().and_then(ImageName::registry)
            && theirs.entries(&file).any(|(_, entry)| entry.docker_config.is_some())
        {
            let known = theirs.of_images().map_err(|error| error.to_string())?;
            if let Some(login) = known.login(registry).await.map_err(|error| error.to_string())? {
                let how = if login.is_token { Use::RegistryToken } else { Use::RegistryPassword };
                given.push(credential(how, registry, format!("{}:{}", login.user, login.secret)));
            }
        }
        Ok(given)
    }
}

/// The image that an action runs in or resolves.
fn image(action: &reapi::Action, command: &reapi::Command) -> Option<ImageName> {
    let properties = || action.platform.iter().flat_map(|platform| &platform.properties);
    let value = |wanted: &str| properties().find(|property| property.name == wanted).map(|property| &property.value);
    if value(property::EXECUTOR).is_some_and(|executor| executor == property::IMAGE_RESOLVER) {
        return command.arguments.first()?.parse().ok();
    }
    value(property::CONTAINER_IMAGE)?.parse().ok()
}

fn credential(how: Use, name: &str, value: String) -> Credential {
    Credential { r#use: how as i32, name: name.to_owned(), value }
}

impl Entry {
    fn check(&self) -> Result<(), String> {
        if self.tenants.is_empty() {
            return Err("`tenants` is empty; expected for example `[\"shop\"]`, or `[\"*\"]` for all".to_owned());
        }
        for tenant in self.tenants.iter().filter(|tenant| !tenant.is_empty() && *tenant != EVERY) {
            check_name("tenant", tenant)?;
        }
        if let Some(name) = self.secrets.keys().chain(self.variables.keys()).find(|name| !secret::is_name(name)) {
            return Err(format!("invalid variable name `{name}`; expected letters, digits and `_`"));
        }
        let is_below = |path: &&String| {
            let mut parts = Path::new(path).components().peekable();
            parts.peek().is_some() && parts.all(|part| matches!(part, std::path::Component::Normal(_)))
        };
        if let Some(path) = self.files.keys().find(|path| !is_below(path)) {
            return Err(format!(
                "`files`: invalid path `{path}`; expected one below a home directory, such as `.npmrc`"
            ));
        }
        self.of_steps()?;
        if let Some(path) = &self.docker_config {
            registry::Credentials::read(path).map_err(|error| error.to_string())?;
            std::fs::metadata(path).map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
        }
        Ok(())
    }

    fn of_steps(&self) -> Result<Vec<Credential>, String> {
        let mut values: BTreeMap<&str, Zeroizing<String>> = BTreeMap::new();
        for (name, path) in &self.secrets {
            let read = std::fs::read_to_string(path).map(Zeroizing::new);
            let mut value = read.map_err(|error| format!("cannot read `{}`: {error}", path.display()))?;
            let kept = value.trim_end_matches(['\n', '\r']).len();
            value.truncate(kept);
            if let Some(problem) = secret::problem(&value) {
                return Err(format!("the secret `{name}` {problem}"));
            }
            values.insert(name, value);
        }
        let mut given: Vec<Credential> =
            values.iter().map(|(name, value)| credential(Use::Variable, name, value.to_string())).collect();
        for (how, texts) in [(Use::Variable, &self.variables), (Use::File, &self.files)] {
            for (name, text) in texts {
                given.push(credential(
                    how,
                    name,
                    filled(text, &values).map_err(|reason| format!("`{name}`: {reason}"))?,
                ));
            }
        }
        Ok(given)
    }
}

/// The text with each `${NAME}` replaced by the value of that secret.
fn filled(text: &str, values: &BTreeMap<&str, Zeroizing<String>>) -> Result<String, String> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, from)) = rest.split_once("${") {
        let (name, after) = from.split_once('}').ok_or("`${` without a matching `}`")?;
        let value = values.get(name).ok_or_else(|| format!("`${{{name}}}` is not one of its `secrets`"))?;
        filled.push_str(before);
        filled.push_str(value);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(text: &str) -> (tempfile::TempDir, Result<Credentials, Error>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("token"), "hunter22\n").unwrap();
        let path = dir.path().join("credentials.toml");
        std::fs::write(&path, text.replace("DIR", dir.path().to_str().unwrap())).unwrap();
        let opened = Credentials::open(Some(&path), false);
        (dir, opened)
    }

    const NPM: &str = "[credentials.npm]\ntenants = [\"shop\"]\nsecrets = { NPM_TOKEN = \"DIR/token\" }\n\
                       files = { \".npmrc\" = \"//npm.example/:_authToken=${NPM_TOKEN}\\n\" }\n";

    async fn given(credentials: &Credentials, network: bool) -> Vec<(String, String)> {
        let (action, command) = (reapi::Action::default(), reapi::Command::default());
        let given = credentials.of_action(&action, &command, network).await.unwrap();
        given.iter().map(|one| (one.name.clone(), one.value.clone())).collect()
    }

    #[tokio::test]
    async fn a_tenant_is_given_its_own_to_fetch_with_and_no_other_is() {
        let (_dir, credentials) = open(NPM);
        let shop = credentials.unwrap().of_tenant("shop");
        let of = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let expected = [of("NPM_TOKEN", "hunter22"), of(".npmrc", "//npm.example/:_authToken=hunter22\n")];
        assert_eq!(given(&shop, true).await, expected);
        assert!(given(&shop, false).await.is_empty(), "a step without the network fetches nothing");
        for other in ["", "bank"] {
            assert!(given(&shop.of_tenant(other), true).await.is_empty(), "tenant `{other}`");
        }
        let shown = format!("{:?}", shop.of_action(&Default::default(), &Default::default(), true).await);
        assert!(!shown.contains("hunter22"), "{shown}");
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_in_words() {
        for (text, word) in [
            (NPM.replace("[\"shop\"]", "[]"), "`tenants` is empty"),
            (NPM.replace("DIR/token", "DIR/none"), "cannot read"),
            (NPM.replace("${NPM_TOKEN}", "${OTHER}"), "`${OTHER}` is not one of its `secrets`"),
            (NPM.replace(".npmrc", "../x"), "expected one below a home directory"),
            (NPM.replace("NPM_TOKEN =", "\"a-b\" ="), "invalid variable name"),
            (NPM.replace("files", "file"), "file"),
        ] {
            let (_dir, opened) = open(&text);
            let error = opened.expect_err(word).to_string();
            assert!(error.contains(word) && !error.contains("hunter22"), "expected `{word}` in: {error}");
        }
    }
}
