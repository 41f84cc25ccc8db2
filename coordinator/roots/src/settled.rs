//! The times of what an instruction copied: those of the first copy that gave the same files.

use bytes::Bytes;
use kiln_store::recipes::Recipes;
use kiln_trees::root::Times;
use serde::{Deserialize, Serialize};

use crate::{Error, Files, Roots};

/// Increased when the same copy would have other times.
const VERSION: u32 = 1;
/// The times among a recipe's files.
const TIMES: &str = "times";

/// What decides the times of what a copy changed.
#[derive(Serialize)]
struct CopiedTimes {
    copied_times: u32,
    before: String,
    after: String,
}

/// The description of such a result, which is all in its file.
#[derive(Serialize, Deserialize)]
struct Kept {}

impl Roots {
    /// Files with the times that the same copy had when it was first made: otherwise a fresh checkout, whose files are equal and younger,
    /// would give other layers.
    ///
    /// # Errors
    /// If the store fails.
    pub(crate) async fn settled(&self, before: &Files, after: Files) -> Result<Files, Error> {
        let recipe =
            CopiedTimes { copied_times: VERSION, before: before.root.to_string(), after: after.root.to_string() };
        let recipes = Recipes { stores: &self.stores, instance: &self.instance, function: self.function };
        if let Some((Kept {}, files)) = recipes.find(&recipe).await?
            && let Some(times) = files.get(TIMES)
            && let Ok(times) = Times::decode(&self.blobs().get(times).await?)
        {
            return Ok(Files { times: before.times.under(times), ..after });
        }
        let data = Bytes::from(after.times.since(&before.times).encode());
        let digest = self.function.digest(&data);
        self.blobs().put(&digest, data).await?;
        recipes.keep(&recipe, &Kept {}, &[(TIMES.to_owned(), digest)].into()).await?;
        Ok(after)
    }
}
