//! Serves a shell in an action's place: passes on what is typed and printed between it and the farm.
//!
//! Invariants: a lease of a shell never has a result; what waits to be passed on is bounded, so a command that prints without end waits for
//! whoever reads; the shell ends with the connection that it is watched over.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kiln_executor::mask::{Masked, Patterns};
use kiln_executor::session::{Session, Terminal, Told, Wanted};
use kiln_executor::{Chunk, Exit, Job, Place, Stream};
use kiln_kernel::syscalls;
use kiln_proto::v1::shell_state::Phase;
use kiln_proto::v1::shells_client::ShellsClient;
use kiln_proto::v1::{self, ShellData, ShellEnded, ShellInput, ShellOutput, ShellState, shell_input, shell_output};
use parking_lot::Mutex;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::{At, Fault, Runner, action_fault, words};

/// Maximum bytes of data in a message.
const MAX_DATA: usize = 32 << 10;
/// Bytes that may be on their way to whoever watches.
const WINDOW: usize = 256 << 10;
/// Messages that wait to be sent.
const QUEUE: usize = 4;
/// How long what may be the beginning of a secret is held back on a terminal, where somebody waits for the echo.
const ECHO: Duration = Duration::from_millis(20);
/// How long the farm may take to take the last word.
const AT_THE_END: Duration = Duration::from_secs(5);

impl Runner {
    /// Serves a shell to its end. There is no result: it ends with a status.
    pub(super) async fn shell(
        &self,
        at: &At<'_>,
        lease: &v1::Lease,
        shell: &v1::Shell,
        mut job: Job,
        cancel: &CancellationToken,
    ) -> Fault {
        let (told, hears) = mpsc::unbounded_channel();
        let wanted = wanted(shell, &mut job);
        let has_terminal = wanted.terminal.is_some();
        job.session = Some(Session { wanted, told });
        if let (Some(_), Place::Machine, true) = (&self.broker, &job.place, lease.secrets.is_empty()) {
            // As for a step whose calls are answered; here they run in the shell.
            let jobs = job.milli_cpus.div_ceil(1000).max(1).to_string();
            job.environment.entry("KILN_JOBS".to_owned()).or_insert(jobs);
        }
        let patterns = Patterns::of(&job.secrets, if job.network { self.executor.hidden() } else { &[] });
        let (outbox, inbox) = mpsc::channel(QUEUE);
        let client = match self.client(at) {
            Ok(client) => client,
            Err(fault) => return fault,
        };
        let input = match ShellsClient::new(client.channel()).serve(ReceiverStream::new(inbox)).await {
            Ok(serving) => serving.into_inner(),
            Err(status) => return action_fault(status.code(), status.message()),
        };
        // A shell ends when it is cancelled, and when nobody watches it any more.
        let stop = cancel.child_token();
        let outbox = Outbox { sender: outbox, room: Arc::new(Semaphore::new(WINDOW)), sent: Arc::default() };
        let typed = Typed::default();
        let reading = tokio::spawn(read(input, typed.clone(), outbox.clone(), stop.clone()));
        let reading = AbortOnDropHandle::new(reading);
        if !shell.before {
            outbox.state(Phase::CommandRuns, None).await;
        }
        let (sender, chunks) = mpsc::channel::<Chunk>(QUEUE);
        let mut talk =
            Talk { outbox: outbox.clone(), typed, stop: stop.clone(), patterns: patterns.as_ref(), has_terminal };
        let run = self.executor.run(job, sender, stop.clone());
        let (finished, ()) = tokio::join!(run, talk.until_the_end(chunks, hears));
        let ended = match &finished {
            Ok(finished) => ended(&finished.exit, lease),
            Err(error) => ShellEnded { exit_code: -1, message: error.to_string() },
        };
        drop(finished);
        outbox.say(shell_output::Message::Ended(ended)).await;
        drop((talk, outbox));
        let _ = tokio::time::timeout(AT_THE_END, reading).await;
        action_fault(Code::Aborted, "the shell has ended")
    }
}

fn wanted(shell: &v1::Shell, job: &mut Job) -> Wanted {
    let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
    let terminal = shell.terminal.as_ref().map(|terminal| {
        let size = terminal.size.unwrap_or_default();
        Terminal { term: terminal.term.clone(), rows: side(size.rows), columns: side(size.columns) }
    });
    let (runs_first, arguments) = (!shell.before, shell.command.clone());
    Wanted { runs_first, first_timeout: job.timeout.take(), arguments, terminal }
}

/// How it ended, for whoever watched.
fn ended(exit: &Exit, lease: &v1::Lease) -> ShellEnded {
    let (exit_code, message) = outcome(exit, lease);
    ShellEnded { exit_code, message }
}

/// A command's exit code, and why it has none of its own.
fn outcome(exit: &Exit, lease: &v1::Lease) -> (i32, String) {
    match exit {
        Exit::Code(code) => (*code, String::new()),
        Exit::Signal(signal) => (128 + signal, words(exit)),
        Exit::Cancelled => (-1, "it was ended".to_owned()),
        Exit::TimedOut => (-1, "it ran longer than its timeout and was stopped".to_owned()),
        Exit::OutOfMemory => {
            let mib = lease.reserved.unwrap_or_default().memory_bytes >> 20;
            (-1, format!("it used more than its limit of {mib} MiB of memory"))
        }
        Exit::DiskFull | Exit::NoRoom => (-1, "it wrote more than fits on the worker's disk".to_owned()),
        Exit::TooManyProcesses => (-1, "it started too many processes".to_owned()),
    }
}

/// What is sent to the farm.
#[derive(Debug, Clone)]
struct Outbox {
    sender: mpsc::Sender<ShellOutput>,
    room: Arc<Semaphore>,
    /// Bytes that have been sent, and that nobody has taken yet.
    sent: Arc<AtomicUsize>,
}

impl Outbox {
    async fn say(&self, message: shell_output::Message) {
        let _ = self.sender.send(ShellOutput { message: Some(message) }).await;
    }

    async fn state(&self, phase: Phase, ended: Option<(i32, String)>) {
        let (exit_code, message) = ended.unwrap_or_default();
        let state = ShellState { phase: phase as i32, exit_code, message, ..ShellState::default() };
        self.say(shell_output::Message::State(state)).await;
    }

    /// Sends data, when there is room for it.
    async fn data(&self, mut data: Bytes, is_error: bool) {
        while !data.is_empty() {
            let piece = data.split_to(data.len().min(MAX_DATA));
            // The semaphore is never closed.
            let Ok(room) = self.room.acquire_many(piece.len() as u32).await else { return };
            room.forget();
            self.sent.fetch_add(piece.len(), Ordering::AcqRel);
            self.say(shell_output::Message::Data(ShellData { data: piece, is_error })).await;
        }
    }

    /// So much has been taken.
    fn taken(&self, bytes: u32) {
        let mut taken = 0;
        let _ = self.sent.fetch_update(Ordering::AcqRel, Ordering::Acquire, |sent| {
            taken = sent.min(bytes as usize);
            Some(sent - taken)
        });
        self.room.add_permits(taken);
    }
}

/// What was typed and has not been given to the shell: no more than the farm sends before it hears that some was taken.
#[derive(Debug, Clone)]
struct Typed {
    sender: mpsc::UnboundedSender<Option<Bytes>>,
    receiver: Arc<Mutex<Option<mpsc::UnboundedReceiver<Option<Bytes>>>>>,
    window: Arc<Mutex<Window>>,
}

/// A terminal, once there is one, and its size, which may come before.
#[derive(Debug, Default)]
struct Window {
    terminal: Option<Arc<AsyncFd<OwnedFd>>>,
    size: Option<v1::WindowSize>,
}

impl Window {
    fn fit(&self) {
        let (Some(terminal), Some(size)) = (&self.terminal, &self.size) else { return };
        let side = |side: u32| u16::try_from(side).unwrap_or(u16::MAX);
        let _ = syscalls::set_window_size(terminal.get_ref().as_fd(), side(size.rows), side(size.columns));
    }
}

impl Default for Typed {
    fn default() -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        Self { sender, receiver: Arc::new(Mutex::new(Some(receiver))), window: Arc::default() }
    }
}

impl Typed {
    fn resize(&self, size: v1::WindowSize) {
        let mut window = self.window.lock();
        window.size = Some(size);
        window.fit();
    }

    fn begins(&self, terminal: Arc<AsyncFd<OwnedFd>>) {
        let mut window = self.window.lock();
        window.terminal = Some(terminal);
        window.fit();
    }
}

/// Reads what the farm says, at once, until nobody watches any more.
async fn read(mut input: tonic::Streaming<ShellInput>, typed: Typed, outbox: Outbox, stop: CancellationToken) {
    let _ends = stop.drop_guard();
    while let Ok(Some(ShellInput { message: Some(message) })) = input.message().await {
        match message {
            shell_input::Message::Data(data) => drop(typed.sender.send(Some(data))),
            shell_input::Message::End(_) => drop(typed.sender.send(None)),
            shell_input::Message::Size(size) => typed.resize(size),
            shell_input::Message::Taken(bytes) => outbox.taken(bytes),
            shell_input::Message::Open(_) => return,
        }
    }
}

/// A shell that runs.
struct Talk<'a> {
    outbox: Outbox,
    typed: Typed,
    stop: CancellationToken,
    patterns: Option<&'a Patterns>,
    has_terminal: bool,
}

impl Talk<'_> {
    /// Passes on everything that is printed, until it has ended.
    async fn until_the_end(&mut self, mut chunks: mpsc::Receiver<Chunk>, mut hears: mpsc::UnboundedReceiver<Told>) {
        let masked = || Masked::new(self.patterns);
        let (mut stdout, mut stderr, mut screen) = (masked(), masked(), masked());
        let (mut prints, mut tells) = (true, true);
        let mut terminal: Option<Arc<AsyncFd<OwnedFd>>> = None;
        let mut typing = None;
        while prints || tells || terminal.is_some() {
            tokio::select! {
                biased;
                chunk = chunks.recv(), if prints => match chunk {
                    Some(Chunk { stream, data }) => {
                        let is_error = stream == Stream::Stderr;
                        let mask = if is_error { &mut stderr } else { &mut stdout };
                        self.print(mask.push(data), is_error).await;
                    }
                    None => {
                        prints = false;
                        self.print(stdout.finish(), false).await;
                        self.print(stderr.finish(), true).await;
                    }
                },
                told = hears.recv(), if tells => match told {
                    Some(Told::CommandEnded(exit)) => {
                        for Chunk { stream, data } in rest(&mut chunks).await {
                            let is_error = stream == Stream::Stderr;
                            let mask = if is_error { &mut stderr } else { &mut stdout };
                            self.print(mask.push(data), is_error).await;
                        }
                        self.print(stdout.finish(), false).await;
                        self.print(stderr.finish(), true).await;
                        let ended = outcome(&exit, &v1::Lease::default());
                        self.outbox.state(Phase::CommandEnded, Some(ended)).await;
                    }
                    Some(Told::Opened(input, begin)) => {
                        self.outbox.state(Phase::Open, None).await;
                        match opened(input) {
                            Ok(input) => {
                                let input = Arc::new(input);
                                typing = self.types(input.clone());
                                if self.has_terminal {
                                    self.typed.begins(input.clone());
                                    terminal = Some(input);
                                }
                                begin.now();
                            }
                            Err(error) => {
                                tracing::error!(%error, "cannot use the input of a shell");
                                self.stop.cancel();
                            }
                        }
                    }
                    None => tells = false,
                },
                () = tokio::time::sleep(ECHO), if screen.holds() => self.print(screen.finish(), false).await,
                data = printed(terminal.as_deref()), if terminal.is_some() => match data {
                    Some(data) => self.print(screen.push(data), false).await,
                    None => {
                        terminal = None;
                        self.print(screen.finish(), false).await;
                    }
                },
            }
        }
        drop::<Option<AbortOnDropHandle<()>>>(typing);
    }

    /// Whoever has gone does not hold up the end.
    async fn print(&self, data: Bytes, is_error: bool) {
        tokio::select! {
            () = self.outbox.data(data, is_error) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Gives the shell what is typed, as fast as it takes it.
    fn types(&self, input: Arc<AsyncFd<OwnedFd>>) -> Option<AbortOnDropHandle<()>> {
        let mut typed = self.typed.receiver.lock().take()?;
        let (outbox, has_terminal) = (self.outbox.clone(), self.has_terminal);
        Some(AbortOnDropHandle::new(tokio::spawn(async move {
            while let Some(data) = typed.recv().await {
                let Some(mut data) = data else {
                    // A terminal does not end; whoever types Ctrl-D types a byte.
                    if has_terminal { continue } else { return }
                };
                let length = data.len() as u32;
                while !data.is_empty() {
                    let write = |fd: &OwnedFd| rustix::io::write(fd, &data).map_err(io::Error::from);
                    match input.async_io(Interest::WRITABLE, write).await {
                        Ok(written) => drop(data.split_to(written)),
                        // Nobody reads it any more; the rest is of no use.
                        Err(_) => data.clear(),
                    }
                }
                outbox.say(shell_output::Message::Taken(length)).await;
            }
        })))
    }
}

/// What a command has printed that has ended. All of it was read before its end was told, so it is here, or comes as soon as there is room.
async fn rest(chunks: &mut mpsc::Receiver<Chunk>) -> Vec<Chunk> {
    let mut rest = Vec::new();
    loop {
        let before = rest.len();
        while let Ok(chunk) = chunks.try_recv() {
            rest.push(chunk);
        }
        if rest.len() == before {
            return rest;
        }
        tokio::task::yield_now().await;
    }
}

fn opened(input: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&input, true)?;
    syscalls::watched(input, Interest::READABLE | Interest::WRITABLE)
}

/// The next bytes on a terminal; none once nobody can write to it any more.
async fn printed(terminal: Option<&AsyncFd<OwnedFd>>) -> Option<Bytes> {
    let mut data = vec![0; MAX_DATA];
    let read = |fd: &OwnedFd| rustix::io::read(fd, &mut data[..]).map_err(io::Error::from);
    // EIO: all processes with the terminal have ended.
    let length = terminal?.async_io(Interest::READABLE, read).await.ok().filter(|length| *length > 0)?;
    data.truncate(length);
    Some(data.into())
}
