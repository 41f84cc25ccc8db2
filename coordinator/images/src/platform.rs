//! What an image runs on, and which manifest of an index fits.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::manifest::{Descriptor, Index, media_type};

/// Operating system and architecture by Go's names.
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

    /// Whether an image for this runs on `wanted`. arm64 has one variant, which may be named or not.
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

/// The manifest for a platform; else the platforms that there are, in words.
pub fn choose<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, String> {
    let images = || index.manifests.iter().filter(|one| media_type::is_manifest(&one.media_type));
    let fits = |one: &&Descriptor| one.platform.as_ref().is_some_and(|platform| platform.fits(wanted));
    if let Some(found) = images().find(fits) {
        return Ok(found);
    }
    // An index of one image that does not say its platform: the image's configuration does.
    if let ([only], 1) = (&index.manifests[..], images().count())
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let there = images().filter_map(|one| one.platform.as_ref()).filter(|platform| platform.os != "unknown");
    let there: Vec<String> = there.map(|platform| format!("`{platform}`")).collect();
    Err(if there.is_empty() { "none that is named".to_owned() } else { there.join(", ") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn image(platform: Option<Platform>) -> Descriptor {
        Descriptor { platform, ..Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"x"), 1) }
    }

    #[test]
    fn the_platforms_there_are_are_named_where_none_fits() {
        let arm = Platform { variant: Some("v8".into()), ..Platform::linux("arm64") };
        let index = Index::new(vec![image(Some(arm)), image(Some(Platform::linux("s390x")))]);
        assert!(choose(&index, &Platform::linux("arm64")).is_ok());
        assert_eq!(choose(&index, &Platform::linux("amd64")), Err("`linux/arm64/v8`, `linux/s390x`".to_owned()));
        assert!(choose(&Index::new(vec![image(None)]), &Platform::linux("amd64")).is_ok());
    }
}
