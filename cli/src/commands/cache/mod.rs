//! `kiln cache`: cached step results, what they save, why a step missed, and cache mounts.

mod explain;
mod layers;
mod mounts;
mod stats;

use super::ago;
use crate::farm::Farm;
use crate::{Code, Error, args, local};
use kiln_proto::channel::Access;
use kiln_toolcache::env::Env;

pub(super) async fn run(farm: &Farm, args: args::Cache, access: &Access) -> Result<Code, Error> {
    match args {
        args::Cache::List(args) if args.mounts => mounts::list(farm, args.layers).await,
        args::Cache::List(args) => layers::list(farm, args.layers).await,
        args::Cache::Stats(args) => stats::run(farm, args).await,
        args::Cache::Prune(args) if args.mounts => mounts::prune(farm, args).await,
        args::Cache::Prune(args) => layers::prune(farm, args).await,
        args::Cache::Explain(args) => explain::run(farm, args).await,
        args::Cache::Env(args) => local::print(settings(farm, &args, access).await?.as_bytes()),
    }
}

/// The settings of a build tool.
async fn settings(farm: &Farm, args: &Env, access: &Access) -> Result<String, Error> {
    if farm.is_embedded() {
        let words = "a farm inside a command ends with it, and is no cache for others; name a farm with `--farm` (`KILN_FARM`), or \
                     start one with `kiln up`";
        return Err(Error::Usage(words.to_owned()));
    }
    Ok(kiln_toolcache::env::settings(args, &farm.addresses(), access, &farm.status().await?)?)
}
