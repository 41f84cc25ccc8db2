//! The worker's configuration, validated as a whole before the worker connects.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_proto::channel::Access;

use kiln_docker as docker;
use kiln_kernel::userns::subordinate;
use kiln_sandbox::{IDS_OF_AN_ACTION, Isolation, Layout, Mode, SubIds, Way};

/// Configuration of a worker.
#[derive(Debug, Clone, clap::Args)]
pub struct Config {
    /// URL of the farm's coordinator; of a farm with several, the URLs of some or all of them, separated by commas. A name with several
    /// addresses stands for several coordinators, too.
    #[arg(long, env = "KILN_COORDINATOR", value_name = "URL")]
    pub coordinator: String,
    /// Credentials for the coordinator.
    #[command(flatten)]
    pub access: Access,
    /// File with a join token from `kiln farm init` or `kiln farm token --join`. The worker exchanges it for a certificate, which it keeps
    /// in the state directory and renews, so the token is needed only once.
    #[arg(long, env = "KILN_JOIN_FILE", value_name = "FILE", conflicts_with = "join")]
    pub join_file: Option<PathBuf>,
    /// The join token itself. Prefer the variable: everyone on the machine can read a command line.
    #[arg(long, env = "KILN_JOIN", hide_env_values = true, value_name = "TOKEN")]
    pub join: Option<String>,
    /// The worker's name on the farm; default: the host name.
    #[arg(long, env = "KILN_WORKER_NAME", default_value_t = host_name())]
    pub name: String,
    /// Run work of this tenant only; repeatable. Default: every tenant that the worker's certificate allows.
    #[arg(long = "tenant", env = "KILN_WORKER_TENANTS", value_delimiter = ',', value_name = "NAME")]
    pub tenants: Vec<String>,
    /// Directory for the cache and for running actions.
    #[arg(long, env = "KILN_STATE_DIR", value_name = "DIR")]
    pub state_dir: PathBuf,
    /// How to isolate actions: `required` refuses to start if the kernel does not allow a sandbox.
    #[arg(long, env = "KILN_SANDBOX", value_enum, default_value = "auto")]
    pub sandbox: Mode,
    /// User and group ids for actions, such as `--subids 1000000:1048576`. A worker that is root gives 65536 of them to each running
    /// action; default: the range of `root` or `kiln` in /etc/subuid and /etc/subgid, otherwise 1879048192:16777216. Any other worker gives
    /// one to all actions, with `newuidmap`; default: its user's range in these files.
    #[arg(long = "subids", env = "KILN_SUBIDS", value_name = "BASE:COUNT")]
    pub sub_ids: Option<SubIds>,
    /// Why a worker that is not root has no subordinate ids ([`Config::take_ids`]).
    #[arg(skip)]
    pub no_ids: Option<String>,
    /// Whether steps with the network get a network of their own, using `pasta` (package `passt`) or `slirp4netns`. If the machine cannot
    /// do it, `required` refuses to start and `auto` lets them share the machine's network.
    #[arg(long, env = "KILN_NETWORK_ISOLATION", value_enum, default_value = "auto")]
    pub network_isolation: Isolation,
    /// Run actions on this root file system instead of the machine's own, such as one made by `mmdebstrap`. With another architecture,
    /// which the kernel must be able to run, the worker is an emulated one.
    #[arg(long, env = "KILN_ROOT", value_name = "DIR")]
    pub root: Option<PathBuf>,
    /// Whether actions may run in containers: `required` refuses to start if no Docker Engine answers.
    #[arg(long, env = "KILN_DOCKER", value_enum, default_value = "auto")]
    pub docker: docker::Mode,
    /// The Docker Engine on this machine; Podman's socket works too.
    #[arg(long, env = "DOCKER_HOST", default_value = docker::DEFAULT_HOST, value_name = "URL")]
    pub docker_host: String,
    /// The engine's network for steps with `network = true`.
    #[arg(long, env = "KILN_DOCKER_NETWORK", default_value = "bridge", value_name = "NAME")]
    pub docker_network: String,
    /// Give the registry credentials of the worker's user to every step with the network, and pull every tenant's images with them; for a
    /// farm of one person or team. Without it, such steps get proxies, mirrors without credentials, certificates, and the coordinator's
    /// `--credentials` for their tenant.
    #[arg(long, env = "KILN_OWN_CREDENTIALS")]
    pub own_credentials: bool,
    /// CPUs to offer, such as `2` or `0.5`; default: the machine's.
    #[arg(long, value_name = "N", value_parser = cpus)]
    pub cpus: Option<f64>,
    /// Memory to offer, such as `4GiB`; default: the machine's.
    #[arg(long, value_name = "SIZE", value_parser = kiln_units::size)]
    pub memory: Option<u64>,
    /// A label that targets can require; repeatable.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// Maximum size of cached inputs.
    #[arg(long = "cache-size", env = "KILN_CACHE_SIZE", default_value = "20GiB", value_parser = kiln_units::size, value_name = "SIZE")]
    pub cache_bytes: u64,
    /// Maximum size of what is kept of image roots and cache mounts.
    #[arg(long = "root-cache-size", env = "KILN_ROOT_CACHE_SIZE", default_value = "20GiB", value_parser = kiln_units::size, value_name = "SIZE")]
    pub root_cache_bytes: u64,
    /// How image roots are mounted: `inside` needs Linux 5.19 or later and root, `outside` the same, `shared` is for workers that are not root;
    /// default: the first that works.
    #[arg(long, env = "KILN_ROOT_MOUNTS", value_enum, value_name = "WAY", hide = true)]
    pub root_mounts: Option<Way>,
    /// What image roots are on disk: `erofs` needs Linux 6.16 and root, `unpacked` works everywhere; default: the first that works.
    #[arg(long, env = "KILN_ROOT_LAYOUT", value_enum, value_name = "LAYOUT", hide = true)]
    pub root_layout: Option<Layout>,
    /// Allow Dockerfile steps with `--network=host`, which share this machine's network, its loopback and metadata addresses included.
    #[arg(long, env = "KILN_ALLOW_HOST_NETWORK")]
    pub allow_host_network: bool,
    /// Let Dockerfile steps with the network trust this machine's certificate authorities as well, such as that of a proxy that ends TLS.
    /// They are in a file of the step's `/dev` that variables (`SSL_CERT_FILE` and the like) name, and in no layer and no key.
    #[arg(long = "trust-host-ca", env = "KILN_TRUST_HOST_CA")]
    pub trust_host_ca: bool,
    /// How many of a hundred compiler calls with a known result are compiled again to verify it, on idle CPUs of their step, such as `1%`.
    /// With `100%`, steps wait until all of theirs are verified.
    #[arg(long, env = "KILN_VERIFY_CALLS", default_value = "0.1%", value_name = "PERCENT", value_parser = percent)]
    pub verify_calls: f64,
    /// Serve metrics and health over HTTP (`/metrics`, `/healthz`, `/readyz`) on this address, such as `127.0.0.1:9481`; default: off.
    #[arg(long, env = "KILN_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,
    /// How long running actions may continue after the worker was told to stop, such as `90s` or `9m`; the rest is run elsewhere.
    #[arg(long, env = "KILN_GRACE", default_value = "9m", value_name = "TIME", value_parser = grace)]
    pub grace: Duration,
}

impl Config {
    /// Makes a worker that is not root the root of a user namespace with its user's subordinate ids, so that actions
    /// need not run as its own user. If the machine does not allow that, the worker continues without, and
    /// [`sandbox`](kiln_sandbox) reports why. Must be called while the process has a single thread.
    /// has a second thread.
    pub fn take_ids(&mut self) {
        if self.sandbox == Mode::Off || rustix::process::geteuid().is_root() {
            return;
        }
        let wanted = self.sub_ids.map(SubIds::range);
        self.no_ids = subordinate::enter(Path::new("/proc/self/exe"), wanted, IDS_OF_AN_ACTION).err();
    }

    /// The join token, if there is one.
    ///
    /// # Errors
    /// If its file cannot be read.
    pub fn join_token(&self) -> io::Result<Option<String>> {
        if let Some(file) = &self.join_file {
            return std::fs::read_to_string(file).map(|text| Some(text.trim().to_owned()));
        }
        let is_on_command_line = self.join.is_some() && std::env::var("KILN_JOIN").ok() != self.join;
        if is_on_command_line {
            tracing::warn!(
                "the join token is on the command line, which everyone on this machine can read; use `--join-file` or `KILN_JOIN`"
            );
        }
        Ok(self.join.clone().filter(|token| !token.is_empty()))
    }
}

/// Default of [`Config::verify_calls`].
pub const DEFAULT_VERIFY_CALLS: f64 = 0.1;

/// Default of [`Config::grace`].
pub const DEFAULT_GRACE: Duration = Duration::from_secs(9 * 60);

fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "worker".to_owned() } else { name }
}

fn cpus(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(cpus) if cpus > 0.0 && cpus <= 4096.0 => Ok(cpus),
        _ => Err(format!("invalid number of CPUs `{text}`; expected for example `2` or `0.5`")),
    }
}

/// Parses a percentage, with or without its sign.
///
/// # Errors
/// What was expected instead.
pub fn percent(text: &str) -> Result<f64, String> {
    match text.strip_suffix('%').unwrap_or(text).trim().parse::<f64>() {
        Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(percent),
        _ => Err(format!("invalid percentage `{text}`; expected a number from 0 to 100, such as `0.1%`")),
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("invalid label `{text}`; expected `NAME=VALUE`")),
    }
}

/// Parses the grace period of a shutdown.
///
/// # Errors
/// What was expected instead.
pub fn grace(text: &str) -> Result<Duration, String> {
    // The runtime's timers do not support longer durations.
    const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 60 * 60);
    let grace = kiln_units::duration(text).map_err(|error| error.to_string())?;
    if grace <= MAX_DURATION { Ok(grace) } else { Err(format!("`{text}` is longer than a year")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_labels_and_cpus_are_read_or_refused_in_words() {
        assert_eq!(grace("9m"), Ok(Duration::from_secs(540)));
        assert!(grace("9").is_err() && grace("9y").unwrap_err().contains("`9y`") && grace("99999h").is_err());
        assert_eq!(label("gpu=a100"), Ok(("gpu".into(), "a100".into())));
        assert!(label("gpu").is_err() && label("=x").is_err());
        assert_eq!((percent("0.1%"), percent("100"), percent("0")), (Ok(0.1), Ok(100.0), Ok(0.0)));
        assert!(percent("101").is_err() && percent("nan").is_err() && percent("-1%").unwrap_err().contains("`-1%`"));
        assert!(cpus("0").is_err() && cpus("nan").is_err() && cpus("0.5").is_ok());
    }
}
