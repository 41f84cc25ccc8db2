//! `--annotation [LEVEL[PLATFORM]:]KEY=VALUE`.

use kiln_dockerfile::Platform;

use crate::error::hint;

const LEVELS: [(&str, Level); 4] = [
    ("manifest", Level::Manifest),
    ("index", Level::Index),
    ("manifest-descriptor", Level::ManifestDescriptor),
    ("index-descriptor", Level::IndexDescriptor),
];

/// What is annotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// The manifest of a platform.
    Manifest,
    /// The index of all platforms.
    Index,
    /// What the index says of a manifest.
    ManifestDescriptor,
    /// What a layout says of the index.
    IndexDescriptor,
}

/// An annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// What is annotated.
    pub level: Level,
    /// The platform, as `linux/amd64`; none: all.
    pub platform: Option<String>,
    /// Its key.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl Annotation {
    /// Reads a value of `--annotation`, which can name several levels.
    pub(crate) fn read(text: &str) -> Result<Vec<Self>, String> {
        let (key, value) =
            text.split_once('=').ok_or_else(|| format!("invalid annotation `{text}`; expected KEY=VALUE"))?;
        let (levels, key) = key.split_once(':').unwrap_or(("manifest", key));
        levels.split(',').map(|level| Self::at(level, key, value)).collect()
    }

    /// Reads a field of `--output`, without the `annotation` that it begins with: `.KEY` or `-LEVEL[PLATFORM].KEY`.
    pub(crate) fn of_field(name: &str, value: &str) -> Result<Self, String> {
        let (level, key) = match name.strip_prefix('-') {
            Some(rest) => rest.split_once('.').unwrap_or((rest, "")),
            None => match name.split_once('.') {
                Some(("", key)) => ("manifest", key),
                Some((platform, key)) => return Self::at(&format!("manifest{platform}"), key, value),
                None => ("manifest", ""),
            },
        };
        Self::at(level, key, value)
    }

    fn at(level: &str, key: &str, value: &str) -> Result<Self, String> {
        let (name, platform) = match level.split_once('[') {
            Some((name, rest)) => {
                let platform =
                    rest.strip_suffix(']').ok_or_else(|| format!("`{level}`: expected a platform in brackets"))?;
                (name, Some(Platform::read(platform, &Platform::linux("amd64"))?.short()))
            }
            None => (level, None),
        };
        let known = LEVELS.iter().find(|(known, _)| *known == name).map(|(_, level)| *level);
        let level = known.ok_or_else(|| {
            let names = LEVELS.map(|(known, _)| known);
            format!(
                "unknown level `{name}` of an annotation{}; expected one of {}",
                hint(name, names),
                names.join(", ")
            )
        })?;
        if key.is_empty() {
            return Err("an annotation needs a key".to_owned());
        }
        Ok(Self { level, platform, key: key.to_owned(), value: value.to_owned() })
    }

    /// Whether it is for this level and platform.
    pub fn is_for(&self, level: Level, platform: &str) -> bool {
        self.level == level && self.platform.as_deref().is_none_or(|own| own == platform)
    }
}
