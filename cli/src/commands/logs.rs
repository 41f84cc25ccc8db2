//! `kiln logs`: the complete output of a build's steps, from the store; for a running step, the output so far. With
//! `--follow`, output until the build ends.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use kiln_proto::digest::Digest;
use kiln_proto::transfer::Client;
use kiln_proto::v1;
use kiln_proto::v1::event::Event;
use kiln_proto::v1::step_state::Phase;

use crate::farm::{Error as FarmError, Farm};
use crate::{Code, Error, args, local};
use kiln_progress::{Board, Happening, Key, is_called};
use kiln_terminal as terminal;

/// All past events have arrived when none came for this long.
const SILENCE: Duration = Duration::from_millis(300);

pub(super) async fn run(farm: &Farm, args: args::Logs) -> Result<Code, Error> {
    let build = farm.build(&args.build).await?;
    let wanted: Vec<&v1::StepState> =
        build.steps.iter().filter(|state| is_wanted(state, args.step.as_deref())).collect();
    let is_planned = wanted.is_empty() && args.follow && build.status() == v1::Status::Running;
    if let (Some(step), true) = (&args.step, wanted.is_empty() && !is_planned) {
        let mut names: Vec<&str> =
            build.steps.iter().filter_map(|state| Some(state.step.as_ref()?.step.as_str())).collect();
        names.dedup();
        let message = format!("build `{}` has no step `{step}`; expected one of: {}", build.id, names.join(", "));
        return Err(Error::Usage(message));
    }
    if args.follow && build.status() == v1::Status::Running {
        return follow(farm, &build.id, args.step.as_deref()).await;
    }
    for state in &wanted {
        let key = Key::from(state.step.clone().unwrap_or_default());
        if wanted.len() > 1 {
            terminal::say(&format!("--- {}", header(&key)));
        }
        match &state.finished {
            Some(finished) => stored(&farm.blobs_of(&build)?, finished).await?,
            None if state.phase() == Phase::Running => so_far(farm, &build.id, &key).await?,
            None if state.phase() == Phase::Queued => terminal::say(&format!("`{}` waits for a worker", key.step)),
            None => terminal::say(&format!("`{}` has not run", key.step)),
        }
    }
    Ok(Code::Success)
}

fn is_wanted(state: &v1::StepState, step: Option<&str>) -> bool {
    state.step.as_ref().is_some_and(|of| step.is_none_or(|step| is_called(&of.step, step)))
}

fn header(key: &Key) -> String {
    let shard = if key.shards > 1 { format!("[{}/{}]", key.shard + 1, key.shards) } else { String::new() };
    terminal::harmless(&format!("{}{shard} {}", key.step, key.platform))
}

async fn stored(blobs: &Client, finished: &v1::StepFinished) -> Result<(), Error> {
    for wire in [&finished.stdout_digest, &finished.stderr_digest].into_iter().flatten() {
        let digest = Digest::from_wire(blobs.function(), wire).map_err(|error| FarmError::Answer(error.to_string()))?;
        copy(blobs, &digest).await?;
    }
    Ok(())
}

/// Prints a blob of any size in constant memory.
async fn copy(blobs: &Client, digest: &Digest) -> Result<(), Error> {
    let file = tempfile::NamedTempFile::new().map_err(|source| Error::Runtime { source })?;
    blobs.download(digest, file.path()).await.map_err(FarmError::from)?;
    let read = |source| Error::Write { path: file.path().to_owned(), source };
    let mut from = std::fs::File::open(file.path()).map_err(read)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut lines = Output::default();
    loop {
        match from.read(&mut buffer).map_err(read)? {
            0 => break,
            count => lines.write(&buffer[..count])?,
        }
    }
    lines.finish()
}

/// Prints the output of a running step so far.
async fn so_far(farm: &Farm, build: &str, wanted: &Key) -> Result<(), Error> {
    let mut output = Output::default();
    let mut events = farm.call(farm.watch(build, 0)).await?;
    // Past events arrive immediately; then the stream waits for new ones.
    while let Ok(next) = tokio::time::timeout(SILENCE, events.message()).await {
        match farm.call(async { next }).await?.and_then(|event| event.event) {
            Some(Event::Log(log)) if log.step.clone().map(Key::from).as_ref() == Some(wanted) => {
                output.write(&log.data)?
            }
            Some(Event::StepFinished(done)) if done.step.clone().map(Key::from).as_ref() == Some(wanted) => break,
            Some(Event::BuildFinished(_)) | None => break,
            Some(_) => {}
        }
    }
    output.finish()?;
    terminal::say(&format!("`{}` is still running; `kiln logs --follow` shows new output", wanted.step));
    Ok(())
}

/// Prints the output of a build's steps from beginning to end, each line prefixed with its step if there are several.
async fn follow(farm: &Farm, build: &str, step: Option<&str>) -> Result<Code, Error> {
    let mut board = Board { build: build.to_owned(), ..Board::default() };
    let mut offset = 0;
    let mut reconnect = farm.reconnect();
    loop {
        let status = match farm.watch(build, offset).await {
            Err(status) => status,
            Ok(mut events) => loop {
                match events.message().await {
                    Err(status) => break status,
                    Ok(None) => return Ok(Code::Success),
                    Ok(Some(event)) => {
                        reconnect.reset();
                        offset = event.offset + 1;
                        let ended = matches!(event.event, Some(Event::BuildFinished(_)));
                        for happening in event.event.map(|event| board.take(event)).unwrap_or_default() {
                            print_log(&board, &happening, step)?;
                        }
                        if ended {
                            return Ok(Code::Success);
                        }
                    }
                }
            },
        };
        reconnect.wait(farm, "follow the build", status).await?;
    }
}

fn print_log(board: &Board, happening: &Happening, step: Option<&str>) -> Result<(), Error> {
    let Happening::Log { key, text, .. } = happening else { return Ok(()) };
    if step.is_some_and(|step| !is_called(&key.step, step)) {
        return Ok(());
    }
    let is_only = step.is_some() && key.shards <= 1 && board.targets.len() <= 1;
    let label = terminal::harmless(&board.label(key));
    let text = terminal::shown(text, console::colors_enabled());
    let line = |line: &str| if is_only { format!("{line}\n") } else { format!("{label} | {line}\n") };
    let lines: String = text.lines().map(line).collect();
    local::print(lines.as_bytes()).map(|_| ())
}

/// Standard output, in complete lines: without escape sequences in a pipe, sanitised on a terminal.
#[derive(Default)]
struct Output {
    line: Vec<u8>,
}

impl Output {
    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        self.line.extend_from_slice(data);
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.line.split_off(end + 1);
            let lines = std::mem::replace(&mut self.line, rest);
            print(&lines)?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        print(&self.line)
    }
}

fn print(data: &[u8]) -> Result<(), Error> {
    let shown = match std::io::stdout().is_terminal() {
        true => terminal::shown(&String::from_utf8_lossy(data), console::colors_enabled()).into_bytes(),
        false => terminal::without_escapes(data),
    };
    local::print(&shown).map(|_| ())
}
