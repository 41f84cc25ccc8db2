//! Runs trial jobs that do nothing, to find out what the machine allows.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::host::Host;
use super::ids::{Ids, Kind, Lease};
use super::network::Networks;
use super::prepare::Prepared;
use super::spec::{self, GO, Report};
use super::{Config, Shared, init};
use kiln_executor::ending::Ended;
use kiln_executor::scratch::Scratch;
use kiln_executor::{Job, Place, Secrets};

/// Limit for a trial. On a busy machine a network takes a moment.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(20);

/// The exit code of a trial job.
pub(super) const WELL: i32 = 7;

/// A process that is killed at the end of the trial.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tests whether the kernel allows a sandbox, with or without ids. The error is the reason if it does not.
pub(super) fn sandbox(config: &Config, host: &Host, ids: Option<&Lease>) -> Result<(), String> {
    run(config, host, ids, None, false)
}

/// Tests whether a sandbox can run one job after another.
pub(super) fn kept(config: &Config, host: &Host, ids: &Ids) -> Result<(), String> {
    run(config, host, Some(&ids.try_take()?), None, true)
}

/// Creates an allocator of ids and tests it with a job. The error is the reason why actions cannot have ids other than the worker's.
pub(super) fn ids(config: &Config, host: &Host) -> Result<Ids, String> {
    let tried = |kind| {
        let ids = Ids::open(kind, config)?;
        let lease = ids.try_take()?;
        sandbox(config, host, Some(&lease))?;
        drop(lease);
        Ok::<_, String>(ids)
    };
    tried(Kind::Each).or_else(|why| Ok(tried(Kind::Shared)?.shared_because(why)))
}

/// The first of the candidates with which a job gets its own network. The error is the reason if none works.
pub(super) fn best_network(shared: &Shared, candidates: Vec<Networks>) -> Result<Networks, String> {
    let mut reasons = Vec::new();
    for networks in candidates {
        let lease = shared.ids.as_ref().ok().map(Ids::try_take).transpose()?;
        match run(&shared.config, &shared.host, lease.as_ref(), Some((&networks, &shared.ports)), false) {
            Ok(()) => return Ok(networks),
            Err(reason) => reasons.push(reason),
        }
    }
    Err(reasons.join("; "))
}

/// A trial job. It ends with the code [`WELL`].
pub(super) fn job() -> Job {
    Job {
        place: Place::Machine,
        tenant: String::new(),
        layers: Vec::new(),
        arguments: vec!["/bin/sh".into(), "-c".into(), format!("exit {WELL}")],
        environment: BTreeMap::new(),
        secrets: Secrets::default(),
        working_directory: String::new(),
        make_directories: Vec::new(),
        beside: Vec::new(),
        network: false,
        timeout: None,
        milli_cpus: 1000,
        memory_bytes: 1 << 30,
        disk_bytes: 1 << 30,
        max_processes: 100,
        calls: Default::default(),
        session: None,
        conditions: Default::default(),
        usage: None,
    }
}

fn run(
    config: &Config,
    host: &Host,
    ids: Option<&Lease>,
    network: Option<(&Networks, &[u16])>,
    is_kept: bool,
) -> Result<(), String> {
    let words = |error: io::Error| error.to_string();
    let scratch = Scratch::new(&config.scratch).map_err(words)?;
    let lower = scratch.directory("lower").map_err(words)?;
    let job = Job { layers: vec![lower], network: network.is_some(), ..job() };
    let mut prepared = Prepared::new(host, ids, &scratch, &job, BTreeMap::new())?;
    if let Some((networks, ports)) = network {
        prepared.with_own_network(networks.plan(), ports);
    }
    if is_kept {
        prepared.keep();
    }
    run_prepared(config, ids, prepared, network)
}

/// Runs a trial job that was prepared, and waits until its init has ended.
pub(super) fn run_prepared(
    config: &Config,
    ids: Option<&Lease>,
    prepared: Prepared,
    network: Option<(&Networks, &[u16])>,
) -> Result<(), String> {
    let words = |error: io::Error| error.to_string();
    let (own, theirs) = UnixStream::pair().map_err(words)?;
    // The command is dropped together with its end of the socket, so that a missing init is noticed at once.
    let mut command = Command::new(config.init());
    command.arg0(init::NAME).env_clear().stdin(OwnedFd::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
    let spawned = command.spawn();
    drop(command);
    let child = Running(spawned.map_err(words)?);
    own.set_read_timeout(Some(TRIAL_TIMEOUT)).map_err(words)?;
    let mut reports = BufReader::new(&own);
    let mut report = || -> io::Result<Report> {
        let mut line = String::new();
        reports.read_line(&mut line)?;
        serde_json::from_str(&line).map_err(io::Error::other)
    };
    let told = spec::send(&own, &prepared.descriptors(ids)).and_then(|()| (&own).write_all(&prepared.line()?));
    told.map_err(words)?;
    let silent = |error: io::Error| format!("the trial's init did not answer: {error}");
    let mut answer = report().map_err(silent)?;
    if matches!(answer, Report::Root(_)) {
        answer = report().map_err(silent)?;
    }
    let mut connection = None;
    if let (Report::Network, Some((networks, ports))) = (&answer, network) {
        let mut command = networks.connection(child.0.id(), ids.map(Lease::user), ports);
        let spawned = command.spawn().map_err(|error| format!("cannot start {}: {error}", networks.program()))?;
        connection = Some(Running(spawned));
        (&own).write_all(GO.as_bytes()).map_err(words)?;
        answer = report().map_err(silent)?;
    }
    drop(child);
    match answer {
        Report::Ended(Ended { code: Some(WELL), .. }) => Ok(()),
        Report::Setup(reason) | Report::Refused(reason) => {
            Err(format!("{reason}{}", connection.map_or(String::new(), |process| output_of(process, network))))
        }
        Report::Network | Report::Root(_) | Report::Accessed(_) | Report::First(_) | Report::Opened => {
            Err("the trial's init reported what it was not asked for".to_owned())
        }
        Report::Ended(ended) => Err(format!("a trial command ended with {ended:?}, expected code {WELL}")),
    }
}

/// The output of a failed process, with the status that it ended with.
fn output_of(mut process: Running, network: Option<(&Networks, &[u16])>) -> String {
    let program = network.map_or("", |(networks, _)| networks.program());
    let mut text = String::new();
    if let (Ok(Some(_)), Some(stderr)) = (process.0.try_wait(), process.0.stderr.take()) {
        let _ = io::Read::read_to_string(&mut { stderr }, &mut text);
    }
    if text.trim().is_empty() { text } else { format!(" ({program}: {})", text.trim()) }
}
