//! The worker's side of a sandboxed job: starts its init, streams its output, stops it, reads its report.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

use super::cgroup::Group;
use super::host::Host;
use super::spec::{Bind, Report, Spec};
use super::{Config, Error, Shared, init, metadata};
use crate::executor::ending::{Ended, Stop, after, exit};
use crate::executor::layers::Overlay;
use crate::executor::scratch::Scratch;
use crate::executor::{BUILD, Chunk, Finished, HOME, Job, OutputTree, Place, Secrets, Stream, disk, output::follow};

/// How often the kernel is asked whether it had to refuse a job a process.
const PROCESSES_EVERY: Duration = Duration::from_millis(200);

/// Runs an empty job to find out whether the kernel allows it; in words why not.
pub(super) fn probe(config: &Config, host: &Host) -> Result<(), String> {
    let scratch = Scratch::new(&config.scratch).map_err(|error| error.to_string())?;
    let lower = scratch.directory("lower").map_err(|error| error.to_string())?;
    let job = Job {
        place: Place::Machine,
        tenant: String::new(),
        layers: vec![lower],
        arguments: vec!["/bin/sh".into(), "-c".into(), "exit 7".into()],
        environment: BTreeMap::new(),
        secrets: Secrets::default(),
        working_directory: String::new(),
        make_directories: Vec::new(),
        network: false,
        timeout: None,
        milli_cpus: 1000,
        memory_bytes: 1 << 30,
        disk_bytes: 1 << 30,
        max_processes: 100,
    };
    let spec = spec(host, &scratch, &job, BTreeMap::new(), None).map_err(|error| error.to_string())?;
    let (own, theirs) = UnixStream::pair().map_err(|error| error.to_string())?;
    // The command is dropped with its end of the socket, so that an init that is none is noticed at once.
    let spawned = command(config, theirs).into_std().stdout(Stdio::null()).spawn();
    let mut child = spawned.map_err(|error| error.to_string())?;
    let answer = (|| -> io::Result<String> {
        use std::io::{BufRead, Write};
        let mut line = serde_json::to_vec(&spec)?;
        line.push(b'\n');
        (&own).write_all(&line)?;
        own.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut answer = String::new();
        std::io::BufReader::new(&own).read_line(&mut answer)?;
        Ok(answer)
    })();
    drop(own);
    let _ = child.kill();
    let _ = child.wait();
    match serde_json::from_str(&answer.map_err(|error| error.to_string())?) {
        Ok(Report::Ended(Ended { code: Some(7), .. })) => Ok(()),
        Ok(Report::Setup(reason)) => Err(reason),
        Ok(Report::Ended(ended)) => Err(format!("a trial command ended with {ended:?} and not with code 7")),
        Err(error) => Err(format!("the trial's init said nothing: {error}")),
    }
}

fn command(config: &Config, socket: UnixStream) -> Command {
    let program = config.init.clone().unwrap_or_else(|| PathBuf::from("/proc/self/exe"));
    let mut command = Command::new(program);
    command
        .arg0(init::NAME)
        .env_clear()
        .stdin(std::os::fd::OwnedFd::from(socket))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

fn spec(
    host: &Host,
    scratch: &Scratch,
    job: &Job,
    environment: BTreeMap<String, String>,
    group: Option<&Group>,
) -> io::Result<Spec> {
    let tmp = scratch.directory("tmp")?;
    std::fs::create_dir_all(tmp.join("home"))?;
    let overlay =
        Overlay { lower: job.layers.clone(), upper: scratch.directory("written")?, work: scratch.directory("work")? };
    let mut binds = vec![Bind { from: tmp, to: "/tmp".into(), writable: true }];
    binds.extend(host.binds.iter().cloned());
    let mut own: Vec<(PathBuf, String)> = host.files.clone();
    if job.network {
        binds.extend(host.network_binds.iter().cloned());
        own.extend(host.network_files.iter().cloned());
    }
    let hosts = "127.0.0.1 localhost kiln\n::1 localhost\n".to_owned();
    let user = init::USER;
    let mut files = vec![
        ("/etc/passwd".into(), format!("root:x:0:0::/:/bin/sh\nkiln:x:{user}:{user}::{HOME}:/bin/sh\n")),
        ("/etc/group".into(), format!("root:x:0:\nkiln:x:{user}:\n")),
        ("/etc/nsswitch.conf".into(), "passwd: files\ngroup: files\nhosts: files dns\n".to_owned()),
    ];
    if !binds.iter().any(|bind| bind.to == Path::new("/etc/hosts")) {
        files.push(("/etc/hosts".into(), hosts));
    }
    // The farm's own take the place of the machine's.
    let given: Vec<PathBuf> = job.secrets.files().map(|(path, _)| Path::new(HOME).join(path)).collect();
    binds.retain(|bind| !given.contains(&bind.to));
    files.extend(own.into_iter().filter(|(path, _)| !given.contains(path)));
    Ok(Spec {
        root: scratch.directory("root")?,
        binds,
        links: host.links.clone(),
        files,
        overlay,
        network: job.network,
        arguments: job.arguments.clone(),
        environment,
        secrets: job.secrets.clone(),
        working_directory: job.working_directory.clone(),
        make_directories: job.make_directories.clone(),
        memory_bytes: group.is_none().then_some(job.memory_bytes),
        max_processes: group.is_none_or(|group| !group.limits_processes()).then_some(job.max_processes),
    })
}

/// Closes the addresses of clouds' metadata to a job, by a group of its own where its limits bring none of version 2.
fn close_metadata(shared: &Shared, limits: Option<&Group>, child: &Child) -> Result<Option<metadata::Group>, Error> {
    let failed = |error: io::Error| Error::Setup(format!("cannot close metadata addresses to a job: {error}"));
    let (Some(closed), Some(pid)) = (&shared.metadata, child.id()) else { return Ok(None) };
    if let Some(directory) = limits.and_then(Group::unified) {
        closed.attach(directory).map_err(failed)?;
        return Ok(None);
    }
    let group = closed.group().map_err(failed)?;
    group.add(pid).map_err(failed)?;
    Ok(Some(group))
}

/// Runs a job in namespaces of its own.
pub(super) async fn run(
    shared: &Shared,
    scratch: Scratch,
    job: Job,
    output: mpsc::Sender<Chunk>,
    cancel: CancellationToken,
) -> Result<Finished, Error> {
    let setup = |what: &'static str| move |error: io::Error| Error::Setup(format!("{what}: {error}"));
    let group = match &shared.cgroups {
        Some(cgroups) => Some(
            cgroups
                .group(job.memory_bytes, job.max_processes, job.milli_cpus)
                .map_err(setup("cannot make a control group"))?,
        ),
        None => None,
    };
    let environment = shared.environment(&job, shared.config.tools.path(), HOME);
    let spec =
        spec(&shared.host, &scratch, &job, environment, group.as_ref()).map_err(setup("cannot prepare a job"))?;
    let (own, theirs) = UnixStream::pair().map_err(setup("cannot make a socket"))?;
    own.set_nonblocking(true).map_err(setup("cannot make a socket"))?;
    let mut child = command(&shared.config, theirs).spawn().map_err(setup("cannot start a job's init"))?;
    if let (Some(group), Some(pid)) = (&group, child.id()) {
        group.add(pid).map_err(setup("cannot limit a job"))?;
    }
    let closed = if job.network { close_metadata(shared, group.as_ref(), &child)? } else { None };
    let hold = own.try_clone().map_err(setup("cannot make a socket"))?;
    let socket = tokio::net::UnixStream::from_std(own).map_err(setup("cannot make a socket"))?;
    let (reader, mut writer) = socket.into_split();
    let line = Zeroizing::new(serde_json::to_vec(&spec).map_err(|error| Error::Setup(error.to_string()))?);
    drop(spec);
    let told = async {
        writer.write_all(&line).await?;
        writer.write_all(b"\n").await
    };
    told.await.map_err(setup("cannot tell a job's init what to do"))?;
    drop(line);

    let stdout = follow(child.stdout.take(), Stream::Stdout, output.clone());
    let stderr = follow(child.stderr.take(), Stream::Stderr, output);
    let began = std::time::Instant::now();
    let ending = async {
        let stop = tokio::select! {
            report = report(reader) => return (report, None),
            stop = stopped(&job, &scratch, group.as_ref(), &cancel) => stop,
        };
        // Everything is stopped; no report comes, and what it took is known here.
        let wall_us = began.elapsed().as_micros() as u64;
        let _ = writer.write_all(b"stop\n").await;
        (Ok(Report::Ended(Ended { wall_us, ..Ended::default() })), Some(stop))
    };
    // What is in the pipes is drained after the last process has gone.
    let ((report, stop), (), ()) = tokio::join!(ending, stdout, stderr);
    // Dropped, it would shut the socket down, and with that the init that holds the mounts.
    writer.forget();
    let pid = init_pid(&child).await;
    let ended = match (report, stop) {
        (Ok(Report::Ended(ended)), _) => ended,
        (Ok(Report::Setup(reason)), _) => return Err(Error::Setup(reason)),
        (Err(error), _) => return Err(Error::Setup(format!("a job's init ended before it reported: {error}"))),
    };
    let failed = ended.code != Some(0);
    let stop = stop.or_else(|| (failed && disk::is_full(scratch.path())).then_some(Stop::Disk));
    tokio::spawn(async move {
        // Reaped when it ends: when the tree is dropped.
        let _ = child.wait().await;
    });
    Ok(Finished {
        exit: exit(&with_group(ended.clone(), group.as_ref()), stop),
        wall: Duration::from_micros(ended.wall_us),
        user_cpu: Duration::from_micros(ended.user_us),
        system_cpu: Duration::from_micros(ended.system_us),
        peak_memory_bytes: ended.peak_bytes,
        // The socket first: the processes and mounts are gone when their groups and directories are removed.
        tree: OutputTree::new(PathBuf::from(format!("/proc/{pid}/root{BUILD}")), (hold, scratch, group, closed)),
    })
}

/// The process that is PID 1 of the job's namespace: the only child of the one that was started.
async fn init_pid(child: &Child) -> u32 {
    let Some(pid) = child.id() else { return 0 };
    let children = tokio::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).await.unwrap_or_default();
    children.split_whitespace().next().and_then(|pid| pid.parse().ok()).unwrap_or(0)
}

async fn report(reader: tokio::net::unix::OwnedReadHalf) -> io::Result<Report> {
    let mut line = String::new();
    let mut reader = BufReader::new(reader);
    reader.read_line(&mut line).await?;
    serde_json::from_str(&line).map_err(io::Error::other)
}

/// Ends when the job must be stopped.
async fn stopped(job: &Job, scratch: &Scratch, group: Option<&Group>, cancel: &CancellationToken) -> Stop {
    tokio::select! {
        () = after(job.timeout) => Stop::Timeout,
        () = cancel.cancelled() => Stop::Cancel,
        () = disk::used_up(scratch.path().to_owned(), job.disk_bytes) => Stop::Disk,
        () = refused_a_process(group) => Stop::Processes,
    }
}

/// Ends when the kernel has refused a job another process. Those that are there could try again without end.
async fn refused_a_process(group: Option<&Group>) {
    let Some(group) = group.filter(|group| group.limits_processes()) else { return std::future::pending().await };
    while !group.too_many_processes() {
        tokio::time::sleep(PROCESSES_EVERY).await;
    }
}

/// What the control group adds to what the init saw.
fn with_group(mut ended: Ended, group: Option<&Group>) -> Ended {
    let failed = ended.code != Some(0);
    ended.out_of_memory |= failed && group.is_some_and(Group::out_of_memory);
    ended.too_many_processes |= failed && group.is_some_and(Group::too_many_processes);
    ended
}
