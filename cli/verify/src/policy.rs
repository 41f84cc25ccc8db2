//! Policies: what a user demands of an artifact, in TOML.

use std::path::Path;
use std::time::Duration;

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use kiln_options::Document;
use serde::{Deserialize, Deserializer};

use crate::Error;

/// What is demanded of an artifact. What is absent is not demanded.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Policy {
    /// Who made it: `builder.id` of the provenance; one of these.
    pub(crate) builder: Option<Patterns>,
    /// The repository of its sources.
    pub(crate) repository: Option<Patterns>,
    /// The branch that was built.
    pub(crate) branch: Option<Patterns>,
    /// Sources with changes that are not committed will do. Without a policy they do.
    #[serde(default)]
    pub(crate) allow_dirty: bool,
    /// The farm itself fetched the commit, rather than a client that says what it is.
    #[serde(default)]
    pub(crate) verified_source: bool,
    /// The platforms that it may be for.
    pub(crate) platforms: Option<Vec<String>>,
    /// How long ago it was built at most.
    #[serde(default, deserialize_with = "age")]
    pub(crate) max_age: Option<Duration>,
    /// Whether a key will do that does not sign any more.
    #[serde(default)]
    retired_keys: Retired,
    /// What it was made from: base images, tools, downloads.
    #[serde(default)]
    pub(crate) dependencies: Vec<Dependency>,
    /// Every step made the same again.
    #[serde(default)]
    pub(crate) reproducible: bool,
    /// The gates that it passed.
    #[serde(default)]
    pub(crate) gates: Vec<String>,
    /// What must be stated besides provenance: `sbom`, `spdx`.
    #[serde(default)]
    pub(crate) require: Vec<Required>,
    /// Whether there is a policy at all.
    #[serde(skip)]
    pub(crate) is_given: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Retired {
    #[default]
    Refuse,
    Allow,
}

/// A statement that must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Required {
    /// A CycloneDX document.
    Sbom,
    /// An SPDX document.
    Spdx,
}

/// Something that the artifact must be made from.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Dependency {
    /// A pattern of its URI in the provenance.
    pub(crate) uri: Patterns,
    /// One of these digests, in hex; any if absent.
    #[serde(default)]
    pub(crate) sha256: OneOrMore,
}

/// A string or a list.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(untagged)]
pub(crate) enum OneOrMore {
    #[default]
    None,
    One(String),
    More(Vec<String>),
}

impl OneOrMore {
    pub(crate) fn all(&self) -> &[String] {
        match self {
            Self::None => &[],
            Self::One(one) => std::slice::from_ref(one),
            Self::More(more) => more,
        }
    }
}

/// Patterns with `*`, which also matches `/`.
#[derive(Debug, Clone)]
pub(crate) struct Patterns {
    words: Vec<String>,
    set: GlobSet,
}

impl Patterns {
    pub(crate) fn has(&self, text: &str) -> bool {
        self.set.is_match(text)
    }

    /// For messages.
    pub(crate) fn words(&self) -> String {
        self.words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ")
    }
}

impl<'de> Deserialize<'de> for Patterns {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let words = OneOrMore::deserialize(deserializer)?.all().to_vec();
        let mut set = GlobSetBuilder::new();
        for word in &words {
            set.add(GlobBuilder::new(word).build().map_err(serde::de::Error::custom)?);
        }
        let set = set.build().map_err(serde::de::Error::custom)?;
        Ok(Self { words, set })
    }
}

fn age<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    kiln_units::duration(&text).map(Some).map_err(serde::de::Error::custom)
}

const KEYS: [&str; 12] = [
    "builder",
    "repository",
    "branch",
    "allow-dirty",
    "verified-source",
    "platforms",
    "max-age",
    "retired-keys",
    "dependencies",
    "reproducible",
    "gates",
    "require",
];
const DEPENDENCY: [&str; 2] = ["uri", "sha256"];

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    /// If the file cannot be read, or where it is wrong.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::parse(path, text)
    }

    /// A policy with this text.
    ///
    /// # Errors
    /// Where it is wrong.
    pub fn parse(path: &Path, text: String) -> Result<Self, Error> {
        let document = Document::new(path, text.clone());
        let table = document.table()?;
        document.known_keys(&table, &KEYS, "")?;
        let dependencies = table.get("dependencies").and_then(|value| value.get_ref().as_array());
        for dependency in dependencies.into_iter().flatten() {
            if let Some(table) = dependency.get_ref().as_table() {
                document.known_keys(table, &DEPENDENCY, "dependencies.")?;
            }
        }
        let policy: Self = toml::from_str(&text).map_err(|error| document.wrong(&error))?;
        Ok(Self { is_given: true, ..policy })
    }

    pub(crate) fn allows_retired(&self) -> bool {
        self.retired_keys == Retired::Allow
    }
}
