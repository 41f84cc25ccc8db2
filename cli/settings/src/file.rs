//! `config.toml`.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use kiln_options::Document;
use serde::{Deserialize, Serialize};

/// The variable that names the file.
pub(crate) const VARIABLE: &str = "KILN_CONFIG";
const KEYS: [&str; 3] = ["farm", "farms", "flags"];
const FARM_KEYS: [&str; 7] = ["url", "ca", "cert", "key", "token-file", "token-command", "flags"];

/// Why the configuration cannot be used. All of it is the user's to fix.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("`{}`: {reason}", .path.display())]
    Invalid { path: PathBuf, reason: String },
    #[error(transparent)]
    Content(#[from] kiln_options::Error),
    #[error("cannot {doing} `{}`", .path.display())]
    File {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("no farm is named `{name}`{known}; `kiln login URL --name {name}` adds one")]
    Unknown { name: String, known: String },
    #[error("the token command `{command}` of farm `{farm}` failed: {reason}")]
    Command { farm: String, command: String, reason: String },
    #[error("there is no place for the configuration: set `{VARIABLE}` to the path of a file")]
    Nowhere,
    #[error("{0}")]
    Login(String),
    /// clap's own words, with what it adds for a terminal.
    #[error("{0}")]
    Line(clap::Error),
}

/// Flags by command, such as `build` or `cache list`.
pub type Flags = BTreeMap<String, Vec<String>>;

/// A farm.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Farm {
    /// Its address.
    pub url: String,
    /// Its certificate authority, in PEM. Paths are absolute, or relative to the configuration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// A client certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cert: Option<PathBuf>,
    /// Its key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<PathBuf>,
    /// A file with a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
    /// A program that prints a token, with its arguments. It is run by each command.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub token_command: Vec<String>,
    /// Flags that commands get on this farm.
    #[serde(default, skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
}

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// The name of the farm that is used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub farm: Option<String>,
    /// Flags that commands get on every farm, and without one.
    #[serde(default, skip_serializing_if = "Flags::is_empty")]
    pub flags: Flags,
    /// All farms, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub farms: BTreeMap<String, Farm>,
}

impl File {
    /// Where it is: what `KILN_CONFIG` says, else `kiln/config.toml` in the user's directory for configuration.
    pub fn path() -> Option<PathBuf> {
        let named = std::env::var_os(VARIABLE).filter(|path| !path.is_empty()).map(PathBuf::from);
        named.or_else(|| Some(kiln_system::config()?.join("kiln").join("config.toml")))
    }

    /// Reads a file; one that there is not is empty.
    ///
    /// # Errors
    /// If it cannot be read, or has what it should not have.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = match std::fs::read_to_string(path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => return Err(Error::File { doing: "read", path: path.to_owned(), source }),
        };
        Ok(parse(path, text)?)
    }

    /// Replaces a file. Comments in it are lost.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        let failed = |source| Error::File { doing: "write", path: path.to_owned(), source };
        let text = toml::to_string_pretty(self).map_err(|error| failed(std::io::Error::other(error)))?;
        replace(path, text.as_bytes()).map_err(failed)
    }

    /// A farm by its name.
    ///
    /// # Errors
    /// If there is none.
    pub fn farm(&self, name: &str) -> Result<&Farm, Error> {
        self.farms.get(name).ok_or_else(|| {
            let known: Vec<String> = self.farms.keys().map(|known| format!("`{known}`")).collect();
            let known = if known.is_empty() { String::new() } else { format!(", only {}", known.join(", ")) };
            Error::Unknown { name: name.to_owned(), known }
        })
    }
}

/// Replaces a file atomically by one that only the user can read.
pub(crate) fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    kiln_system::create_private_directory(directory)?;
    let mut new = tempfile::NamedTempFile::new_in(directory)?;
    new.write_all(content)?;
    new.as_file().sync_all()?;
    new.persist(path).map(drop).map_err(|error| error.error)
}

fn parse(path: &Path, text: String) -> Result<File, kiln_options::Error> {
    let parsed = toml::from_str(&text);
    let document = Document::new(path, text);
    let table = document.table()?;
    document.known_keys(&table, &KEYS, "")?;
    for (name, farm) in table.get("farms").and_then(|farms| farms.get_ref().as_table()).into_iter().flatten() {
        if let Some(farm) = farm.get_ref().as_table() {
            document.known_keys(farm, &FARM_KEYS, &format!("farms.{}.", name.get_ref()))?;
        }
    }
    parsed.map_err(|error| document.wrong(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_what_was_written_and_one_that_is_absent_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kiln/config.toml");
        assert_eq!(File::read(&path).unwrap(), File::default());
        let team = Farm { url: "https://farm.example".into(), token_command: vec!["token".into()], ..Farm::default() };
        let file =
            File { farm: Some("team".into()), flags: Flags::default(), farms: [("team".to_owned(), team)].into() };
        file.write(&path).unwrap();
        assert_eq!(File::read(&path).unwrap(), file);
        assert!(kiln_system::is_private(&path.metadata().unwrap()));
        assert!(file.farm("team").is_ok());
        let error = file.farm("tema").unwrap_err().to_string();
        assert_eq!(error, "no farm is named `tema`, only `team`; `kiln login URL --name tema` adds one");
    }

    fn wrong(text: &str) -> String {
        parse(Path::new("FILE"), text.to_owned()).unwrap_err().to_string()
    }

    #[test]
    fn a_wrong_key_is_refused_with_the_nearest_one() {
        for (text, words) in [
            ("frm = \"x\"", "`FILE`, line 1: there is no `frm`; did you mean `farm`?"),
            (
                "[farms.a]\nurl = \"x\"\ntoken_file = \"y\"",
                "`FILE`, line 3: there is no `farms.a.token_file`; did you mean `token-file`?",
            ),
            ("zzz = 1", "`FILE`, line 1: there is no `zzz`; expected one of `farm`, `farms`, `flags`"),
        ] {
            assert_eq!(wrong(text), words);
        }
        assert!(wrong("farm = 1").contains("line 1: invalid type: integer `1`, expected a string"));
        assert!(wrong("\n[farms.a]\nca = \"x\"").contains("line 2: missing field `url`"));
    }
}
