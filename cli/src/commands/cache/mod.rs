//! `kiln cache`: layers, what they save, and why a step missed.

mod explain;
mod layers;
mod stats;

use std::time::{Duration, SystemTime};

use crate::farm::Farm;
use crate::{Code, Error, args, terminal};

pub(super) async fn run(farm: &Farm, args: args::Cache) -> Result<Code, Error> {
    match args {
        args::Cache::List(args) => layers::list(farm, args).await,
        args::Cache::Stats(args) => stats::run(farm, args).await,
        args::Cache::Prune(args) => layers::prune(farm, args).await,
        args::Cache::Explain(args) => explain::run(farm, args).await,
    }
}

/// How long ago a time was, by this machine's clock; a time to come is now.
fn ago(at: prost_types::Timestamp) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.seconds).unwrap_or_default());
    terminal::ago(SystemTime::now().duration_since(at).unwrap_or_default())
}

/// Milliseconds since the epoch as a time; none for 0.
fn timestamp(ms: i64) -> Option<prost_types::Timestamp> {
    (ms > 0).then_some(prost_types::Timestamp { seconds: ms / 1000, nanos: 0 })
}
