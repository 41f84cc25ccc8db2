//! The arguments of `kiln farm`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use kiln_auth::Role;

/// `kiln farm`: who belongs to a farm. Works on the directory that its coordinator reads with `--farm-dir`.
#[derive(Debug, Subcommand)]
pub enum Membership {
    /// Make the farm's authority, its coordinator's certificate, and a token that workers join with.
    Init {
        /// Where all of it goes; the coordinator's `--farm-dir`.
        dir: PathBuf,
        /// A name or address by which the coordinator is reached; may be given several times.
        #[arg(long, required = true, value_name = "NAME")]
        host: Vec<String>,
        /// What the join token is good for.
        #[command(flatten)]
        join: Join,
    },
    /// Make a token: for somebody, or with `--join` for workers to join with. It is printed once, and nowhere kept.
    Token {
        /// For whom.
        #[command(flatten)]
        who: Who,
        /// A token that workers turn into certificates, and that opens nothing else.
        #[arg(long = "join", conflicts_with = "role")]
        is_join: bool,
        /// What a join token is good for.
        #[command(flatten)]
        join: Join,
    },
    /// Put a new key in front of the farm's own (`--farm-key`), under which leases and cached results are sealed. The one before it stays good;
    /// rotate a second time to end it.
    RotateKey {
        /// The file that the coordinator reads.
        file: PathBuf,
    },
    /// Make a certificate for somebody: `NAME.pem` and `NAME.key`.
    Certificate {
        /// For whom.
        #[command(flatten)]
        who: Who,
        /// How long it is valid, such as `90d`.
        #[arg(long, default_value = "90d", value_parser = kiln_units::duration, value_name = "TIME")]
        life: Duration,
        /// Where the two files go.
        #[arg(long, default_value = ".", value_name = "DIR")]
        output: PathBuf,
    },
    /// Make the coordinator another certificate, which it takes up without a restart.
    Renew {
        /// Of which farm.
        #[command(flatten)]
        dir: Dir,
        /// A name or address by which the coordinator is reached; may be given several times.
        #[arg(long, required = true, value_name = "NAME")]
        host: Vec<String>,
    },
    /// Let somebody in no more, whatever they show: at once, also where they are connected.
    Revoke {
        /// Their name: of a person, a token or a worker.
        #[arg(required_unless_present = "serial")]
        name: Option<String>,
        /// The serial number of one certificate, in hex; its owner's others stay.
        #[arg(long, value_name = "HEX", conflicts_with = "name")]
        serial: Option<String>,
        /// Revoke the name although the farm knows nobody who has it.
        #[arg(long, requires = "name")]
        unknown: bool,
        /// The directory that `kiln farm init` made, where it is on this machine; without, the farm at `--farm` is told.
        #[arg(long, env = "KILN_FARM_DIR", value_name = "DIR")]
        farm_dir: Option<PathBuf>,
    },
    /// Let somebody in again who was revoked.
    Unrevoke {
        /// Their name.
        #[arg(required_unless_present = "serial")]
        name: Option<String>,
        /// The serial number of the certificate that was revoked, in hex.
        #[arg(long, value_name = "HEX", conflicts_with = "name")]
        serial: Option<String>,
        /// The directory that `kiln farm init` made, where it is on this machine; without, the farm at `--farm` is told.
        #[arg(long, env = "KILN_FARM_DIR", value_name = "DIR")]
        farm_dir: Option<PathBuf>,
    },
    /// List workers, certificates, tokens, and who is revoked.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// Read the directory that `kiln farm init` made, which does not know workers; without, the farm at `--farm` is asked.
        #[arg(long, env = "KILN_FARM_DIR", value_name = "DIR")]
        farm_dir: Option<PathBuf>,
    },
    /// Give a worker no new work; what it runs goes on. It stays so when the worker or the coordinator restarts.
    Drain {
        /// The worker's name.
        worker: String,
    },
    /// Give a drained worker work again.
    Undrain {
        /// The worker's name.
        worker: String,
    },
}

/// How long a token is valid; and of one to join with, for which workers.
#[derive(Debug, Clone, Args)]
pub struct Join {
    /// How long the token is valid, such as `90d`; by default an hour to join with, else 90 days.
    #[arg(long, value_parser = kiln_units::duration, value_name = "TIME")]
    pub life: Option<Duration>,
    /// How many workers may join by it: a number, or `unlimited`; 1 by default.
    #[arg(long, value_parser = uses, value_name = "N")]
    pub uses: Option<Uses>,
    /// What the names of these workers must be like, such as `arm-*`.
    #[arg(long, value_name = "PATTERN")]
    pub workers: Option<String>,
    /// The pool that these workers are bound to: they have the label `pool` with this value.
    #[arg(long, value_name = "NAME")]
    pub pool: Option<String>,
}

/// How many workers may join by a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Uses {
    /// At most so many.
    AtMost(u32),
    /// Any number.
    Unlimited,
}

fn uses(text: &str) -> Result<Uses, String> {
    match (text, text.parse()) {
        ("unlimited", _) => Ok(Uses::Unlimited),
        (_, Ok(number)) if number > 0 => Ok(Uses::AtMost(number)),
        _ => Err(format!("invalid number of workers `{text}`; expected a number such as `10`, or `unlimited`")),
    }
}

/// The farm's directory.
#[derive(Debug, Clone, Args)]
pub struct Dir {
    /// The directory that `kiln farm init` made.
    #[arg(long, env = "KILN_FARM_DIR", value_name = "DIR")]
    pub farm_dir: PathBuf,
}

/// For whom something is made.
#[derive(Debug, Clone, Args)]
pub struct Who {
    /// Their name.
    pub name: String,
    /// Whose builds and cache they use; without, the default tenant's.
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    pub tenant: String,
    /// What they may do: `builder`, `cache-reader`, `cache-writer`, `worker`, `admin` (of a tenant) or `farm-admin`; repeatable.
    #[arg(long, value_name = "ROLE")]
    pub role: Vec<Role>,
    /// Of which farm.
    #[command(flatten)]
    pub dir: Dir,
}
