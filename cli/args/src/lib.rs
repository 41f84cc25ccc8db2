//! The command line of `kiln`: commands, flags and their help.
//!
//! Invariant: nothing here knows what a command does.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

pub mod gate;
mod membership;
mod shell;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kiln_detect::Language;
use kiln_planner::plan::{Platform, Variable};
use kiln_progress::Progress;
use kiln_proto::channel::Access;
use kiln_units::{Bound, bound};
pub use membership::Membership;
#[cfg(feature = "embedded")]
pub use membership::{Join, Uses, Who};
pub use shell::{Place, Run};

/// Build on a distributed farm: from a source tree to a traceable artifact.
#[derive(Debug, Parser)]
#[command(name = "kiln", version = kiln_version::TEXT.as_str(), propagate_version = true)]
pub struct Cli {
    /// The command.
    #[command(subcommand)]
    pub command: Command,
    /// The farm to use.
    #[command(flatten)]
    pub farm: Farm,
    /// Logs and traces.
    #[command(flatten)]
    pub telemetry: kiln_telemetry::Options,
}

/// The farm to use, and how long to wait for it.
#[derive(Debug, Clone, Args)]
pub struct Farm {
    /// The farm's URL, or its name in your configuration; without it, the farm that the configuration names, else one inside this command.
    /// Of a farm with several coordinators, their URLs, separated by commas: whichever answers is used.
    #[arg(long, env = "KILN_FARM", global = true, value_name = "URL", hide_env_values = true)]
    pub farm: Option<String>,
    /// How long to wait for a farm that disappears during a build, in seconds.
    #[arg(long, global = true, default_value = "120", value_parser = seconds, value_name = "SECONDS", hide = true)]
    pub lost_after: Duration,
    /// Credentials for the farm.
    #[command(flatten)]
    pub access: Access,
    /// Storage limit of a farm inside this command.
    #[arg(skip = Bound::Share)]
    pub store_size: Bound,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Build a source tree and download its artifacts.
    Build(Build),
    /// Build as `docker build` and `docker buildx build` do, with their arguments; see `kiln docker build --help`.
    #[command(disable_help_flag = true, disable_version_flag = true)]
    Docker {
        /// `build` or `buildx build`, and its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
        arguments: Vec<String>,
    },
    /// Run the project's tests on the farm: the plan's test steps and the steps they need.
    Test(Test),
    /// Show what the farm is doing.
    Status(Json),
    /// Follow a running build and download its artifacts.
    Attach(Attach),
    /// Print the complete output of a build's steps.
    Logs(Logs),
    /// Open a shell where a step of a build ran: the same inputs, root, variables and limits, after its command has run. What happens there
    /// is thrown away. `~.` at the beginning of a line ends it.
    Shell(Place),
    /// Run a command where a step of a build ran, without a terminal, and exit with its exit code.
    Run(Run),
    /// Show what became of a build's tests: those that failed first, with what they said.
    TestReport(TestReport),
    /// List builds.
    Builds(List),
    /// Cancel a build, or all builds of one user.
    #[command(group = clap::ArgGroup::new("which").required(true).args(["build", "user", "request_id"]))]
    Cancel {
        /// The build: its id, an unambiguous prefix of it, or `latest`.
        build: Option<String>,
        /// Cancel all running builds of this user.
        #[arg(long, value_name = "NAME")]
        user: Option<String>,
        /// Cancel the build that was started with `kiln build --request-id ID`.
        #[arg(long, value_name = "ID")]
        request_id: Option<String>,
    },
    /// List the farm's workers.
    Workers(Json),
    /// List artifacts.
    Artifacts(Artifacts),
    /// Download an artifact by id or name, bit for bit.
    Fetch(Fetch),
    /// Verify that an artifact is what the farm made and signed, and what a policy demands.
    ///
    /// Exit codes: 0 verified, 1 refused, 2 the command line or a file is wrong, 3 the farm or the registry cannot be reached.
    Verify(Verify),
    /// Build an artifact again from its provenance alone, and compare. Exits with 0 if it is the same, 1 if it is not, 3 if the farm cannot say.
    Rebuild(Rebuild),
    /// Show what is cached, how much it saves, and why a step missed.
    #[command(subcommand)]
    Cache(Cache),
    /// Be Go's build cache: `go` starts this if `GOCACHEPROG` says so; `kiln cache env go` prints the setting.
    Gocache(kiln_toolcache::gocache::Gocache),
    /// Be ccache's storage helper: ccache starts this without arguments.
    #[command(hide = true)]
    CcacheStorage,
    /// Manage access to a farm: certificates, tokens and revocations; and drain workers.
    #[command(subcommand)]
    Farm(Membership),
    /// Add a farm to your configuration, and use it from now on.
    Login(Login),
    /// Print what a shell needs to complete the commands and flags of `kiln`.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of all commands.
    #[command(hide = true)]
    ManualPages {
        /// The directory to write them to.
        dir: PathBuf,
    },
    /// Open the farm's web pages in a browser, logged in as you.
    Web {
        /// Print the link instead; it works once, within a minute.
        #[arg(long)]
        print: bool,
    },
    /// Run a whole farm on this machine: a coordinator and workers.
    Up(Up),
    /// Print the steps that a build would run, and why.
    Plan(Plan),
    /// Write the plan to `kiln.toml`.
    Init {
        /// The source tree.
        #[arg(default_value = ".")]
        dir: PathBuf,
        /// Write down a container image of the project, on this base; default: `debian:12`.
        #[arg(long, value_name = "BASE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
        image: Option<String>,
    },
    /// Check a bill of materials or a size, as `[gates.NAME]` of a `kiln.toml` does. Needs no farm; exits with 1 if the check fails.
    #[command(subcommand)]
    Gate(gate::Gate),
    /// Check a project against the release checklist.
    Check(Check),
    /// Show what this machine and the farm have and lack, and how to correct it. Exits with 1 if something that is needed is missing.
    Doctor(Doctor),
    /// The coordinator of `kiln up`.
    #[cfg(feature = "embedded")]
    #[command(hide = true)]
    Coordinator(Box<Coordinator>),
    /// A worker of `kiln up`.
    #[cfg(feature = "embedded")]
    #[command(hide = true)]
    Worker(Box<Worker>),
}

impl Command {
    /// Whether it uses a farm that the user's configuration may name, and the directory of the project that may choose one of these.
    pub fn project(&self) -> Option<&Path> {
        match self {
            #[cfg(feature = "embedded")]
            Self::Coordinator(_) | Self::Worker(_) => None,
            Self::Up(_)
            | Self::Login(_)
            // It says itself what is wrong with the configuration.
            | Self::Doctor(_)
            | Self::Completions { .. }
            | Self::Gate(_)
            | Self::ManualPages { .. }
            | Self::CcacheStorage => None,
            Self::Farm(Membership::Use { .. }) => None,
            Self::Build(Build { dir, .. }) | Self::Test(Test { dir, .. }) | Self::Plan(Plan { dir, .. }) => Some(dir),
            Self::Check(Check { dir, .. }) | Self::Init { dir, .. } => Some(dir),
            _ => Some(Path::new(".")),
        }
    }

    /// The process that the command is, as its logs and traces name it.
    pub fn process(&self) -> &'static str {
        match self {
            #[cfg(feature = "embedded")]
            Self::Coordinator(_) => "kiln-coordinator",
            #[cfg(feature = "embedded")]
            Self::Worker(_) => "kiln-worker",
            _ => "kiln",
        }
    }

    /// The process with which this one must end.
    #[cfg(feature = "embedded")]
    pub fn parent(&self) -> Option<u32> {
        match self {
            Self::Coordinator(args) => args.parent,
            Self::Worker(args) => args.parent,
            _ => None,
        }
    }
}

/// How a Dockerfile is built.
#[derive(Debug, Clone, Default, Args)]
pub struct Dockerfile {
    /// Build the image of this Dockerfile, by its path in the project, and nothing else.
    #[arg(long, short = 'f', value_name = "PATH")]
    pub file: Option<String>,
    /// The stage of the Dockerfile to build; default: the last one.
    #[arg(long, value_name = "NAME")]
    pub stage: Option<String>,
    /// A value for an ARG of the Dockerfile; repeatable. Without a value, it is taken from the environment.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// What takes the place of a stage or an image: a directory of the project, `docker-image://NAME` or `oci-layout://PATH`;
    /// repeatable.
    #[arg(long, value_parser = context, value_name = "NAME=VALUE")]
    pub build_context: Vec<(String, String)>,
    /// An SSH agent that commands of the Dockerfile may mount: `default` for the one of `SSH_AUTH_SOCK`, or a socket or keys;
    /// repeatable. Keys stay on this machine.
    #[arg(long, value_name = "default|ID=PATH[,PATH]")]
    pub ssh: Vec<kiln_agents::Offer>,
}

impl Dockerfile {
    /// What the user asks for; none if nothing.
    pub fn wanted(&self) -> Option<kiln_planner::plan::Dockerfile> {
        let asks = self.file.is_some()
            || self.stage.is_some()
            || !self.build_arg.is_empty()
            || !self.build_context.is_empty()
            || !self.ssh.is_empty();
        let argument = |text: &String| match text.split_once('=') {
            Some((name, value)) => Some((name.to_owned(), value.to_owned())),
            // As `docker build` does: a variable that is not set is no argument.
            None => Some((text.clone(), std::env::var(text).ok()?)),
        };
        let path = |text: &str| text.trim_start_matches("./").trim_end_matches('/').to_owned();
        let place = |value: &String| if value.contains("://") { value.clone() } else { path(value) };
        asks.then(|| kiln_planner::plan::Dockerfile {
            file: self.file.as_deref().map(path).unwrap_or_default(),
            stage: self.stage.clone(),
            args: self.build_arg.iter().filter_map(argument).collect(),
            contexts: self.build_context.iter().map(|(name, value)| (name.clone(), place(value))).collect(),
            ssh: self.ssh.iter().map(|offer| offer.id.clone()).collect(),
            ..kiln_planner::plan::Dockerfile::default()
        })
    }
}

fn context(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=VALUE".to_owned()),
    }
}

/// What runs steps that have an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Executor {
    /// A sandbox.
    Sandbox,
    /// Containers.
    Docker,
}

/// Which steps must make the same again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Reproducible {
    /// Those without network access.
    Steps,
    /// Those with network access too.
    All,
}

/// `kiln rebuild`.
#[derive(Debug, Clone, Args)]
pub struct Rebuild {
    /// The artifact: its id, part of it, or its name.
    pub id: String,
    /// The directory with its sources, if the farm does not have them any more. They must be the same.
    #[arg(long, value_name = "DIR")]
    pub source: Option<PathBuf>,
    /// Give a step a secret that it asks for, as with `kiln build`; repeatable.
    #[arg(long, value_name = "NAME[=FILE]")]
    pub secret: Vec<String>,
    /// Directory to write what is built to; default: nowhere.
    #[arg(long, value_name = "DIR")]
    pub output: Option<PathBuf>,
    /// Print the result as JSON.
    #[arg(long)]
    pub json: bool,
    /// How to show progress.
    #[arg(long, value_enum, default_value_t)]
    pub progress: Progress,
}

/// `kiln build`.
#[derive(Debug, Clone, Args)]
pub struct Build {
    /// The source tree; several, or patterns such as 'services/*', for several projects of a repository.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// More of them.
    #[arg(value_name = "DIR")]
    pub more: Vec<PathBuf>,
    /// Only the projects that changed between this commit and the working tree: their plan, or what their steps read, wherever it is.
    #[arg(long, value_name = "COMMIT")]
    pub affected_by: Option<String>,
    /// Stop all builds when one of several fails.
    #[arg(long)]
    pub fail_fast: bool,
    /// Platforms to build for, such as `linux/amd64,linux/arm64`; default: the project's targets, else this machine's.
    #[arg(long, value_delimiter = ',', value_name = "A[,B]")]
    pub platform: Vec<Platform>,
    /// A target of the project's `kiln.toml`; repeatable.
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,
    /// The language to build the project as, if its files suggest several: rust, go, java, node, deno, python, ruby, php,
    /// zig, hugo, c.
    #[arg(long, value_name = "NAME")]
    pub language: Option<Language>,
    /// How a Dockerfile is built.
    #[command(flatten)]
    pub dockerfile: Dockerfile,
    /// Build a container image of a project that needs no `kiln.toml`, on this base; default: what the target's `image` or `os` says, else
    /// `debian:12`.
    #[arg(long, value_name = "BASE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub image: Option<String>,
    /// Use workers that emulate the platform if no native one matches.
    #[arg(long)]
    pub allow_emulation: bool,
    /// What runs steps that have an image: a sandbox on the image's file system, or containers of a Docker Engine. Default: what the
    /// workers can do, a sandbox first.
    #[arg(long, value_name = "WHAT")]
    pub executor: Option<Executor>,
    /// Directory to write artifacts to.
    #[arg(long, default_value = "kiln-out", value_name = "DIR")]
    pub output: PathBuf,
    /// An id of your choice for this request. A second `kiln build` with the same id follows the first one's build instead of starting
    /// another, and `kiln cancel --request-id ID` cancels it, even if its client never received the build's id.
    #[arg(long, value_name = "ID", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub request_id: Option<String>,
    /// Ignore cached results and run every step again.
    #[arg(long)]
    pub no_cache: bool,
    /// Run the steps of each artifact again, on another worker where there is one, later and with another number of CPUs and host name, and
    /// compare what they make. The build fails if a step without network access makes something else; with `=all`, if any step does.
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_missing_value = "steps", value_name = "WHICH")]
    pub verify_reproducible: Option<Reproducible>,
    /// Set an environment variable for every step, or for one step as `STEP:NAME=VALUE`; repeatable. Overrides the step's own `env` and is
    /// part of its cache key.
    #[arg(long, value_name = "[STEP:]NAME=VALUE")]
    pub env: Vec<Variable>,
    /// Give the project a secret that a step asks for: the value of the variable NAME, or of a file; repeatable. Without it, `kiln` asks on
    /// the terminal, once per project and variable. Without a terminal, `KILN_SECRETS=NAME,…` allows it too.
    #[arg(long, value_name = "NAME[=FILE]")]
    pub secret: Vec<String>,
    /// Where the artifacts are delivered.
    #[command(flatten)]
    pub deliver: Deliver,
    /// Print the build's id and return at once; `kiln attach` follows it.
    #[arg(long)]
    pub detach: bool,
    /// Open a shell where a step failed, as `kiln shell` does.
    #[arg(long, conflicts_with = "detach")]
    pub shell_on_failure: bool,
    /// How to show progress.
    #[arg(long, value_enum, default_value_t)]
    pub progress: Progress,
    /// How long steps wait when no connected worker can run them, such as `15m`; default: the farm's `--queue-timeout`.
    #[arg(long, value_parser = kiln_units::duration, value_name = "TIME")]
    pub queue_timeout: Option<Duration>,
    /// Maximum size of cached blobs, and of artifacts, in the farm inside this command, such as `20GiB`; `auto` is a fifth of the free disk
    /// space, at most 50 GiB.
    #[arg(long, env = "KILN_STORE_SIZE", default_value = "auto", value_parser = bound, value_name = "SIZE")]
    pub store_size: Bound,
    /// Priority; lower is more urgent.
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
    /// The language to build the project as, if its files suggest several.
    #[arg(long, value_name = "NAME")]
    pub language: Option<Language>,
    /// Set an environment variable for every step, or for one step as `STEP:NAME=VALUE`; repeatable.
    #[arg(long, value_name = "[STEP:]NAME=VALUE")]
    pub env: Vec<Variable>,
    /// Use workers that emulate the platform if no native one matches.
    #[arg(long)]
    pub allow_emulation: bool,
    /// What runs steps that have an image: a sandbox on the image's file system, or containers of a Docker Engine. Default: what the
    /// workers can do, a sandbox first.
    #[arg(long, value_name = "WHAT")]
    pub executor: Option<Executor>,
    /// How long steps wait when no connected worker can run them, such as `15m`; default: the farm's `--queue-timeout`.
    #[arg(long, value_parser = kiln_units::duration, value_name = "TIME")]
    pub queue_timeout: Option<Duration>,
    /// Maximum size of cached blobs, and of artifacts, in the farm inside this command, such as `20GiB`; `auto` is a fifth of the free disk
    /// space, at most 50 GiB.
    #[arg(long, env = "KILN_STORE_SIZE", default_value = "auto", value_parser = bound, value_name = "SIZE")]
    pub store_size: Bound,
    /// Open a shell where a step failed, as `kiln shell` does.
    #[arg(long)]
    pub shell_on_failure: bool,
    /// Run every step again, including tests that already passed on the same sources.
    #[arg(long)]
    pub no_cache: bool,
    /// Give the project a secret that a step asks for: the value of the variable NAME, or of a file; repeatable. Without it, `kiln` asks on
    /// the terminal, once per project and variable. Without a terminal, `KILN_SECRETS=NAME,…` allows it too.
    #[arg(long, value_name = "NAME[=FILE]")]
    pub secret: Vec<String>,
    /// How to show progress.
    #[arg(long, value_enum, default_value_t)]
    pub progress: Progress,
    /// Priority; lower is more urgent.
    #[arg(long, default_value_t, allow_negative_numbers = true, value_name = "NUMBER")]
    pub priority: i32,
}

/// Destinations of artifacts, in addition to the output directory.
#[derive(Debug, Clone, Default, Args)]
pub struct Deliver {
    /// Push to a container registry, such as `registry.example/team/shop:1.4.2`; the default tag is the version. With several artifacts,
    /// use `ARTIFACT=REFERENCE`. Or push to a store of plain files: `s3://BUCKET/PREFIX` with the usual `AWS_…` variables, or an `https://`
    /// URL that accepts PUT, with user and password in the URL or with `KILN_PUSH_AUTHORIZATION`. What is pushed is not written to the
    /// output directory.
    #[arg(long, value_name = "[ARTIFACT=]REFERENCE", conflicts_with = "detach")]
    pub push: Vec<String>,
    /// Push to the destinations in `[store]` of the project's `kiln.toml`.
    #[arg(long, conflicts_with = "detach")]
    pub store: bool,
    /// Move a tag that points to another image; by default the push is refused.
    #[arg(long, conflicts_with = "detach")]
    pub push_over: bool,
    /// Load images into the local Docker.
    #[arg(long, conflicts_with = "detach")]
    pub load: bool,
    /// A registry to use over plain HTTP, as HOST or HOST:PORT; repeatable. Registries on this machine always may.
    #[arg(long, env = "KILN_INSECURE_REGISTRIES", value_delimiter = ',', value_name = "HOST")]
    pub insecure_registry: Vec<String>,
}

impl Deliver {
    /// Whether there are any destinations.
    pub fn is_asked(&self) -> bool {
        self.load || self.store || !self.push.is_empty()
    }
}

/// `kiln attach`.
#[derive(Debug, Clone, Args)]
pub struct Attach {
    /// The build: its id, an unambiguous prefix of it, or `latest`.
    #[arg(default_value = "latest")]
    pub build: String,
    /// Directory to write artifacts to.
    #[arg(long, default_value = "kiln-out", value_name = "DIR")]
    pub output: PathBuf,
    /// How to show progress.
    #[arg(long, value_enum, default_value_t)]
    pub progress: Progress,
}

/// `kiln logs`.
#[derive(Debug, Clone, Args)]
pub struct Logs {
    /// The build: its id, an unambiguous prefix of it, or `latest`.
    #[arg(default_value = "latest")]
    pub build: String,
    /// The step; default: all steps.
    pub step: Option<String>,
    /// Keep printing new output until the build ends.
    #[arg(long, short)]
    pub follow: bool,
}

/// `kiln test-report`.
#[derive(Debug, Clone, Args)]
pub struct TestReport {
    /// The build: its id, an unambiguous prefix of it, or `latest`.
    #[arg(default_value = "latest")]
    pub build: String,
    /// The step; default: all steps.
    pub step: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The format of a list.
#[derive(Debug, Clone, Copy, Args)]
pub struct Json {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln builds`.
#[derive(Debug, Clone, Args)]
pub struct List {
    /// Maximum number to list, newest first.
    #[arg(long, default_value = "50")]
    pub limit: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln artifacts`.
#[derive(Debug, Clone, Args)]
pub struct Artifacts {
    /// List only artifacts with this name.
    pub name: Option<String>,
    /// Maximum number to list, newest first.
    #[arg(long, default_value = "100")]
    pub limit: u32,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln fetch`.
#[derive(Debug, Clone, Args)]
pub struct Fetch {
    /// The artifact: its id, an unambiguous part of it, its name, NAME-VERSION, or `latest`.
    pub id: String,
    /// Directory to write it to.
    #[arg(long, default_value = "kiln-out", value_name = "DIR")]
    pub output: PathBuf,
}

/// `kiln verify`.
#[derive(Debug, Clone, Args)]
pub struct Verify {
    /// A file or a directory that a build left, with its bundles beside it; an OCI image layout; an image in a registry, as
    /// `HOST/NAME:TAG` or `HOST/NAME@DIGEST`; or an artifact on the farm, as `kiln fetch` takes it.
    #[arg(value_name = "ARTIFACT")]
    pub what: String,
    /// Public keys to trust, in PEM, such as `kiln farm keys` prints them; repeatable. Without this, the farm (`--farm`) is asked for its keys.
    #[arg(long, value_name = "FILE")]
    pub key: Vec<PathBuf>,
    /// What is demanded besides a valid signature: a TOML file.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// A bundle with a signed statement, in place of those beside the file; repeatable.
    #[arg(long, value_name = "FILE")]
    pub bundle: Vec<PathBuf>,
    /// Fetch and hash all of an image in a registry, rather than its manifests alone.
    #[arg(long)]
    pub content: bool,
    /// A registry to use over plain HTTP, as HOST or HOST:PORT; repeatable. Registries on this machine always may.
    #[arg(long, env = "KILN_INSECURE_REGISTRIES", value_delimiter = ',', value_name = "HOST")]
    pub insecure_registry: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln cache`.
#[derive(Debug, Subcommand)]
pub enum Cache {
    /// List cached step results, most recently used first.
    List(CacheList),
    /// Show hit rates by step and by user, and what they saved.
    Stats(Layers),
    /// Drop step results that were not used recently, and free their disk space.
    Prune(Prune),
    /// Explain why a step missed the last time it ran.
    Explain(Explain),
    /// Print the settings with which a build tool uses the farm as its cache: `eval "$(kiln cache env ccache)"`.
    Env(kiln_toolcache::env::Env),
}

/// A selection of cached step results, and the format.
#[derive(Debug, Clone, Args)]
pub struct Layers {
    /// Only results of this project.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Only results of this step.
    #[arg(long, value_name = "NAME")]
    pub step: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln cache list`.
#[derive(Debug, Clone, Args)]
pub struct CacheList {
    /// The selection.
    #[command(flatten)]
    pub layers: Layers,
    /// List cache mounts (`caches` of steps, `RUN --mount=type=cache`) instead: their sizes, last use, and the worker that wrote each last.
    #[arg(long, conflicts_with = "step")]
    pub mounts: bool,
}

/// `kiln cache prune`.
#[derive(Debug, Clone, Args)]
pub struct Prune {
    /// The selection.
    #[command(flatten)]
    pub layers: Layers,
    /// Drop results neither used nor created within this time, such as `30d`, `12h` or `45m`.
    #[arg(long, value_parser = kiln_units::duration, value_name = "AGE")]
    pub older_than: Duration,
    /// Drop cache mounts (`caches` of steps, `RUN --mount=type=cache`) instead.
    #[arg(long, conflicts_with = "step")]
    pub mounts: bool,
    /// Only list what would be dropped.
    #[arg(long)]
    pub dry_run: bool,
}

/// `kiln cache explain`.
#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// The step.
    pub step: String,
    /// The project's source tree.
    #[arg(default_value = ".", conflicts_with = "project")]
    pub dir: PathBuf,
    /// The project's name, if its source tree is not available.
    #[arg(long, value_name = "NAME")]
    pub project: Option<String>,
    /// Of this build's run instead of the last one: its id, an unambiguous prefix of it, or `latest`. The farm knows the last 12 misses of each
    /// target and shard.
    #[arg(long, value_name = "ID", conflicts_with_all = ["dir", "project"])]
    pub build: Option<String>,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln up`.
#[derive(Debug, Clone, Args)]
pub struct Up {
    /// Number of workers; they share the machine's CPUs and memory.
    #[arg(long, default_value = "1", value_name = "N")]
    pub workers: u32,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8980", value_name = "ADDR")]
    pub listen: SocketAddr,
    /// Address of the caches of build tools (`kiln cache env TOOL`); default: the next port, or any free one.
    #[arg(long, value_name = "ADDR")]
    pub cache_listen: Option<SocketAddr>,
    /// Address of the web pages (`kiln web` opens them); default: the port after that of the caches, or any free one.
    #[arg(long, value_name = "ADDR")]
    pub web_listen: Option<SocketAddr>,
    /// Data directory; default: `kiln/up` in the user's cache directory.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Maximum size of cached blobs, and of artifacts, such as `20GiB`; `auto` is a fifth of the free disk space, at most 50 GiB.
    #[arg(long, env = "KILN_STORE_SIZE", default_value = "auto", value_parser = bound, value_name = "SIZE")]
    pub store_size: Bound,
    /// Accept everyone who can reach the address, including every user of this machine: they can run commands as you. By default only your
    /// own programs are accepted, with a token that they find.
    #[arg(long, env = "KILN_INSECURE")]
    pub insecure: bool,
    /// How long work waits when no connected worker can run it, such as `15m`.
    #[arg(long, env = "KILN_QUEUE_TIMEOUT", default_value = "15m", value_parser = kiln_units::duration, value_name = "TIME")]
    pub queue_timeout: Duration,
    /// Let Dockerfile steps with the network trust this machine's certificate authorities as well, such as that of a proxy that ends TLS, as
    /// workers with `--trust-host-ca` do.
    #[arg(long = "trust-host-ca", env = "KILN_TRUST_HOST_CA")]
    pub trust_host_ca: bool,
}

/// `kiln plan`.
#[derive(Debug, Clone, Args)]
pub struct Plan {
    /// The source tree; several, or patterns such as 'services/*', for several projects of a repository.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// More of them.
    #[arg(value_name = "DIR")]
    pub more: Vec<PathBuf>,
    /// Only the projects that changed between this commit and the working tree: their plan, or what their steps read, wherever it is.
    #[arg(long, value_name = "COMMIT")]
    pub affected_by: Option<String>,
    /// Platforms to build for.
    #[arg(long, value_delimiter = ',', value_name = "A[,B]")]
    pub platform: Vec<Platform>,
    /// A target of the project's `kiln.toml`; repeatable.
    #[arg(long, value_name = "NAME")]
    pub target: Vec<String>,
    /// The language to build the project as, if its files suggest several.
    #[arg(long, value_name = "NAME")]
    pub language: Option<Language>,
    /// How a Dockerfile is built.
    #[command(flatten)]
    pub dockerfile: Dockerfile,
    /// Build a container image of a project that needs no `kiln.toml`, on this base; default: what the target's `image` or `os` says, else
    /// `debian:12`.
    #[arg(long, value_name = "BASE", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub image: Option<String>,
    /// Set an environment variable for every step, or for one step as `STEP:NAME=VALUE`; repeatable. Overrides the step's own `env` and is
    /// part of its cache key.
    #[arg(long, value_name = "[STEP:]NAME=VALUE")]
    pub env: Vec<Variable>,
    /// Show the plan of `kiln test` instead.
    #[arg(long)]
    pub test: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln login`. The farm's authority and credentials are those of `--ca`, `--cert`, `--key` and `--token-file`; without any, a token is asked for.
#[derive(Debug, Clone, Args)]
pub struct Login {
    /// The farm's address, such as `https://farm.example:8980`.
    #[arg(value_name = "URL")]
    pub url: String,
    /// What to call it; default: its host's name.
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// A program that prints a token, with its arguments; each command runs it. Last of all flags.
    #[arg(long, num_args = 1.., allow_hyphen_values = true, value_name = "PROGRAM")]
    pub token_command: Vec<String>,
    /// The farm needs no token.
    #[arg(long, conflicts_with = "token_command")]
    pub no_token: bool,
}

/// `kiln check`.
#[derive(Debug, Clone, Args)]
pub struct Check {
    /// The source tree.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `kiln doctor`.
#[derive(Debug, Clone, Args)]
pub struct Doctor {
    /// The project whose farm and registries are looked at.
    #[arg(default_value = ".")]
    pub dir: PathBuf,
    /// Show only what this worker of the farm has and lacks, as it reported.
    #[arg(long, value_name = "NAME")]
    pub worker: Option<String>,
    /// Look at whether steps can run on this machine, although a farm runs them. Without a farm, that is looked at anyway.
    #[arg(long, conflicts_with = "worker")]
    pub machine: bool,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// The hidden `kiln coordinator`.
#[cfg(feature = "embedded")]
#[derive(Debug, Clone, Args)]
pub struct Coordinator {
    /// As for `kiln-coordinator`.
    #[command(flatten)]
    pub config: kiln_coordinator::Config,
    /// The process with which it must end.
    #[arg(long)]
    pub parent: Option<u32>,
}

/// The hidden `kiln worker`.
#[cfg(feature = "embedded")]
#[derive(Debug, Clone, Args)]
pub struct Worker {
    /// As for `kiln-worker`.
    #[command(flatten)]
    pub config: kiln_worker::Config,
    /// The process with which it must end.
    #[arg(long)]
    pub parent: Option<u32>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map_err(|_| format!("invalid number of seconds `{text}`"))?;
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
