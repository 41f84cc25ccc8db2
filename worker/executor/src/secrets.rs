//! A job's secrets: variables, files in its home directory, and logins for its image's registry.
//!
//! Invariant: the values are neither shown by `Debug` nor left in memory after use.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Component, Path};

use kiln_proto::v1;
use kiln_proto::v1::credential::Use;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

type Values = BTreeMap<String, Zeroizing<String>>;

/// A job's secrets, by name.
#[derive(Clone, Default, Serialize, Deserialize)]
pub struct Secrets {
    variables: Values,
    /// Files, by their path below the home directory.
    files: Values,
    /// Logins, by registry.
    #[serde(skip)]
    logins: BTreeMap<String, Login>,
}

/// Credentials for a registry.
#[derive(Clone)]
pub struct Login {
    pub user: String,
    pub secret: Zeroizing<String>,
    pub is_token: bool,
}

impl Secrets {
    /// The secrets of a lease. A step's own secrets take precedence over the farm's credentials of the same name.
    pub fn of(secrets: &[v1::Secret], credentials: &[v1::Credential]) -> Self {
        let mut all = Self::default();
        for one in credentials {
            let value = || Zeroizing::new(one.value.clone());
            match one.r#use() {
                Use::Variable => drop(all.variables.insert(one.name.clone(), value())),
                Use::File if is_below(&one.name) => drop(all.files.insert(one.name.clone(), value())),
                Use::File => {}
                Use::RegistryPassword | Use::RegistryToken => {
                    let (user, secret) = one.value.split_once(':').unwrap_or(("", &one.value));
                    let is_token = one.r#use() == Use::RegistryToken;
                    let secret = Zeroizing::new(secret.to_owned());
                    all.logins.insert(one.name.clone(), Login { user: user.to_owned(), secret, is_token });
                }
            }
        }
        all.variables.extend(secrets.iter().map(|one| (one.name.clone(), Zeroizing::new(one.value.clone()))));
        all
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.variables.is_empty() && self.files.is_empty() && self.logins.is_empty()
    }

    /// Names and values of the variables.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &str)> {
        shown(&self.variables)
    }

    /// Paths below the home directory, and contents, of the files.
    pub fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        shown(&self.files)
    }

    /// Writes the files below a home directory, readable only by their owner.
    pub fn write_files(&self, home: &Path) -> std::io::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        for (path, content) in self.files() {
            let to = home.join(path);
            if let Some(parent) = to.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut options = std::fs::OpenOptions::new();
            options.create(true).write(true).truncate(true).mode(0o600).open(&to)?.write_all(content.as_bytes())?;
        }
        Ok(())
    }

    /// The credentials for a registry, if there are any.
    pub fn login(&self, registry: &str) -> Option<&Login> {
        self.logins.get(registry)
    }
}

fn shown(values: &Values) -> impl Iterator<Item = (&str, &str)> {
    values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
}

fn is_below(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).entries(self.files.keys()).entries(self.logins.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_has_its_use_and_is_not_shown() {
        let given = |how: Use, name: &str, value: &str| v1::Credential {
            r#use: how as i32,
            name: name.to_owned(),
            value: value.to_owned(),
        };
        let credentials = [
            given(Use::Variable, "TOKEN", "of-the-farm"),
            given(Use::File, ".npmrc", "in-a-file"),
            given(Use::File, "../../etc/passwd", "outside"),
            given(Use::RegistryPassword, "registry.example", "ann:pass:word"),
        ];
        let own = [v1::Secret { name: "TOKEN".into(), value: "of-the-step".into() }];
        let secrets = Secrets::of(&own, &credentials);
        assert_eq!(secrets.variables().collect::<Vec<_>>(), [("TOKEN", "of-the-step")]);
        assert_eq!(secrets.files().collect::<Vec<_>>(), [(".npmrc", "in-a-file")], "nothing outside of the home");
        let login = secrets.login("registry.example").unwrap();
        assert_eq!((login.user.as_str(), login.secret.as_str(), login.is_token), ("ann", "pass:word", false));
        let shown = format!("{secrets:?}");
        assert!(shown.contains(".npmrc") && !shown.contains("in-a-file") && !shown.contains("word"), "{shown}");
    }
}
