//! Follows a build from its first event to its last, across broken connections.

use std::cell::Cell;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use kiln_proto::digest::Digest;
use kiln_proto::transfer::{Client, Moved};
use kiln_proto::v1;
use kiln_proto::v1::event::Event;
use tracing::Instrument;

use crate::deliver::{self, Deliveries};
use crate::farm::Farm;
use crate::interrupts::Interrupts;
use crate::output::Output;
use crate::{Code, Error, download};
use kiln_progress::{Board, Happening, Show, start, watched};

/// Maximum size of a failed step's log that is fetched to show its end.
const TAIL_BYTES: u64 = 64 << 20;

/// Interval at which the display is refreshed.
const TICK: Duration = Duration::from_secs(1);

/// What an interrupt does to the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInterrupt {
    /// Cancels it, and waits for its end.
    Cancel,
    /// Leaves it running.
    Leave,
}

/// Follows one build.
pub struct Follow<'a> {
    /// The build's farm.
    pub farm: &'a Farm,
    /// The build's id.
    pub build: String,
    /// Where its blobs are.
    pub blobs: Client,
    /// Where its artifacts go.
    pub output: Output,
    /// What was uploaded for it.
    pub moved: Moved,
    /// What an interrupt does.
    pub on_interrupt: OnInterrupt,
    /// When the command that submitted it started.
    pub began: Option<Instant>,
    /// Additional destinations of its artifacts.
    pub deliver: Option<&'a dyn Deliveries>,
    /// The original request, in case a restarted coordinator needs the build's secrets again.
    pub again: Option<v1::SubmitRequest>,
}

impl Follow<'_> {
    /// Shows the build until it ends; returns its exit code.
    pub async fn run(&self, show: &mut dyn Show, interrupts: &Interrupts) -> Result<Code, Error> {
        let mut board = Board {
            build: self.build.clone(),
            project: show.project().to_owned(),
            began: self.began,
            ..Board::default()
        };
        let ended = self.events(&mut board, show, interrupts).await;
        if let Err(Error::Farm(error)) = &ended {
            // Readers of the events learn that there are no more.
            let finished = v1::BuildFinished {
                build: self.build.clone(),
                status: v1::Status::FarmFailed.into(),
                duration_ms: 0,
                message: error.to_string(),
            };
            self.show(&mut board, show, &Happening::Finished { finished, moved: self.moved })?;
        }
        ended
    }

    async fn events(&self, board: &mut Board, show: &mut dyn Show, interrupts: &Interrupts) -> Result<Code, Error> {
        let mut offset = 0;
        let mut here = Vec::new();
        let mut reconnect = self.farm.reconnect();
        let mut interrupted = false;
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            let mut events = match self.farm.watch(&self.build, offset).await {
                Ok(events) => events,
                Err(status) => {
                    reconnect.wait(self.farm, "follow the build", status).await?;
                    continue;
                }
            };
            loop {
                let next = tokio::select! {
                    next = events.message() => next,
                    _ = ticks.tick() => {
                        show.tick(board);
                        continue;
                    }
                    () = interrupts.first(), if !interrupted => {
                        interrupted = true;
                        if self.on_interrupt == OnInterrupt::Leave {
                            show.note(&format!(
                                "detached; the build continues: `kiln attach {0}` follows it again, `kiln cancel {0}` cancels it",
                                self.build
                            ));
                            return Ok(Code::Cancelled);
                        }
                        show.note("cancelling; press Ctrl-C again to leave at once");
                        // A build that ended at this moment cannot be cancelled; its end will arrive.
                        if let Err(error) = self.farm.cancel(&self.build).await {
                            show.note(&format!("could not cancel: {error}"));
                        }
                        continue;
                    }
                };
                match next {
                    Ok(Some(event)) => {
                        reconnect.reset();
                        if event.offset < offset {
                            continue;
                        }
                        offset = event.offset + 1;
                        board.at = event.at;
                        if let Some(code) = self.event(board, &mut here, show, event.event).await? {
                            return Ok(code);
                        }
                    }
                    Ok(None) => {
                        let status = tonic::Status::unavailable("the events ended before the build did");
                        reconnect.wait(self.farm, "follow the build", status).await?;
                        break;
                    }
                    // The stream ended because its credentials expired. The file may have a new token by now; if it has
                    // not, or access was revoked, the next call is refused.
                    Err(status) if status.code() == tonic::Code::Unauthenticated => break,
                    Err(status) => {
                        reconnect.wait(self.farm, "follow the build", status).await?;
                        break;
                    }
                }
            }
        }
    }

    /// Handles one event; `here` collects the artifacts that were fetched whole, with their paths.
    async fn event(
        &self,
        board: &mut Board,
        here: &mut Vec<(v1::Artifact, PathBuf)>,
        show: &mut dyn Show,
        event: Option<Event>,
    ) -> Result<Option<Code>, Error> {
        match event {
            None => Ok(None),
            Some(Event::Artifact(artifact)) => {
                let output = match board.directory(&artifact.platform, &artifact.target) {
                    Some(dir) => self.output.below(&dir),
                    None => self.output.clone(),
                };
                let whole = self.deliver.is_none_or(|deliver| !deliver.takes(&artifact));
                let span = tracing::info_span!("download", artifact = artifact.name);
                self.output.create().map_err(download::Error::from)?;
                let what = format!("downloading {}", artifact.name);
                let fetching = download::artifact(self.farm, &artifact, &output, whole).instrument(span);
                self.farm.meter().restart(if whole { artifact.size_bytes } else { 0 });
                let arrived = watched(show, &Cell::new(&what), self.farm.meter(), fetching).await?;
                for kept in arrived.kept {
                    show.note(&format!(
                        "`{}` was edited; the edited file is kept as `{}`",
                        artifact.name,
                        kept.display()
                    ));
                }
                let path = arrived.path;
                board.artifacts.push(artifact.clone());
                if whole {
                    here.push((artifact.clone(), path.clone()));
                    board.starts.extend(start(&artifact, &path));
                }
                self.show(board, show, &Happening::Artifact { artifact: Box::new(artifact), path })?;
                Ok(None)
            }
            Some(Event::BuildFinished(finished)) => {
                self.fetch_tails(board).await;
                self.fetch_tests(board).await;
                if finished.status() == v1::Status::Succeeded {
                    for joined in deliver::join(self.farm, here, &self.output).await? {
                        self.show(board, show, &Happening::Delivered(joined))?;
                    }
                }
                if let (Some(deliver), v1::Status::Succeeded) = (self.deliver, finished.status()) {
                    for delivered in deliver.run(self.farm, &board.artifacts).await? {
                        self.show(board, show, &Happening::Delivered(delivered))?;
                    }
                }
                let code = match finished.status() {
                    v1::Status::Succeeded => Code::Success,
                    v1::Status::Failed => Code::Failed,
                    v1::Status::Cancelled => Code::Cancelled,
                    _ => Code::Farm,
                };
                self.show(board, show, &Happening::Finished { finished, moved: self.moved })?;
                Ok(Some(code))
            }
            Some(other) => {
                if let (Event::BuildStarted(v1::BuildStarted { resumed: true, .. }), Some(request)) =
                    (&other, &self.again)
                {
                    let once = || {
                        let (mut client, request) = (self.farm.builds(), request.clone());
                        async move { client.submit(request).await }
                    };
                    self.farm.patiently("give the build its secrets again", once).await?;
                }
                for happening in board.take(other) {
                    self.show(board, show, &happening)?;
                }
                Ok(None)
            }
        }
    }

    fn show(&self, board: &mut Board, show: &mut dyn Show, happening: &Happening) -> Result<(), Error> {
        match show.happening(board, happening) {
            // A closed standard output does not stop the build; artifacts are still downloaded.
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Stdout(error)),
            _ => Ok(()),
        }
    }

    /// Fetches the failed and flaky tests of steps.
    async fn fetch_tests(&self, board: &mut Board) {
        for step in board.steps.values_mut() {
            let Some(finished) = &step.finished else { continue };
            if finished.tests.as_ref().is_none_or(|tests| tests.failed + tests.flaky == 0) {
                continue;
            }
            // Those come first; the summary does without where the farm has lost them.
            let tests = self.farm.tests(&self.blobs, finished).await.unwrap_or_default().into_iter();
            step.tests =
                tests.take_while(|test| test.flaky || test.outcome() == v1::test_case::Outcome::Failed).collect();
        }
    }

    /// Fetches the end of the output of failed steps that was not seen live, because they joined another build's run.
    async fn fetch_tails(&self, board: &mut Board) {
        for step in board.steps.values_mut() {
            let Some(finished) = step.finished.as_ref().filter(|finished| !finished.ok) else { continue };
            if !step.tail.is_empty() {
                continue;
            }
            let logs = [finished.stdout_digest.clone(), finished.stderr_digest.clone()];
            for wire in logs.into_iter().flatten() {
                let Ok(digest) = Digest::from_wire(self.blobs.function(), &wire) else { continue };
                if digest.size <= TAIL_BYTES
                    && let Ok(data) = self.blobs.get(&digest).await
                {
                    step.keep(&String::from_utf8_lossy(&data));
                }
            }
        }
    }
}
