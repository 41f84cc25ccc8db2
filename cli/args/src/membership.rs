//! The arguments of `kiln farm`.

#[cfg(not(feature = "embedded"))]
use std::ffi::OsString;
#[cfg(feature = "embedded")]
use std::path::PathBuf;
#[cfg(feature = "embedded")]
use std::time::Duration;
use std::time::SystemTime;

#[cfg(feature = "embedded")]
use clap::Args;
use clap::Subcommand;
#[cfg(feature = "embedded")]
use kiln_auth::Role;

/// `kiln farm`: the members of a farm, which is asked or, with `--farm-dir`, has its directory on this machine.
#[derive(Debug, Subcommand)]
pub enum Membership {
    /// Create the farm's authority, the coordinator's certificate, and a token that workers join with.
    #[cfg(feature = "embedded")]
    Init {
        /// Directory to create them in; the coordinator's `--farm-dir`.
        dir: PathBuf,
        /// A host name or address of the coordinator; repeatable.
        #[arg(long, required = true, value_name = "NAME")]
        host: Vec<String>,
        /// Limits of the join token.
        #[command(flatten)]
        join: Join,
    },
    /// Create a token for a user, or with `--join` for workers. It is printed once and not stored.
    #[cfg(feature = "embedded")]
    Token {
        /// For whom.
        #[command(flatten)]
        who: Who,
        /// Create a join token: workers exchange it for a certificate, and it grants nothing else.
        #[arg(long = "join", conflicts_with = "role")]
        is_join: bool,
        /// Limits of a join token.
        #[command(flatten)]
        join: Join,
        /// Confine the holder to this branch scope of the caches of build tools: they read the base, and write for themselves only.
        #[arg(long, value_name = "NAME", conflicts_with = "is_join")]
        scope: Option<String>,
    },
    /// Rotate the farm's own key (`--farm-key`), which seals leases and cached results. The previous key stays valid until the next
    /// rotation.
    #[cfg(feature = "embedded")]
    RotateKey {
        /// The key file that the coordinator reads.
        file: PathBuf,
    },
    /// Rotate the keys that the farm signs with (`--signing-key`). The new one is published at once and signs after the overlap; until then
    /// the previous one does. What that signed stays verifiable.
    #[cfg(feature = "embedded")]
    RotateSigningKey {
        /// The key file that the coordinator reads.
        file: PathBuf,
        /// Time for those who verify to fetch the new key, such as `7d`. `0s` if the previous key was lost: it signs no more.
        #[arg(long, default_value = "7d", value_parser = kiln_units::duration, value_name = "TIME")]
        overlap: Duration,
    },
    /// Create a client certificate: `NAME.pem` and `NAME.key`.
    #[cfg(feature = "embedded")]
    Certificate {
        /// For whom.
        #[command(flatten)]
        who: Who,
        /// How long the certificate is valid, such as `90d`.
        #[arg(long, default_value = "90d", value_parser = kiln_units::duration, value_name = "TIME")]
        life: Duration,
        /// Directory to write the two files to.
        #[arg(long, default_value = ".", value_name = "DIR")]
        output: PathBuf,
    },
    /// Renew the coordinator's certificate; it is reloaded without a restart.
    #[cfg(feature = "embedded")]
    Renew {
        /// Of which farm.
        #[command(flatten)]
        dir: Dir,
        /// A host name or address of the coordinator; repeatable.
        #[arg(long, required = true, value_name = "NAME")]
        host: Vec<String>,
    },
    /// Revoke access: takes effect at once, even on open connections.
    Revoke {
        /// Name of the user, token or worker.
        #[arg(required_unless_present = "serial")]
        name: Option<String>,
        /// Serial number of one certificate, in hex; the owner's other certificates stay valid.
        #[arg(long, value_name = "HEX", conflicts_with = "name")]
        serial: Option<String>,
        /// Revoke the name even if nobody on the farm has it.
        #[arg(long, requires = "name")]
        unknown: bool,
        /// The directory that `kiln farm init` created, if it is on this machine; default: ask the farm at `--farm`.
        #[cfg(feature = "embedded")]
        #[arg(long, env = "KILN_FARM_DIR", value_name = "DIR")]
        farm_dir: Option<PathBuf>,
    },
    /// Restore revoked access.
    Unrevoke {
        /// Name of the user, token or worker.
        #[arg(required_unless_present = "serial")]
        name: Option<String>,
        /// Serial number of the revoked certificate, in hex.
        #[arg(long, value_name = "HEX", conflicts_with = "name")]
        serial: Option<String>,
        /// The directory that `kiln farm init` created, if it is on this machine; default: ask the farm at `--farm`.
        #[cfg(feature = "embedded")]
        #[arg(long, env = "KILN_FARM_DIR", value_name = "DIR")]
        farm_dir: Option<PathBuf>,
    },
    /// List workers, certificates, tokens and revocations.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        /// Read the directory that `kiln farm init` created, which does not list workers; default: ask the farm at `--farm`.
        #[cfg(feature = "embedded")]
        #[arg(long, env = "KILN_FARM_DIR", value_name = "DIR")]
        farm_dir: Option<PathBuf>,
    },
    /// List the farm's coordinators: which leads, since when, their clocks and versions, and what is wrong with each.
    Coordinators {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Print the public keys that the farm signs with, in PEM: with them, `kiln verify --key FILE` works without the farm.
    Keys {
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Use another farm of your configuration from now on, or print which there are.
    Use {
        /// The farm's name. Without it, your farms are printed: their addresses, which of them is used here, and the flags that commands get.
        name: Option<String>,
        /// Print your farms as JSON.
        #[arg(long, conflicts_with = "name")]
        json: bool,
    },
    /// Stop sending new work to a worker; what it runs continues. Survives restarts of the worker and the coordinator.
    Drain {
        /// The worker's name.
        worker: String,
    },
    /// Resume sending work to a drained worker.
    Undrain {
        /// The worker's name.
        worker: String,
    },
    /// Let no result count that a worker has made since a time, give it no more work, and list the artifacts that depend on what it made.
    ///
    /// With `--client`: let no result count that a client wrote into the caches since then (`UpdateActionResult`, or a build tool).
    Distrust {
        /// The worker's name.
        #[arg(required_unless_present = "client", conflicts_with = "client")]
        worker: Option<String>,
        /// A client in place of a worker: the name of a person or a token, or the identity of a CI job.
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
        /// Since when: a date and time such as `2026-11-30T08:00:00Z`, or how long ago, such as `3d`.
        #[arg(long, value_parser = since, value_name = "TIME")]
        since: SystemTime,
        /// Change nothing, and only list the artifacts.
        #[arg(long)]
        dry_run: bool,
        /// Distrust the name even if the farm knows nobody by it.
        #[arg(long)]
        unknown: bool,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
    /// Let results count again that a distrusted worker or client makes from now on.
    Trust {
        /// The worker's name.
        #[arg(required_unless_present = "client", conflicts_with = "client")]
        worker: Option<String>,
        /// A client in place of a worker.
        #[arg(long, value_name = "NAME")]
        client: Option<String>,
    },
    /// What works on the farm's directory.
    #[cfg(not(feature = "embedded"))]
    #[command(external_subcommand)]
    OnDirectory(Vec<OsString>),
}

/// A time in the past: in RFC 3339, or how long ago.
fn since(text: &str) -> Result<SystemTime, String> {
    let now = SystemTime::now();
    let at = match humantime::parse_rfc3339_weak(text) {
        Ok(at) => at,
        Err(_) => {
            let ago = kiln_units::duration(text).map_err(|_| {
                format!("invalid time `{text}`; expected a date and time such as `2026-11-30T08:00:00Z`, or how long ago, such as `3d`")
            })?;
            now.checked_sub(ago).unwrap_or(SystemTime::UNIX_EPOCH)
        }
    };
    if at > now { Err(format!("`{text}` is in the future; expected a time in the past")) } else { Ok(at) }
}

/// A token's lifetime and, for a join token, which workers may use it.
#[cfg(feature = "embedded")]
#[derive(Debug, Clone, Args)]
pub struct Join {
    /// How long the token is valid, such as `90d`; default: one hour for a join token, otherwise 90 days.
    #[arg(long, value_parser = kiln_units::duration, value_name = "TIME")]
    pub life: Option<Duration>,
    /// How many workers may join with it: a number or `unlimited`; default: 1.
    #[arg(long, value_parser = uses, value_name = "N")]
    pub uses: Option<Uses>,
    /// Pattern that the workers' names must match, such as `arm-*`.
    #[arg(long, value_name = "PATTERN")]
    pub workers: Option<String>,
    /// Bind the workers to this pool: they get the label `pool` with this value.
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
}

/// How many workers may join with a token.
#[cfg(feature = "embedded")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uses {
    /// At most this many.
    AtMost(u32),
    /// Any number.
    Unlimited,
}

#[cfg(feature = "embedded")]
fn uses(text: &str) -> Result<Uses, String> {
    match (text, text.parse()) {
        ("unlimited", _) => Ok(Uses::Unlimited),
        (_, Ok(number)) if number > 0 => Ok(Uses::AtMost(number)),
        _ => Err(format!("invalid number of workers `{text}`; expected a number such as `10`, or `unlimited`")),
    }
}

/// The farm's directory.
#[cfg(feature = "embedded")]
#[derive(Debug, Clone, Args)]
pub struct Dir {
    /// The directory that `kiln farm init` created.
    #[arg(long, env = "KILN_FARM_DIR", value_name = "DIR")]
    pub farm_dir: PathBuf,
}

/// The holder of a token or certificate.
#[cfg(feature = "embedded")]
#[derive(Debug, Clone, Args)]
pub struct Who {
    /// Name of the user, token or worker.
    pub name: String,
    /// The tenant whose builds and cache they use; default: the default tenant.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub tenant: String,
    /// Role: `builder`, `cache-reader`, `cache-writer`, `worker`, `admin` (of a tenant) or `farm-admin`; repeatable.
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<Role>,
    /// Of which farm.
    #[command(flatten)]
    pub dir: Dir,
}
