//! The init of a job: a process of this same program that creates the namespaces, builds the root, starts the command
//! and reaps the processes that it leaves behind.
//!
//! It talks to the worker over a socket, its standard input. When the worker closes the socket or dies, the init exits,
//! and with it every process in its namespace.

mod further;
mod reap;
mod record;
mod routes;
mod session;
mod watch;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, getegid, geteuid, sethostname, setsid};
use parking_lot::Mutex;

use super::spec::{self, GO, LOOK, Network, Report, Spec};
use super::{network, root, rooted, spawner};
use kiln_executor::BUILD;
use kiln_executor::ending::Ended;
use kiln_executor::session::Wanted;
use kiln_kernel::{syscalls, userns};
use reap::{ended, reap};
pub(super) use record::Recorder;
use record::Seen;
use session::Input;
pub(super) use session::Start;
use watch::{Stopped, expendable};

/// The name (`argv[0]`) under which this program becomes an init.
pub(super) const NAME: &str = "kiln-sandbox-init";
/// The user and group id of an action, as it sees them.
pub(super) const USER: u32 = 1000;

/// Limit for connecting a network.
const CONNECTING: Duration = Duration::from_secs(20);
/// Limit for the forwarded ports of a network that is connected. Ports that cannot be forwarded stay closed.
const LISTENING: Duration = Duration::from_secs(2);

/// If this process was started as a job's init, does that work and never returns.
pub fn become_init_if_asked() {
    spawner::become_spawner_if_asked();
    if std::env::args_os().next().is_some_and(|name| name == NAME) {
        run_to_the_end(Ok(()));
    }
}

/// Does an init's work in this process, unless it could not be made one.
pub(super) fn run_to_the_end(made: std::io::Result<()>) -> ! {
    let made = made.map_err(|error| format!("cannot start a job's init: {error}"));
    let code = match made.and_then(|()| run()) {
        Ok(()) => 0,
        Err(reason) => {
            report(&Report::Setup(reason));
            1
        }
    };
    std::process::exit(code);
}

/// The socket to the worker.
fn socket() -> std::io::Result<UnixStream> {
    // Closed in the command, which could otherwise talk to the worker in the init's name.
    Ok(UnixStream::from(rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 3)?))
}

/// Held while a report is written: two threads write some.
static REPORTING: Mutex<()> = Mutex::new(());

fn report(report: &Report) {
    let _reporting = REPORTING.lock();
    if let (Ok(mut socket), Ok(mut line)) = (socket(), serde_json::to_vec(report)) {
        line.push(b'\n');
        let _ = socket.write_all(&line);
    }
}

fn run() -> Result<(), String> {
    let words = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let socket = socket().map_err(words("no socket to the worker"))?;
    syscalls::close_on_exec_from(3).map_err(words("cannot close inherited descriptors"))?;
    let mut sent = spec::receive(&socket).map_err(words("cannot read the job"))?;
    let mut control = BufReader::new(socket);
    let mut line = String::new();
    control.read_line(&mut line).map_err(words("cannot read the job"))?;
    let spec: Spec = serde_json::from_str(&line).map_err(|error| format!("cannot read the job: {error}"))?;
    drop(line);
    let input = spec.session.as_ref().and_then(|_| sent.pop());
    let port = spec.listens.and_then(|number| Some((number, sent.pop()?)));

    let mut flags =
        CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWUTS;
    if spec.network != Network::Machine && !spec.loopback {
        flags |= CloneFlags::CLONE_NEWNET;
    }
    match spec.user {
        Some(user) if !sent.is_empty() => {
            let namespace = sent.remove(0);
            if spec.loopback && !sent.is_empty() {
                setns(sent.remove(0), CloneFlags::CLONE_NEWNET)
                    .map_err(|error| format!("cannot enter the job's network: {error}"))?;
            }
            if let Some(overlays) = rooted::overlays_from_outside(&spec, &sent)? {
                sent = overlays;
            }
            if let Some(beside) = &spec.beside {
                beside.mount_outside(&mut sent)?;
            }
            enter_ids(user, &namespace, flags)?;
        }
        _ => own_id(flags)?,
    }
    if spec.rooted.is_some() {
        userns::become_user(0).map_err(|error| format!("cannot become root in the job's user namespace: {error}"))?;
        visible()?;
    }
    // Opened now: the root changes, for the parent as well, and nothing is mounted in the new one at first.
    let null = null().map_err(words("cannot close the output"))?;
    match syscalls::fork_alone().map_err(words("cannot fork"))? {
        Some(child) => {
            silence(&null).map_err(words("cannot close the output"))?;
            drop((control, port, input));
            let _ = waitpid(child, None);
            std::process::exit(0);
        }
        None => as_pid_one(spec, (sent, port, input), control, &null),
    }
}

/// Becomes the user whose ids the job has, before creating anything that the kernel charges to a user.
fn enter_ids(user: u32, namespace: &OwnedFd, flags: CloneFlags) -> Result<(), String> {
    let errno = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    userns::become_user(user).map_err(errno("cannot become the job's user"))?;
    setns(namespace, CloneFlags::CLONE_NEWUSER).map_err(errno("cannot enter the job's user namespace"))?;
    unshare(flags).map_err(errno("the kernel refuses namespaces"))?;
    visible()
}

/// Maps the job's user to this process's own, and no other id.
fn own_id(flags: CloneFlags) -> Result<(), String> {
    let words = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let (uid, gid) = (geteuid(), getegid());
    unshare(flags | CloneFlags::CLONE_NEWUSER).map_err(|error| format!("the kernel refuses namespaces: {error}"))?;
    visible()?;
    std::fs::write("/proc/self/setgroups", "deny").map_err(words("cannot fix the groups"))?;
    std::fs::write("/proc/self/uid_map", format!("{USER} {uid} 1")).map_err(words("cannot map the user"))?;
    std::fs::write("/proc/self/gid_map", format!("{USER} {gid} 1")).map_err(words("cannot map the group"))
}

/// After a change of user, a process's files in /proc belong to root unless it makes itself dumpable.
fn visible() -> Result<(), String> {
    nix::sys::prctl::set_dumpable(true).map_err(|error| format!("cannot become dumpable: {error}"))
}

fn null() -> std::io::Result<File> {
    std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")
}

/// Closes the command's output, so that it ends when the command's processes have ended.
fn silence(null: &File) -> std::io::Result<()> {
    rustix::stdio::dup2_stdout(null)?;
    rustix::stdio::dup2_stderr(null)?;
    Ok(())
}

fn as_pid_one(
    spec: Spec,
    (mut sent, port, input): (Vec<OwnedFd>, Option<(u16, OwnedFd)>, Option<OwnedFd>),
    mut control: BufReader<UnixStream>,
    null: &File,
) -> Result<(), String> {
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let errno = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).map_err(errno("cannot tie the init to the worker"))?;
    let _ = setsid();
    sethostname(&spec.hostname).map_err(errno("cannot set the host's name"))?;
    kiln_executor::cpus::restrict(spec.cpus).map_err(io("cannot choose CPUs"))?;
    if spec.network != Network::Machine && !spec.loopback {
        syscalls::loopback_up().map_err(io("cannot bring up the loopback interface"))?;
    }
    // The worker listens at its port from outside. Where it cannot be opened, nobody does: a job can do without.
    if let Some((number, socket)) = port.filter(|_| spec.network != Network::Machine)
        && let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, number))
    {
        let _ = spec::send(&socket, &[listener.as_fd()]);
    }
    if spec.network == Network::Own {
        // The worker connects it while the root is built.
        report(&Report::Network);
    }
    // Opened in the machine's /proc: the sandbox's is read-only.
    let oom_score = std::fs::OpenOptions::new().write(true).open("/proc/self/oom_score_adj").ok();
    if spec.kept {
        return further::serve(spec, sent, control, null, oom_score);
    }
    let place = match build(&spec, &mut sent) {
        Ok(place) => place,
        Err(rooted::Failed::Setup(reason)) => return Err(reason),
        Err(rooted::Failed::Refused(reason)) => {
            report(&Report::Refused(reason));
            std::process::exit(0);
        }
    };
    drop(sent);
    if spec.network == Network::Own && !connected(&spec, &mut control)? {
        std::process::exit(0);
    }
    limit(&spec)?;
    let asked = Arc::new(AtomicBool::new(false));
    let stop = asked.clone();
    let listen = move |seen: Option<Seen>| {
        std::thread::Builder::new().spawn(move || hold(control, seen.as_ref(), &stop)).map(drop)
    };
    let input = match (&spec.session, input) {
        (Some(wanted), Some(input)) => {
            let owner = place.as_ref().map(rooted::Built::owner);
            Some((wanted, Input::open(wanted, input, owner).map_err(io("cannot make a terminal"))?))
        }
        _ => None,
    };
    carry_out((&spec, input), place, None, (null, oom_score), &asked, listen)?;
    loop {
        std::thread::park();
    }
}

/// The command's standard output and error output, if they are not this process's own.
type Streams = Option<(OwnedFd, OwnedFd)>;

/// Runs a job's command, whose root this thread is in, and reports how it ended. From then on this thread is as restricted as the command.
/// `listen` is called before the command starts, with what it looks at if that is recorded.
fn carry_out(
    (spec, input): (&Spec, Option<(&Wanted, Input)>),
    place: Option<rooted::Built>,
    streams: Streams,
    (null, oom_score): (&File, Option<File>),
    asked: &AtomicBool,
    listen: impl FnOnce(Option<Seen>) -> std::io::Result<()>,
) -> Result<(), String> {
    let io = |what: &'static str| move |error: std::io::Error| format!("{what}: {error}");
    let errno = |what: &'static str| move |error: nix::Error| format!("{what}: {error}");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    let recorder = spec.recorded.then(Recorder::start).transpose().map_err(io("cannot record the job"))?;
    if place.is_none() {
        nix::sys::prctl::set_no_new_privs().map_err(errno("cannot give up privileges"))?;
        recorder.as_ref().map_or(Ok(()), Recorder::install)?;
        kiln_seccomp::restrict(spec.network == Network::Machine)?;
    }
    // What the init itself needs is started first: its command may use up what may be started.
    let stopped = Stopped::default();
    watch::watch(spec, stopped.clone()).map_err(io("cannot watch the job"))?;
    listen(recorder.as_ref().map(|recorder| recorder.seen(spec.preloaded)))
        .map_err(io("cannot listen to the worker"))?;
    let (mut service, mut not_begun) = (None, None);
    if let Some(wanted) = spec.rooted.as_ref().and_then(|root| root.service.as_ref()) {
        let score = oom_score.as_ref().and_then(|score| score.try_clone().ok());
        match expendable(score, || rooted::begin_service(spec, wanted)) {
            Ok(running) => service = Some(running),
            Err(code) => not_begun = Some(Ended { code: Some(code), ..Ended::default() }),
        }
    }
    // Without a root of its own the command runs as a user without any capability: `execve` drops them all.
    let began = Instant::now();
    let started = match input {
        _ if not_begun.is_some() => {
            let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            Err(not_begun.unwrap_or_default())
        }
        Some((wanted, input)) => {
            let running = session::run((spec, wanted), place.as_ref(), input, (null, oom_score), asked, &stopped);
            Err(running.map_err(io("cannot run a session"))?)
        }
        None => {
            expendable(oom_score, || start(spec, Start::of_job(spec), (place.as_ref(), recorder.as_ref()), streams))
                .map_err(|code| Ended { code: Some(code), ..Ended::default() })
        }
    };
    let ended = match started {
        Ok(child) => {
            silence(null).map_err(io("cannot close the output"))?;
            if asked.load(Ordering::SeqCst) {
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
            let reaped = reap(child, || stopped.look(spec.max_processes));
            ended(reaped, began.elapsed(), &stopped)
        }
        Err(ended) => {
            silence(null).map_err(io("cannot close the output"))?;
            ended
        }
    };
    if let Some(service) = service.as_mut().filter(|_| ended.code != Some(0)) {
        service.show();
    }
    drop(service);
    if let Some(place) = place {
        place.leave();
    }
    if let Some(recorder) = recorder {
        report(&Report::Accessed(recorder.seen(spec.preloaded).so_far()));
    }
    report(&Report::Ended(ended));
    Ok(())
}

/// Waits until the worker has connected the network, then blocks what must not be reachable. `false`: the job was
/// stopped.
fn connected(spec: &Spec, control: &mut BufReader<UnixStream>) -> Result<bool, String> {
    let mut line = String::new();
    control.read_line(&mut line).map_err(|error| format!("no answer from the worker: {error}"))?;
    if line != GO {
        return Ok(false);
    }
    let (began, (v4, v6)) = (Instant::now(), spec.routes);
    while !network::is_connected(v4, v6) {
        if began.elapsed() > CONNECTING {
            return Err(format!("the job's network was not connected within {} s", CONNECTING.as_secs()));
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    let connected = Instant::now();
    while !network::are_listened_at(&spec.ports) && connected.elapsed() < LISTENING {
        std::thread::sleep(Duration::from_micros(500));
    }
    routes::close(&spec.unreachable).map_err(|error| format!("cannot block addresses for the job: {error}"))?;
    Ok(true)
}

fn limit(spec: &Spec) -> Result<(), String> {
    let failed = |error: nix::Error| format!("cannot set limits: {error}");
    // Not 0: a kernel that pipes core files to a program ignores that limit. It treats 1 as "none", and no file fits
    // into it (core(5)).
    setrlimit(Resource::RLIMIT_CORE, 1, 1).map_err(failed)?;
    setrlimit(Resource::RLIMIT_FSIZE, spec.file_bytes, spec.file_bytes).map_err(failed)?;
    // Half of the limit on pending signals, because other jobs may run as the same user.
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_SIGPENDING) {
        setrlimit(Resource::RLIMIT_SIGPENDING, hard / 2, hard / 2).map_err(failed)?;
    }
    if let Some(most) = spec.max_processes {
        // The watchdog reports and ends a job with too many processes; beyond twice the limit the kernel refuses, so
        // that nothing outruns the watchdog. (Counted in this user namespace alone; not for a worker that is root,
        // which has control groups.)
        let most = 2 * u64::from(most) + 64;
        let _ = setrlimit(Resource::RLIMIT_NPROC, most, most);
    }
    Ok(())
}

/// Keeps the mounts until the worker closes the socket, and answers what was looked at. Any other line from the worker means that
/// everything must stop, which `asked` says to whoever starts something afterwards.
fn hold(mut control: BufReader<UnixStream>, seen: Option<&Seen>, asked: &AtomicBool) {
    let mut line = String::new();
    while control.read_line(&mut line).is_ok_and(|read| read > 0) {
        match seen {
            Some(seen) if line == LOOK => report(&Report::Accessed(seen.so_far())),
            _ => {
                asked.store(true, Ordering::SeqCst);
                let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
            }
        }
        line.clear();
    }
    // When PID 1 exits, every process in its namespace is killed.
    std::process::exit(0);
}

/// Builds the job's root and moves into it. The answer is one that the job has of its own.
fn build(spec: &Spec, sent: &mut Vec<OwnedFd>) -> Result<Option<rooted::Built>, rooted::Failed> {
    match &spec.rooted {
        Some(root) => rooted::build(spec, root, sent).map(Some),
        None => root::build(spec, sent).map(|()| None),
    }
}

/// Starts the command, or says on its error output why it cannot be started; answers with the exit code then.
/// What it looks at is recorded if its root is one of its own; otherwise this thread is recorded already.
fn start(
    spec: &Spec,
    what: Start<'_>,
    (place, recorder): (Option<&rooted::Built>, Option<&Recorder>),
    streams: Streams,
) -> Result<Pid, i32> {
    let mut errors = streams.as_ref().and_then(|(_, errors)| errors.try_clone().ok()).map(File::from);
    let started = match (&spec.rooted, place) {
        (Some(root), Some(place)) => rooted::start(spec, what, (root, place), recorder),
        _ => start_here(spec, what, streams),
    };
    started.map_err(|(code, message)| {
        if !message.is_empty() {
            let _ = match &mut errors {
                Some(errors) => writeln!(errors, "kiln: {message}"),
                None => writeln!(std::io::stderr(), "kiln: {message}"),
            };
        }
        code
    })
}

fn start_here(spec: &Spec, what: Start<'_>, streams: Streams) -> Result<Pid, (i32, String)> {
    let directory = Path::new(BUILD).join(&spec.working_directory);
    let path = spec.environment.get("PATH").map_or("", String::as_str);
    let mut command = what.program(&directory, path, "on this worker")?;
    command.env_clear().envs(&spec.environment).envs(spec.secrets.variables());
    if let Some((output, errors)) = streams {
        command.stdout(output).stderr(errors);
    }
    match what.connect(&mut command).and_then(|()| command.spawn()) {
        Ok(child) => Ok(Pid::from_raw(child.id() as i32)),
        Err(error) => Err((126, format!("cannot start `{}`: {error}", Path::new(command.get_program()).display()))),
    }
}
