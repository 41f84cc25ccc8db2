//! The coordinator's configuration, validated as a whole before anything binds.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use kiln_images::registry::{self, Pattern, Reach};
use kiln_scheduler::Pool;

use crate::services::execution;
use kiln_auth::FarmKey;
use kiln_builds::{Keep, Unfinished};
use kiln_journal::Fsync;
use url::Url;

use crate::seat::Agreement;

/// Configuration of the coordinator.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// Address to listen on.
    #[arg(long, env = "KILN_LISTEN", default_value = "127.0.0.1:8980", value_name = "ADDR:PORT")]
    pub listen: SocketAddr,
    /// Authentication and authorisation.
    #[command(flatten)]
    pub auth: kiln_auth::Config,
    /// Quotas of tenants: a TOML file with `actions`, `queue` and `store` under `[default]` and `[tenants.NAME]`.
    #[arg(long, env = "KILN_QUOTAS", value_name = "FILE")]
    pub quotas: Option<PathBuf>,
    /// Directory for blobs, the action cache, builds and artifacts.
    #[arg(long, env = "KILN_DATA_DIR", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Maximum size of the cached blobs of all tenants together, such as `50GiB`; `auto` is a fifth of the free disk space, at most 50 GiB.
    /// Blobs that no cached result refers to are dropped first, then the least recently used results of any tenant with their blobs.
    /// Artifacts do not count.
    #[arg(long = "store-size", env = "KILN_STORE_SIZE", default_value = "50GiB", value_parser = kiln_units::bound, value_name = "SIZE")]
    pub store_bytes: kiln_store::Bound,
    /// Maximum size of each tenant's artifacts, such as `200GiB`, or `auto` as above; the least recently used are dropped first. Default:
    /// artifacts are kept forever.
    #[arg(long = "artifacts-size", env = "KILN_ARTIFACTS_SIZE", value_parser = kiln_units::bound, value_name = "SIZE")]
    pub artifact_bytes: Option<kiln_store::Bound>,
    /// How long unused results and blobs are kept, such as `30d` or `12h`.
    #[arg(long, env = "KILN_CACHE_AGE", default_value = "30d", value_parser = life, value_name = "TIME")]
    pub cache_age: Duration,
    /// How long an action continues when its last client has gone, such as `30s`, so that the client can come back. Does not apply to
    /// builds, which continue anyway.
    #[arg(long, env = "KILN_ABANDONED_AFTER", default_value = "30s", value_parser = kiln_units::duration, value_name = "TIME")]
    pub abandoned_after: Duration,
    /// When build records and events have to be on the disk: `always` at once, `interval` within a second (or `interval=5s`), `never` left
    /// to the kernel. With `always` and `interval`, a submission, the end of a build and an artifact are on the disk before they are
    /// acknowledged. After a power cut, `never` may leave a journal that cannot be opened.
    #[arg(long, env = "KILN_FSYNC", default_value = "interval", value_name = "POLICY")]
    pub fsync: Fsync,
    /// Which builds each tenant keeps, with their events: the latest so many, those that ended at most so long ago, or both: `1000`, `30d`,
    /// `1000,30d`. A running build is always kept; artifacts are kept without their builds.
    #[arg(long, env = "KILN_KEEP_BUILDS", default_value = "1000", value_name = "NUMBER,TIME")]
    pub keep_builds: Keep,
    /// How long a shell in a step's place (`kiln shell`, `kiln run`) stays open in which nothing is typed or printed, such as `15m`.
    #[arg(long, env = "KILN_SHELL_IDLE", default_value = "15m", value_parser = kiln_units::duration, value_name = "TIME")]
    pub shell_idle: Duration,
    /// How many of the steps of artifacts run again after their build, on another worker if there is one, to compare what they make: a
    /// percentage such as `1%`. What differs is recorded with the artifact, logged and counted; no build waits for it, or fails because of it.
    #[arg(long, env = "KILN_VERIFY_SAMPLE", default_value = "0%", value_parser = sample, value_name = "PERCENT")]
    pub verify_sample: u64,
    /// How often to remove expired results and blobs, and old builds.
    #[arg(long, env = "KILN_COLLECT_EVERY", default_value = "1h", value_parser = kiln_units::duration, value_name = "TIME")]
    pub collect_every: Duration,
    /// Redis to share the action cache, dependency layers and small blobs with other coordinators: `redis://HOST:PORT`, or `rediss://…` for
    /// TLS; separate the nodes of a cluster with commas.
    #[arg(long, env = "KILN_REDIS", hide_env_values = true, value_name = "URL")]
    pub redis: Option<String>,
    /// Certificate authority of Redis, in PEM; default: those that the system trusts.
    #[arg(long, env = "KILN_REDIS_CA", value_name = "FILE")]
    pub redis_ca: Option<PathBuf>,
    /// Client certificate for Redis, in PEM.
    #[arg(long, env = "KILN_REDIS_CERT", value_name = "FILE")]
    pub redis_cert: Option<PathBuf>,
    /// Key of that certificate, in PEM.
    #[arg(long, env = "KILN_REDIS_KEY", value_name = "FILE")]
    pub redis_key: Option<PathBuf>,
    /// Prefix of the farm's keys in Redis.
    #[arg(long, env = "KILN_REDIS_PREFIX", default_value = "kiln", value_name = "NAME")]
    pub redis_prefix: String,
    /// Largest blob to keep in Redis; larger ones are kept on disk, and in the `--s3` bucket if there is one.
    #[arg(long, env = "KILN_REDIS_MAX_BLOB", default_value = "64MiB", value_parser = kiln_units::size, value_name = "SIZE")]
    pub redis_max_blob: u64,
    /// Maximum size of one cache mount (`RUN --mount=type=cache`); a step that leaves a larger one succeeds, and the cache stays as it was.
    #[arg(long = "cache-mount-size", env = "KILN_CACHE_MOUNT_SIZE", default_value = "10GiB", value_parser = kiln_units::size, value_name = "SIZE")]
    pub cache_mount_bytes: u64,
    /// Maximum size of all cache mounts of a tenant; the least recently used go first. Their files are in the store, and count there too.
    #[arg(long = "cache-mounts-size", env = "KILN_CACHE_MOUNTS_SIZE", default_value = "50GiB", value_parser = kiln_units::size, value_name = "SIZE")]
    pub cache_mounts_bytes: u64,
    /// Let every build use emulated workers if no native one matches, like `kiln build --allow-emulation`.
    #[arg(long, env = "KILN_ALLOW_EMULATION")]
    pub allow_emulation: bool,
    /// Bucket that coordinators share, as `s3://BUCKET[/PREFIX]`, for blobs too large for Redis, or for all blobs without Redis.
    /// Credentials, region and endpoint come from the usual `AWS_…` variables.
    #[arg(long, env = "KILN_S3", value_name = "URL")]
    pub s3: Option<String>,
    /// How long an action or build waits when no connected worker can run it, such as `15m`. If no worker could have run it within the last
    /// hour, and no `--pool` could, it is refused at once.
    #[arg(long, env = "KILN_QUEUE_TIMEOUT", default_value = "15m", value_parser = kiln_units::duration, value_name = "TIME")]
    pub queue_timeout: Duration,
    /// Workers that the farm can have even when none is connected, such as those an autoscaler starts:
    /// `linux/arm64,cpus=16,memory=64GiB,label.disk=ssd`; repeatable. Work that they could run waits for them.
    #[arg(long = "pool", env = "KILN_POOLS", value_delimiter = ';', value_parser = crate::pools::pool, value_name = "PLATFORM[,FACT…]")]
    pub pools: Vec<Pool>,
    /// Rules for platform properties that were meant for other farms, in addition to the built-in ones: a TOML file with one `[[property]]`
    /// table each, with `name`, `value`, and either `ignore = true` or `to` and `values`.
    #[arg(long, env = "KILN_PROPERTIES", value_name = "FILE")]
    pub properties: Option<PathBuf>,
    /// Be one of several coordinators of a farm, which agree in this Redis: one of them leads, the others serve blobs and pass on the rest, and
    /// another takes over when it is gone. `redis://HOST:PORT`, `rediss://…`, or `redis+sentinel://HOST:PORT,…/NAME`; it must keep what it is
    /// given (`appendonly yes`, `maxmemory-policy noeviction`). Requires `--s3`; results are shared there too, unless `--redis` names another.
    #[arg(long, env = "KILN_REPLICAS", hide_env_values = true, value_name = "URL")]
    pub replicas: Option<String>,
    /// URL at which the farm's other coordinators reach this one, such as `https://10.0.0.7:8980`. Default: the address it listens on, if that is
    /// one address.
    #[arg(long, env = "KILN_ADVERTISE", value_name = "URL", requires = "replicas")]
    pub advertise: Option<Url>,
    /// Coordinators that agree otherwise than in Redis, over another network.
    #[arg(skip)]
    pub agreement: Option<Agreement>,
    /// What becomes of builds that ran when an earlier coordinator ended.
    #[arg(skip)]
    pub unfinished: Unfinished,
    /// Images in which the steps of detected projects run: a TOML file with the table `[toolchains]`, whose keys are a language and
    /// optionally a version (`"go 1.25" = "registry.example/golang:1.25"`). Without a version, it is for projects that pin none.
    #[arg(long, env = "KILN_TOOLCHAINS", value_name = "FILE")]
    pub toolchains: Option<PathBuf>,
    /// Registry credentials for tenants' steps and images: a TOML file with one `[credentials.NAME]` table each, with `tenants`, and
    /// `secrets`, `variables`, `files` or `docker_config`.
    #[arg(long, env = "KILN_CREDENTIALS", value_name = "FILE")]
    pub credentials: Option<PathBuf>,
    /// Also fetch every tenant's base images with the Docker credentials of the coordinator's user; for a farm of one person or team.
    #[arg(long, env = "KILN_OWN_CREDENTIALS")]
    pub own_credentials: bool,
    /// Registries outside the public internet that base images may be fetched from: HOST, HOST:PORT, `*.DOMAIN`, an address or a block such
    /// as `10.0.0.0/8`; repeatable. By default the coordinator contacts no loopback, private or link-local address on behalf of a builder.
    #[arg(long = "allow-registry", env = "KILN_ALLOW_REGISTRIES", value_delimiter = ',', value_name = "PATTERN")]
    pub allowed_registries: Vec<Pattern>,
    /// A registry that base images may be fetched from over plain HTTP, as HOST or HOST:PORT; repeatable. Implies `--allow-registry`. An
    /// allowed registry on this machine may use plain HTTP anyway.
    #[arg(long = "insecure-registry", env = "KILN_INSECURE_REGISTRIES", value_delimiter = ',', value_name = "HOST")]
    pub insecure_registries: Vec<String>,
    /// Hosts outside the public internet that files may be fetched from on behalf of clients (Remote Asset API), as `--allow-registry` names
    /// them; repeatable.
    #[arg(long = "allow-download", env = "KILN_ALLOW_DOWNLOADS", value_delimiter = ',', value_name = "PATTERN")]
    pub allowed_downloads: Vec<Pattern>,
    /// Maximum number of connections; further ones are closed at once. One of several coordinators passes as many calls on at a time to the
    /// one that leads.
    #[arg(long, env = "KILN_MAX_CONNECTIONS", default_value_t = MAX_CONNECTIONS, value_name = "NUMBER")]
    pub max_connections: usize,
    /// Maximum memory for calls in progress, such as `1GiB`: incomplete or unanswered requests, and answers that nobody reads. Further
    /// calls are refused with `RESOURCE_EXHAUSTED`.
    #[arg(long, env = "KILN_CALL_MEMORY", default_value = "1GiB", value_parser = kiln_units::size, value_name = "SIZE")]
    pub call_memory: u64,
    /// Build every push: a TOML file that says where GitHub, GitLab or Gitea deliver their webhooks, and what each one builds.
    #[arg(long, env = "KILN_WEBHOOKS", value_name = "FILE")]
    pub webhooks: Option<PathBuf>,
    /// Webhooks that are told of the ends of builds.
    #[command(flatten)]
    pub notify: kiln_notify::Options,
    /// What the farm signs its statements about artifacts with.
    #[command(flatten)]
    pub signing: kiln_signing::Options,
    /// The caches of build tools.
    #[command(flatten)]
    pub tool_caches: kiln_toolcaches::Options,
    /// The web pages.
    #[command(flatten)]
    pub web: kiln_web::Options,
    /// Serve metrics and health over HTTP (`/metrics`, `/healthz`, `/readyz`) on this address, such as `127.0.0.1:9480`; default: off.
    #[arg(long, env = "KILN_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,
}

/// Default maximum number of connections.
const MAX_CONNECTIONS: usize = 16_384;
/// Default bytes of one cache mount.
const CACHE_MOUNT_BYTES: u64 = 10 << 30;
/// Default memory for calls.
const CALL_MEMORY: u64 = 1 << 30;
/// Default time that work waits for a worker.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(15 * 60);

impl Config {
    /// A coordinator that only uses its own disk.
    pub fn on_disk(listen: SocketAddr, data_dir: PathBuf, store_bytes: impl Into<kiln_store::Bound>) -> Self {
        Self {
            listen,
            // Every caller that knows its address is admitted.
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
            fsync: Fsync::default(),
            keep_builds: Keep::default(),
            cache_mount_bytes: CACHE_MOUNT_BYTES,
            cache_mounts_bytes: 5 * CACHE_MOUNT_BYTES,
            allow_emulation: false,
            abandoned_after: execution::ABANDONED_AFTER,
            collect_every: Duration::from_secs(60 * 60),
            shell_idle: Duration::from_secs(15 * 60),
            verify_sample: 0,
            redis: None,
            redis_ca: None,
            redis_cert: None,
            redis_key: None,
            redis_prefix: "kiln".to_owned(),
            redis_max_blob: 64 << 20,
            s3: None,
            replicas: None,
            advertise: None,
            agreement: None,
            toolchains: None,
            credentials: None,
            own_credentials: false,
            allowed_registries: Vec::new(),
            insecure_registries: Vec::new(),
            allowed_downloads: Vec::new(),
            max_connections: MAX_CONNECTIONS,
            call_memory: CALL_MEMORY,
            webhooks: None,
            notify: kiln_notify::Options::default(),
            signing: kiln_signing::Options::default(),
            tool_caches: kiln_toolcaches::Options::default(),
            web: kiln_web::Options::default(),
            metrics_listen: None,
        }
    }

    /// How registries are contacted.
    pub fn registries(&self) -> registry::Options {
        let insecure = self.insecure_registries.clone();
        // Anything that is not a valid pattern cannot be a registry either.
        let named = insecure.iter().filter_map(|registry| registry.parse().ok());
        let reach = Reach::public(self.allowed_registries.iter().cloned().chain(named).collect());
        registry::Options { insecure, reach, ..Default::default() }
    }

    /// The file with the farm's signing keys.
    pub fn signing_key_file(&self) -> PathBuf {
        let farms = || self.auth.farm_dir.as_deref().map(|dir| kiln_auth::Files::of(dir).signing_key());
        let farms = || farms().filter(|path| path.exists());
        self.signing.signing_key.clone().or_else(farms).unwrap_or_else(|| self.data_dir.join("signing.key"))
    }

    /// How files are fetched on behalf of clients.
    ///
    /// # Errors
    /// If there is no place for them.
    pub fn downloads(&self) -> std::io::Result<kiln_assets::Downloads> {
        let directory = self.data_dir.join("downloads");
        std::fs::create_dir_all(&directory)?;
        Ok(kiln_assets::Downloads::new(Reach::public(self.allowed_downloads.clone()), directory))
    }

    /// Options that cannot be used without others.
    ///
    /// # Errors
    /// Which ones, and what they need.
    pub fn check(&self) -> Result<(), String> {
        if self.replicas.is_some() && self.s3.is_none() {
            return Err(
                "`--replicas` requires `--s3`: coordinators of one farm have their blobs in one bucket".to_owned()
            );
        }
        let of_redis = [("ca", &self.redis_ca), ("cert", &self.redis_cert), ("key", &self.redis_key)];
        let given = of_redis.iter().find(|(_, file)| file.is_some());
        if let Some((name, _)) = given.filter(|_| self.redis.is_none() && self.replicas.is_none()) {
            return Err(format!("`--redis-{name}` requires `--redis` or `--replicas`"));
        }
        Ok(())
    }

    /// Whether this is one of several coordinators of a farm.
    pub fn is_replica(&self) -> bool {
        self.replicas.is_some() || self.agreement.is_some()
    }

    /// The address of a Redis, with the certificates that go with it.
    ///
    /// # Errors
    /// If the address is invalid or a certificate cannot be read.
    pub fn redis_address(&self, url: &str) -> Result<kiln_store::redis::Address, kiln_store::redis::Error> {
        let (ca, certificate, key) = (self.redis_ca.clone(), self.redis_cert.clone(), self.redis_key.clone());
        kiln_store::redis::Address::parse(url, &kiln_store::redis::Tls { ca, certificate, key })
    }

    /// The stores' configuration.
    ///
    /// # Errors
    /// If a store's address is invalid or a certificate cannot be read.
    pub fn stores(&self, key: &FarmKey) -> Result<kiln_store::Config, kiln_store::Error> {
        let shared = |url: &String, max_blob_bytes| {
            let (address, prefix) = (self.redis_address(url)?, self.redis_prefix.clone());
            Ok::<_, kiln_store::Error>(kiln_store::RedisConfig { address, prefix, max_blob_bytes, key: key.clone() })
        };
        // What the coordinators agree by is no place for blobs: they would take the room of builds.
        let results = || self.replicas.as_ref().map(|url| shared(url, 0));
        let redis = self.redis.as_ref().map(|url| shared(url, self.redis_max_blob)).or_else(results).transpose()?;
        Ok(kiln_store::Config {
            data_dir: self.data_dir.clone(),
            max_bytes: self.store_bytes,
            budget: Some(kiln_store::Budget::new(self.store_bytes, &self.data_dir.join("tenants"))),
            counts_all: false,
            packed_bytes: kiln_store::disk::PACKED_BYTES,
            artifact_bytes: self.artifact_bytes.unwrap_or(kiln_store::Bound::Bytes(u64::MAX)),
            life: self.cache_age,
            redis,
            s3: self.s3.as_deref().map(kiln_store::s3::Address::from_env),
            common: self.agreement.as_ref().map(|agreement| agreement.blobs.clone()),
            bond: if self.is_replica() { kiln_store::Bond::Firm } else { kiln_store::Bond::Loose },
            clock: kiln_store::Clock::system(),
            syncs: std::sync::Arc::new(kiln_state::syncs::Kernel),
            metrics: None,
            distrusted: Default::default(),
        })
    }
}

/// Parses a lifetime: a duration from one second to a hundred years.
fn life(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let life = kiln_units::duration(text).map_err(|error| error.to_string())?;
    let fits = (Duration::from_secs(1)..=LONGEST).contains(&life);
    if fits { Ok(life) } else { Err(format!("`{text}` is not from one second to a hundred years")) }
}

/// Parses a percentage as millionths.
fn sample(text: &str) -> Result<u64, String> {
    let number = text.strip_suffix('%').and_then(|number| number.trim().parse::<f64>().ok());
    match number.filter(|percent| (0.0..=100.0).contains(percent)) {
        Some(percent) => Ok((percent * 10_000.0).round() as u64),
        None => Err(format!("`{text}` is not a percentage from `0%` to `100%`, such as `1%`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_is_a_percentage() {
        assert_eq!((sample("1%"), sample("0.05%"), sample("100%")), (Ok(10_000), Ok(500), Ok(1_000_000)));
        for wrong in ["1", "101%", "-1%", "%", "nan%", "many"] {
            assert!(sample(wrong).is_err_and(|error| error.contains(wrong)), "{wrong}");
        }
    }

    #[test]
    fn a_life_is_bounded() {
        assert_eq!(life("90s"), Ok(Duration::from_secs(90)));
        assert!(life("0s").is_err() && life("40000d").is_err());
    }
}
