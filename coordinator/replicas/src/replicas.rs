//! The task that claims the lease and renews it, and the handle on it.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::error::Error;
use crate::holder::{Effect, Event, Holder, Moment};
use crate::register::{Claimed, Register};
use crate::replica::{Replica, Term};
use crate::standing::{Lead, Standing};
use crate::timing::Timing;

enum Command {
    Resign(oneshot::Sender<()>),
    Resume,
}

/// The handle of one replica. Cheap to clone. When the last one is dropped, the lease is given back.
#[derive(Debug, Clone)]
pub struct Replicas {
    register: Arc<dyn Register>,
    me: Arc<Replica>,
    commands: mpsc::UnboundedSender<Command>,
    standing: watch::Receiver<Standing>,
    all: watch::Receiver<Vec<Replica>>,
    trouble: watch::Receiver<Option<Arc<str>>>,
    doubts: Arc<Notify>,
}

impl Replicas {
    /// Checks the register, and begins to claim its lease.
    ///
    /// # Errors
    /// If the register cannot be used.
    pub async fn join(register: Arc<dyn Register>, me: Replica, timing: Timing) -> Result<Self, Error> {
        for warning in register.check(&me).await? {
            tracing::warn!("{warning}");
        }
        let (standing, watched) = watch::channel(Standing::Vacant);
        let (all, all_watched) = watch::channel(vec![me.clone()]);
        let (trouble, trouble_watched) = watch::channel(None);
        let doubts = Arc::new(Notify::new());
        let (commands, received) = mpsc::unbounded_channel();
        let me = Arc::new(me);
        let holder = Holder::new(me.name.clone(), timing, Moment::ZERO);
        let task = Task {
            register: register.clone(),
            me: me.clone(),
            timing,
            clock: Clock::begin(),
            holder,
            claiming: None,
            trouble,
            doubts: doubts.clone(),
            releasing: None,
            resigning: Vec::new(),
            lead: None,
            standing,
            all,
        };
        let running = tokio::spawn(task.run(received));
        tokio::spawn(async move {
            if running.await.is_err_and(|error| error.is_panic()) {
                tracing::error!("the task that holds the lease panicked; the coordinator exits, and another one leads");
                std::process::abort();
            }
        });
        Ok(Self { register, me, commands, standing: watched, all: all_watched, trouble: trouble_watched, doubts })
    }

    /// Who leads, and each change of it.
    pub fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.clone()
    }

    /// All replicas that are known, this one among them.
    pub fn all(&self) -> Vec<Replica> {
        self.all.borrow().clone()
    }

    /// Why it cannot find out who leads, for as long as it cannot.
    pub fn trouble(&self) -> watch::Receiver<Option<Arc<str>>> {
        self.trouble.clone()
    }

    /// Asks at once who leads, because whoever did is not to be reached, or says that it does not.
    pub fn doubt(&self) {
        self.doubts.notify_one();
    }

    /// This replica.
    pub fn me(&self) -> &Replica {
        &self.me
    }

    /// What the replicas agree by.
    pub fn register(&self) -> &Arc<dyn Register> {
        &self.register
    }

    /// Ends its leadership at once, gives the lease back, and does not claim it again before [`resume`](Self::resume). For an orderly
    /// end, and for a leader that could not begin its term. Returns when the lease is given back, or a try to do so has failed: then it
    /// ends by itself.
    pub async fn resign(&self) {
        let (done, resigned) = oneshot::channel();
        if self.commands.send(Command::Resign(done)).is_ok() {
            let _ = resigned.await;
        }
    }

    /// Claims the lease again after [`resign`](Self::resign).
    pub fn resume(&self) {
        let _ = self.commands.send(Command::Resume);
    }
}

/// Owns the state machine and carries out what it decides.
struct Task {
    register: Arc<dyn Register>,
    me: Arc<Replica>,
    timing: Timing,
    clock: Clock,
    holder: Holder,
    claiming: Option<BoxFuture<'static, (u64, Result<Claimed, Error>)>>,
    /// Why the last claim failed, if it did.
    trouble: watch::Sender<Option<Arc<str>>>,
    doubts: Arc<Notify>,
    releasing: Option<BoxFuture<'static, ()>>,
    resigning: Vec<oneshot::Sender<()>>,
    lead: Option<Lead>,
    standing: watch::Sender<Standing>,
    all: watch::Sender<Vec<Replica>>,
}

impl Task {
    async fn run(mut self, mut commands: mpsc::UnboundedReceiver<Command>) {
        let mut is_dropped = false;
        self.step(Event::Wake);
        loop {
            if self.holder.is_quiet() && self.releasing.is_none() {
                for done in self.resigning.drain(..) {
                    // Whoever does not wait does not want to know.
                    let _ = done.send(());
                }
                if is_dropped {
                    return;
                }
            }
            let woken = tokio::time::sleep(self.clock.until(self.holder.wake_at()));
            let event = tokio::select! {
                (number, answer) = pending_or(&mut self.claiming) => {
                    self.claiming = None;
                    self.answered(number, answer)
                }
                () = pending_or(&mut self.releasing) => {
                    self.releasing = None;
                    continue;
                }
                command = commands.recv(), if !is_dropped => match command {
                    Some(Command::Resign(done)) => {
                        self.resigning.push(done);
                        Event::Resign
                    }
                    Some(Command::Resume) => Event::Resume,
                    None => {
                        is_dropped = true;
                        Event::Resign
                    }
                },
                () = self.doubts.notified() => Event::Doubt,
                () = woken => Event::Wake,
            };
            self.step(event);
        }
    }

    fn step(&mut self, event: Event) {
        let now = self.clock.now();
        for effect in self.holder.step(now, event, rand::random()) {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Claim { number, held, lease } => self.claim(number, held, lease),
            Effect::Release(term) => self.release(term),
            Effect::Lead(term, until) => {
                tracing::info!(%term, "this coordinator leads the farm");
                let lead = Lead::new(term, self.clock, until);
                self.lead = Some(lead.clone());
                self.standing.send_replace(Standing::Leads(lead));
            }
            Effect::Extend(until) => {
                if let Some(lead) = &self.lead {
                    lead.extend(until);
                }
            }
            Effect::Over => {
                if let Some(lead) = self.lead.take() {
                    tracing::warn!(term = %lead.term, "this coordinator does not lead the farm any more");
                    lead.over.cancel();
                }
            }
            Effect::Follow(leader, term) => {
                tracing::info!(leader = leader.name, address = leader.address, %term, "another coordinator leads the farm");
                self.standing.send_replace(Standing::Follows { leader, term });
            }
            Effect::Vacant => {
                self.standing.send_replace(Standing::Vacant);
            }
            Effect::All(all) => {
                self.all.send_replace(all);
            }
        }
    }

    fn claim(&mut self, number: u64, held: Option<Term>, lease: Duration) {
        let (register, me) = (self.register.clone(), self.me.clone());
        let limit = self.timing.lease / 2;
        self.claiming = Some(Box::pin(async move {
            let claimed = tokio::time::timeout(limit, register.claim(&me, held.as_ref(), lease)).await;
            let late = || Err(Error::Away { why: format!("no answer within {} ms", limit.as_millis()) });
            (number, claimed.unwrap_or_else(|_| late()))
        }));
    }

    fn answered(&mut self, number: u64, answer: Result<Claimed, Error>) -> Event {
        let why = answer.as_ref().err().map(|error| Arc::from(error.to_string()));
        let failed_before = self.trouble.send_replace(why).is_some();
        match answer {
            Ok(claimed) => {
                if failed_before {
                    tracing::info!("it is known again who leads the farm");
                }
                Event::Answered(number, claimed)
            }
            Err(error) => {
                if !failed_before {
                    tracing::warn!(%error, "cannot find out who leads the farm; trying again until it can");
                }
                Event::Failed(number)
            }
        }
    }

    fn release(&mut self, term: Term) {
        let (register, me) = (self.register.clone(), self.me.clone());
        let limit = self.timing.lease / 2;
        let earlier = self.releasing.take();
        self.releasing = Some(Box::pin(async move {
            if let Some(earlier) = earlier {
                earlier.await;
            }
            match tokio::time::timeout(limit, register.release(&me, &term)).await {
                Ok(Ok(())) => tracing::info!(%term, "the lease was given back"),
                Ok(Err(error)) => tracing::warn!(%error, "cannot give the lease back; it ends by itself"),
                Err(_) => tracing::warn!("cannot give the lease back in time; it ends by itself"),
            }
        }));
    }
}

/// Waits for a future if there is one, otherwise for ever.
async fn pending_or<T>(future: &mut Option<BoxFuture<'static, T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}
