//! What there is to verify.

use std::collections::BTreeMap;

/// An artifact, and what was found about it. Nothing of it is trusted.
#[derive(Debug, Clone, Default)]
pub struct Evidence {
    /// The artifact, as the user named it.
    pub what: String,
    /// What it consists of: one for each platform.
    pub targets: Vec<Target>,
    /// Bundles that claim to be about it.
    pub bundles: Vec<Bundle>,
}

/// Something that statements are about.
#[derive(Debug, Clone, Default)]
pub struct Target {
    /// Its name, for the user.
    pub name: String,
    /// The platform that it is offered for, `OS/ARCHITECTURE`.
    pub platform: Option<String>,
    /// Its files, or the manifest of an image. A statement about it is about all of them.
    pub items: Vec<Item>,
    /// The symbolic links among them, by their paths, with what they lead to; `None` where links are content, or cannot be.
    pub links: Option<BTreeMap<String, String>>,
    /// Whether it is a list of images, each of which is a target too.
    pub is_index: bool,
    /// Whether these are all: a statement that is about more is refused.
    pub is_whole: bool,
}

/// A file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Item {
    /// Its path in the artifact.
    pub name: String,
    /// Its digests by algorithm, in hex, made from its content.
    pub digests: BTreeMap<String, String>,
}

impl Item {
    /// One with this SHA-256, in hex.
    pub fn sha256(name: &str, hex: String) -> Self {
        Self { name: name.to_owned(), digests: [("sha256".to_owned(), hex)].into() }
    }
}

/// A file with a signed statement.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// Where it was found.
    pub name: String,
    /// Its bytes.
    pub data: Vec<u8>,
}
