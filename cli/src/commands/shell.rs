//! `kiln shell` and `kiln run`: a terminal, or a command, where a step of a build ran.

use std::io::IsTerminal;
use std::path::Path;

use bytes::Bytes;
use kiln_agents::{Agents, Whose};
use kiln_keyboard::{Escape, Printer, Raw, Resizes};
use kiln_proto::v1::shell_state::Phase;
use kiln_proto::v1::step_state::Phase as StepPhase;
use kiln_proto::v1::{
    self, OpenShell, Shell, ShellEnded, ShellInput, ShellOutput, ShellState, Terminal, WindowSize, shell_input,
    shell_output,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code as Status, Streaming};

use super::{build, with_farm};
use crate::args;
use crate::farm::{Error as FarmError, Farm};
use crate::interrupts::Interrupts;
use crate::{Code, Error, local};
use kiln_progress::is_called;
use kiln_terminal as terminal;

/// Messages that wait to be sent.
const QUEUE: usize = 8;
/// The size of a window that has none.
const SIZE: WindowSize = WindowSize { rows: 24, columns: 80 };

/// `kiln shell`.
pub(super) async fn shell(farm: &args::Farm, args: args::Place, interrupts: &Interrupts) -> Result<Code, Error> {
    if !is_on_terminal() {
        let words = "`kiln shell` needs a terminal; `kiln run BUILD STEP -- COMMAND` runs a command without one";
        return Err(Error::Usage(words.to_owned()));
    }
    let given = kiln_secrets::named(&args.secret)?;
    build::refuse_exposed(farm, &given)?;
    let agents = build::opened(farm, &args.ssh)?;
    let request = OpenShell { shell: Some(in_terminal(args.before)), secrets: given, ..place(&args) };
    with_farm(farm, interrupts, async |farm| open(farm, called(farm, request).await?, &agents, interrupts).await).await
}

/// `kiln run`.
pub(super) async fn run(farm: &args::Farm, args: args::Run, interrupts: &Interrupts) -> Result<Code, Error> {
    let given = kiln_secrets::named(&args.place.secret)?;
    build::refuse_exposed(farm, &given)?;
    let agents = build::opened(farm, &args.place.ssh)?;
    let shell = Shell { before: args.place.before, command: args.command, terminal: None };
    let request = OpenShell { shell: Some(shell), secrets: given, ..place(&args.place) };
    with_farm(farm, interrupts, async |farm| open(farm, called(farm, request).await?, &agents, interrupts).await).await
}

/// A shell where a step of a build failed, with the secrets and agents that the build was given; nothing if none of its steps did.
pub(super) async fn on_failure(
    farm: &Farm,
    build: &str,
    (root, given, agents): (&Path, &[v1::Secret], &Agents),
    interrupts: &Interrupts,
) -> Result<(), Error> {
    let steps = farm.build(build).await?.steps;
    let failed = steps.into_iter().find(|state| state.phase() == StepPhase::Failed);
    let Some(step) = failed.and_then(|state| state.step) else {
        terminal::say("no step failed, so there is no place for a shell");
        return Ok(());
    };
    let names = kiln_secrets::names_of_step(root, &step.step);
    let request = OpenShell {
        build: build.to_owned(),
        user: local::user(),
        step: step.step,
        platform: step.platform,
        target: step.target,
        shard: step.shard + 1,
        shell: Some(in_terminal(false)),
        secrets: given.iter().filter(|secret| names.contains(&secret.name)).cloned().collect(),
        id: String::new(),
    };
    open(farm, request, agents, interrupts).await.map(drop)
}

/// Whether a user can type, and see what is printed.
pub(super) fn is_on_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

fn place(args: &args::Place) -> OpenShell {
    OpenShell {
        build: args.build.clone(),
        user: local::user(),
        step: args.step.clone(),
        platform: args.platform.map(|platform| platform.to_string()).unwrap_or_default(),
        target: args.target.clone().unwrap_or_default(),
        shard: args.shard,
        ..OpenShell::default()
    }
}

/// The same request with the step's own name: an instruction may be called by its place alone, as for `kiln logs`.
async fn called(farm: &Farm, request: OpenShell) -> Result<OpenShell, Error> {
    if !request.step.starts_with('[') {
        return Ok(request);
    }
    let build = farm.build(&request.build).await?;
    let names = build.steps.into_iter().filter_map(|state| Some(state.step?.step));
    let found = names.into_iter().find(|name| is_called(name, &request.step));
    let step = found.unwrap_or_else(|| request.step.clone());
    Ok(OpenShell { build: build.id, step, ..request })
}

fn in_terminal(before: bool) -> Shell {
    let is_plain =
        |term: &String| !term.is_empty() && term.chars().all(|c| c.is_ascii_alphanumeric() || "-_.+".contains(c));
    let term = std::env::var("TERM").ok().filter(is_plain).unwrap_or_else(|| "dumb".to_owned());
    Shell { before, command: Vec::new(), terminal: Some(Terminal { term, size: Some(size()) }) }
}

fn size() -> WindowSize {
    let found = console::Term::stdout().size_checked();
    found.map_or(SIZE, |(rows, columns)| WindowSize { rows: rows.into(), columns: columns.into() })
}

/// Opens a shell, gives it these agents, and stays with it to its end.
async fn open(farm: &Farm, request: OpenShell, agents: &Agents, interrupts: &Interrupts) -> Result<Code, Error> {
    let id = if agents.is_empty() { String::new() } else { uuid::Uuid::new_v4().to_string() };
    let request = OpenShell { id: id.clone(), ..request };
    let has_terminal = request.shell.as_ref().is_some_and(|shell| shell.terminal.is_some());
    let step = request.step.clone();
    let (input, messages) = mpsc::channel(QUEUE);
    let first = ShellInput { message: Some(shell_input::Message::Open(request)) };
    let _ = input.send(first).await;
    let mut service = farm.shells();
    let opening = farm.call(service.open(ReceiverStream::new(messages)));
    let output = tokio::select! {
        opened = opening => opened.map_err(|error| match error {
            // It is about what was asked for.
            FarmError::Call { status, .. } if status.code() == Status::FailedPrecondition => {
                FarmError::Refused(status.message().to_owned())
            }
            other => other,
        })?.into_inner(),
        () = interrupts.first() => return Err(Error::Cancelled),
    };
    let mut session = Session { step, input, has_terminal, raw: None, printer: Printer::start(), is_open: false };
    let following = session.follow(farm, output, interrupts);
    let ended = agents.beside(|| farm.agents(), Whose::Shell(&id), following).await;
    let Session { raw, printer, .. } = session;
    let printed = printer.finish().await;
    // What is said from here on, is said in the user's own terminal.
    drop(raw);
    let code = ended?;
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Stdout(error)),
        _ => Ok(code),
    }
}

/// A shell, as its user has it.
struct Session {
    step: String,
    input: mpsc::Sender<ShellInput>,
    has_terminal: bool,
    /// The user's terminal, while the shell has it.
    raw: Option<Raw>,
    printer: Printer,
    is_open: bool,
}

impl Session {
    async fn follow(
        &mut self,
        farm: &Farm,
        mut output: Streaming<ShellOutput>,
        interrupts: &Interrupts,
    ) -> Result<Code, Error> {
        let (leaves, mut left) = mpsc::channel(1);
        loop {
            tokio::select! {
                message = output.message() => {
                    let message = match message {
                        Ok(message) => message.and_then(|message| message.message),
                        Err(status) => return self.lost(farm, status),
                    };
                    match message {
                        Some(shell_output::Message::State(state)) => {
                            self.hear(&state);
                            if state.phase() == Phase::Open {
                                let failed = |source| Error::Runtime { source };
                                if self.has_terminal {
                                    self.raw = Some(Raw::enter().map_err(failed)?);
                                }
                                let resizes = kiln_keyboard::resizes().map_err(failed)?;
                                let input = (self.input.clone(), leaves.clone());
                                tokio::spawn(pass_on(kiln_keyboard::typed(), resizes, self.has_terminal, input));
                            }
                        }
                        Some(shell_output::Message::Data(data)) => {
                            // Until it is open, this is what the step's own command prints.
                            let is_error = data.is_error || (!self.has_terminal && !self.is_open);
                            let printing = self.printer.print(data.data, is_error);
                            let is_read = tokio::select! {
                                is_read = printing => is_read,
                                () = interrupts.first() => return Err(Error::Cancelled),
                            };
                            if !is_read {
                                return Ok(Code::Failed);
                            }
                        }
                        Some(shell_output::Message::Ended(ended)) => return Ok(self.ended(&ended)),
                        Some(shell_output::Message::Taken(_)) => {}
                        None => return self.lost(farm, tonic::Status::unavailable("the farm ended the connection")),
                    }
                }
                Some(()) = left.recv() => {
                    self.say("left the shell");
                    return Ok(Code::Cancelled);
                }
                () = interrupts.first() => return Err(Error::Cancelled),
            }
        }
    }

    /// A line for the user, wherever the cursor is.
    fn say(&mut self, words: &str) {
        if self.raw.take().is_some() {
            terminal::say("");
        }
        terminal::say(&terminal::harmless(words));
    }

    fn hear(&mut self, state: &ShellState) {
        let words = match state.phase() {
            Phase::Queued => "waiting for a worker".to_owned(),
            Phase::Preparing => format!("on worker `{}`", state.worker),
            Phase::CommandRuns => {
                "running the step's own command first (`--before` leaves it out); its output follows".to_owned()
            }
            Phase::CommandEnded if !state.message.is_empty() => format!("the step's own command: {}", state.message),
            Phase::CommandEnded => format!("the step's own command exited with code {}", state.exit_code),
            Phase::Open => {
                self.is_open = true;
                if !self.has_terminal {
                    return;
                }
                format!(
                    "a shell in the place of step `{}`; what happens here is thrown away; `exit`, or `~.` on a new line, ends it",
                    self.step
                )
            }
            Phase::Unspecified => return,
        };
        terminal::say(&terminal::harmless(&words));
    }

    fn ended(&mut self, ended: &ShellEnded) -> Code {
        if !ended.message.is_empty() {
            let what = if self.has_terminal { "the shell has ended" } else { "the command has ended" };
            self.say(&format!("{what}: {}", ended.message));
        }
        match u8::try_from(ended.exit_code) {
            Ok(code) => Code::Passed(code),
            Err(_) => Code::Failed,
        }
    }

    /// Why the stream ended before the shell did.
    fn lost(&mut self, farm: &Farm, status: tonic::Status) -> Result<Code, Error> {
        // A line of its own for what is said next.
        if self.raw.take().is_some() {
            terminal::say("");
        }
        let is_connection = std::error::Error::source(&status).is_some()
            || matches!(status.code(), Status::Unavailable | Status::Unknown | Status::Internal);
        if is_connection {
            return Err(FarmError::Shell { url: farm.url().to_owned(), status: Box::new(status) }.into());
        }
        match status.code() {
            // Its time was up.
            Status::DeadlineExceeded => {
                terminal::say_error(&terminal::harmless(status.message()));
                Ok(Code::Failed)
            }
            _ => Err(FarmError::call(farm.url(), status).into()),
        }
    }
}

/// Passes on what the user types, apart from what is printed: a command that takes no input may still print. Says so if the user leaves.
async fn pass_on(
    mut keyboard: mpsc::Receiver<Bytes>,
    mut resizes: Resizes,
    has_terminal: bool,
    (input, leaves): (mpsc::Sender<ShellInput>, mpsc::Sender<()>),
) {
    let tell = async |message| input.send(ShellInput { message: Some(message) }).await.is_ok();
    let mut escape = Escape::default();
    let (mut goes_on, mut has_input) = (true, true);
    if has_terminal {
        goes_on = tell(shell_input::Message::Size(size())).await;
    }
    while goes_on {
        tokio::select! {
            typed = keyboard.recv(), if has_input => {
                goes_on = match typed {
                    None => {
                        has_input = false;
                        tell(shell_input::Message::End(v1::EndOfInput {})).await
                    }
                    Some(data) if !has_terminal => tell(shell_input::Message::Data(data)).await,
                    Some(data) => {
                        let typed = escape.push(&data);
                        if typed.leaves {
                            let _ = leaves.send(()).await;
                            return;
                        }
                        typed.data.is_empty() || tell(shell_input::Message::Data(typed.data.into())).await
                    }
                };
            }
            _ = resizes.recv() => {
                goes_on = !has_terminal || tell(shell_input::Message::Size(size())).await;
            }
        }
    }
}
