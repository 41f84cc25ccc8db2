//! The command line's words.

mod membership;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use kiln_coordinator::config::bound;
use kiln_detect::Language;
use kiln_planner::plan::{Platform, Variable};
use kiln_progress::Progress;
use kiln_proto::channel::Access;
use kiln_store::Bound;
pub use membership::{Join, Membership, Uses, Who};

/// A build farm behind one command: from a source tree to a traceable artifact.
#[derive(Debug, Parser)]
#[command(name = "kiln", version = crate::version::TEXT.as_str(), propagate_version = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// Which farm.
    #[command(flatten)]
    pub farm: Farm,
    /// How it tells of itself.
    #[command(flatten)]
    pub telemetry: kiln_telemetry::Options,
}

/// Which farm, and how patient to be with it.
#[derive(Debug, Clone, Args)]
pub struct Farm {
    /// The farm's address; without one, a farm runs inside this command.
    #[arg(long, env = "KILN_FARM", global = true, value_name = "URL", hide_env_values = true)]
    pub farm: Option<String>,
    /// How long a farm that went away in mid-build is waited for, in seconds.
    #[arg(long, global = true, default_value = "120", value_parser = seconds, value_name = "SECONDS", hide = true)]
    pub lost_after: Duration,
    /// Who one is there.
    #[command(flatten)]
    pub access: Access,
    /// What a farm inside this command keeps at most.
    #[arg(skip = Bound::Share)]
    pub store_size: Bound,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a source tree and bring its artifacts back.
    Build(Build),
    /// Run the project's tests on the farm: the plan's test steps, and what they need.
    Test(Test),
    /// Show what the farm does now.
    Status(Json),
    /// Follow a build that already runs, and bring its artifacts back.
    Attach(Attach),
    /// Print the whole output of a build's steps.
    Logs(Logs),
    /// List builds.
    Builds(List),
    /// Cancel a build, or all of a person's.
    Cancel {
        /// The build: its id, the beginning of it, or `latest`.
        #[arg(required_unless_present = "user")]
        build: Option<String>,
        /// Cancel all running builds of this person.
        #[arg(long, value_name = "NAME", conflicts_with = "build")]
        user: Option<String>,
    },
    /// List the farm's workers.
    Workers(Json),
    /// List artifacts.
    Artifacts(Artifacts),
    /// Bring an artifact back, by its id or its name, bit for bit.
    Fetch(Fetch),
    /// See what the farm has cached, how much that saves, and why a step missed.
    #[command(subcommand)]
    Cache(Cache),
    /// Say who belongs to a farm: certificates, tokens, and who is let in no more.
    #[command(subcommand)]
    Farm(Membership),
    /// Run a whole farm on this machine: a coordinator and workers.
    Up(Up),
    /// Print the steps that a build would take, and why.
    Plan(Plan),
    /// Write the plan down as `kiln.toml`.
    Init {
        /// The source tree.
        #[arg(default_value = ".")]
        dir: PathBuf,
    },
    /// Go through the release checklist for a project.
    Check(Check),
    /// The coordinator of `kiln up`.
    #[command(hide = true)]
    Coordinator(Box<Coordinator>),
    /// A worker of `kiln up`.
    #[command(hide = true)]
    Worker(Box<Worker>),
}

impl Command {
    /// The process that this one must not outlive.
    pub fn parent(&self) -> Option<u32> {
        match self {
            Self::Coordinator(args) => args.parent,
            Self::Worker(args) => args.parent,
            _ => None,
        }
    }
}

/// `kiln build`.
#[derive(Debug, Clone, Args)]
pub struct Build {
    /// The source tree.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Platforms to build for, such as `linux/amd64,linux/arm64`; default: the project's targets, else this machine's.
    #[arg(long, value_delimiter = ',', value_name = "A[,B]")]
    pub platform: Vec<Platform>,
    /// A target of the project's `kiln.toml`; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,
    /// The language to build the project as, if its files speak for several: rust, go, java, node, python, ruby, c.
    #[arg(long, value_name = "NAME")]
    pub language: Option<Language>,
    /// Take workers that emulate the platform where no native one matches.
    #[arg(long)]
    pub allow_emulation: bool,
    /// Where artifacts go.
    #[arg(long, default_value = "kiln-out", value_name = "DIR")]
    pub output: PathBuf,
    /// Run every step again.
    #[arg(long)]
    pub no_cache: bool,
    /// Set an environment variable for every step, or as `STEP:NAME=VALUE` for one; may be given several times. It overrides the
    /// step's own `env` and is part of its cache key.
    #[arg(long, value_name = "[STEP:]NAME=VALUE")]
    pub env: Vec<Variable>,
    /// A secret that a step asks for: let the project have the variable NAME, or take the value from a file; repeatable. Without it
    /// `kiln` asks on a terminal, once for each project and variable; elsewhere `KILN_SECRETS=NAME,…` allows it.
    #[arg(long, value_name = "NAME[=FILE]")]
    pub secret: Vec<String>,
    /// Where what was built is taken.
    #[command(flatten)]
    pub deliver: Deliver,
    /// Print the build's id and return at once; `kiln attach` follows it.
    #[arg(long)]
    pub detach: bool,
    /// How to show what happens.
    #[arg(long, value_enum, default_value_t)]
    pub progress: Progress,
    /// How long its steps wait while no worker that could run them is there, such as `15m`; default: the farm's `--queue-timeout`.
    #[arg(long, value_parser = kiln_units::duration, value_name = "TIME")]
    pub queue_timeout: Option<Duration>,
    /// Most bytes of cached blobs, and of artifacts, in the farm inside this command, such as `20GiB`; `auto` is a fifth of the free disk and at most 50 GiB.
    #[arg(long, env = "KILN_STORE_SIZE", default_value = "auto", value_parser = bound, value_name = "SIZE")]
    pub store_size: Bound,
    /// Lower is more urgent.
    #[arg(long, default_value_t, allow_negative_numbers = true, value_name = "NUMBER")]
    pub priority: i32,
}

/// `kiln test`.
#[derive(Debug, Clone, Args)]
pub struct Test {
    /// The source tree.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Platforms to test on, such as `linux/amd64,linux/arm64`; default: the project's targets, else this machine's.
    #[arg(long, value_delimiter = ',', value_name = "A[,B]")]
    pub platform: Vec<Platform>,
    /// A target of the project's `kiln.toml`; repeatable.
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,
    /// The language to build the project as, if its files speak for several.
    #[arg(long, value_name = "NAME")]
    pub language: Option<Language>,
    /// Set an environment variable for every step, or as `STEP:NAME=VALUE` for one; repeatable.
    #[arg(long, value_name = "[STEP:]NAME=VALUE")]
    pub env: Vec<Variable>,
    /// Use workers that emulate the platform where no native one matches.
    #[arg(long)]
    pub allow_emulation: bool,
    /// How long its steps wait while no worker that could run them is there, such as `15m`; default: the farm's `--queue-timeout`.
    #[arg(long, value_parser = kiln_units::duration, value_name = "TIME")]
    pub queue_timeout: Option<Duration>,
    /// Most bytes of cached blobs, and of artifacts, in the farm inside this command, such as `20GiB`; `auto` is a fifth of the free disk and at most 50 GiB.
    #[arg(long, env = "KILN_STORE_SIZE", default_value = "auto", value_parser = bound, value_name = "SIZE")]
    pub store_size: Bound,
    /// Run every step again, also tests that passed on the same sources.
    #[arg(long)]
    pub no_cache: bool,
    /// A secret that a step asks for: let the project have the variable NAME, or take the value from a file; repeatable. Without it
    /// `kiln` asks on a terminal, once for each project and variable; elsewhere `KILN_SECRETS=NAME,…` allows it.
    #[arg(long, value_name = "NAME[=FILE]")]
    pub secret: Vec<String>,
    /// How to show progress.
    #[arg(long, value_enum, default_value_t)]
    pub progress: Progress,
    /// Lower is more urgent.
    #[arg(long, default_value_t, allow_negative_numbers = true, value_name = "NUMBER")]
    pub priority: i32,
}

/// Where artifacts are taken, beside the output directory.
#[derive(Debug, Clone, Default, Args)]
pub struct Deliver {
    /// Push to a container registry, such as `registry.example/team/shop:1.4.2`; without a tag, the version is it. With several
    /// artifacts, `ARTIFACT=REFERENCE`. Or to a store of plain files: `s3://BUCKET/PREFIX` by the usual `AWS_…` variables, or an
    /// `https://` URL that takes files by PUT, with a user and password in it or `KILN_PUSH_AUTHORIZATION`. What is pushed is not written to the output directory.
    #[arg(long, value_name = "[ARTIFACT=]REFERENCE", conflicts_with = "detach")]
    pub push: Vec<String>,
    /// Push to the places in `[store]` of the project's `kiln.toml`.
    #[arg(long, conflicts_with = "detach")]
    pub store: bool,
    /// Move a tag that names another image; by default it is left alone, and the push refused.
    #[arg(long, conflicts_with = "detach")]
    pub push_over: bool,
    /// Load images into the local Docker.
    #[arg(long, conflicts_with = "detach")]
    pub load: bool,
    /// A registry that plain HTTP may be spoken to, as HOST or HOST:PORT; may be given several times. This machine always may.
    #[arg(long, env = "KILN_INSECURE_REGISTRIES", value_delimiter = ',', value_name = "HOST")]
    pub insecure_registry: Vec<String>,
}

impl Deliver {
    /// Whether artifacts are taken anywhere.
    pub fn is_asked(&self) -> bool {
        self.load || self.store || !self.push.is_empty()
    }
}

/// `kiln attach`.
#[derive(Debug, Clone, Args)]
pub struct Attach {
    /// The build: its id, the beginning of it, or `latest`.
    #[arg(default_value = "latest")]
    pub build: String,
    /// Where artifacts go.
    #[arg(long, default_value = "kiln-out", value_name = "DIR")]
    pub output: PathBuf,
    /// How to show what happens.
    #[arg(long, value_enum, default_value_t)]
    pub progress: Progress,
}

/// `kiln logs`.
#[derive(Debug, Clone, Args)]
pub struct Logs {
    /// The build: its id, the beginning of it, or `latest`.
    #[arg(default_value = "latest")]
    pub build: String,
    /// The step; default: all.
    pub step: Option<String>,
    /// Go on with what the steps write until the build ends.
    #[arg(long, short)]
    pub follow: bool,
}

/// The form of a list.
#[derive(Debug, Clone, Copy, Args)]
pub struct Json {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln builds`.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// How many, newest first.
    #[arg(long, default_value = "50")]
    pub limit: u32,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln artifacts`.
#[derive(Debug, Clone, Args)]
pub struct Artifacts {
    /// Only artifacts of this name.
    pub name: Option<String>,
    /// How many, newest first.
    #[arg(long, default_value = "100")]
    pub limit: u32,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln fetch`.
#[derive(Debug, Clone, Args)]
pub struct Fetch {
    /// The artifact: its id, part of it that no other has, its name, NAME-VERSION, or `latest`.
    pub id: String,
    /// Where it goes.
    #[arg(long, default_value = "kiln-out", value_name = "DIR")]
    pub output: PathBuf,
}

/// `kiln cache`.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// List the cached results of steps, newest use first.
    List(Layers),
    /// How often steps hit, by step and by user, and what that saved.
    Stats(Layers),
    /// Forget layers that were not used lately; and remove what they alone name from the disk.
    Prune(Prune),
    /// Say why a step missed when it ran last.
    Explain(Explain),
}

/// Which layers, and in which form.
#[derive(Debug, Clone, Args)]
pub struct Layers {
    /// Only those of this project.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Only those of this step.
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln cache prune`.
#[derive(Debug, Clone, Args)]
pub struct Prune {
    /// Which layers.
    #[command(flatten)]
    pub layers: Layers,
    /// Not used, nor made, since: such as `30d`, `12h` or `45m`.
    #[arg(long, value_parser = kiln_units::duration, value_name = "AGE")]
    pub older_than: Duration,
    /// Only say what would go.
    #[arg(long)]
    pub dry_run: bool,
}

/// `kiln cache explain`.
#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// The step.
    pub step: String,
    /// The source tree of the project.
    #[arg(default_value = ".", conflicts_with = "project")]
    pub dir: PathBuf,
    /// The project's name, where its tree is not at hand.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln up`.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// How many workers; they share the machine's CPUs and memory.
    #[arg(long, default_value = "1", value_name = "N")]
    pub workers: u32,
    /// Where the coordinator listens.
    #[arg(long, default_value = "127.0.0.1:8980", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Where the farm keeps its data; default: `kiln/up` in the user's cache directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Most bytes of cached blobs, and of artifacts, such as `20GiB`; `auto` is a fifth of the free disk and at most 50 GiB.
    #[arg(long, env = "KILN_STORE_SIZE", default_value = "auto", value_name = "SIZE")]
    pub store_size: String,
    /// Let in every user of this machine, and whoever else reaches the address: they may run commands as this user. Without it, only this
    /// user's own programs are let in, by a token that they find.
    #[arg(long, env = "KILN_INSECURE")]
    pub insecure: bool,
    /// How long work waits while no worker that could run it is there, such as `15m`.
    #[arg(long, env = "KILN_QUEUE_TIMEOUT", default_value = "15m", value_name = "TIME")]
    pub queue_timeout: String,
}

/// `kiln plan`.
#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// The source tree.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Platforms to build for.
    #[arg(long, value_delimiter = ',', value_name = "A[,B]")]
    pub platform: Vec<Platform>,
    /// A target of the project's `kiln.toml`; may be given several times.
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,
    /// The language to build the project as, if its files speak for several.
    #[arg(long, value_name = "NAME")]
    pub language: Option<Language>,
    /// Set an environment variable for every step, or as `STEP:NAME=VALUE` for one; may be given several times. It overrides the
    /// step's own `env` and is part of its cache key.
    #[arg(long, value_name = "[STEP:]NAME=VALUE")]
    pub env: Vec<Variable>,
    /// The plan of `kiln test` instead.
    #[arg(long)]
    pub test: bool,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// The source tree.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// As JSON.
    #[arg(long)]
    pub json: bool,
}

/// The hidden `kiln coordinator`.
#[derive(Debug, Clone, Args)]
pub struct Coordinator {
    /// As for `kiln-coordinator`.
    #[command(flatten)]
    pub config: kiln_coordinator::Config,
    /// The process that it must not outlive.
    #[arg(long)]
    pub parent: Option<u32>,
}

/// The hidden `kiln worker`.
#[derive(Debug, Clone, Args)]
pub struct Worker {
    /// As for `kiln-worker`.
    #[command(flatten)]
    pub config: kiln_worker::Config,
    /// The process that it must not outlive.
    #[arg(long)]
    pub parent: Option<u32>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| format!("`{text}` is no number of seconds"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        super::Cli::command().debug_assert();
    }
}
