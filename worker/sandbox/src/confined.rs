//! The worker's side of a sandboxed job: starts the job's init, streams its output, stops it and reads its report.

use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cgroup::{Cgroups, Group};
use super::held::Held;
use super::kept::{Key, Reports, Sandboxed};
use super::network::{self, Networks};
use super::prepare::Prepared;
use super::session::{Input, Opening};
use super::spec::{self, GO, LOOK, Report, STOP};
use super::watched::Watched;
use super::{Error, Shared, ids, metadata, port};
use kiln_executor::calls::{Accesses, Asked, Begun, Limits, Looks};
use kiln_executor::disk::Disk;
use kiln_executor::ending::{Ended, Stop, after, exit};
use kiln_executor::rooted::CACHES;
use kiln_executor::scratch::Scratch;
use kiln_executor::{
    BUILD, Chunk, Conditions, Finished, HOME, Job, OutputTree, Place, Rooted, Stream, cpus, output::follow,
};

/// The directory with what a job wrote to its root, or to its inputs if the root is the worker's own.
const WRITTEN: &str = "written";
/// The directory with what a job in a root wrote to its inputs.
const INPUTS: &str = "inputs";

/// Blocks a job's access to cloud metadata addresses, through a group of its own if its limits do not use a version 2
/// group.
fn close_metadata(shared: &Shared, limits: Option<&Group>, pid: u32) -> Result<Option<metadata::Group>, Error> {
    let failed = |error: io::Error| Error::Setup(format!("cannot block a job's access to metadata addresses: {error}"));
    let Some(closed) = &shared.metadata else { return Ok(None) };
    if let Some(directory) = limits.and_then(Group::unified) {
        closed.attach(directory).map_err(failed)?;
        return Ok(None);
    }
    let group = closed.group().map_err(failed)?;
    group.add(pid).map_err(failed)?;
    Ok(Some(group))
}

/// Runs a job in its own namespaces, or in those of another that has ended.
pub(super) async fn run(
    shared: &Shared,
    scratch: Scratch,
    job: Job,
    output: mpsc::Sender<Chunk>,
    cancel: CancellationToken,
) -> Result<Finished, Error> {
    let is_limited = match &job.calls.part_of {
        Some(limits) => limits.of::<Group>().is_some_and(|group| group.limits_processes()),
        None => shared.cgroups.as_ref().is_some_and(Cgroups::limit_processes),
    };
    let key = Key::of(shared, &job, is_limited);
    let part_of = job.calls.part_of.as_ref().map(|limits| limits.of::<Group>());
    let known = key.as_ref().and_then(|key| match &part_of {
        Some(group) => group.clone().and_then(|group| group.waiting.take(key).map(|sandboxed| (group, sandboxed))),
        None => shared.kept.waiting.take(key),
    });
    // One that has ended meanwhile is no loss.
    if let Some((group, sandboxed)) = known
        && let Ok(started) = further(shared, &scratch, &job, (&group, sandboxed)).await
    {
        return follow_to_the_end(shared, scratch, job, (output, cancel), Some(group), (started, None, true), key)
            .await;
    }
    let setup = |what: &'static str| move |error: io::Error| Error::Setup(format!("{what}: {error}"));
    let group = match (part_of, &shared.cgroups) {
        (Some(group), _) => group,
        (None, Some(cgroups)) => Some(Arc::new(
            cgroups
                .group(job.memory_bytes, job.max_processes, job.milli_cpus)
                .map_err(setup("cannot create a control group"))?,
        )),
        (None, None) => None,
    };
    let started = first(shared, &scratch, &job, group.as_deref(), &cancel, key.is_some()).await?;
    let (looks, asked) = Looks::new();
    let begun = Begun {
        parent: started.sandboxed.pid,
        limits: Limits::new(group.clone()),
        written: written(&scratch, &job),
        looks,
    };
    let asks = job.calls.offer.as_ref().map(|offer| &offer.begun);
    for told in asks.into_iter().chain(&job.calls.followed) {
        told.send_replace(Some(begun.clone()));
    }
    drop(begun);
    let started = (started, job.calls.recorded.then_some(asked), false);
    follow_to_the_end(shared, scratch, job, (output, cancel), group, started, key).await
}

/// A job that has been sent to its init.
struct Started {
    sandboxed: Sandboxed,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    closed: Option<metadata::Group>,
    /// Where the input of its session comes from, if it has one.
    input: Option<Input>,
}

/// Starts a job in a sandbox of its own, which may be kept for others.
async fn first(
    shared: &Shared,
    scratch: &Scratch,
    job: &Job,
    group: Option<&Group>,
    cancel: &CancellationToken,
    is_kept: bool,
) -> Result<Started, Error> {
    let setup = |what: &'static str| move |error: io::Error| Error::Setup(format!("{what}: {error}"));
    let ids = match &shared.ids {
        Ok(ids) => {
            if !ids.are_left() {
                shared.kept.waiting.clear();
            }
            Some(Arc::new(tokio::select! {
                lease = ids.take() => lease.map_err(Error::Setup)?,
                () = cancel.cancelled() => return Err(Error::Cancelled),
            }))
        }
        Err(_) => None,
    };
    let rooted = rooted(job);
    let mut prepared = prepared(shared, ids.as_deref(), scratch, job, rooted.as_deref()).map_err(Error::Setup)?;
    prepared.limited_by(group);
    if is_kept {
        prepared.keep();
    }
    let networks = own_networks(shared, job);
    if let Some(networks) = networks {
        prepared.with_own_network(networks.plan(), &shared.ports);
    }
    // Without capabilities in its network, a job cannot change it for the next one.
    let loopback = match (&ids, &rooted, job.network) {
        (Some(_), None, false) => Some(Arc::new(shared.loopbacks.take().map_err(setup("cannot make a network"))?)),
        _ => None,
    };
    if let Some(network) = &loopback {
        prepared.with_loopback(network.clone());
    }
    // Only in a network of its own: elsewhere others could reach it.
    let offered = job.calls.offer.as_ref().and_then(|offer| offer.port.as_ref());
    if let Some(offered) = offered.filter(|_| !job.network || networks.is_some()) {
        port::open(offered, &mut prepared).map_err(setup("cannot offer a port to a job"))?;
    }
    let (mut init, own) = shared.spawner.start().map_err(setup("cannot start a job's init"))?;
    own.set_nonblocking(true).map_err(setup("cannot create a socket"))?;
    if let Some(group) = group {
        group.add(init.pid).map_err(setup("cannot limit a job"))?;
    }
    let closed = if job.network && networks.is_none() { close_metadata(shared, group, init.pid)? } else { None };
    let mut descriptors = prepared.descriptors(ids.as_deref());
    let input = job.session.as_ref().map(|_| Input::new()).transpose().map_err(setup("cannot prepare a session"))?;
    let (input, theirs) = input.unzip();
    descriptors.extend(theirs.as_ref().map(AsFd::as_fd));
    spec::send(&own, &descriptors).map_err(setup("cannot send a job to its init"))?;
    let socket = tokio::net::UnixStream::from_std(own).map_err(setup("cannot create a socket"))?;
    let (reader, mut writer) = socket.into_split();
    let line = prepared.line().map_err(setup("cannot send a job to its init"))?;
    drop(descriptors);
    drop((theirs, prepared));
    writer.write_all(&line).await.map_err(setup("cannot send a job to its init"))?;
    let (stdout, stderr) = (init.stdout.take(), init.stderr.take());
    let talk = (BufReader::new(reader).lines(), writer);
    let sandboxed = Sandboxed::new(init, talk, ids, loopback, shared.loopbacks.clone());
    Ok(Started { sandboxed, stdout, stderr, closed, input })
}

/// Starts a job in a sandbox whose last job has ended.
async fn further(
    shared: &Shared,
    scratch: &Scratch,
    job: &Job,
    (group, mut sandboxed): (&Group, Sandboxed),
) -> Result<Started, Error> {
    let setup = |what: &'static str| move |error: io::Error| Error::Setup(format!("{what}: {error}"));
    let ids = sandboxed.ids.as_deref().ok_or_else(|| Error::Setup("a kept sandbox has no ids".to_owned()))?;
    let environment = shared.environment(job, shared.config.tools.path(), HOME);
    let mut prepared = Prepared::further(&shared.host, ids, scratch, job, environment).map_err(Error::Setup)?;
    prepared.limited_by(Some(group));
    let (stdout, their_stdout) = io::pipe().map_err(setup("cannot create a pipe"))?;
    let (stderr, their_stderr) = io::pipe().map_err(setup("cannot create a pipe"))?;
    let mut descriptors = prepared.mounts();
    descriptors.extend([their_stdout.as_fd(), their_stderr.as_fd()]);
    spec::send(sandboxed.writer.as_ref(), &descriptors).map_err(setup("cannot send a job to its init"))?;
    let line = prepared.line().map_err(setup("cannot send a job to its init"))?;
    sandboxed.writer.write_all(&line).await.map_err(setup("cannot send a job to its init"))?;
    let receiver =
        |pipe: io::PipeReader| pipe::Receiver::from_owned_fd(pipe.into()).map_err(setup("cannot read a pipe"));
    Ok(Started {
        sandboxed,
        stdout: Some(receiver(stdout)?),
        stderr: Some(receiver(stderr)?),
        closed: None,
        input: None,
    })
}

/// Streams a job's output, stops it and reads its report.
async fn follow_to_the_end(
    shared: &Shared,
    scratch: Scratch,
    job: Job,
    (output, cancel): (mpsc::Sender<Chunk>, CancellationToken),
    group: Option<Arc<Group>>,
    (started, asked, is_further): (Started, Option<Asked>, bool),
    key: Option<Key>,
) -> Result<Finished, Error> {
    let Started { mut sandboxed, stdout, stderr, closed, input } = started;
    let disk = Disk::watch(scratch.path(), job.disk_bytes);
    let stdout = follow(stdout, Stream::Stdout, output.clone());
    let stderr = follow(stderr, Stream::Stderr, output);
    let began = std::time::Instant::now();
    let (pid, user) = (sandboxed.pid, sandboxed.ids.as_ref().map(|ids| ids.user()));
    let networks = own_networks(shared, &job);
    let program = networks.map_or("", Networks::program);
    let mut connect = || {
        let networks = networks.ok_or_else(|| io::Error::other("a job without network access asked for a network"))?;
        Ok(networks.connection(pid, user, &shared.ports))
    };
    let session = job.session.as_ref().zip(input).map(|(session, input)| Opening::new(session, input, group.clone()));
    let is_session = session.is_some();
    let mut told = Told { root: None, accesses: None, asked, session };
    let so_far = job.usage.clone();
    let watched = Watched::new(group.as_deref(), pid, job.calls.part_of.is_some(), is_further, so_far.as_deref());
    let (reports, writer) = (&mut sandboxed.reports, &mut sandboxed.writer);
    let ending = async {
        let stop = tokio::select! {
            report = ended(reports, writer, &mut told, program, &mut connect) => return (report, None),
            stop = stopped(&job, &disk, &watched, &cancel) => stop,
        };
        // Everything was stopped, so no report will come. The wall time is known here.
        let wall_us = began.elapsed().as_micros() as u64;
        let _ = writer.write_all(STOP.as_bytes()).await;
        (Ok(Report::Ended(Ended { wall_us, ..Ended::default() })), Some(stop))
    };
    // What is still in the pipes is read after the last process has gone.
    let ((report, stop), (), ()) = tokio::join!(ending, stdout, stderr);
    let (peak_bytes, samples) = watched.end(used_us(report.as_ref().ok()));
    if let Some(port) = job.calls.offer.as_ref().and_then(|offer| offer.port.as_ref()) {
        port.close().await;
    }
    let rooted = rooted(&job);
    let changes_root = rooted.as_ref().is_some_and(|rooted| rooted.inputs.is_none());
    // What one that is recorded has changed, nobody keeps.
    let is_moved = changes_root && !job.calls.recorded;
    let (sandboxed, pid) = if is_moved {
        // What it wrote is read and moved, so nothing may be mounted on it any more.
        sandboxed.use_up();
        let Sandboxed { ended, reports, writer, .. } = sandboxed;
        drop((reports, writer));
        let _ = ended.await;
        (None, 0)
    } else {
        let pid = init_pid(sandboxed.pid).await;
        (Some(sandboxed), pid)
    };
    let is_used_up = pid == 0 || stop.is_some() || !network::is_as_new(pid);
    if let (Some(sandboxed), true) = (&sandboxed, is_used_up) {
        sandboxed.use_up();
    }
    let ended = match (report, stop) {
        (Ok(Report::Ended(ended)), _) => ended,
        (Ok(Report::Setup(reason)), _) => return Err(Error::Setup(reason)),
        (Ok(Report::Refused(reason)), _) => return Err(Error::Refused(reason)),
        (Ok(Report::Network | Report::Root(_) | Report::Accessed(_) | Report::First(_) | Report::Opened), _) => {
            return Err(Error::Setup("a job's init reported the same twice".to_owned()));
        }
        // The kernel had nothing else left to kill in the job's group.
        (Err(_), None) if group.as_deref().is_some_and(Group::out_of_memory) => {
            Ended { out_of_memory: true, wall_us: began.elapsed().as_micros() as u64, ..Ended::default() }
        }
        (Err(error), _) => return Err(Error::Setup(format!("a job's init ended before it reported: {error}"))),
    };
    let upper = scratch.path().join(WRITTEN);
    let root = match told.root {
        _ if is_moved => upper.clone(),
        _ if changes_root => PathBuf::from(format!("/proc/{pid}/root")),
        Some(root) => PathBuf::from(format!("/proc/{pid}/fd/{root}{BUILD}")),
        None => PathBuf::from(format!("/proc/{pid}/root{BUILD}")),
    };
    let failed = ended.code != Some(0);
    let stop = stop.or_else(|| if failed { disk.explains_failure() } else { None });
    let is_excessive = group.as_deref().is_some_and(|group| group.out_of_memory() || group.too_many_processes());
    let next = key.filter(|_| !is_used_up && stop.is_none() && !is_excessive && shared.has_ids_left());
    let next = next.map(|key| (key, job.calls.part_of.is_none().then(|| shared.kept.clone())));
    // What a session did before its end, its user has seen.
    let exit = match is_session {
        true => exit(&ended, stop),
        false => exit(&with_group(ended.clone(), group.as_deref()), stop),
    };
    // The sandbox comes first: processes and mounts must be gone before their groups and directories are removed.
    let held = Held::new(sandboxed, group.clone(), next);
    let mounts = if rooted.is_none() { scratch.path().join(CACHES).join(WRITTEN) } else { upper };
    let written = written(&scratch, &job);
    let mut tree = OutputTree::new(root, (held, scratch, group, closed)).with_mounts(mounts);
    if (rooted.is_none() || job.calls.recorded) && stop.is_none() {
        // The init reported after it had killed everything else.
        tree = tree.written_in(written);
    }
    Ok(Finished {
        exit,
        wall: Duration::from_micros(ended.wall_us),
        user_cpu: Duration::from_micros(ended.user_us),
        system_cpu: Duration::from_micros(ended.system_us),
        // The largest process may have come and gone between two looks at all of them.
        peak_memory_bytes: ended.peak_bytes.max(peak_bytes),
        samples,
        accesses: told.accesses,
        conditions: Conditions {
            cpus: Some(cpus::of(&job)),
            host_name: Some(job.host_name().to_owned()),
            directory: None,
        },
        tree,
    })
}

/// Where a job writes to its inputs, or to its root if that is its input.
fn written(scratch: &Scratch, job: &Job) -> PathBuf {
    let is_below = matches!(&job.place, Place::Root(rooted) if rooted.inputs.is_some());
    scratch.path().join(if is_below { INPUTS } else { WRITTEN })
}

/// CPU time of all processes of a job, by its init's last report.
fn used_us(report: Option<&Report>) -> u64 {
    match report {
        Some(Report::Ended(ended)) => ended.user_us + ended.system_us,
        _ => 0,
    }
}

fn rooted(job: &Job) -> Option<Arc<Rooted>> {
    match &job.place {
        Place::Root(rooted) => Some(rooted.clone()),
        _ => None,
    }
}

/// What gives the job a network of its own, if it has one.
fn own_networks<'a>(shared: &'a Shared, job: &Job) -> Option<&'a Networks> {
    let is_hosts = matches!(&job.place, Place::Root(rooted) if rooted.host_network);
    shared.networks.as_ref().ok().filter(|_| job.network && !is_hosts)
}

/// What an init reports before the end, and whoever wants to know what its job looks at before that.
struct Told {
    root: Option<i32>,
    accesses: Option<Accesses>,
    /// None if the job is not recorded, or nobody can ask any more.
    asked: Option<Asked>,
    /// A session that has not begun.
    session: Option<Opening>,
}

fn prepared(
    shared: &Shared,
    ids: Option<&ids::Lease>,
    scratch: &Scratch,
    job: &Job,
    rooted: Option<&Rooted>,
) -> Result<Prepared, String> {
    let Some(rooted) = rooted else {
        let environment = shared.environment(job, shared.config.tools.path(), HOME);
        let roots = shared.roots.as_ref().ok().map(|roots| (*roots, shared.config.objects.as_path()));
        return Prepared::new(&shared.host, ids, scratch, job, environment)?.with_beside(roots, ids, scratch, job);
    };
    if rooted.host_network && !shared.config.host_network {
        return Err("this worker does not allow the host's network (`kiln-worker --allow-host-network`)".to_owned());
    }
    let roots = shared.roots.as_ref().map_err(|why| format!("this worker runs nothing in a root of its own: {why}"))?;
    let ids = ids.ok_or("the job has no ids of its own")?;
    let trusts = job.network && shared.config.host_authorities;
    let authorities = trusts.then(super::rooted::authorities_of_machine).transpose()?;
    Prepared::in_root(
        (*roots, &shared.config.objects),
        ids,
        scratch,
        job,
        rooted,
        super::rooted::environment(shared, job, rooted),
        authorities,
        false,
    )
}

/// PID 1 of the job's namespace: the only child of the process that was started.
async fn init_pid(pid: u32) -> u32 {
    let children = tokio::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).await.unwrap_or_default();
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0)
}

/// The next report. Nothing is lost if it is not waited for to the end.
async fn report(reports: &mut Reports) -> io::Result<Report> {
    let line = reports.next_line().await?.unwrap_or_default();
    serde_json::from_str(&line).map_err(io::Error::other)
}

impl Told {
    /// The report that follows those of what the job looked at, which are kept and told to whoever asks.
    async fn until_another(
        &mut self,
        reports: &mut Reports,
        writer: &mut tokio::net::unix::OwnedWriteHalf,
    ) -> io::Result<Report> {
        let mut waiting = Vec::new();
        loop {
            let asked = async {
                match &mut self.asked {
                    Some(asked) => asked.recv().await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                next = report(reports) => next?,
                asks = asked => {
                    match asks {
                        Some(asks) => {
                            writer.write_all(LOOK.as_bytes()).await?;
                            waiting.push(asks);
                        }
                        None => self.asked = None,
                    }
                    continue;
                }
            };
            let seen = match next {
                Report::Root(root) => {
                    self.root = Some(root);
                    continue;
                }
                Report::First(ended) => {
                    self.session.iter().for_each(|session| session.first(&ended));
                    continue;
                }
                Report::Opened => {
                    self.session.take().map_or(Ok(()), Opening::opened)?;
                    continue;
                }
                Report::Accessed(seen) => seen,
                other => return Ok(other),
            };
            self.accesses.get_or_insert_default().add(seen);
            for asks in waiting.drain(..) {
                let _ = asks.send(self.accesses.clone().unwrap_or_default());
            }
        }
    }
}

/// Waits for the init's final report, after connecting the job's network if it has one of its own.
async fn ended(
    reports: &mut Reports,
    writer: &mut tokio::net::unix::OwnedWriteHalf,
    told: &mut Told,
    program: &str,
    connect: &mut impl FnMut() -> io::Result<std::process::Command>,
) -> io::Result<Report> {
    let first = told.until_another(reports, writer).await?;
    if !matches!(first, Report::Network) {
        return Ok(first);
    }
    let mut connection = Command::from(connect()?).kill_on_drop(true).spawn()?;
    writer.write_all(GO.as_bytes()).await?;
    tokio::select! {
        report = told.until_another(reports, writer) => report,
        status = connection.wait() => {
            let mut said = String::new();
            if let Some(mut stderr) = connection.stderr.take() {
                let _ = stderr.read_to_string(&mut said).await;
            }
            Ok(Report::Setup(format!("a job lost its network: {program} ended ({}): {}", status?, said.trim())))
        }
    }
}

/// Completes when the job must be stopped.
async fn stopped(job: &Job, disk: &Disk, watched: &Watched<'_>, cancel: &CancellationToken) -> Stop {
    tokio::select! {
        () = after(job.timeout) => Stop::Timeout,
        () = cancel.cancelled() => Stop::Cancel,
        stop = disk.used_up() => stop,
        // A session goes on: the kernel has stopped what exceeded a limit.
        stop = watched.reached_a_limit(), if job.session.is_none() => stop,
    }
}

/// Adds what the control group knows to what the init reported.
pub(super) fn with_group(mut ended: Ended, group: Option<&Group>) -> Ended {
    let failed = ended.code != Some(0);
    // Even if the command succeeded: the work of the killed process is missing.
    ended.out_of_memory |= group.is_some_and(Group::out_of_memory);
    ended.too_many_processes |= failed && group.is_some_and(Group::too_many_processes);
    ended
}
