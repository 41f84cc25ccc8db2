//! Runs a job without a sandbox: its inputs are copied to a directory, and its command runs in its own session.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{Error, Shared};
use kiln_executor::disk::Disk;
use kiln_executor::ending::{Ended, Stop, after, exit};
use kiln_executor::layers::copy;
use kiln_executor::output::follow;
use kiln_executor::samples::Samples;
use kiln_executor::scratch::Scratch;
use kiln_executor::{Chunk, Conditions, Exit, Finished, Job, OutputTree, Stream, cpus, program};

/// Runs a job with the worker's own privileges.
pub(super) async fn run(
    shared: &Shared,
    scratch: Scratch,
    job: Job,
    output: mpsc::Sender<Chunk>,
    cancel: CancellationToken,
) -> Result<Finished, Error> {
    let setup = |what: &'static str| move |error: io::Error| Error::Setup(format!("{what}: {error}"));
    let tree = scratch.directory("build").map_err(setup("cannot prepare a job"))?;
    let tmp = scratch.directory("tmp/home").map_err(setup("cannot prepare a job"))?;
    let (layers, made, to) = (job.layers.clone(), job.make_directories.clone(), tree.clone());
    let (secrets, home) = (job.secrets.clone(), tmp.clone());
    tokio::task::spawn_blocking(move || -> io::Result<()> {
        secrets.write_files(&home)?;
        layers.iter().try_for_each(|layer| copy(layer, &to))?;
        made.iter().try_for_each(|path| std::fs::create_dir_all(to.join(path)))
    })
    .await
    .map_err(|error| Error::Setup(error.to_string()))?
    .map_err(setup("cannot copy the inputs"))?;

    let mut environment = shared.environment(&job, shared.config.tools.host_path(), &tmp.display().to_string());
    environment.insert("TMPDIR".into(), tmp.display().to_string());
    let began = Instant::now();
    let mut exit = start(&job, &tree, &environment, &scratch, output, cancel).await?;
    let wall = began.elapsed();
    if let Exit::Code(code @ (126 | 127)) = exit {
        exit = Exit::Code(code);
    }
    Ok(Finished {
        exit,
        wall,
        user_cpu: Duration::ZERO,
        system_cpu: Duration::ZERO,
        peak_memory_bytes: 0,
        samples: Samples::default(),
        accesses: None,
        conditions: Conditions {
            cpus: Some(cpus::of(&job)),
            host_name: Some(rustix::system::uname().nodename().to_string_lossy().into_owned()),
            directory: Some(tree.display().to_string()),
        },
        tree: OutputTree::new(tree, scratch),
    })
}

async fn start(
    job: &Job,
    tree: &Path,
    environment: &BTreeMap<String, String>,
    scratch: &Scratch,
    output: mpsc::Sender<Chunk>,
    cancel: CancellationToken,
) -> Result<Exit, Error> {
    let directory = tree.join(&job.working_directory);
    let program = job.arguments.first().map(String::as_str).unwrap_or_default();
    let path = environment.get("PATH").map_or("", String::as_str);
    let resolved: PathBuf = match program::resolve(program, &directory, path, "on this worker") {
        Ok(resolved) => resolved,
        Err((code, message)) => return Ok(refused(code, &message, output).await),
    };
    let mut command = Command::new(&resolved);
    command
        .args(job.arguments.iter().skip(1))
        .env_clear()
        .envs(environment)
        .envs(job.secrets.variables())
        .current_dir(&directory)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut child = match cpus::starting(job.conditions.cpus, || command.spawn()) {
        Ok(child) => child,
        Err(error) => return Ok(refused(126, &format!("cannot start `{}`: {error}", resolved.display()), output).await),
    };
    let disk = Disk::watch(scratch.path(), job.disk_bytes);
    let group = Pid::from_raw(child.id().unwrap_or(0) as i32);
    let stdout = follow(child.stdout.take(), Stream::Stdout, output.clone());
    let stderr = follow(child.stderr.take(), Stream::Stderr, output);
    let ending = async {
        let ended = tokio::select! {
            status = child.wait() => Ok(status),
            () = after(job.timeout) => Err(Stop::Timeout),
            () = cancel.cancelled() => Err(Stop::Cancel),
            stop = disk.used_up() => Err(stop),
        };
        if group.as_raw() > 0 {
            let _ = killpg(group, Signal::SIGKILL);
        }
        ended
    };
    let (ended, (), ()) = tokio::join!(ending, stdout, stderr);
    use std::os::unix::process::ExitStatusExt;
    let ended = match ended {
        Ok(Ok(status)) if !status.success() => disk.explains_failure().map_or(Ok(Ok(status)), Err),
        ended => ended,
    };
    Ok(match ended {
        Err(stop) => exit(&Ended::default(), Some(stop)),
        Ok(Ok(status)) => match (status.code(), status.signal()) {
            (Some(code), _) => Exit::Code(code),
            (None, signal) => Exit::Signal(signal.unwrap_or(9)),
        },
        Ok(Err(error)) => return Err(Error::Setup(format!("cannot wait for a command: {error}"))),
    })
}

async fn refused(code: i32, message: &str, output: mpsc::Sender<Chunk>) -> Exit {
    let data = format!("kiln: {message}\n").into();
    let _ = output.send(Chunk { stream: Stream::Stderr, data }).await;
    Exit::Code(code)
}
