//! The coordinator's configuration: all of it is checked before anything binds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kiln_images::registry::{self, Pattern, Reach};
use kiln_scheduler::Pool;

use crate::services::execution;
use kiln_auth::FarmKey;
use kiln_builds::Unfinished;

/// What the coordinator needs to know.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Where it listens.
    #[arg(long, env = "KILN_LISTEN", default_value = "127.0.0.1:8980", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    /// Who may call.
    #[command(flatten)]
    pub auth: kiln_auth::Config,
    /// How much of the farm each tenant may use: a TOML file with `actions`, `queue` and `store` under `[default]` and
    /// `[tenants.NAME]`.
    #[arg(long, env = "KILN_QUOTAS", value_name = "FILE")]
    pub quotas: Option<PathBuf>,
    /// Where it keeps blobs, the action cache, builds and artifacts.
    #[arg(long, env = "KILN_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Most bytes of cached blobs of all tenants together, such as `50GiB`; `auto` is a fifth of the free disk and at most 50 GiB. Beyond
    /// them, what no cached result names is dropped first, then the results used longest ago, whichever tenant's they are, with what they
    /// alone name. Artifacts are not counted.
    #[arg(long = "store-size", env = "KILN_STORE_SIZE", default_value = "50GiB", value_parser = bound, value_name = "SIZE")]
    pub store_bytes: kiln_store::Bound,
    /// Most bytes of artifacts of each tenant, such as `200GiB`, or `auto` as above; beyond them, those used longest ago are dropped. Without it, artifacts are
    /// kept for ever.
    #[arg(long = "artifacts-size", env = "KILN_ARTIFACTS_SIZE", value_parser = bound, value_name = "SIZE")]
    pub artifact_bytes: Option<kiln_store::Bound>,
    /// How long cached results and blobs are kept when nobody uses them, such as `30d` or `12h`.
    #[arg(long, env = "KILN_CACHE_AGE", default_value = "30d", value_parser = life, value_name = "TIME")]
    pub cache_age: Duration,
    /// How long an action goes on that nobody waits for any more, such as `30s`: its client may come back. Builds are not meant:
    /// they go on by themselves.
    #[arg(long, env = "KILN_ABANDONED_AFTER", default_value = "30s", value_parser = kiln_units::duration, value_name = "TIME")]
    pub abandoned_after: Duration,
    /// How often what is older is looked for and removed.
    #[arg(long, env = "KILN_COLLECT_EVERY", default_value = "1h", value_parser = kiln_units::duration, value_name = "TIME")]
    pub collect_every: Duration,
    /// A Redis that keeps the action cache, dependency layers and small blobs for all coordinators that name it: `redis://HOST:PORT`,
    /// or `rediss://…` for TLS; several nodes of a cluster separated by commas.
    #[arg(long, env = "KILN_REDIS", hide_env_values = true, value_name = "URL")]
    pub redis: Option<String>,
    /// The authority that signed Redis's certificate, in PEM; by default those that the system trusts.
    #[arg(long, env = "KILN_REDIS_CA", value_name = "FILE", requires = "redis")]
    pub redis_ca: Option<PathBuf>,
    /// This coordinator's certificate for Redis, in PEM.
    #[arg(long, env = "KILN_REDIS_CERT", value_name = "FILE", requires = "redis")]
    pub redis_cert: Option<PathBuf>,
    /// That certificate's key, in PEM.
    #[arg(long, env = "KILN_REDIS_KEY", value_name = "FILE", requires = "redis")]
    pub redis_key: Option<PathBuf>,
    /// What the farm's keys in Redis begin with.
    #[arg(long, env = "KILN_REDIS_PREFIX", default_value = "kiln", value_name = "NAME")]
    pub redis_prefix: String,
    /// Largest blob that is kept in Redis; larger ones are kept on the disk, and in the bucket where one is named.
    #[arg(long, env = "KILN_REDIS_MAX_BLOB", default_value = "64MiB", value_parser = kiln_units::size, value_name = "SIZE")]
    pub redis_max_blob: u64,
    /// Let every build take emulated workers where no native one matches, as `kiln build --allow-emulation` does.
    #[arg(long, env = "KILN_ALLOW_EMULATION")]
    pub allow_emulation: bool,
    /// A bucket that all coordinators share, as `s3://BUCKET[/PREFIX]`, for blobs too large for Redis; without Redis, for all.
    /// Credentials, region and endpoint come from the usual `AWS_…` variables.
    #[arg(long, env = "KILN_S3", value_name = "URL")]
    pub s3: Option<String>,
    /// How long an action or a build waits while no worker that could run it is connected, such as `15m`. What no worker has been able
    /// to run for an hour, and no `--pool` could, is refused at once.
    #[arg(long, env = "KILN_QUEUE_TIMEOUT", default_value = "15m", value_parser = kiln_units::duration, value_name = "TIME")]
    pub queue_timeout: Duration,
    /// Workers that the farm has although none may be connected, such as those that an autoscaler starts:
    /// `linux/arm64,cpus=16,memory=64GiB,label.disk=ssd`; repeatable. What they could run waits for them.
    #[arg(long = "pool", env = "KILN_POOLS", value_delimiter = ';', value_parser = crate::pools::pool, value_name = "PLATFORM[,FACT…]")]
    pub pools: Vec<Pool>,
    /// What platform properties mean that clients of other farms send, beside the built-in rules: a TOML file with a `[[property]]`
    /// table for each, of `name`, `value`, and `ignore = true` or `to` and `values`.
    #[arg(long, env = "KILN_PROPERTIES", value_name = "FILE")]
    pub properties: Option<PathBuf>,
    /// What becomes of builds that ran when an earlier coordinator ended.
    #[arg(skip)]
    pub unfinished: Unfinished,
    /// Registry credentials that the farm gives its tenants' steps and images: a TOML file with a `[credentials.NAME]` table for each, of
    /// `tenants`, and of `secrets`, `variables`, `files` or `docker_config`.
    #[arg(long, env = "KILN_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// Fetch every tenant's bases with the Docker credentials of the coordinator's user too: for a farm of one person or one team.
    #[arg(long, env = "KILN_OWN_CREDENTIALS")]
    pub own_credentials: bool,
    /// Registries that bases of images may be fetched from although they are not on the public internet: HOST, HOST:PORT, `*.DOMAIN`,
    /// an address or a block such as `10.0.0.0/8`; repeatable. Without it the coordinator asks no loopback, private or link-local
    /// address for a builder.
    #[arg(long = "allow-registry", env = "KILN_ALLOW_REGISTRIES", value_delimiter = ',', value_name = "PATTERN")]
    pub allowed_registries: Vec<Pattern>,
    /// A registry that bases of images may be fetched from over plain HTTP, as HOST or HOST:PORT; repeatable. It is allowed as by
    /// `--allow-registry`. A registry on this machine that is allowed may speak plain HTTP too.
    #[arg(long = "insecure-registry", env = "KILN_INSECURE_REGISTRIES", value_delimiter = ',', value_name = "HOST")]
    pub insecure_registries: Vec<String>,
    /// Most connections at once; one more is closed as soon as it comes.
    #[arg(long, env = "KILN_MAX_CONNECTIONS", default_value_t = MAX_CONNECTIONS, value_name = "NUMBER")]
    pub max_connections: usize,
    /// Most memory for calls under way, such as `1GiB`: what came of requests that are not whole or not answered yet, and answers
    /// that nobody reads. A call beyond it is refused with `RESOURCE_EXHAUSTED`.
    #[arg(long, env = "KILN_CALL_MEMORY", default_value = "1GiB", value_parser = kiln_units::size, value_name = "SIZE")]
    pub call_memory: u64,
    /// Build what is pushed: a TOML file that says where GitHub, GitLab or Gitea deliver their webhooks, and what each builds.
    #[arg(long, env = "KILN_WEBHOOKS", value_name = "FILE")]
    pub webhooks: Option<PathBuf>,
    /// Where metrics and health are served over HTTP (`/metrics`, `/healthz`, `/readyz`), such as `127.0.0.1:9480`; by default
    /// nowhere.
    #[arg(long, env = "KILN_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,
}

/// Connections at once where nothing else is said.
const MAX_CONNECTIONS: usize = 16_384;
/// Memory of calls where nothing else is said.
const CALL_MEMORY: u64 = 1 << 30;
/// How long work waits for a worker where nothing else is said.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

impl Config {
    /// A coordinator on its own disk alone.
    pub fn on_disk(listen: SocketAddr, data_dir: PathBuf, store_bytes: impl Into<kiln_store::Bound>) -> Self {
        Self {
            listen,
            // Whoever is given its address is let in.
            auth: kiln_auth::Config { insecure: true, ..kiln_auth::Config::default() },
            data_dir,
            quotas: None,
            store_bytes: store_bytes.into(),
            artifact_bytes: None,
            queue_timeout: QUEUE_TIMEOUT,
            pools: Vec::new(),
            properties: None,
            unfinished: Unfinished::default(),
            cache_age: kiln_store::DEFAULT_LIFE,
            allow_emulation: false,
            abandoned_after: execution::ABANDONED_AFTER,
            collect_every: Duration::from_secs(60 * 60),
            redis: None,
            redis_ca: None,
            redis_cert: None,
            redis_key: None,
            redis_prefix: "kiln".to_owned(),
            redis_max_blob: 64 << 20,
            s3: None,
            credentials: None,
            own_credentials: false,
            allowed_registries: Vec::new(),
            insecure_registries: Vec::new(),
            max_connections: MAX_CONNECTIONS,
            call_memory: CALL_MEMORY,
            webhooks: None,
            metrics_listen: None,
        }
    }

    /// How registries are spoken to.
    pub fn registries(&self) -> registry::Options {
        let insecure = self.insecure_registries.clone();
        // What is not a pattern can be no registry either.
        let named = insecure.iter().filter_map(|registry| registry.parse().ok());
        let reach = Reach::public(self.allowed_registries.iter().cloned().chain(named).collect());
        registry::Options { insecure, reach, ..Default::default() }
    }

    /// Where blobs and results are kept.
    ///
    /// # Errors
    /// In words, where the address of a store is none or a certificate cannot be read.
    pub fn stores(&self, key: &FarmKey) -> Result<kiln_store::Config, kiln_store::Error> {
        let redis = match &self.redis {
            None => None,
            Some(url) => {
                let tls = kiln_store::redis::Tls {
                    ca: self.redis_ca.clone(),
                    certificate: self.redis_cert.clone(),
                    key: self.redis_key.clone(),
                };
                let address = kiln_store::redis::Address::parse(url, &tls)?;
                Some(kiln_store::RedisConfig {
                    address,
                    prefix: self.redis_prefix.clone(),
                    max_blob_bytes: self.redis_max_blob,
                    key: key.clone(),
                })
            }
        };
        Ok(kiln_store::Config {
            data_dir: self.data_dir.clone(),
            max_bytes: self.store_bytes,
            budget: Some(kiln_store::Budget::new(self.store_bytes, &self.data_dir.join("tenants"))),
            counts_all: false,
            artifact_bytes: self.artifact_bytes.unwrap_or(kiln_store::Bound::Bytes(u64::MAX)),
            life: self.cache_age,
            redis,
            s3: self.s3.as_deref().map(kiln_store::s3::Address::from_env),
            clock: kiln_store::Clock::system(),
            metrics: None,
        })
    }
}

/// Reads how long something lives: a duration from a second to a hundred years.
fn life(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let life = kiln_units::duration(text).map_err(|error| error.to_string())?;
    let fits = (Duration::from_secs(1)..=LONGEST).contains(&life);
    if fits { Ok(life) } else { Err(format!("`{text}` is not from one second to a hundred years")) }
}

/// Reads the bound of a store: a size, or `auto`.
///
/// # Errors
/// Says what was expected, in words.
pub fn bound(text: &str) -> Result<kiln_store::Bound, String> {
    if text == "auto" {
        Ok(kiln_store::Bound::Share)
    } else {
        kiln_units::size(text).map(kiln_store::Bound::Bytes).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_bounded() {
        assert_eq!(life("90s"), Ok(Duration::from_secs(90)));
        assert!(life("0s").is_err() && life("40000d").is_err());
    }
}
