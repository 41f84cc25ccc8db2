//! Makes one tenant's calls, each until it is accepted or a day is over.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use backon::{BackoffBuilder, ExponentialBuilder};
use kiln_proto::clock;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::NotificationQueued;
use kiln_proto::v1::notification::State;
use kiln_records::Records;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::Shared;
use crate::schedule::{Receiver, Schedule};
use crate::send::Failed;

/// Pauses between attempts: from a second, doubling, up to an hour.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_secs(1))
    .with_max_delay(Duration::from_secs(3600))
    .with_jitter()
    .without_max_times();
/// How long a call is tried.
const PATIENCE: Duration = Duration::from_secs(24 * 3600);
/// Calls of an earlier run that are read at a time.
const PAGE: usize = 64;
/// Pause after the journal could not be read or written.
const AGAIN: Duration = Duration::from_secs(30);

/// A call that has been recorded.
#[derive(Debug)]
pub(crate) struct Arriving {
    receiver: Receiver,
    key: String,
    due: u64,
}

impl Arriving {
    pub(crate) fn of(key: String, call: &NotificationQueued) -> Option<Self> {
        let shown = call.notification.as_ref()?;
        let receiver =
            if shown.hook.is_empty() { Receiver::Host(shown.to.clone()) } else { Receiver::Hook(shown.hook.clone()) };
        Some(Self { receiver, key, due: milliseconds(call.due.as_ref()) })
    }
}

fn milliseconds(at: Option<&Timestamp>) -> u64 {
    clock::milliseconds_between(Some(&Timestamp::default()), at)
}

fn after(now: &Timestamp, pause: Duration) -> Timestamp {
    let at = clock::read_timestamp(now).unwrap_or(SystemTime::UNIX_EPOCH);
    clock::timestamp(at + pause)
}

/// The calls of one tenant.
pub(crate) struct Queue {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tenant: String,
    pub(crate) records: Records,
    pub(crate) queued: Arc<AtomicU64>,
}

/// What became of an attempt: who was called, and when that is tried again.
type Attempted = (Receiver, Option<(String, u64)>);

impl Queue {
    /// Runs until nobody can add a call any more.
    pub(crate) async fn run(self, mut arriving: mpsc::UnboundedReceiver<Arriving>) {
        let mut schedule = Schedule::default();
        self.resume(&mut schedule).await;
        let queue = Arc::new(self);
        let mut attempts: JoinSet<Attempted> = JoinSet::new();
        loop {
            let now = milliseconds(Some(&clock::now()));
            while let Some((receiver, key)) = schedule.next(now) {
                let queue = queue.clone();
                attempts.spawn(async move {
                    let again = queue.attempt(&key).await;
                    (receiver, again.map(|due| (key, due)))
                });
            }
            let pause = schedule.due().map(|due| Duration::from_millis(due.saturating_sub(now)));
            tokio::select! {
                arrived = arriving.recv() => match arrived {
                    Some(Arriving { receiver, key, due }) => schedule.add(receiver, key, due),
                    None => return,
                },
                Some(ended) = attempts.join_next() => match ended {
                    Ok((receiver, again)) => {
                        schedule.ended(&receiver);
                        match again {
                            Some((key, due)) => schedule.add(receiver, key, due),
                            None => queue.left(),
                        }
                    }
                    Err(error) => tracing::error!(%error, "an attempt to call a webhook broke off; the next start makes it again"),
                },
                () = tokio::time::sleep(pause.unwrap_or(AGAIN)), if pause.is_some() => {}
            }
        }
    }

    /// Takes up what an earlier run left.
    async fn resume(&self, schedule: &mut Schedule) {
        let mut last = String::new();
        loop {
            let page = match self.records.queued(&last, PAGE).await {
                Ok(page) => page,
                Err(error) => return tracing::error!(%error, "cannot read which webhooks remain to be called"),
            };
            let Some((key, _)) = page.last() else { return };
            last.clone_from(key);
            for (key, call) in page {
                if let Some(Arriving { receiver, key, due }) = Arriving::of(key, &call) {
                    schedule.add(receiver, key, due);
                    if let Some(metrics) = &self.shared.metrics {
                        metrics.waiting(1);
                    }
                }
            }
        }
    }

    /// A call is not made any more.
    fn left(&self) {
        let one_less = |queued: u64| Some(queued.saturating_sub(1));
        let _ = self.queued.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less);
        if let Some(metrics) = &self.shared.metrics {
            metrics.waiting(-1);
        }
    }

    /// Makes a call. When it is to be made again, if it is.
    async fn attempt(&self, key: &str) -> Option<u64> {
        let later = || milliseconds(Some(&after(&clock::now(), AGAIN)));
        let mut call = match self.records.queued_call(key).await {
            Ok(Some(call)) => call,
            // Its build has been deleted.
            Ok(None) => return None,
            Err(error) => {
                tracing::error!(%error, "cannot read which webhook is to be called");
                return Some(later());
            }
        };
        let sent = self.shared.sender.send(&self.shared.config.get(), &self.tenant, &call).await;
        let due = self.judge(&mut call, sent);
        if let Err(error) = self.records.attempted(key, &call).await {
            // Somebody who was told is told again rather than never.
            tracing::error!(%error, build = call.build, "cannot record that a webhook was called");
            return Some(later());
        }
        due
    }

    /// Notes an attempt. When there is another one.
    fn judge(&self, call: &mut NotificationQueued, sent: Result<(), Failed>) -> Option<u64> {
        let (build, since) = (call.build.clone(), call.since.as_ref().and_then(clock::read_timestamp));
        let shown = call.notification.get_or_insert_default();
        let now = clock::now();
        shown.attempts += 1;
        shown.tried = Some(now);
        let (hook, to, attempts) = (shown.hook.clone(), shown.to.clone(), shown.attempts);
        let count = |result: &'static str| {
            if let Some(metrics) = &self.shared.metrics {
                metrics.ended(result);
            }
        };
        let Failed { words, may_pass, pause } = match sent {
            Ok(()) => {
                shown.reason.clear();
                shown.set_state(State::Delivered);
                count("delivered");
                tracing::debug!(build, hook, to, attempts, "a webhook was told of the end of a build");
                return None;
            }
            Err(failed) => failed,
        };
        let age = since.and_then(|since| SystemTime::now().duration_since(since).ok()).unwrap_or_default();
        let usual = PAUSES.build().nth(attempts.saturating_sub(1) as usize).unwrap_or(PATIENCE);
        let due = after(&now, usual.max(pause.unwrap_or_default()));
        let goes_on = may_pass && age < PATIENCE;
        tracing::warn!(
            build,
            hook,
            to,
            attempts,
            reason = words,
            again = goes_on,
            "a webhook was not told of the end of a build"
        );
        shown.reason = words;
        if !goes_on {
            shown.set_state(State::GivenUp);
            count("given_up");
            return None;
        }
        count("failed");
        call.due = Some(due);
        Some(milliseconds(Some(&due)))
    }
}
