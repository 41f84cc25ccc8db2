//! Connections of workers, and the messages that come over them.

use kiln_proto::v1::{coordinator_message, worker_message};
use kiln_proto::{clock, v1};
use kiln_scheduler::{Event, LeaseId, RunningLease, WorkerId, WorkerOffer};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::Status;

use super::super::leases::Grant;
use super::{HEARTBEAT, Link, Owner, SILENCE_LIMIT, key_of, wire};

impl Owner {
    /// A name belongs to the process that is connected under it, until its connection is silent.
    pub(super) fn check_name(&self, register: &v1::Register) -> Result<(), Status> {
        let link = self.links.get(&WorkerId(register.worker.as_str().into()));
        match link.filter(|link| link.session != register.session && link.heard.elapsed() < SILENCE_LIMIT) {
            None => Ok(()),
            Some(_) => {
                tracing::warn!(worker = register.worker, "refused a second worker with a name in use");
                Err(Status::already_exists(format!(
                    "another worker is connected as `{}`; start this one with another `--name`",
                    register.worker
                )))
            }
        }
    }

    pub(super) fn connected(
        &mut self,
        connection: u64,
        register: v1::Register,
        sender: mpsc::Sender<v1::CoordinatorMessage>,
    ) {
        let worker = WorkerId(register.worker.as_str().into());
        let environment = register.environment.unwrap_or_default();
        let capacity = wire::capacity(register.capacity.as_ref());
        let mut running = Vec::new();
        let (mut unwanted, mut finished) = (Vec::new(), Vec::new());
        for lease in &register.running {
            let grant = match Grant::open(self.live.key(), &lease.grant, Some(&worker.0)) {
                Ok(grant) => grant,
                Err(error) => {
                    tracing::warn!(worker = &*worker.0, lease = lease.lease, %error, "refused a lease that a worker brought");
                    unwanted.push(lease.lease);
                    continue;
                }
            };
            let (id, action) = (LeaseId(grant.lease), grant.action);
            if self.live.is_finished(id.0) {
                finished.push(id);
                continue;
            }
            // Whoever watched it was connected to the coordinator that granted it.
            if grant.shell && !self.leases.contains_key(&id) {
                unwanted.push(lease.lease);
                continue;
            }
            let key = key_of(&grant.instance, &action);
            self.lease_begins(id, grant);
            running.push(RunningLease { lease: id, key, reserved: wire::capacity(lease.reserved.as_ref()) });
        }
        let registered = v1::Registered {
            heartbeat_interval: Some(kiln_proto::protobuf::Duration { seconds: HEARTBEAT.as_secs() as i64, nanos: 0 }),
            unwanted,
            epoch: self.epoch,
        };
        let (properties, demands) = (wire::offered(&environment), wire::demanded(&environment));
        tracing::info!(worker = &*worker.0, running = running.len(), "worker joined");
        let link = Link {
            connection,
            capacity: register.capacity.unwrap_or_default(),
            sender,
            environment,
            version: register.version,
            session: register.session,
            tenants: register.tenants,
            shows: register.shows,
            last_seen: clock::now(),
            heard: Instant::now(),
        };
        let tenants = link.tenants.iter().cloned().collect();
        self.memory.saw(link.as_worker(&worker, self.drained.contains(&worker)));
        self.links.insert(worker.clone(), link);
        self.tell(&worker, coordinator_message::Message::Registered(registered));
        for lease in finished {
            self.acknowledge(&worker, lease);
        }
        self.stopping.remove(&worker);
        let draining = self.gets_nothing(&worker);
        self.step(Event::WorkerJoined(WorkerOffer {
            worker,
            properties,
            demands,
            tenants,
            capacity,
            draining,
            running,
        }));
        self.joined.send_modify(|count| *count += 1);
    }

    pub(super) fn message_from(&mut self, worker: WorkerId, connection: u64, message: worker_message::Message) {
        let Some(link) = self.links.get_mut(&worker).filter(|link| link.connection == connection) else { return };
        link.last_seen = clock::now();
        link.heard = Instant::now();
        match message {
            worker_message::Message::Register(_) => {}
            worker_message::Message::Heartbeat(beat) => {
                if beat.stopping && self.stopping.insert(worker.clone()) {
                    tracing::info!(worker = &*worker.0, "worker is stopping after its leases have ended");
                    self.drain(worker);
                }
            }
            worker_message::Message::Started(started) => {
                if self.has(&worker, LeaseId(started.lease)) {
                    self.step(Event::Started(LeaseId(started.lease)));
                }
            }
            worker_message::Message::Output(chunk) => {
                if self.has(&worker, LeaseId(chunk.lease)) {
                    self.logs.of(chunk.lease).push(chunk.stream(), chunk.offset, chunk.data);
                }
            }
            worker_message::Message::Calls(calls) => {
                if let (true, Some(counts)) = (self.has(&worker, LeaseId(calls.lease)), calls.calls) {
                    self.logs.of(calls.lease).calls.send_replace(Some(counts));
                }
            }
            worker_message::Message::Usage(usage) => {
                if let (true, Some(used)) = (self.has(&worker, LeaseId(usage.lease)), usage.usage) {
                    self.logs.of(usage.lease).usage.send_replace(Some(used));
                }
            }
            worker_message::Message::Finished(finished) => self.lease_finished(worker, finished),
            worker_message::Message::Goodbye(_) => {
                tracing::info!(worker = &*worker.0, "worker is leaving");
                self.memory.left(&worker.0);
                self.stopping.remove(&worker);
                self.links.remove(&worker);
                self.step(Event::WorkerGone(worker));
                self.joined.send_modify(|count| *count += 1);
            }
        }
    }
}

impl Link {
    pub(super) fn as_worker(&self, name: &WorkerId, draining: bool) -> v1::Worker {
        v1::Worker {
            worker: name.0.to_string(),
            environment: Some(self.environment.clone()),
            capacity: Some(self.capacity),
            draining,
            connected: true,
            last_seen: Some(self.last_seen),
            version: self.version.clone(),
            tenants: self.tenants.clone(),
            ..Default::default()
        }
    }
}
