//! One module for each command.

mod artifacts;
mod attach;
mod build;
mod builds;
mod cache;
mod cancel;
mod check;
mod ci;
mod docker;
#[cfg(feature = "embedded")]
mod founding;
mod gate;
mod help;
mod init;
mod logs;
mod members;
mod membership;
mod plan;
mod rebuild;
mod several;
mod shell;
mod status;
mod test;
mod tested;
#[cfg(feature = "embedded")]
mod up;
mod verify;
mod web;
mod workers;

use kiln_proto::protobuf::Timestamp;
use std::future::Future;
use std::time::{Duration, SystemTime};

use crate::args::{self, Cli, Command};
use crate::farm::Farm;
use crate::interrupts::Interrupts;
use crate::{Code, Error, local};
use kiln_telemetry::trace;
use kiln_terminal as terminal;
use tracing::Instrument;

/// Whether steps can run on this machine.
#[cfg(feature = "embedded")]
const MACHINE: Option<kiln_doctor::Machine> = Some(crate::farm::parts::machine);
#[cfg(not(feature = "embedded"))]
const MACHINE: Option<kiln_doctor::Machine> = None;

/// What `kiln up` says in a `kiln` that is a client only.
#[cfg(not(feature = "embedded"))]
const NO_FARM: &str = "this `kiln` is a client only, because steps run on Linux; run `kiln up` on a Linux machine, or in a virtual machine \
                       or WSL 2 on this one, and name it with `--farm URL` (`KILN_FARM`)";

/// Runs the command.
pub(crate) async fn perform(cli: Cli) -> Result<Code, Error> {
    let interrupts = Interrupts::listen().map_err(|source| Error::Runtime { source })?;
    let farm = &cli.farm;
    match cli.command {
        Command::Build(args) => build::run(farm, args, &interrupts).instrument(root_span()).await,
        Command::Docker { arguments } => docker::run(farm, &arguments, &interrupts).instrument(root_span()).await,
        Command::Test(args) => test::run(farm, args, &interrupts).instrument(root_span()).await,
        Command::Status(args) => briefly(farm, &interrupts, async |farm| status::run(farm, args).await).await,
        Command::Attach(args) => {
            with_farm(farm, &interrupts, async |farm| attach::run(farm, args, &interrupts).await).await
        }
        Command::Logs(args) => briefly(farm, &interrupts, async |farm| logs::run(farm, args).await).await,
        Command::Shell(args) => shell::shell(farm, args, &interrupts).await,
        Command::Run(args) => shell::run(farm, args, &interrupts).await,
        Command::TestReport(args) => briefly(farm, &interrupts, async |farm| tested::run(farm, args).await).await,
        Command::Builds(args) => briefly(farm, &interrupts, async |farm| builds::list(farm, args).await).await,
        Command::Cancel { build, user, request_id } => {
            briefly(farm, &interrupts, async |farm| cancel::run(farm, build, user, request_id).await).await
        }
        Command::Workers(args) => briefly(farm, &interrupts, async |farm| workers::run(farm, args).await).await,
        Command::Artifacts(args) => briefly(farm, &interrupts, async |farm| artifacts::list(farm, args).await).await,
        Command::Fetch(args) => briefly(farm, &interrupts, async |farm| artifacts::fetch(farm, args).await).await,
        Command::Verify(args) => or_interrupted(&interrupts, verify::run(farm, args)).await,
        Command::Rebuild(args) => rebuild::run(farm, args, &interrupts).instrument(root_span()).await,
        Command::Cache(args) => {
            briefly(farm, &interrupts, async |opened| cache::run(opened, args, &farm.access).await).await
        }
        Command::Gocache(args) => {
            kiln_toolcache::gocache::run(args, local::cache_dir()?.join("gocache"), &farm.access).await?;
            Ok(Code::Success)
        }
        #[cfg(not(unix))]
        Command::CcacheStorage => {
            let words =
                "ccache's storage helper is for Unix only; `kiln cache env ccache` shows settings that need none";
            Err(Error::Usage(words.to_owned()))
        }
        #[cfg(unix)]
        Command::CcacheStorage => {
            let told = kiln_toolcache::ccache::Told::read(|name| std::env::var(name).ok())?;
            let told =
                told.ok_or_else(|| Error::Usage("this is for ccache; see `kiln cache env ccache`".to_owned()))?;
            kiln_toolcache::ccache::run(told, &farm.access).await?;
            Ok(Code::Success)
        }
        Command::Farm(args) => membership::run(farm, args, &interrupts).await,
        Command::Login(args) => {
            let name =
                or_interrupted(&interrupts, async { Ok(kiln_settings::login(args, &farm.access).await?) }).await?;
            terminal::say(&format!("logged in; `{name}` is the farm that is used from now on"));
            Ok(Code::Success)
        }
        Command::Completions { shell } => help::completions(shell),
        Command::ManualPages { dir } => help::manual_pages(&dir),
        Command::Web { print } => briefly(farm, &interrupts, async |opened| web::run(opened, print).await).await,
        #[cfg(feature = "embedded")]
        Command::Up(args) => up::run(args, &interrupts).await,
        #[cfg(not(feature = "embedded"))]
        Command::Up(_) => Err(Error::Usage(NO_FARM.to_owned())),
        Command::Plan(args) => or_interrupted(&interrupts, plan::run(farm, &args)).await,
        Command::Init { dir, image } => or_interrupted(&interrupts, init::run(farm, &dir, image)).await,
        Command::Doctor(args) => {
            let is_well = async { Ok(kiln_doctor::run(args, farm.clone(), MACHINE).await) };
            Ok(if or_interrupted(&interrupts, is_well).await? { Code::Success } else { Code::Failed })
        }
        Command::Gate(args) => gate::run(args),
        Command::Check(args) => or_interrupted(&interrupts, check::run(farm, args)).await,
        #[cfg(feature = "embedded")]
        Command::Coordinator(args) => up::coordinator(*args, interrupts).await,
        #[cfg(feature = "embedded")]
        Command::Worker(args) => up::worker(*args, interrupts).await,
    }
}

/// The span of a whole build, part of a CI job's trace if `TRACEPARENT` is set.
fn root_span() -> tracing::Span {
    let span = tracing::info_span!(parent: None, "kiln build");
    trace::adopt(&span, &std::env::var("TRACEPARENT").unwrap_or_default());
    span
}

/// Opens the farm, does something with it, and closes it in any case.
async fn with_farm(
    args: &args::Farm,
    interrupts: &Interrupts,
    work: impl AsyncFnOnce(&Farm) -> Result<Code, Error>,
) -> Result<Code, Error> {
    let farm = or_interrupted(interrupts, Farm::open(args)).await?;
    let result = work(&farm).await;
    farm.close().await;
    result
}

/// Like [`with_farm`], for work that an interrupt simply ends.
async fn briefly(
    args: &args::Farm,
    interrupts: &Interrupts,
    work: impl AsyncFnOnce(&Farm) -> Result<Code, Error>,
) -> Result<Code, Error> {
    with_farm(args, interrupts, async |farm| or_interrupted(interrupts, work(farm)).await).await
}

/// The work's result, or [`Error::Cancelled`] after the first interrupt.
async fn or_interrupted<T>(interrupts: &Interrupts, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        result = work => result,
        () = interrupts.first() => Err(Error::Cancelled),
    }
}

/// The time since `at`, by this machine's clock; a future time counts as now.
fn ago(at: Timestamp) -> String {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(at.seconds).unwrap_or_default());
    terminal::ago(SystemTime::now().duration_since(at).unwrap_or_default())
}

/// A time for people and scripts; empty if unknown.
fn time(at: Option<Timestamp>) -> String {
    at.map(|at| kiln_proto::clock::rfc3339(&Timestamp { nanos: 0, ..at })).unwrap_or_default()
}
