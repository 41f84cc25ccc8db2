//! What the coordinator itself makes, such as layers of images, in the action cache: under a digest of what it was made from.
//!
//! Invariant: what is found is complete, like every result of the action cache.

use std::collections::BTreeMap;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Error, Stores};

/// The file that describes the others.
const DESCRIPTION: &str = "description.json";
/// The worker's name in results of the coordinator itself.
const WORKER: &str = "coordinator";

/// The action cache, for what the coordinator makes.
#[derive(Debug, Clone, Copy)]
pub struct Recipes<'a> {
    /// Where results and their blobs are.
    pub stores: &'a Stores,
    /// The instance that they belong to.
    pub instance: &'a str,
    /// The function of all digests.
    pub function: DigestFunction,
}

/// A recipe's result: its description, and blobs by name.
pub type Found<T> = (T, BTreeMap<String, Digest>);

impl Recipes<'_> {
    fn key(&self, recipe: &impl Serialize) -> Digest {
        self.function.digest(&serde_json::to_vec(recipe).unwrap_or_default())
    }

    /// A recipe's cached result, if it is complete.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn find<T: DeserializeOwned>(&self, recipe: &impl Serialize) -> Result<Option<Found<T>>, Error> {
        let Some(result) = self.stores.cached_result(self.instance, &self.key(recipe)).await? else { return Ok(None) };
        let mut files = BTreeMap::new();
        for file in &result.output_files {
            let Ok(digest) = Digest::required(self.function, file.digest.as_ref()) else { return Ok(None) };
            files.insert(file.path.clone(), digest);
        }
        let Some(description) = files.remove(DESCRIPTION) else { return Ok(None) };
        let description = self.stores.blobs.get(&description).await?;
        // A description from an older coordinator is not used.
        Ok(serde_json::from_slice(&description).ok().map(|description| (description, files)))
    }

    /// Whether a recipe has a result, complete or not.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn is_kept(&self, recipe: &impl Serialize) -> Result<bool, Error> {
        Ok(self.stores.actions.get(self.instance, &self.key(recipe)).await?.is_some())
    }

    /// All blobs that a recipe's result names; none where it is incomplete.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn named(&self, recipe: &impl Serialize) -> Result<Vec<Digest>, Error> {
        let key = self.key(recipe);
        match self.stores.actions.get(self.instance, &key).await? {
            Some(result) => self.stores.collector.named_by(&key, &result).await,
            None => Ok(Vec::new()),
        }
    }

    /// Removes a recipe's result. Its blobs stay until they are collected.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn forget(&self, recipe: &impl Serialize) -> Result<(), Error> {
        self.stores.actions.remove(self.instance, &self.key(recipe)).await
    }

    /// Caches a recipe's result. If the cache cannot be written, it is only recomputed later.
    ///
    /// # Errors
    /// If the description cannot be stored.
    pub async fn keep(
        &self,
        recipe: &impl Serialize,
        description: &impl Serialize,
        files: &BTreeMap<String, Digest>,
    ) -> Result<(), Error> {
        self.keep_trees(recipe, description, files, &[]).await
    }

    /// As [`keep`](Self::keep), for a result that also names whole trees by their root directories.
    ///
    /// # Errors
    /// If the description cannot be stored.
    pub async fn keep_trees(
        &self,
        recipe: &impl Serialize,
        description: &impl Serialize,
        files: &BTreeMap<String, Digest>,
        trees: &[Digest],
    ) -> Result<(), Error> {
        let data = serde_json::to_vec(description).unwrap_or_default();
        let digest = self.function.digest(&data);
        self.stores.blobs.put(&digest, data.into()).await?;
        let file = |path: &str, digest: &Digest| reapi::OutputFile {
            path: path.to_owned(),
            digest: Some(digest.to_wire()),
            ..Default::default()
        };
        let mut output_files: Vec<_> = files.iter().map(|(path, digest)| file(path, digest)).collect();
        output_files.push(file(DESCRIPTION, &digest));
        let metadata = reapi::ExecutedActionMetadata { worker: WORKER.to_owned(), ..Default::default() };
        let tree = |(at, digest): (usize, &Digest)| reapi::OutputDirectory {
            path: format!("trees/{at}"),
            root_directory_digest: Some(digest.to_wire()),
            ..Default::default()
        };
        let result = reapi::ActionResult {
            output_files,
            output_directories: trees.iter().enumerate().map(tree).collect(),
            execution_metadata: Some(metadata),
            ..Default::default()
        };
        if let Err(error) = self.stores.actions.put(self.instance, &self.key(recipe), result).await {
            tracing::warn!(%error, "cannot cache what the coordinator made; it will be made again next time");
        }
        Ok(())
    }
}
