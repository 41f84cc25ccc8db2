//! One load case: a closed loop of callers, each of which starts its next call when the previous one has ended.
//!
//! Invariant: only the call happens between its start and its end. Data is created and hashed, and answers are
//! checked, between rounds, while time is not measured; the warm-up is a round that does not count.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tonic::Status;

use super::document::Case;
use super::endpoint::{Endpoint, words};
use super::random::Random;
use super::tally::Tally;
use crate::process::Process;

/// A kind of call, repeated in a load case.
pub trait Load: Send + Sync + 'static {
    /// A prepared call.
    type Ask: Send + 'static;
    /// The result of a call, not checked yet.
    type Answer: Send + 'static;

    /// The case's name, as in `--only`.
    fn name(&self) -> String;

    /// What is checked in the answers.
    fn checked(&self) -> &'static str;

    /// The number of callers, of those that were requested.
    fn lanes(&self, concurrency: usize) -> usize {
        concurrency
    }

    /// Concurrent calls, if a caller makes several.
    fn calls_at_once(&self, concurrency: usize) -> usize {
        self.lanes(concurrency)
    }

    /// Calls in one round, limited by the memory for calls and answers.
    fn round(&self, lanes: usize) -> usize;

    /// Maximum number of calls in the case, limited by the disk space that it uses.
    fn most(&self) -> u64 {
        u64::MAX
    }

    /// Prepares the endpoint for the calls.
    fn set_up(&mut self, endpoint: &Endpoint, random: &mut Random) -> impl Future<Output = Result<(), Status>> + Send;

    /// Prepares calls.
    fn prepare(
        &self,
        endpoint: &Endpoint,
        random: &mut Random,
        count: usize,
    ) -> impl Future<Output = Result<Vec<Self::Ask>, Status>> + Send;

    /// Makes a call.
    fn call(&self, endpoint: &Endpoint, ask: Self::Ask) -> impl Future<Output = Result<Self::Answer, Status>> + Send;

    /// Checks answers: returns for each the bytes of content transferred, or what is wrong with it.
    fn check(
        &self,
        endpoint: &Endpoint,
        answers: Vec<Self::Answer>,
    ) -> impl Future<Output = Vec<Result<u64, Status>>> + Send;
}

/// Duration and concurrency of a case.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Time under load.
    pub duration: Duration,
    /// Number of calls, instead of a duration.
    pub count: Option<u64>,
    /// Number of callers.
    pub concurrency: usize,
    /// Seed of the data.
    pub seed: u64,
}

/// Runs one case against an endpoint. If the endpoint refuses it, the case says so.
pub async fn drive<L: Load>(mut load: L, endpoint: &Endpoint, limits: Limits, server: Option<Process>) -> Case {
    let name = load.name();
    let lanes = load.lanes(limits.concurrency);
    let mut case = Case::new(&name, load.calls_at_once(limits.concurrency), load.checked());
    let mut random = Random::new(limits.seed, &name);
    if let Err(status) = load.set_up(endpoint, &mut random).await {
        case.refused = Some(words(&status));
        return case;
    }
    let load = Arc::new(load);
    let round = load.round(lanes).max(1);

    let mut warm_up = Tally::default();
    let count = round.min(lanes * 2).min(usize::try_from(limits.count.unwrap_or(u64::MAX)).unwrap_or(usize::MAX));
    let warmed = one_round(&load, endpoint, &mut random, lanes, count, None, &mut warm_up).await;
    let refused = warmed.err().or_else(|| warm_up.refusal());
    if let Some(status) = refused {
        case.refused = Some(words(&status));
        return case;
    }

    let mut tally = Tally::default();
    case.server_peak_is_of_the_case = server.is_some_and(|server| server.reset_peak());
    loop {
        let left = limits.count.unwrap_or(u64::MAX).min(limits.count.map_or(load.most(), |_| u64::MAX));
        let left = left.saturating_sub(tally.operations() + tally.failures());
        let count = round.min(usize::try_from(left).unwrap_or(usize::MAX));
        let time = limits.duration.saturating_sub(tally.wall);
        if count == 0 || (limits.count.is_none() && time.is_zero()) {
            break;
        }
        tally.watch(server);
        let deadline = limits.count.is_none().then_some(time);
        if let Err(status) = one_round(&load, endpoint, &mut random, lanes, count, deadline, &mut tally).await {
            tally.failed(&status);
            break;
        }
    }
    tally.tell(&mut case);
    case.server_peak_bytes = server.and_then(|server| server.peak_bytes());
    case
}

/// Prepares calls, measures them, and checks the answers.
async fn one_round<L: Load>(
    load: &Arc<L>,
    endpoint: &Endpoint,
    random: &mut Random,
    lanes: usize,
    count: usize,
    time: Option<Duration>,
    tally: &mut Tally,
) -> Result<(), Status> {
    let asks = load.prepare(endpoint, random, count).await?;
    let queue = Arc::new(Mutex::new(asks.into_iter()));
    let began = tally.begin();
    let deadline = time.map(|time| began + time);
    let callers: Vec<_> = (0..lanes)
        .map(|lane| tokio::spawn(caller(load.clone(), endpoint.lane(lane), queue.clone(), deadline)))
        .collect();
    let mut ended = Vec::with_capacity(count);
    for caller in callers {
        let calls = caller.await.map_err(|error| Status::internal(format!("a caller panicked: {error}")))?;
        ended.extend(calls);
    }
    tally.end(began);
    let (mut answers, mut took) = (Vec::with_capacity(ended.len()), Vec::with_capacity(ended.len()));
    for (time, answer) in ended {
        match answer {
            Ok(answer) => {
                answers.push(answer);
                took.push(time);
            }
            Err(status) => tally.failed(&status),
        }
    }
    let checked = load.check(endpoint, answers).await;
    for (time, checked) in took.into_iter().zip(checked) {
        match checked {
            Ok(bytes) => tally.done(time, bytes),
            Err(status) => tally.failed(&status),
        }
    }
    Ok(())
}

type Calls<L> = Vec<(Duration, Result<<L as Load>::Answer, Status>)>;

async fn caller<L: Load>(
    load: Arc<L>,
    endpoint: Endpoint,
    queue: Arc<Mutex<std::vec::IntoIter<L::Ask>>>,
    deadline: Option<Instant>,
) -> Calls<L> {
    let mut calls = Vec::new();
    while deadline.is_none_or(|deadline| Instant::now() < deadline) {
        let Some(ask) = queue.lock().next() else { break };
        let began = Instant::now();
        let answer = load.call(&endpoint, ask).await;
        calls.push((began.elapsed(), answer));
    }
    calls
}
