//! Where a call runs: in a place of its step's own, or on another worker if none is free.
//!
//! Invariant: no call waits for the farm alone. As soon as a place is free, it runs here, unless it already runs elsewhere and does not
//! take long there.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kiln_calls::manifest::Variant;
use kiln_calls::{Call, Details};
use kiln_executor::calls::Begun;
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::cell::{Ran, Reason};
use super::early::Shim;
use super::elsewhere::{Failed, Next};
use super::places::{Place, Stage, Ticket};
use super::step::Step;
use super::view::View;

/// How old what is known about the farm's room may be.
const FRESH: Duration = Duration::from_millis(250);
/// The same while the farm has none.
const FULL: Duration = Duration::from_secs(1);
/// How long a call looks for room again.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// A call that takes this much longer elsewhere than calls of its step do may run here too.
const LATE: (u32, u32) = (3, 2);
/// For so many calls that run elsewhere, one more than there is room for is offered.
const AHEAD: usize = 4;
/// What transfers may add to that.
const TRANSFERS: Duration = Duration::from_secs(1);
/// How long calls of a step take of which none has run.
const UNKNOWN: Duration = Duration::from_secs(4);
/// How often a call is offered that the farm does not run.
const ATTEMPTS: usize = 4;
/// Memory that a call reserves elsewhere at first.
const MEMORY_BYTES: u64 = 512 << 20;

/// What a step knows about the farm's room for its calls.
#[derive(Debug, Default)]
pub(super) struct Room {
    known: Mutex<Option<(Instant, usize)>>,
    asking: tokio::sync::Mutex<()>,
    /// Calls that are offered and run nowhere yet.
    offered: AtomicUsize,
    /// Calls that run on other workers.
    running: AtomicUsize,
    /// Memory that calls have needed, if more than at first.
    memory_bytes: Mutex<u64>,
}

/// One call that is counted, until this is dropped.
struct Counted<'a>(&'a AtomicUsize);

impl<'a> Counted<'a> {
    fn in_addition(to: &'a AtomicUsize) -> Self {
        to.fetch_add(1, Ordering::AcqRel);
        Self(to)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Room {
    /// Room for so many calls at first.
    pub(super) fn of(room: usize) -> Self {
        Self { known: Mutex::new(Some((Instant::now(), room))), ..Self::default() }
    }

    fn note(&self, room: usize) {
        *self.known.lock() = Some((Instant::now(), room));
    }

    fn fresh(&self) -> Option<usize> {
        let known = *self.known.lock();
        known.filter(|(at, room)| at.elapsed() < if *room == 0 { FULL } else { FRESH }).map(|(_, room)| room)
    }

    /// Waits until the farm has room for one more, or soon will have.
    async fn take(&self, farm: &super::Farm) -> Counted<'_> {
        loop {
            let room = match self.fresh() {
                Some(room) => room,
                None => {
                    let _alone = self.asking.lock().await;
                    match self.fresh() {
                        Some(room) => room,
                        None => {
                            let room = farm.room().await.unwrap_or(0);
                            self.note(room);
                            room
                        }
                    }
                }
            };
            // Where some run already, others are ready to follow them at once.
            let room = room + self.running.load(Ordering::Acquire).div_ceil(AHEAD);
            let taken = self
                .offered
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |offered| (offered < room).then_some(offered + 1));
            if taken.is_ok() {
                return Counted(&self.offered);
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    fn memory_bytes(&self) -> u64 {
        (*self.memory_bytes.lock()).max(MEMORY_BYTES)
    }

    /// Calls need more memory than they had.
    fn needs_more(&self, than: u64) {
        let mut memory = self.memory_bytes.lock();
        *memory = (*memory).max(than.saturating_mul(2));
    }
}

/// Where a call ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    /// In a place of the step's own, and it took this long with all that belongs to it.
    Here(Duration),
    /// On another worker.
    Elsewhere,
}

/// A call to be carried out.
pub(super) struct Carried<'a> {
    pub(super) step: &'a Arc<Step>,
    pub(super) begun: &'a Begun,
    pub(super) view: Arc<View>,
    pub(super) call: &'a Call,
    /// What a call like it read before.
    pub(super) nearest: Option<&'a Variant>,
    /// Gets what the compiler announces, if the call runs here only.
    pub(super) shim: &'a Shim,
    pub(super) cancel: &'a CancellationToken,
}

impl Carried<'_> {
    /// Runs the call where there is room first.
    ///
    /// # Errors
    /// Why it has no result that counts.
    pub(super) async fn run(&self) -> Result<(Ran, Where), Reason> {
        let (ticket, mut granted) = self.step.places.join();
        let started = watch::Sender::new(None);
        let mut elsewhere = Box::pin(self.elsewhere(&ticket, &started));
        let place = tokio::select! {
            biased;
            place = granted.place() => place,
            ended = &mut elsewhere => match ended {
                Ok(ran) => return Ok((ran, Where::Elsewhere)),
                Err(Failed::Ran(reason)) => return Err(reason),
                Err(Failed::Farm | Failed::Memory) => return self.here(granted.place().await, Some(self.shim)).await,
            },
            place = self.late(&ticket, started.subscribe()) => place,
        };
        if started.borrow().is_none() {
            // What is only offered is withdrawn.
            drop(elsewhere);
            return self.here(place, Some(self.shim)).await;
        }
        // What is announced cannot be taken back, and the other worker may be the first.
        let here = self.here(place, None);
        tokio::pin!(here);
        tokio::select! {
            ran = &mut here => ran,
            ended = &mut elsewhere => match ended {
                Ok(ran) => Ok((ran, Where::Elsewhere)),
                Err(_) => here.await,
            },
        }
    }

    async fn needs(&self) -> super::cell::Needs {
        self.step.needs(self.begun, &self.view, self.call, self.nearest, self.cancel).await
    }

    async fn here(&self, place: Place, shim: Option<&Shim>) -> Result<(Ran, Where), Reason> {
        let began = Instant::now();
        let needs = self.needs().await;
        let ran = self
            .step
            .cell(self.begun, self.view.clone())
            .run(self.call, needs, shim.cloned(), self.cancel.clone())
            .await;
        drop(place);
        Ok((ran?, Where::Here(began.elapsed())))
    }

    /// Offers the call to the farm whenever that has room, until it has run there.
    async fn elsewhere(&self, ticket: &Ticket, started: &watch::Sender<Option<Instant>>) -> Result<Ran, Failed> {
        let Step { farm, room, .. } = &**self.step;
        // Another worker has another processor.
        let is_native = matches!(&self.call.details, Details::Rust(details) if details.native);
        if is_native || farm.function != DigestFunction::Sha256 {
            return Err(Failed::Farm);
        }
        let cell = self.step.cell(self.begun, self.view.clone());
        for _ in 0..ATTEMPTS {
            let offer = room.take(farm).await;
            ticket.is(Stage::Offered);
            let needs = self.needs().await;
            let memory_bytes = room.memory_bytes();
            let ended = match cell.offer(farm, &self.step.root, self.call, needs, memory_bytes).await {
                Ok(mut offered) => self.follow(&mut offered, offer, ticket, started).await,
                Err(failed) => Err(failed),
            };
            let accepted = match (ended, farm.client()) {
                (Ok(response), Some(client)) => cell.accept((farm, &client), self.call, response).await,
                (Ok(_), None) => Err(Failed::Farm),
                (Err(failed), _) => Err(failed),
            };
            match accepted {
                Err(Failed::Memory) => room.needs_more(memory_bytes),
                Err(Failed::Farm) => {}
                Ok(ran) => {
                    farm.makers.include(&ran.makers);
                    return Ok(ran);
                }
                failed => return failed,
            }
            started.send_replace(None);
            ticket.is(Stage::Here);
            tokio::time::sleep(FULL).await;
        }
        Err(Failed::Farm)
    }

    /// Follows an offered call to its end.
    async fn follow(
        &self,
        offered: &mut super::elsewhere::Offered,
        offer: Counted<'_>,
        ticket: &Ticket,
        started: &watch::Sender<Option<Instant>>,
    ) -> Result<reapi::ExecuteResponse, Failed> {
        let mut counted = offer;
        loop {
            match offered.next().await? {
                Next::Started => {
                    counted = Counted::in_addition(&self.step.room.running);
                    started.send_replace(Some(Instant::now()));
                    ticket.is(Stage::Elsewhere);
                }
                Next::Requeued => {
                    counted = Counted::in_addition(&self.step.room.offered);
                    started.send_replace(None);
                    ticket.is(Stage::Offered);
                }
                Next::Ended(response) => {
                    drop(counted);
                    return Ok(*response);
                }
            }
        }
    }

    /// A place for a call that takes long elsewhere, once one is free.
    async fn late(&self, ticket: &Ticket, mut started: watch::Receiver<Option<Instant>>) -> Place {
        loop {
            let begun = *started.borrow_and_update();
            let usual = self.step.tally.usual().unwrap_or(UNKNOWN) * LATE.0 / LATE.1 + TRANSFERS;
            let left = begun.map(|at| usual.saturating_sub(at.elapsed()));
            if left.is_some_and(|left| left.is_zero())
                && let Some(place) = ticket.try_place()
            {
                return place;
            }
            let again = left.map_or(FULL, |left| left.max(LOOK_AGAIN));
            // It may have been withdrawn, or begun again.
            let _ = tokio::time::timeout(again, started.changed()).await;
        }
    }
}
