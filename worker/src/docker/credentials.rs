//! The worker's credentials for registries, where `docker login` leaves them: `config.json`, and helpers that it names.
//!
//! Sources: the documentation of `docker login`; the protocol of docker-credential-helpers.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bollard::auth::DockerCredentials;
use serde::Deserialize;

/// What Docker Hub is called in credential files.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";
/// The user name by which a helper says that the secret is a token.
const TOKEN: &str = "<token>";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    username: String,
    secret: String,
}

/// Where `docker login` of this user writes.
pub(super) fn default_file() -> PathBuf {
    let directory = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".docker");
    directory.unwrap_or_else(home).join("config.json")
}

/// What the file has for a registry; `None` where it has nothing. It is read anew each time, for tokens expire.
///
/// # Errors
/// In words, where the file or a helper fails.
pub(super) fn of(file: &Path, registry: &str) -> Result<Option<DockerCredentials>, String> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("cannot read the credentials in `{}`: {error}", file.display())),
    };
    let config: File = serde_json::from_slice(&text)
        .map_err(|error| format!("cannot read the credentials in `{}`: {error}", file.display()))?;
    let key = if registry == "docker.io" { DOCKER_HUB } else { registry };
    let helper = config.cred_helpers.get(key).or(config.creds_store.as_ref());
    if let Some(helper) = helper
        && let Some(secret) = ask(helper, key)?
    {
        return Ok(Some(from_secret(secret, key)));
    }
    let host =
        |name: &str| name.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let found = config.auths.iter().find(|(name, _)| name.as_str() == key || host(name) == host(key));
    Ok(found.and_then(|(_, entry)| from_entry(entry, key)))
}

fn from_secret(secret: Secret, registry: &str) -> DockerCredentials {
    let serveraddress = Some(registry.to_owned());
    if secret.username == TOKEN {
        return DockerCredentials { identitytoken: Some(secret.secret), serveraddress, ..Default::default() };
    }
    let (username, password) = (Some(secret.username), Some(secret.secret));
    DockerCredentials { username, password, serveraddress, ..Default::default() }
}

fn from_entry(entry: &Entry, registry: &str) -> Option<DockerCredentials> {
    let serveraddress = Some(registry.to_owned());
    if let Some(token) = entry.identitytoken.clone().filter(|token| !token.is_empty()) {
        return Some(DockerCredentials { identitytoken: Some(token), serveraddress, ..Default::default() });
    }
    let decoded = entry.auth.as_deref().and_then(decode);
    let (username, password) = match (decoded.as_deref().and_then(|text| text.split_once(':')), entry) {
        (Some((name, password)), _) => (name.to_owned(), password.trim_end_matches('\0').to_owned()),
        (None, Entry { username: Some(name), password: Some(password), .. }) => (name.clone(), password.clone()),
        _ => return None,
    };
    Some(DockerCredentials { username: Some(username), password: Some(password), serveraddress, ..Default::default() })
}

/// Base64 of RFC 4648, with or without its padding.
fn decode(text: &str) -> Option<String> {
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for c in text.trim().trim_end_matches('=').bytes() {
        let value = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    String::from_utf8(bytes).ok()
}

/// Asks a helper; `None` where it knows nothing of the registry.
fn ask(helper: &str, registry: &str) -> Result<Option<Secret>, String> {
    if helper.is_empty() || helper.contains('/') {
        return Err(format!(
            "`{helper}` names no credential helper; expected such as `pass` for `docker-credential-pass`"
        ));
    }
    let program = format!("docker-credential-{helper}");
    let failed =
        |reason: String| format!("the credential helper `{program}` failed: {reason}; is it installed on the worker?");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(registry.as_bytes());
    }
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return serde_json::from_str(&said).map(Some).map_err(|error| failed(error.to_string()));
    }
    if said.contains("credentials not found") {
        return Ok(None);
    }
    Err(failed(format!("{} {}", said.trim(), String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gives_each_registry_its_own_and_docker_hub_under_its_old_name() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOnNlY3JldA=="},
            "localhost:5000":{"auth":"ZnJlZDphOmI="},"token.example":{"identitytoken":"t"},"empty.example":{}}}"#;
        std::fs::write(&file, text).unwrap();
        let of = |registry: &str| {
            of(&file, registry).unwrap().map(|found| (found.username, found.password, found.identitytoken))
        };
        let pair = |name: &str, password: &str| Some((Some(name.to_owned()), Some(password.to_owned()), None));
        assert_eq!(of("docker.io"), pair("hub", "secret"));
        assert_eq!(of("localhost:5000"), pair("fred", "a:b"));
        assert_eq!(of("token.example"), Some((None, None, Some("t".to_owned()))));
        assert_eq!((of("empty.example"), of("unknown.example")), (None, None));
    }

    #[test]
    fn a_file_or_a_helper_that_fails_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        assert_eq!(of(&file, "docker.io"), Ok(None), "expected no file to be no error");
        std::fs::write(&file, "{").unwrap();
        assert!(of(&file, "docker.io").unwrap_err().contains("config.json"));
        std::fs::write(&file, r#"{"credsStore":"absent-for-kiln"}"#).unwrap();
        assert!(of(&file, "docker.io").unwrap_err().contains("docker-credential-absent-for-kiln"));
    }
}
