//! `kiln cache`: cached step results, what they save, why a step missed, and cache mounts.

mod explain;
mod layers;
mod mounts;
mod stats;

use super::ago;
use crate::farm::Farm;
use crate::{Code, Error, args};
use kiln_proto::protobuf::Timestamp;

pub(super) async fn run(farm: &Farm, args: args::Cache) -> Result<Code, Error> {
    match args {
        args::Cache::List(args) if args.mounts => mounts::list(farm, args.layers).await,
        args::Cache::List(args) => layers::list(farm, args.layers).await,
        args::Cache::Stats(args) => stats::run(farm, args).await,
        args::Cache::Prune(args) if args.mounts => mounts::prune(farm, args).await,
        args::Cache::Prune(args) => layers::prune(farm, args).await,
        args::Cache::Explain(args) => explain::run(farm, args).await,
    }
}

/// Milliseconds since the epoch as a time; `None` for 0.
fn timestamp(ms: i64) -> Option<Timestamp> {
    (ms > 0).then_some(Timestamp { seconds: ms / 1000, nanos: 0 })
}
