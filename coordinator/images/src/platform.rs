//! The platform that an image runs on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Operating system and architecture, with Go's names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `linux`.
    pub os: String,
    /// Such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// Linux on this architecture.
    pub fn linux(architecture: &str) -> Self {
        Self { architecture: architecture.to_owned(), os: "linux".to_owned(), variant: None }
    }

    /// Whether an image for this platform runs on `wanted`. arm64 has a single variant, which may be omitted.
    pub fn fits(&self, wanted: &Self) -> bool {
        fn variant(platform: &Platform) -> Option<&str> {
            match (platform.architecture.as_str(), platform.variant.as_deref()) {
                ("arm64", Some("v8")) | (_, Some("")) => None,
                (_, variant) => variant,
            }
        }
        self.os == wanted.os && self.architecture == wanted.architecture && variant(self) == variant(wanted)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.as_ref().map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}
/// The platforms that an image is for, when none of them is the wanted one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Others(pub Vec<Platform>);

impl std::fmt::Display for Others {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.0.iter().map(|platform| format!("`{platform}`")).collect();
        f.write_str(if names.is_empty() { "none that is named" } else { "" })?;
        f.write_str(&names.join(", "))
    }
}
