//! The worker's side of a sandboxed job: starts the job's init, streams its output, stops it and reads its report.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::cgroup::Group;
use super::network::{self, Networks};
use super::prepare::Prepared;
use super::spec::{self, GO, LOOK, Report, STOP};
use super::{Error, Shared, ids, metadata};
use kiln_executor::calls::{Accesses, Asked, Begun, Limits, Looks};
use kiln_executor::disk::Disk;
use kiln_executor::ending::{Ended, Stop, after, exit};
use kiln_executor::rooted::CACHES;
use kiln_executor::scratch::Scratch;
use kiln_executor::{BUILD, Chunk, Finished, HOME, Job, OutputTree, Place, Rooted, Stream, output::follow};

/// How often to check whether the job has reached one of its limits.
const LIMITS_EVERY: Duration = Duration::from_millis(200);

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

/// Runs a job in its own namespaces.
pub(super) async fn run(
    shared: &Shared,
    scratch: Scratch,
    job: Job,
    output: mpsc::Sender<Chunk>,
    cancel: CancellationToken,
) -> Result<Finished, Error> {
    let setup = |what: &'static str| move |error: io::Error| Error::Setup(format!("{what}: {error}"));
    let group = match (&job.calls.part_of, &shared.cgroups) {
        (Some(limits), _) => limits.of::<Group>(),
        (None, Some(cgroups)) => Some(Arc::new(
            cgroups
                .group(job.memory_bytes, job.max_processes, job.milli_cpus)
                .map_err(setup("cannot create a control group"))?,
        )),
        (None, None) => None,
    };
    let ids = match &shared.ids {
        Ok(ids) => Some(tokio::select! {
            lease = ids.take() => lease.map_err(Error::Setup)?,
            () = cancel.cancelled() => return Err(Error::Cancelled),
        }),
        Err(_) => None,
    };
    let rooted = match &job.place {
        Place::Root(rooted) => Some(rooted.clone()),
        _ => None,
    };
    let mut prepared = prepared(shared, ids.as_ref(), &scratch, &job, rooted.as_deref()).map_err(Error::Setup)?;
    prepared.limited_by(group.as_deref());
    let is_hosts = rooted.as_ref().is_some_and(|rooted| rooted.host_network);
    let networks = shared.networks.as_ref().ok().filter(|_| job.network && !is_hosts);
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
    let (mut init, own) = shared.spawner.start().map_err(setup("cannot start a job's init"))?;
    own.set_nonblocking(true).map_err(setup("cannot create a socket"))?;
    if let Some(group) = &group {
        group.add(init.pid).map_err(setup("cannot limit a job"))?;
    }
    let closed =
        if job.network && networks.is_none() { close_metadata(shared, group.as_deref(), init.pid)? } else { None };
    let mut hold = Some(own.try_clone().map_err(setup("cannot create a socket"))?);
    spec::send(&own, &prepared.descriptors(ids.as_ref())).map_err(setup("cannot send a job to its init"))?;
    let socket = tokio::net::UnixStream::from_std(own).map_err(setup("cannot create a socket"))?;
    let (reader, mut writer) = socket.into_split();
    let line = prepared.line().map_err(setup("cannot send a job to its init"))?;
    drop(prepared);
    writer.write_all(&line).await.map_err(setup("cannot send a job to its init"))?;
    drop(line);
    let (looks, asked) = Looks::new();
    let begun =
        Begun { parent: init.pid, limits: Limits::new(group.clone()), written: scratch.path().join("written"), looks };
    let asks = job.calls.offer.as_ref().map(|offer| &offer.begun);
    for told in asks.into_iter().chain(&job.calls.followed) {
        told.send_replace(Some(begun.clone()));
    }
    drop(begun);
    let disk = Disk::watch(scratch.path(), job.disk_bytes);

    let stdout = follow(init.stdout.take(), Stream::Stdout, output.clone());
    let stderr = follow(init.stderr.take(), Stream::Stderr, output);
    let began = std::time::Instant::now();
    let mut reports = BufReader::new(reader).lines();
    let (pid, user) = (init.pid, ids.as_ref().map(ids::Lease::user));
    let program = networks.map_or("", Networks::program);
    let mut connect = || {
        let networks = networks.ok_or_else(|| io::Error::other("a job without network access asked for a network"))?;
        Ok(networks.connection(pid, user, &shared.ports))
    };
    let mut looked = Looked { accesses: None, asked: job.calls.recorded.then_some(asked) };
    let ending = async {
        let stop = tokio::select! {
            report = ended(&mut reports, &mut writer, &mut looked, program, &mut connect) => return (report, None),
            stop = stopped(&job, &disk, group.as_deref(), &cancel) => stop,
        };
        // Everything was stopped, so no report will come. The wall time is known here.
        let wall_us = began.elapsed().as_micros() as u64;
        let _ = writer.write_all(STOP.as_bytes()).await;
        (Ok(Report::Ended(Ended { wall_us, ..Ended::default() })), Some(stop))
    };
    // What is still in the pipes is read after the last process has gone.
    let ((report, stop), (), ()) = tokio::join!(ending, stdout, stderr);
    let changes_root = rooted.as_ref().is_some_and(|rooted| rooted.inputs.is_none());
    let pid = if changes_root {
        // What it wrote is read and moved, so nothing may be mounted on it any more.
        drop((hold.take(), reports, writer));
        init.wait().await;
        0
    } else {
        // Dropping the writer would shut the socket down, and the init that holds the mounts would exit.
        writer.forget();
        init_pid(init.pid).await
    };
    let used_up = pid == 0 || stop.is_some() || !network::is_as_new(pid);
    let ended = match (report, stop) {
        (Ok(Report::Ended(ended)), _) => ended,
        (Ok(Report::Setup(reason)), _) => return Err(Error::Setup(reason)),
        (Ok(Report::Refused(reason)), _) => return Err(Error::Refused(reason)),
        (Ok(Report::Network | Report::Accessed(_)), _) => {
            return Err(Error::Setup("a job's init reported the same twice".to_owned()));
        }
        // The kernel had nothing else left to kill in the job's group.
        (Err(_), None) if group.as_deref().is_some_and(Group::out_of_memory) => {
            Ended { out_of_memory: true, wall_us: began.elapsed().as_micros() as u64, ..Ended::default() }
        }
        (Err(error), _) => return Err(Error::Setup(format!("a job's init ended before it reported: {error}"))),
    };
    let written = scratch.path().join("written");
    let root = match changes_root {
        true => written.clone(),
        false => PathBuf::from(format!("/proc/{pid}/root{BUILD}")),
    };
    let failed = ended.code != Some(0);
    let stop = stop.or_else(|| if failed { disk.explains_failure() } else { None });
    let loopbacks = shared.loopbacks.clone();
    tokio::spawn(async move {
        // It ends when the tree is dropped. After that no process has these ids.
        init.wait().await;
        drop((init, ids));
        if let (Some(network), false) = (loopback.and_then(Arc::into_inner), used_up) {
            loopbacks.put_back(network);
        }
    });
    let exit = exit(&with_group(ended.clone(), group.as_deref()), stop);
    // The socket comes first: processes and mounts must be gone before their groups and directories are removed.
    let mounts = if rooted.is_none() { scratch.path().join(CACHES).join("written") } else { written.clone() };
    let mut tree = OutputTree::new(root, (hold, scratch, group, closed)).with_mounts(mounts);
    if rooted.is_none() && stop.is_none() {
        // The init reported after it had killed everything else.
        tree = tree.written_in(written);
    }
    Ok(Finished {
        exit,
        wall: Duration::from_micros(ended.wall_us),
        user_cpu: Duration::from_micros(ended.user_us),
        system_cpu: Duration::from_micros(ended.system_us),
        peak_memory_bytes: ended.peak_bytes,
        accesses: looked.accesses,
        tree,
    })
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
        return Prepared::new(&shared.host, ids, scratch, job, environment)?.with_caches(roots, ids, scratch, job);
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

type Reports = Lines<BufReader<tokio::net::unix::OwnedReadHalf>>;

/// The next report. Nothing is lost if it is not waited for to the end.
async fn report(reports: &mut Reports) -> io::Result<Report> {
    let line = reports.next_line().await?.unwrap_or_default();
    serde_json::from_str(&line).map_err(io::Error::other)
}

/// What a job looked at, and whoever wants to know that before its end.
struct Looked {
    accesses: Option<Accesses>,
    /// None if the job is not recorded, or nobody can ask any more.
    asked: Option<Asked>,
}

impl Looked {
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
            let Report::Accessed(seen) = next else { return Ok(next) };
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
    looked: &mut Looked,
    program: &str,
    connect: &mut impl FnMut() -> io::Result<std::process::Command>,
) -> io::Result<Report> {
    let first = looked.until_another(reports, writer).await?;
    if !matches!(first, Report::Network) {
        return Ok(first);
    }
    let mut connection = Command::from(connect()?).kill_on_drop(true).spawn()?;
    writer.write_all(GO.as_bytes()).await?;
    tokio::select! {
        report = report(reports) => report,
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
async fn stopped(job: &Job, disk: &Disk, group: Option<&Group>, cancel: &CancellationToken) -> Stop {
    tokio::select! {
        () = after(job.timeout) => Stop::Timeout,
        () = cancel.cancelled() => Stop::Cancel,
        stop = disk.used_up() => stop,
        stop = reached_a_limit(group) => stop,
    }
}

/// Completes when the kernel has killed one of the job's processes because it ran out of memory, or refused it another
/// process. The remaining processes might otherwise wait or retry forever.
async fn reached_a_limit(group: Option<&Group>) -> Stop {
    let Some(group) = group else { return std::future::pending().await };
    loop {
        if group.out_of_memory() {
            return Stop::Memory;
        }
        if group.too_many_processes() {
            return Stop::Processes;
        }
        tokio::time::sleep(LIMITS_EVERY).await;
    }
}

/// Adds what the control group knows to what the init reported.
fn with_group(mut ended: Ended, group: Option<&Group>) -> Ended {
    let failed = ended.code != Some(0);
    // Even if the command succeeded: the work of the killed process is missing.
    ended.out_of_memory |= group.is_some_and(Group::out_of_memory);
    ended.too_many_processes |= failed && group.is_some_and(Group::too_many_processes);
    ended
}
