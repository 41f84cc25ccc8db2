//! Credentials for registries: Docker's configuration file and the credential helpers that it names.
//!
//! Sources: docker/cli `config.json`; docker-credential-helpers' protocol.
//! Invariant: nothing is written, and no error or log contains a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::Error;
use crate::reference::DOCKER_HUB;

/// Docker Hub's key in these files.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Time limit for a helper, which may ask its user.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// The user name in a helper's answer if the secret is a token to be exchanged.
const TOKEN_USER: &str = "<token>";

/// A user's credentials for one registry.
#[derive(Clone, PartialEq, Eq)]
pub struct Login {
    /// The user's name.
    pub user: String,
    /// Password, or token where `is_token`.
    pub secret: String,
    /// Whether the secret is an identity token, which is exchanged rather than sent as a password.
    pub is_token: bool,
    /// Where the credentials came from, for errors.
    pub from: String,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login").field("user", &self.user).field("from", &self.from).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct File {
    auths: BTreeMap<String, Auth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: String,
    username: String,
    password: String,
    identitytoken: String,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Auth")
    }
}

/// The credentials in Docker's configuration: of one file, or of several, of which the first with an entry for a
/// registry applies.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    files: Vec<Known>,
}

#[derive(Debug, Clone)]
struct Known {
    file: File,
    path: PathBuf,
}

impl Credentials {
    /// No credentials.
    pub fn none() -> Self {
        Self::default()
    }

    /// The user's credentials: `config.json` in `$DOCKER_CONFIG` or else in `~/.docker`; empty if there is no such
    /// file.
    ///
    /// # Errors
    /// If the file exists but cannot be read.
    pub fn of_user() -> Result<Self, Error> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let directory = variable("DOCKER_CONFIG").or_else(|| variable("HOME").map(|home| home.join(".docker")));
        match directory {
            Some(directory) => Self::read(&directory.join("config.json")),
            None => Ok(Self::none()),
        }
    }

    /// The credentials in one file.
    ///
    /// # Errors
    /// If the file exists but cannot be read.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error::CredentialFile { path: path.display().to_string(), reason };
        match std::fs::read(path) {
            Ok(data) => {
                let file = serde_json::from_slice(&data).map_err(|error| wrong(error.to_string()))?;
                Ok(Self { files: vec![Known { file, path: path.to_owned() }] })
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::none()),
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// These credentials, then `others`.
    #[must_use]
    pub fn and(mut self, others: Self) -> Self {
        self.files.extend(others.files);
        self
    }

    /// The credentials for `registry`, if there are any.
    ///
    /// # Errors
    /// If a helper fails, or a file is malformed.
    pub async fn login(&self, registry: &str) -> Result<Option<Login>, Error> {
        for known in &self.files {
            if let Some(login) = known.login(registry).await? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

impl Known {
    async fn login(&self, registry: &str) -> Result<Option<Login>, Error> {
        let names = names(registry);
        let named = names.iter().find_map(|name| self.file.cred_helpers.get(name));
        if let Some(helper) = named.or(self.file.creds_store.as_ref())
            && let Some(login) = ask(helper, registry, names.first().map_or(registry, String::as_str)).await?
        {
            return Ok(Some(login));
        }
        match names.iter().find_map(|name| self.file.auths.get(name)) {
            Some(auth) => self.of_auth(registry, auth),
            None => Ok(None),
        }
    }

    fn of_auth(&self, registry: &str, auth: &Auth) -> Result<Option<Login>, Error> {
        let from = format!("`{}`", self.path.display());
        let malformed = || Error::CredentialFile {
            path: self.path.display().to_string(),
            reason: format!("its `auth` for `{registry}` is not the base64 of `USER:PASSWORD`"),
        };
        let (user, password) = if auth.auth.is_empty() {
            (auth.username.clone(), auth.password.clone())
        } else {
            let decoded = STANDARD.decode(auth.auth.trim()).map_err(|_| malformed())?;
            let text = String::from_utf8(decoded).map_err(|_| malformed())?;
            let (user, password) = text.split_once(':').ok_or_else(malformed)?;
            (user.to_owned(), password.trim_end_matches('\0').to_owned())
        };
        if !auth.identitytoken.is_empty() {
            return Ok(Some(Login { user, secret: auth.identitytoken.clone(), is_token: true, from }));
        }
        // `docker login` with a credential store leaves an empty entry.
        Ok((!user.is_empty()).then_some(Login { user, secret: password, is_token: false, from }))
    }
}

/// Docker's key for a registry in its configuration.
pub fn server_name(registry: &str) -> String {
    names(registry).swap_remove(0)
}

/// Possible keys for a registry in these files, the usual one first.
fn names(registry: &str) -> Vec<String> {
    if registry == DOCKER_HUB {
        return [HUB_KEY, "index.docker.io", "docker.io", "registry-1.docker.io"].map(str::to_owned).to_vec();
    }
    let forms = ["{}", "https://{}", "http://{}", "https://{}/", "https://{}/v1/", "https://{}/v2/", "http://{}/v1/"];
    forms.iter().map(|form| form.replace("{}", registry)).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: String,
}

/// Calls `docker-credential-HELPER get`; `None` if it has no entry for the registry.
async fn ask(helper: &str, registry: &str, server: &str) -> Result<Option<Login>, Error> {
    let program = format!("docker-credential-{helper}");
    let failed = |reason: String| Error::Helper { helper: program.clone(), registry: registry.to_owned(), reason };
    if helper.contains('/') {
        return Err(failed("its name is a path; expected a name such as `pass`".to_owned()));
    }
    let mut child = tokio::process::Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("cannot start it: {error}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that exits without reading explains the reason by its exit code.
        let _ = stdin.write_all(format!("{server}\n").as_bytes()).await;
    }
    let ended = tokio::time::timeout(HELPER_TIMEOUT, child.wait_with_output()).await;
    let output = ended
        .map_err(|_| failed(format!("no response within {} s", HELPER_TIMEOUT.as_secs())))?
        .map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
        let said = String::from_utf8_lossy(&said).trim().chars().take(300).collect::<String>();
        if said.to_lowercase().contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(if said.is_empty() { output.status.to_string() } else { said }));
    }
    let answer: Answer =
        serde_json::from_slice(&output.stdout).map_err(|_| failed("it returned an invalid credential".to_owned()))?;
    let is_token = answer.username == TOKEN_USER;
    Ok(Some(Login { user: answer.username, secret: answer.secret, is_token, from: format!("`{program}`") }))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn login(config: &str, registry: &str) -> Result<Option<Login>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.json");
        std::fs::write(&path, config).unwrap();
        Credentials::read(&path)?.login(registry).await
    }

    #[tokio::test]
    async fn logins_are_found_under_every_name_that_docker_gives_a_registry() {
        let auth = STANDARD.encode("ann:se:cret");
        for key in ["reg.example:5000", "https://reg.example:5000", "https://reg.example:5000/v1/"] {
            let config = format!(r#"{{"auths":{{"{key}":{{"auth":"{auth}"}}}},"other":1}}"#);
            let found = login(&config, "reg.example:5000").await.unwrap().unwrap();
            assert_eq!((found.user.as_str(), found.secret.as_str()), ("ann", "se:cret"));
            assert!(!format!("{found:?}").contains("se:cret"), "a secret is not shown");
            assert!(login(&config, "reg.example").await.unwrap().is_none());
        }
        let hub = format!(r#"{{"auths":{{"{HUB_KEY}":{{"auth":"{auth}","identitytoken":"tok"}}}}}}"#);
        let found = login(&hub, "docker.io").await.unwrap().unwrap();
        assert!(found.is_token && found.secret == "tok");
        assert!(login(r#"{"auths":{"r.example":{}}}"#, "r.example").await.unwrap().is_none());
    }

    #[tokio::test]
    async fn a_file_or_a_helper_that_is_none_is_named() {
        let error = login("{", "r.example").await.unwrap_err().to_string();
        assert!(error.contains("config.json"), "{error}");
        let error = login(r#"{"auths":{"r.example":{"auth":"%%"}}}"#, "r.example").await.unwrap_err().to_string();
        assert!(error.contains("is not the base64 of `USER:PASSWORD`"), "{error}");
        let error = login(r#"{"credsStore":"no-such-helper"}"#, "r.example").await.unwrap_err().to_string();
        assert!(error.contains("`docker-credential-no-such-helper`") && error.contains("cannot start it"), "{error}");
    }
}
