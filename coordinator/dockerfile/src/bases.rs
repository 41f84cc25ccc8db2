//! Configurations of base images, which the caller fetches.

use std::collections::BTreeMap;

use crate::config::Image;
use crate::image::ImageName;
use crate::platform::Platform;

/// An image whose configuration is needed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BaseImage {
    /// Where it is.
    pub reference: Reference,
    /// The platform that it is wanted for.
    pub platform: Platform,
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reference {
    /// In a registry, by its full name.
    Registry(String),
    /// In an OCI layout: what follows `oci-layout://`.
    Layout(String),
}

impl Reference {
    /// Its name, with a digest where it is known.
    pub fn show(&self, digest: Option<&str>) -> String {
        match (self, digest) {
            (Self::Registry(name) | Self::Layout(name), None) => name.clone(),
            (Self::Layout(name), Some(digest)) => format!("{}@{digest}", name.split('@').next().unwrap_or_default()),
            (Self::Registry(name), Some(digest)) => {
                ImageName::read(name).map_or_else(|_| name.clone(), |image| image.at_digest(digest).full())
            }
        }
    }
}

/// What a base image is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Resolved {
    /// Its configuration.
    pub image: Image,
    /// The digest of its manifest, or of the index that names it.
    pub digest: Option<String>,
}

/// The base images that the caller has fetched.
#[derive(Debug, Clone, Default)]
pub struct Bases {
    found: BTreeMap<BaseImage, Resolved>,
    assume_empty: bool,
}

impl Bases {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes every image for one without configuration, so that a file can be checked without a registry.
    pub fn assumed() -> Self {
        Self { found: BTreeMap::new(), assume_empty: true }
    }

    /// Adds an image.
    pub fn add(&mut self, image: BaseImage, resolved: Resolved) {
        self.found.insert(image, resolved);
    }

    /// An image, if it is known.
    pub(crate) fn get(&self, image: &BaseImage) -> Option<Resolved> {
        let assumed = || Resolved { image: Image::assumed(&image.platform), digest: None };
        self.found.get(image).cloned().or_else(|| self.assume_empty.then(assumed))
    }
}
