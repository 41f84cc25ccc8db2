//! `kiln logs`: all that the steps of a build wrote, from the store; of a step that runs, what came so far and comes yet.

use std::io::{IsTerminal, Read, Write};

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1;
use kiln_proto::v1::event::Event;
use kiln_proto::v1::step_state::Phase;

use crate::farm::{Error as FarmError, FUNCTION, Farm};
use crate::progress::Key;
use crate::{Code, Error, args, local, terminal};

pub(super) async fn run(farm: &Farm, args: args::Logs) -> Result<Code, Error> {
    let build = farm.build(&args.build).await?;
    let wanted: Vec<&v1::StepState> =
        build.steps.iter().filter(|state| is_wanted(state, args.step.as_deref())).collect();
    if let (Some(step), true) = (&args.step, wanted.is_empty()) {
        let mut names: Vec<&str> =
            build.steps.iter().filter_map(|state| Some(state.step.as_ref()?.step.as_str())).collect();
        names.dedup();
        let message = format!("build `{}` has no step `{step}`; expected one of: {}", build.id, names.join(", "));
        return Err(Error::Usage(message));
    }
    for state in &wanted {
        let key = Key::from(state.step.clone().unwrap_or_default());
        if wanted.len() > 1 {
            terminal::say(&format!("--- {}", header(&key)));
        }
        match &state.finished {
            Some(finished) => stored(farm, &build.instance, finished).await?,
            None if matches!(state.phase(), Phase::Running | Phase::Queued) => live(farm, &build.id, &key).await?,
            None => terminal::say(&format!("`{}` has not run", key.step)),
        }
    }
    Ok(Code::Success)
}

fn is_wanted(state: &v1::StepState, step: Option<&str>) -> bool {
    state.step.as_ref().is_some_and(|of| step.is_none_or(|step| of.step == step))
}

fn header(key: &Key) -> String {
    let shard = if key.shards > 1 { format!(" [{}/{}]", key.shard + 1, key.shards) } else { String::new() };
    terminal::harmless(&format!("{}{shard} {}", key.step, key.platform))
}

async fn stored(farm: &Farm, instance: &str, finished: &v1::StepFinished) -> Result<(), Error> {
    for wire in [&finished.stdout_digest, &finished.stderr_digest].into_iter().flatten() {
        let digest = Digest::from_wire(FUNCTION, wire).map_err(|error| FarmError::Answer(error.to_string()))?;
        copy(farm, instance, FUNCTION, &digest).await?;
    }
    Ok(())
}

/// Prints a blob of any size, in constant memory.
async fn copy(farm: &Farm, instance: &str, function: DigestFunction, digest: &Digest) -> Result<(), Error> {
    let file = tempfile::NamedTempFile::new().map_err(|source| Error::Runtime { source })?;
    let client = farm.blobs(instance, function);
    client.download(digest, file.path()).await.map_err(FarmError::from)?;
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

async fn live(farm: &Farm, build: &str, wanted: &Key) -> Result<(), Error> {
    let mut output = Output::default();
    let mut offset = 0;
    let mut patience = farm.patience();
    loop {
        let status = match farm.watch(build, offset).await {
            Err(status) => status,
            Ok(mut events) => loop {
                match events.message().await {
                    Err(status) => break status,
                    Ok(None) => return output.finish(),
                    Ok(Some(event)) => {
                        patience.reset();
                        offset = event.offset + 1;
                        match event.event {
                            Some(Event::Log(log)) if log.step.clone().map(Key::from).as_ref() == Some(wanted) => {
                                output.write(&log.data)?;
                            }
                            Some(Event::StepFinished(done))
                                if done.step.clone().map(Key::from).as_ref() == Some(wanted) =>
                            {
                                return output.finish();
                            }
                            Some(Event::BuildFinished(_)) => return output.finish(),
                            _ => {}
                        }
                    }
                }
            },
        };
        patience.wait(farm, "follow the build", status).await?;
    }
}

/// Standard output: bytes as they are, but made harmless on a terminal, a whole line at a time.
#[derive(Default)]
struct Output {
    line: Vec<u8>,
}

impl Output {
    fn write(&mut self, data: &[u8]) -> Result<(), Error> {
        let stdout = std::io::stdout();
        if !stdout.is_terminal() {
            return done(stdout.lock().write_all(data));
        }
        self.line.extend_from_slice(data);
        if let Some(end) = self.line.iter().rposition(|byte| *byte == b'\n') {
            let rest = self.line.split_off(end + 1);
            let lines = std::mem::replace(&mut self.line, rest);
            local::print(terminal::harmless(&String::from_utf8_lossy(&lines)).as_bytes())?;
        }
        Ok(())
    }

    fn finish(self) -> Result<(), Error> {
        local::print(terminal::harmless(&String::from_utf8_lossy(&self.line)).as_bytes())?;
        Ok(())
    }
}

fn done(result: std::io::Result<()>) -> Result<(), Error> {
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Stdout(error)),
        _ => Ok(()),
    }
}
