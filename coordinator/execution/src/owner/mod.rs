//! The task that owns the scheduler: feeds it events and carries out its effects.
//!
//! Invariant: no scheduling decision is made here. The scheduler's decisions are carried out, and events are reported
//! to it.

mod effects;
mod links;
mod recent;
mod results;
mod view;
mod wire;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kiln_proto::digest::Digest;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{coordinator_message, worker_message};
use kiln_proto::{clock, reapi, v1};
use kiln_scheduler::{
    ActionKey, Config, Event, LeaseId, Millis, Outcome, Requirements, Scheduler, Submission, WaiterId, WorkerId,
    WorkerOffer,
};
use kiln_state::Distrusted;
use kiln_telemetry::trace;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use tokio::time::Instant;
use tonic::Status;
use tracing::Span;

use recent::Recent;
use results::is_success;

use super::leases::{Charge, Grant, LiveLeases};
use super::log::LiveLogs;
use super::memory::Memory;
use super::prepare::Prepared;
use super::scopes::Scopes;
use super::shells::Wanted;
use super::wait::Wait;
use super::{Agents, Done, Request, State};

/// Interval of workers' heartbeats.
pub(crate) const HEARTBEAT: Duration = Duration::from_secs(5);
/// How long a connection must be silent before another process may use its worker's name.
const SILENCE_LIMIT: Duration = Duration::from_secs(15);
/// How often the connected workers are recorded.
const NOTE_EVERY: Duration = Duration::from_secs(60);

pub(super) enum Message {
    Submit {
        waiter: WaiterId,
        prepared: Arc<Prepared>,
        request: Box<Request>,
        /// When its caller looked into the action cache, if it did.
        looked: Option<Instant>,
        /// The caller's trace context.
        traceparent: String,
        reply: oneshot::Sender<(watch::Receiver<State>, bool)>,
    },
    Leave(WaiterId),
    Connected {
        connection: u64,
        register: Box<v1::Register>,
        link: mpsc::Sender<v1::CoordinatorMessage>,
        reply: oneshot::Sender<Result<(), Status>>,
    },
    Said {
        worker: String,
        connection: u64,
        message: Box<worker_message::Message>,
        _room: OwnedSemaphorePermit,
    },
    Disconnected {
        worker: String,
        connection: u64,
    },
    /// What the result of a lease names was looked at.
    Examined {
        worker: String,
        lease: u64,
        response: Box<reapi::ExecuteResponse>,
        /// Why it does not count.
        objection: Option<String>,
    },
    /// The result of a lease is in the action cache, if it belongs there.
    Stored {
        worker: String,
        lease: u64,
        response: Box<reapi::ExecuteResponse>,
    },
    Drain {
        worker: String,
        on: bool,
        reply: oneshot::Sender<Result<(), Status>>,
    },
    /// A worker is distrusted from now on, or trusted again.
    Believe {
        worker: String,
        reply: oneshot::Sender<()>,
    },
    /// Asks what this caller is waiting for.
    Wait {
        waiter: WaiterId,
        reply: oneshot::Sender<Option<Wait>>,
    },
    Farm {
        reply: oneshot::Sender<v1::FarmStatus>,
    },
    Room {
        requirements: Requirements,
        reply: oneshot::Sender<usize>,
    },
}

#[derive(Debug)]
struct Action {
    prepared: Arc<Prepared>,
    /// What the first caller is charged.
    charge: Charge,
    /// Zeroed when the action ends or is cancelled.
    secrets: Vec<v1::Secret>,
    /// Reached by the lease alone.
    agents: Option<Arc<dyn Agents>>,
    /// What runs in its place.
    shell: Option<Wanted>,
    state: watch::Sender<State>,
    queued: Timestamp,
    /// The trace of the first caller; the others joined it.
    traceparent: String,
    /// Lasts while it waits for a worker.
    queue: Option<Span>,
}

/// The span of an action's wait for a worker, separate from the caller's spans, which may end earlier.
fn queue_span(traceparent: &str) -> Span {
    let span = tracing::info_span!(parent: None, "queue");
    trace::adopt(&span, traceparent);
    span
}

#[derive(Debug)]
struct Link {
    connection: u64,
    capacity: v1::Capacity,
    sender: mpsc::Sender<v1::CoordinatorMessage>,
    environment: v1::Environment,
    version: String,
    /// The session of the process that registered.
    session: Vec<u8>,
    tenants: Vec<String>,
    /// Whether its worker can show what it has.
    shows: bool,
    last_seen: Timestamp,
    heard: Instant,
}

/// What the owner shares with readers outside its task.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) scopes: Scopes,
    pub(super) logs: Arc<LiveLogs>,
    pub(super) leases: LiveLeases,
    pub(super) epoch: u64,
    pub(super) distrusted: Distrusted,
}

/// The action of a lease, even if a worker brought the lease and no client has asked for it.
#[derive(Debug, Clone)]
struct Leased {
    worker: WorkerId,
    instance: String,
    action: Digest,
    is_shell: bool,
    grant: Arc<Grant>,
}

pub(super) struct Owner {
    scheduler: Scheduler,
    began: Instant,
    scopes: Scopes,
    logs: Arc<LiveLogs>,
    live: LiveLeases,
    actions: HashMap<ActionKey, Action>,
    waiters: HashMap<WaiterId, ActionKey>,
    links: HashMap<WorkerId, Link>,
    leases: HashMap<LeaseId, Leased>,
    /// Responses to be delivered to the callers of a lease.
    finished: HashMap<LeaseId, reapi::ExecuteResponse>,
    recent: Recent,
    /// Workers whose results are not believed.
    distrusted: Distrusted,
    /// Workers that an operator drained.
    drained: HashSet<WorkerId>,
    /// Workers that are shutting down, until they come back.
    stopping: HashSet<WorkerId>,
    messages: mpsc::UnboundedSender<Message>,
    joined: watch::Sender<u64>,
    memory: Memory,
    /// The coordinator's term, by which workers tell it from leaders of the past; 0 for the only one of a farm.
    epoch: u64,
}

fn key_of(instance: &str, action: &Digest) -> ActionKey {
    ActionKey(format!("{instance}|{action}").into())
}

impl Owner {
    pub(super) fn new(
        mut config: Config,
        Shared { scopes, logs, leases: live, epoch, distrusted }: Shared,
        (messages, joined): (mpsc::UnboundedSender<Message>, watch::Sender<u64>),
        mut memory: Memory,
    ) -> Self {
        config.remembered = memory.workers().map(|worker| remembered(worker, config.remember_for)).collect();
        config.returning = memory.take_connected().into_iter().map(|worker| WorkerId(worker.into())).collect();
        let drained =
            memory.workers().filter(|worker| worker.draining).map(|worker| WorkerId(worker.worker.as_str().into()));
        Self {
            drained: drained.collect(),
            memory,
            scheduler: Scheduler::new(config, 0),
            began: Instant::now(),
            scopes,
            logs,
            live,
            actions: HashMap::new(),
            waiters: HashMap::new(),
            links: HashMap::new(),
            leases: HashMap::new(),
            finished: HashMap::new(),
            recent: Recent::default(),
            stopping: HashSet::new(),
            messages,
            joined,
            epoch,
            distrusted,
        }
    }

    pub(super) async fn run(mut self, mut receiver: mpsc::UnboundedReceiver<Message>) {
        let mut notes = tokio::time::interval(NOTE_EVERY);
        loop {
            let deadline = self.scheduler.next_deadline().map(|at| self.began + Duration::from_millis(at));
            tokio::select! {
                message = receiver.recv() => match message {
                    Some(message) => self.handle(message),
                    None => return,
                },
                () = until(deadline) => self.step(Event::Tick),
                _ = notes.tick() => self.memory.all_here(self.links.keys().map(|worker| &*worker.0).collect()),
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Submit { waiter, prepared, request, looked, traceparent, reply } => {
                self.submit(waiter, prepared, *request, looked, traceparent, reply);
            }
            Message::Leave(waiter) => self.leave(waiter),
            Message::Connected { connection, register, link, reply } => {
                let free = self.check_name(&register);
                let joins = free.is_ok();
                if reply.send(free).is_ok() && joins {
                    self.connected(connection, *register, link);
                }
            }
            Message::Said { worker, connection, message, _room } => {
                self.message_from(WorkerId(worker.into()), connection, *message)
            }
            Message::Disconnected { worker, connection } => {
                let worker = WorkerId(worker.into());
                if self.links.get(&worker).is_some_and(|link| link.connection == connection) {
                    self.links.remove(&worker);
                    self.memory.still_here([&*worker.0].into_iter());
                    tracing::warn!(
                        worker = &*worker.0,
                        "connection to worker lost; keeping its leases until it returns"
                    );
                    self.step(Event::WorkerDisconnected(worker));
                    self.joined.send_modify(|count| *count += 1);
                }
            }
            Message::Examined { worker, lease, response, objection } => {
                self.examined(WorkerId(worker.into()), LeaseId(lease), *response, objection);
            }
            Message::Stored { worker, lease, response } => {
                let (lease, worker) = (LeaseId(lease), WorkerId(worker.into()));
                if let Some(leased) = self.leases.get(&lease).filter(|leased| !leased.is_shell && is_success(&response))
                {
                    self.recent.put(key_of(&leased.instance, &leased.action), (*response).clone());
                }
                self.finished.insert(lease, *response);
                self.live.finish(lease.0);
                self.step(Event::Finished { worker: worker.clone(), lease, outcome: Outcome::Completed });
                self.finished.remove(&lease);
                self.tell(&worker, coordinator_message::Message::FinishedAck(v1::FinishedAck { lease: lease.0 }));
            }
            Message::Drain { worker, on, reply } => {
                let worker = WorkerId(worker.into());
                let Some(recorded) = self.memory.drain(&worker.0, on) else {
                    let name = worker.0;
                    let unknown = format!("the farm has no worker `{name}`; `kiln farm list` lists them");
                    let _ = reply.send(Err(Status::not_found(unknown)));
                    return;
                };
                if on {
                    self.drained.insert(worker.clone())
                } else {
                    self.drained.remove(&worker)
                };
                self.drain(worker);
                // It takes effect at once; whoever asked is told when it survives a power cut.
                tokio::spawn(async move {
                    let recorded = match recorded {
                        Some(recorded) => recorded.await,
                        None => Ok(()),
                    };
                    let _ = reply.send(recorded.map_err(|error| Status::internal(error.to_string())));
                });
            }
            Message::Believe { worker, reply } => {
                self.believe(WorkerId(worker.into()));
                let _ = reply.send(());
            }
            Message::Wait { waiter, reply } => {
                let _ = reply.send(self.wait_of(waiter));
            }
            Message::Farm { reply } => {
                let _ = reply.send(self.farm());
            }
            Message::Room { requirements, reply } => {
                let _ = reply.send(self.scheduler.room(&requirements));
            }
        }
    }

    fn drain(&mut self, worker: WorkerId) {
        let on = self.gets_nothing(&worker) || self.stopping.contains(&worker);
        self.step(Event::Drain { worker: worker.clone(), on });
        if on {
            self.end_shells(&worker);
        }
    }

    /// Whether an operator wants this worker to get no work.
    fn gets_nothing(&self, worker: &WorkerId) -> bool {
        self.drained.contains(worker) || self.distrusted.now().lasts(&worker.0)
    }

    fn submit(
        &mut self,
        waiter: WaiterId,
        prepared: Arc<Prepared>,
        request: Request,
        looked: Option<Instant>,
        traceparent: String,
        reply: oneshot::Sender<(watch::Receiver<State>, bool)>,
    ) {
        let mut key = key_of(&prepared.instance, &prepared.digest);
        // A run with one caller's secrets or agents cannot be shared: others who ask for the same action get their own run.
        let is_private = !prepared.secrets.is_empty() || !prepared.agents.is_empty();
        if prepared.action.do_not_cache || is_private || request.shell.is_some() {
            key = ActionKey(format!("{}|{}", key.0, waiter.0).into());
        }
        let once = request.shell.is_some();
        let recent = looked.and_then(|looked| self.recent.since(looked, &key)).cloned();
        let is_under_way = self.actions.contains_key(&key);
        let merged = is_under_way || recent.is_some();
        let action = self.actions.entry(key.clone()).or_insert_with(|| Action {
            prepared: prepared.clone(),
            charge: Charge { share: request.share.clone(), build: request.build.clone(), priority: request.priority },
            secrets: request.secrets,
            agents: request.agents.filter(|_| !prepared.agents.is_empty()),
            shell: request.shell,
            state: watch::Sender::new(State::Queued),
            queued: clock::now(),
            queue: Some(queue_span(&traceparent)),
            traceparent,
        });
        let _ = reply.send((action.state.subscribe(), merged));
        if let Some(response) = recent.filter(|_| !is_under_way) {
            return self.finish(&key, Done { response, farm_fault: false });
        }
        self.waiters.insert(waiter, key.clone());
        let mut requirements = prepared.requirements.clone();
        if prepared.is_estimate {
            requirements.capacity = self.scheduler.at_most_the_largest(&requirements);
        }
        self.step(Event::Submit(Submission {
            waiter,
            key,
            requirements,
            share: request.share,
            build: request.build,
            priority: request.priority,
            path_weight: request.path_weight,
            inputs: prepared.inputs.clone(),
            wait_limit: request.queue_timeout.map(|wait_limit| wait_limit.as_millis() as Millis),
            once,
            avoid: prepared.unlike.as_ref().map(|unlike| WorkerId(unlike.worker.as_str().into())),
        }));
    }

    fn leave(&mut self, waiter: WaiterId) {
        let Some(key) = self.waiters.remove(&waiter) else { return };
        self.step(Event::Leave(waiter));
        if self.scheduler.waiters(&key).is_empty() {
            self.actions.remove(&key);
        }
    }

    fn end_lease(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        self.finished.remove(&lease);
        self.live.end(lease.0);
        self.logs.close(lease.0);
    }

    fn step(&mut self, event: Event) {
        let now = self.began.elapsed().as_millis() as u64;
        for effect in self.scheduler.step(now, event) {
            self.carry_out(effect);
        }
    }
}

/// A worker of an earlier run in the scheduler's form, and until when it is expected back.
fn remembered(worker: &v1::Worker, life_ms: Millis) -> (WorkerOffer, Millis) {
    let environment = worker.environment.clone().unwrap_or_default();
    let offer = WorkerOffer {
        worker: WorkerId(worker.worker.as_str().into()),
        properties: wire::offered(&environment),
        demands: wire::demanded(&environment),
        tenants: worker.tenants.iter().cloned().collect(),
        capacity: wire::capacity(worker.capacity.as_ref()),
        draining: worker.draining,
        running: Vec::new(),
    };
    (offer, life_ms.saturating_sub(Memory::age_ms(worker)))
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
