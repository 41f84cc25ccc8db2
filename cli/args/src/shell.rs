//! `kiln shell` and `kiln run`.

use clap::Args;
use kiln_planner::plan::Platform;

/// The place of a step of a build.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// The build: its id, an unambiguous prefix of it, or `latest`.
    pub build: String,
    /// The step.
    pub step: String,
    /// The platform, if the step ran for several.
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<Platform>,
    /// The target, if the step ran for several; default: one where it failed.
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// The shard, counted from 1.
    #[arg(long, default_value_t = 1, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub shard: u32,
    /// Begin as the step began: do not run its own command first.
    #[arg(long)]
    pub before: bool,
    /// A secret that the step asks for: the value of the variable NAME, or of a file; repeatable. Those that the build was given are not kept.
    #[arg(long, value_name = "NAME[=FILE]")]
    pub secret: Vec<String>,
    /// An SSH agent that the step mounts: `default` for the one of `SSH_AUTH_SOCK`, or a socket or keys; repeatable. Those of the build were
    /// its client's.
    #[arg(long, value_name = "default|ID=PATH[,PATH]")]
    pub ssh: Vec<kiln_agents::Offer>,
}

/// `kiln run`.
#[derive(Debug, Clone, Args)]
pub struct Run {
    /// Where it is run.
    #[command(flatten)]
    pub place: Place,
    /// The command and its arguments, after `--`.
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}
