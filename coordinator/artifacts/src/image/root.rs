//! The file system of an image, for steps that run in it.

use std::collections::BTreeMap;

use kiln_images::platform::Platform;
use kiln_planner::plan::Base;
use kiln_roots::{Files, Roots};
use kiln_trees::tree::Tree;

use super::base::{BaseError, Bases, Stored};
use super::packages::files;

/// An image as a root.
#[derive(Debug, Clone)]
pub struct ImageRoot {
    /// Its files.
    pub files: Files,
    /// Its environment variables.
    pub env: BTreeMap<String, String>,
    /// Its name with the digest of its manifest; for one of the project's files its path and digest.
    pub name: String,
}

/// Why an image cannot be a root.
#[derive(Debug, thiserror::Error)]
pub enum ImageRootError {
    /// It cannot be read.
    #[error(transparent)]
    Base(#[from] BaseError),
    /// Its layers cannot be laid out.
    #[error(transparent)]
    Root(#[from] kiln_roots::Error),
}

impl ImageRootError {
    /// Whether it is the project's fault rather than the farm's or a registry's.
    pub fn is_project_fault(&self) -> bool {
        match self {
            Self::Base(error) => error.is_project_fault(),
            Self::Root(error) => error.is_project_fault(),
        }
    }
}

impl Bases {
    /// The file system of an image. `sources` are the project's files.
    ///
    /// # Errors
    /// If there is no such image for the platform, its layers are malformed, or a registry or the store fails.
    pub async fn root(
        &self,
        roots: &Roots,
        image: &Base,
        sources: &Tree,
        platform: &Platform,
    ) -> Result<ImageRoot, ImageRootError> {
        let stored = match image {
            Base::Scratch => {
                let files = roots.scratch().await?;
                return Ok(ImageRoot { files, env: BTreeMap::new(), name: image.show() });
            }
            Base::Reference(name) => self.of_registry(name, platform).await?,
            Base::Path(path) => self.of_project(path, sources, sources, platform).await?,
        };
        let files = files(roots, &stored, &image.show()).await?;
        let repository = image.show();
        let repository = repository.split('@').next().unwrap_or_default();
        Ok(ImageRoot { files, env: variables(&stored), name: format!("{repository}@{}", stored.base.digest) })
    }
}

/// The environment of an image's configuration.
fn variables(stored: &Stored) -> BTreeMap<String, String> {
    let config = stored.base.config.get("config");
    let list = config.and_then(|config| config.get("Env")).and_then(serde_json::Value::as_array);
    let pairs = list.into_iter().flatten().filter_map(|one| one.as_str()?.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
