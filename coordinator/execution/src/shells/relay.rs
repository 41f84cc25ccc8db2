//! Passes on what a shell's user types and what its worker prints, until one of them has gone.
//!
//! Invariants: neither direction waits for the other, so a command that prints without reading, or reads without printing, is never stuck
//! here; what waits to be passed on is bounded in both; a shell whose user has gone, or does nothing for too long, is ended.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::{Stream, StreamExt};
use kiln_proto::v1::shell_state::Phase;
use kiln_proto::v1::{ShellInput, ShellOutput, ShellState, WindowSize, shell_input, shell_output};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

use super::super::{Attached, Done, Update};
use super::{INPUT_WINDOW, LONGEST, MAX_DATA};

/// How long the end of a lease, and the last output of its worker, wait for each other.
const AT_THE_END: Duration = Duration::from_secs(5);

/// What becomes of a shell, for whoever records it.
pub trait Notice: Send + 'static {
    /// A worker has it.
    fn begins(&mut self, worker: &str) -> impl Future<Output = ()> + Send;
}

type Client = mpsc::Sender<Result<ShellOutput, Status>>;

/// Relays a shell between its user and its worker until it ends. Its end, or the reason why there is none, is the last thing that `client` gets.
pub async fn relay(
    attached: Attached,
    (input, output): (mpsc::Sender<ShellInput>, mpsc::Receiver<ShellOutput>),
    typed: impl Stream<Item = Result<ShellInput, Status>> + Send + Unpin + 'static,
    client: Client,
    idle: Duration,
    notice: impl Notice,
) {
    let shared = Arc::new(Flow::default());
    let typing = AbortOnDropHandle::new(tokio::spawn(pass_on(typed, input.clone(), shared.clone())));
    let mut relay = Relay {
        attached,
        worker: String::new(),
        input,
        output,
        client,
        flow: shared,
        idle,
        until: Instant::now() + LONGEST,
        owed: 0,
    };
    // Dropping the attachment at the end of this function ends the lease.
    let ended = relay.run(typing, notice).await;
    if let Err(Some(status)) = ended {
        let _ = tokio::time::timeout(AT_THE_END, relay.client.send(Err(status))).await;
    }
}

/// What both directions know.
#[derive(Debug)]
struct Flow {
    /// When something last moved.
    moved: watch::Sender<Instant>,
    /// Bytes of input that may still be sent to the worker.
    room: Semaphore,
    /// Bytes of input that the worker has not taken.
    sent: AtomicUsize,
    is_open: watch::Sender<bool>,
    size: watch::Sender<Option<WindowSize>>,
}

impl Default for Flow {
    fn default() -> Self {
        Self {
            moved: watch::Sender::new(Instant::now()),
            room: Semaphore::new(INPUT_WINDOW),
            sent: AtomicUsize::new(0),
            is_open: watch::Sender::new(false),
            size: watch::Sender::new(None),
        }
    }
}

impl Flow {
    fn moves(&self) {
        self.moved.send_replace(Instant::now());
    }

    /// The worker has taken so much input; not more than it was sent, whatever it says.
    fn taken(&self, bytes: u32) {
        let mut taken = 0;
        let _ = self.sent.fetch_update(Ordering::AcqRel, Ordering::Acquire, |sent| {
            taken = sent.min(bytes as usize);
            Some(sent - taken)
        });
        self.room.add_permits(taken);
    }
}

/// Passes on what the user types; completes when the user has gone, or says something that does not belong here.
async fn pass_on(
    mut typed: impl Stream<Item = Result<ShellInput, Status>> + Unpin,
    input: mpsc::Sender<ShellInput>,
    flow: Arc<Flow>,
) -> Result<(), Status> {
    let mut has_ended = false;
    while let Some(message) = typed.next().await {
        let message = message?.message;
        // What takes no room could be said without end while a command reads nothing.
        if matches!(&message, Some(shell_input::Message::Data(data)) if data.is_empty()) {
            continue;
        }
        if has_ended && !matches!(&message, Some(shell_input::Message::Size(_))) {
            return Err(Status::invalid_argument("the input has ended already"));
        }
        match &message {
            Some(shell_input::Message::Size(size)) => {
                flow.size.send_replace(Some(*size));
                if !*flow.is_open.borrow() {
                    continue;
                }
            }
            Some(shell_input::Message::Data(data)) => {
                let (found, most) = (data.len(), MAX_DATA);
                if found > most {
                    return Err(Status::invalid_argument(format!("{found} bytes of input; expected at most {most}")));
                }
                let room = flow.room.acquire_many(found as u32).await.map_err(|_| Status::cancelled("over"))?;
                room.forget();
                flow.sent.fetch_add(found, Ordering::AcqRel);
                flow.moves();
            }
            Some(shell_input::Message::End(_)) => has_ended = true,
            Some(shell_input::Message::Open(_) | shell_input::Message::Taken(_)) | None => {
                return Err(Status::invalid_argument("expected input, or the size of the window"));
            }
        }
        // Before it is open, nobody would take it.
        let mut open = flow.is_open.subscribe();
        let _ = open.wait_for(|open| *open).await;
        if input.send(ShellInput { message }).await.is_err() {
            break;
        }
    }
    Ok(())
}

struct Relay {
    attached: Attached,
    worker: String,
    input: mpsc::Sender<ShellInput>,
    output: mpsc::Receiver<ShellOutput>,
    client: Client,
    flow: Arc<Flow>,
    idle: Duration,
    until: Instant,
    /// Bytes of output that have been passed on, and that the worker has not been told of.
    owed: u32,
}

/// How a relay ends: nothing more is to be said, or this.
type Over = Result<(), Option<Status>>;

impl Relay {
    async fn run(&mut self, mut typing: AbortOnDropHandle<Result<(), Status>>, mut notice: impl Notice) -> Over {
        let mut done: Option<Arc<Done>> = None;
        loop {
            let left = done.is_some().then_some(AT_THE_END);
            tokio::select! {
                // Why the farm ended it is known before its worker's last word comes.
                biased;
                update = self.attached.next(), if done.is_none() => match update {
                    Update::Queued => self.say(Phase::Queued).await?,
                    Update::Executing { worker, .. } => {
                        self.worker = worker;
                        notice.begins(&self.worker).await;
                        self.say(Phase::Preparing).await?;
                    }
                    Update::Output { .. } | Update::Calls(_) | Update::Usage(_) => {}
                    // The worker does not know that.
                    Update::Done(end) if end.farm_fault => return Err(Some(why(Some(&end), &self.worker))),
                    Update::Done(end) => done = Some(end),
                },
                message = self.output.recv() => match message {
                    Some(message) => {
                        if self.worker_says(message).await? {
                            return Ok(());
                        }
                    }
                    None => return Err(Some(self.lost(done).await)),
                },
                // The user has gone, or says what does not belong here.
                ended = &mut typing => return Err(ended.ok().and_then(Result::err)),
                () = self.client.closed() => return Err(None),
                status = idle(&self.flow, self.idle, self.until) => return Err(Some(status)),
                () = after(left) => return Err(Some(why(done.as_deref(), &self.worker))),
            }
        }
    }

    /// Passes on what a worker says; `true` after its last word.
    async fn worker_says(&mut self, message: ShellOutput) -> Result<bool, Option<Status>> {
        let is_last = match &message.message {
            Some(shell_output::Message::Taken(bytes)) => {
                self.flow.taken(*bytes);
                return Ok(false);
            }
            Some(shell_output::Message::State(state)) if state.phase() == Phase::Open => {
                self.pass(message).await?;
                let size = *self.flow.size.borrow();
                if let Some(size) = size {
                    self.tell(shell_input::Message::Size(size)).await;
                }
                self.flow.is_open.send_replace(true);
                self.flow.moves();
                return Ok(false);
            }
            Some(shell_output::Message::State(_)) => false,
            Some(shell_output::Message::Data(data)) => {
                let (found, most) = (data.data.len(), MAX_DATA);
                if found > most {
                    let words = format!("worker `{}` sent {found} bytes at once; expected at most {most}", self.worker);
                    return Err(Some(Status::internal(words)));
                }
                self.owed = self.owed.saturating_add(found as u32);
                false
            }
            Some(shell_output::Message::Ended(_)) => true,
            None => return Ok(false),
        };
        self.pass(message).await?;
        if self.owed > 0 {
            self.flow.moves();
            let owed = std::mem::take(&mut self.owed);
            self.tell(shell_input::Message::Taken(owed)).await;
        }
        Ok(is_last)
    }

    /// Tells the worker, which always reads.
    async fn tell(&self, message: shell_input::Message) {
        let _ = self.input.send(ShellInput { message: Some(message) }).await;
    }

    async fn say(&mut self, phase: Phase) -> Result<(), Option<Status>> {
        let state = ShellState { phase: phase as i32, worker: self.worker.clone(), ..ShellState::default() };
        self.pass(ShellOutput { message: Some(shell_output::Message::State(state)) }).await
    }

    /// Gives the user a message, however slowly it is read. Whoever reads nothing for too long is idle.
    async fn pass(&mut self, message: ShellOutput) -> Result<(), Option<Status>> {
        tokio::select! {
            sent = self.client.send(Ok(message)) => sent.map_err(|_| None),
            status = idle(&self.flow, self.idle, self.until) => Err(Some(status)),
        }
    }

    /// Why a worker's stream ended without its last word.
    async fn lost(&mut self, mut done: Option<Arc<Done>>) -> Status {
        let waited = tokio::time::timeout(Duration::from_secs(1), async {
            loop {
                if let Update::Done(end) = self.attached.next().await {
                    return end;
                }
            }
        });
        if done.is_none() {
            done = waited.await.ok();
        }
        why(done.as_deref(), &self.worker)
    }
}

/// Why there is no last word of the worker.
fn why(done: Option<&Done>, worker: &str) -> Status {
    let status = done.and_then(|done| done.response.status.as_ref()).filter(|status| status.code != 0);
    match (status, done) {
        (Some(status), _) => Status::new(Code::from_i32(status.code), status.message.clone()),
        (None, Some(_)) => Status::failed_precondition(format!(
            "worker `{worker}` ran the step instead: its version of Kiln opens no shells; update it"
        )),
        (None, None) => Status::aborted(format!(
            "the connection to worker `{worker}` was lost, and the shell with it; open another one, it begins anew"
        )),
    }
}

/// Completes when nothing has moved for too long, or the shell has lasted too long.
async fn idle(flow: &Flow, limit: Duration, until: Instant) -> Status {
    let mut moved = flow.moved.subscribe();
    loop {
        let last = *moved.borrow_and_update();
        // While it waits for a worker and fetches, it is the farm that is idle.
        let at = if *flow.is_open.borrow() { last + limit } else { until };
        tokio::select! {
            () = tokio::time::sleep_until(at.min(until)) => {
                let hours = LONGEST.as_secs() / 3600;
                return Status::deadline_exceeded(match at < until {
                    true => format!(
                        "the shell was ended: nothing was typed or printed for {} s (`--shell-idle` of the coordinator)",
                        limit.as_secs()
                    ),
                    false => format!("the shell was ended after {hours} hours"),
                });
            }
            _ = moved.changed() => {}
        }
    }
}

async fn after(limit: Option<Duration>) {
    match limit {
        Some(limit) => tokio::time::sleep(limit).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use kiln_proto::v1::EndOfInput;

    use super::*;

    fn said(message: shell_input::Message) -> Result<ShellInput, Status> {
        Ok(ShellInput { message: Some(message) })
    }

    fn data(length: usize) -> Result<ShellInput, Status> {
        said(shell_input::Message::Data(vec![b'x'; length].into()))
    }

    fn end() -> Result<ShellInput, Status> {
        said(shell_input::Message::End(EndOfInput {}))
    }

    fn open() -> Arc<Flow> {
        let flow = Arc::new(Flow::default());
        flow.is_open.send_replace(true);
        flow
    }

    async fn passed(typed: Vec<Result<ShellInput, Status>>) -> (usize, Result<(), Status>) {
        let (input, mut worker) = mpsc::channel(typed.len().max(1));
        let ended = pass_on(stream::iter(typed), input, open()).await;
        let mut passed = 0;
        while worker.recv().await.is_some() {
            passed += 1;
        }
        (passed, ended)
    }

    #[tokio::test]
    async fn what_takes_no_room_is_not_passed_on_without_end() {
        let (count, ended) = passed(vec![data(0), data(1), data(0), end()]).await;
        assert!(count == 2 && ended.is_ok(), "{count} messages, {ended:?}");
        for more in [end(), data(1)] {
            let (count, ended) = passed(vec![end(), more]).await;
            assert_eq!((count, ended.unwrap_err().code()), (1, Code::InvalidArgument));
        }
    }

    #[tokio::test]
    async fn input_waits_until_the_worker_has_taken_some_and_no_word_of_it_makes_more_room() {
        let flow = open();
        let (input, mut worker) = mpsc::channel(16);
        let typed = stream::iter((0..4).map(|_| data(MAX_DATA))).chain(stream::pending());
        let passing = tokio::spawn(pass_on(Box::pin(typed), input, flow.clone()));
        for _ in 0..INPUT_WINDOW / MAX_DATA {
            worker.recv().await.unwrap();
        }
        tokio::task::yield_now().await;
        assert!(worker.try_recv().is_err(), "expected no more than the window");
        flow.taken(MAX_DATA as u32);
        worker.recv().await.unwrap();
        tokio::task::yield_now().await;
        assert!(worker.try_recv().is_err(), "expected as much as was taken");
        flow.taken(u32::MAX);
        flow.taken(u32::MAX);
        worker.recv().await.unwrap();
        assert!(flow.room.available_permits() <= INPUT_WINDOW);
        passing.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn only_an_open_shell_is_idle_and_what_moves_counts() {
        let (flow, limit) = (Arc::new(Flow::default()), Duration::from_secs(60));
        let until = Instant::now() + LONGEST;
        let early = tokio::time::timeout(Duration::from_secs(3600), idle(&flow, limit, until)).await;
        assert!(early.is_err(), "expected a queue to be no idleness");
        flow.is_open.send_replace(true);
        flow.moves();
        let began = Instant::now();
        let moving = async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_secs(50)).await;
                flow.moves();
            }
        };
        let (status, ()) = tokio::join!(idle(&flow, limit, until), moving);
        assert_eq!(began.elapsed(), Duration::from_secs(210), "{status}");
        // However busy it is, it ends.
        flow.moves();
        let busy = async {
            loop {
                tokio::time::sleep(Duration::from_secs(30)).await;
                flow.moves();
            }
        };
        tokio::select! {
            status = idle(&flow, limit, until) => assert!(status.message().contains("12 hours"), "{status}"),
            () = busy => {}
        }
    }
}
