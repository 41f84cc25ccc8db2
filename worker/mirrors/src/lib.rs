//! Removes the credentials from a package tool's configuration and keeps mirrors, proxies and certificates.
//!
//! Invariant: anything that looks like a credential is removed, except a proxy's, without which the network cannot be
//! reached. Whatever is kept of these is reported, so that it is masked in the output of steps. A file that cannot be
//! parsed is dropped as a whole.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::path::Path;

/// Substrings of credentials' names.
const CREDENTIALS: [&str; 17] = [
    "auth",
    "token",
    "password",
    "passwd",
    "passphrase",
    "secret",
    "username",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "email",
    "keyfile",
    "certfile",
    "extraheader",
    "helper",
    "login",
];
/// Suffixes of credentials' names.
const ENDS: [&str; 3] = ["user", "key", "ident"];
/// Bundler settings that may pass: any other name with `__` is a host with its credentials.
const BUNDLER: [&str; 4] = ["BUNDLE_MIRROR__", "BUNDLE_SSL_", "BUNDLE_TIMEOUT", "BUNDLE_RETRY"];

/// What is kept of a configuration file.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// The text to show; `None` if nothing may be shown.
    pub text: Option<String>,
    /// The secrets that were found, whether removed or kept.
    pub secrets: Vec<String>,
}

/// Cleans a configuration file.
pub fn clean_file(path: &Path, text: &str) -> Cleaned {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let is_bundlers = path.ends_with(".bundle/config");
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("xml") if name == "settings-security.xml" => Cleaned::default(),
        Some("xml") => clean_xml(text),
        Some("gradle" | "kts") => {
            let is_clean = !holds_credential_words(text);
            Cleaned { text: is_clean.then(|| text.to_owned()), secrets: Vec::new() }
        }
        _ => clean_lines(text, is_bundlers),
    }
}

/// Cleans a variable's value.
pub fn clean_variable(name: &str, value: &str) -> Cleaned {
    if is_proxys(name) {
        return Cleaned { text: Some(value.to_owned()), secrets: passwords(value) };
    }
    if is_credential(name) && !is_trust(name) {
        return Cleaned { text: None, secrets: vec![value.to_owned()] };
    }
    Cleaned { text: Some(without_user(value)), secrets: passwords(value) }
}

/// Whether a variable or setting names trusted certificates.
pub fn is_trust(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let ends =
        ["_cert_file", "_cert_dir", "_ca_bundle", "_ca_certs", "_cainfo", "_capath", "pip_cert", "cafile", "config_ca"];
    ends.iter().any(|end| name.ends_with(end))
}

fn is_proxys(name: &str) -> bool {
    name.to_ascii_lowercase().contains("proxy") && !name.eq_ignore_ascii_case("GOPROXY")
}

fn is_credential(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    CREDENTIALS.iter().any(|part| name.contains(part)) || ENDS.iter().any(|end| name.ends_with(end))
}

fn holds_credential_words(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    ["credential", "password", "token", "username", "secret", "authorization"].iter().any(|word| text.contains(word))
        || without_user(&text) != text
}

/// Cleans lines of `name = value`, `name: value` or `name value`, as used in INI, TOML, YAML, properties and npm files.
fn clean_lines(text: &str, is_bundlers: bool) -> Cleaned {
    let mut cleaned = Cleaned::default();
    let mut kept = String::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        let is_words = trimmed.is_empty() || trimmed.starts_with(['#', ';', '[']) || trimmed == "---";
        let (name, value) = split(trimmed);
        let passes = if is_words {
            true
        } else if is_proxys(name) {
            cleaned.secrets.extend(passwords(value));
            if is_credential(name) {
                cleaned.secrets.push(bare(value));
            }
            kept.push_str(line);
            kept.push('\n');
            continue;
        } else if is_bundlers {
            BUNDLER.iter().any(|known| name.starts_with(known))
        } else {
            // An inline table may hold a credential after its first name.
            !(is_credential(name) || value.contains('{') && holds_credential_words(value))
        };
        cleaned.secrets.extend(passwords(line));
        if passes {
            kept.push_str(&without_user(line));
            kept.push('\n');
        } else {
            cleaned.secrets.push(bare(value));
        }
    }
    cleaned.secrets.retain(|secret| is_secret(secret));
    cleaned.text = Some(kept);
    cleaned
}

/// Cleans Maven's settings: removes `<servers>`, and keeps the users of proxies.
fn clean_xml(text: &str) -> Cleaned {
    let (rest, servers) = without(text, "servers");
    let (others, proxies) = without(&rest, "proxies");
    let mut secrets: Vec<String> = Vec::new();
    for part in servers.iter().chain(&proxies) {
        for name in ["password", "passphrase"] {
            secrets.extend(elements(part, name));
        }
    }
    let is_clean = !["<password", "<passphrase", "<privatekey", "<username"]
        .iter()
        .any(|element| others.to_ascii_lowercase().contains(element));
    secrets.extend(passwords(&others));
    secrets.retain(|secret| is_secret(secret));
    // Proxies are unchanged here; URLs anywhere else must not contain a user.
    let text = is_clean.then(|| {
        proxies.iter().fold(without_user(&others), |text, part| {
            text.replacen("</settings>", &format!("<proxies>{part}</proxies></settings>"), 1)
        })
    });
    Cleaned { text, secrets }
}

/// Returns the text without the elements of this name, and what was in these elements.
fn without<'a>(text: &'a str, name: &str) -> (String, Vec<&'a str>) {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let (mut kept, mut taken, mut rest) = (String::new(), Vec::new(), text);
    while let Some((before, from)) = rest.split_once(&open) {
        kept.push_str(before);
        let Some((inner, after)) = from.split_once(&close) else { return (kept, taken) };
        taken.push(inner);
        rest = after;
    }
    kept.push_str(rest);
    (kept, taken)
}

fn elements(text: &str, name: &str) -> impl Iterator<Item = String> {
    without(text, name).1.into_iter().map(|inner| inner.trim().to_owned())
}

fn split(line: &str) -> (&str, &str) {
    // npm's host names, `//host/:_authToken`, contain a colon.
    let line_of_npm = line.starts_with("//").then(|| line.split_once('=')).flatten();
    let (name, value) = line_of_npm.unwrap_or_else(|| match line.find(['=', ':', ' ']) {
        Some(at) => line.split_at(at),
        None => (line, ""),
    });
    let value = value.trim_start_matches([' ', '=', ':']);
    (name.trim().trim_matches('"'), value.trim())
}

fn bare(value: &str) -> String {
    value.trim().trim_matches(['"', '\'']).to_owned()
}

/// Whether a value is specific enough to be masked without hiding ordinary text.
fn is_secret(value: &str) -> bool {
    value.len() >= 4 && !matches!(value, "true" | "false" | "null" | "none")
}

/// A text in pieces: what is kept, and the user of a URL that follows, including the `@`; empty if there is none.
fn pieces(text: &str) -> Vec<(&str, &str)> {
    let (mut found, mut rest) = (Vec::new(), text);
    while let Some((scheme, after)) = rest.find("://").map(|at| rest.split_at(at.saturating_add("://".len()))) {
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'<>(),".contains(c)).unwrap_or(after.len());
        let (authority, others) = after.split_at(end);
        let (user, host) = authority.split_at(authority.rfind('@').map_or(0, |at| at.saturating_add(1)));
        found.extend([(scheme, user), (host, "")]);
        rest = others;
    }
    found.push((rest, ""));
    found
}

fn without_user(text: &str) -> String {
    pieces(text).into_iter().map(|(kept, _)| kept).collect()
}

/// The passwords of URLs in a text, and the users of URLs that have no password.
fn passwords(text: &str) -> Vec<String> {
    let users = pieces(text).into_iter().filter_map(|(_, user)| user.strip_suffix('@'));
    let passwords = users.map(|user| user.split_once(':').map_or(user, |(_, password)| password).to_owned());
    passwords.filter(|password| is_secret(password)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean(path: &str, text: &str) -> (String, Vec<String>) {
        let cleaned = clean_file(Path::new(path), text);
        (cleaned.text.unwrap_or_default(), cleaned.secrets)
    }

    #[test]
    fn mirrors_pass_and_credentials_do_not() {
        for (path, text, kept) in [
            (
                ".npmrc",
                "registry=https://npm.example/\n//npm.example/:_authToken=hunter22\n_password=hunter22\nemail=a@b\n",
                "registry=https://npm.example/\n",
            ),
            (
                "pip.conf",
                "[global]\nindex-url = https://ann:hunter22@pypi.example/simple\n",
                "[global]\nindex-url = https://pypi.example/simple\n",
            ),
            (
                ".yarnrc.yml",
                "npmRegistryServer: \"https://npm.example\"\nnpmAuthToken: \"hunter22\"\n",
                "npmRegistryServer: \"https://npm.example\"\n",
            ),
            (
                "/h/.bundle/config",
                "---\nBUNDLE_MIRROR__ALL: \"https://gems.example\"\nBUNDLE_GEMS__CORP: \"ann:hunter22\"\n",
                "---\nBUNDLE_MIRROR__ALL: \"https://gems.example\"\n",
            ),
            (
                "config.toml",
                "[source.m]\nregistry = \"sparse+https://crates.example/\"\n[registries.corp]\ntoken = \"hunter22\"\n",
                "[source.m]\nregistry = \"sparse+https://crates.example/\"\n[registries.corp]\n",
            ),
            (
                "config.toml",
                "[registries]\ncorp = { index = \"https://crates.example/\", token = \"hunter22\" }\n",
                "[registries]\n",
            ),
            (
                "gradle.properties",
                "org.gradle.daemon=false\ncorpUser=ann\ncorpPassword=hunter22\n",
                "org.gradle.daemon=false\n",
            ),
            (
                "settings.xml",
                "<settings><mirrors><mirror><url>https://maven.example</url></mirror></mirrors><servers><server><password>hunter22</password></server></servers></settings>",
                "<settings><mirrors><mirror><url>https://maven.example</url></mirror></mirrors></settings>",
            ),
            ("settings.xml", "<settings><profiles><password>hunter22</password></profiles></settings>", ""),
            ("settings-security.xml", "<settingsSecurity><master>hunter22</master></settingsSecurity>", ""),
            ("init.gradle", "repositories { maven { credentials { password 'hunter22' } } }", ""),
            (
                "init.gradle",
                "repositories { maven { url 'https://maven.example' } }",
                "repositories { maven { url 'https://maven.example' } }",
            ),
        ] {
            let (passed, secrets) = clean(path, text);
            assert_eq!(passed, kept, "{path}: {text}");
            assert!(!passed.contains("hunter22"), "{passed}");
            let is_named = secrets.iter().any(|secret| secret.contains("hunter22"));
            assert!(is_named || !text.contains("hunter22") || passed.is_empty(), "{path}: {secrets:?}");
        }
    }

    #[test]
    fn a_proxy_keeps_its_password_and_it_is_named() {
        let proxy = "http://ann:hunter22@proxy.example:3128";
        assert_eq!(
            clean_variable("HTTPS_PROXY", proxy),
            Cleaned { text: Some(proxy.to_owned()), secrets: vec!["hunter22".to_owned()] }
        );
        let (passed, secrets) = clean(".npmrc", &format!("https-proxy={proxy}\n"));
        assert_eq!((passed, secrets), (format!("https-proxy={proxy}\n"), vec!["hunter22".to_owned()]));
        let xml = "<settings><proxies><proxy><password>hunter22</password></proxy></proxies></settings>";
        assert_eq!(clean("settings.xml", xml), (xml.to_owned(), vec!["hunter22".to_owned()]));
    }

    #[test]
    fn variables_pass_without_credentials() {
        for name in ["CARGO_REGISTRIES_CORP_TOKEN", "UV_INDEX_CORP_PASSWORD", "NPM_CONFIG__AUTH", "YARN_NPM_AUTH_TOKEN"]
        {
            assert_eq!(clean_variable(name, "hunter22").text, None, "{name}");
        }
        let index = clean_variable("PIP_INDEX_URL", "https://ann:hunter22@pypi.example/simple");
        assert_eq!(index.text.as_deref(), Some("https://pypi.example/simple"));
        let go = clean_variable("GOPROXY", "https://ann:hunter22@go.example,direct");
        assert_eq!(go.text.as_deref(), Some("https://go.example,direct"));
        for (name, value) in
            [("PIP_CERT", "/etc/ssl/ca.pem"), ("NODE_EXTRA_CA_CERTS", "/ca.pem"), ("SSL_CERT_DIR", "/etc/ssl/certs")]
        {
            assert_eq!(clean_variable(name, value).text.as_deref(), Some(value));
        }
    }
}
