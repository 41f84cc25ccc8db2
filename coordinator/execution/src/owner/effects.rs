//! Carries out the scheduler's decisions: sends leases and cancellations, and informs waiting callers.

use std::sync::Arc;

use kiln_proto::possession::Challenge;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{self, coordinator_message};
use kiln_proto::{property, root};
use kiln_scheduler::{ActionKey, Capacity, Effect, Event, LeaseId, Outcome, WaiterId, WorkerId};
use tonic::Code;

use super::super::prepare::Prepared;
use super::super::shells::LONGEST;
use super::super::{Done, Running, State, failed};
use super::wire::failure_response;
use super::{Grant, Message, Owner};

impl Owner {
    pub(super) fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Assign { worker, lease, key, attempt, reserved } => {
                self.assign(&worker, lease, &key, attempt, reserved)
            }
            Effect::CancelLease { worker, lease } => {
                self.tell(&worker, coordinator_message::Message::Cancel(v1::CancelLease { lease: lease.0 }));
            }
            Effect::Adopted { key, lease, worker } => {
                let logs = self.logs.of(lease.0);
                let running = Running { worker: worker.0.to_string(), lease: lease.0, logs };
                self.set(&key, State::Executing { running, started: true });
                self.waits(&key, false);
                if let Some(action) = self.actions.get(&key).filter(|action| action.prepared.spread) {
                    self.live.charge(lease.0, action.charge.clone());
                }
            }
            Effect::Started { key, .. } => {
                if let Some(action) = self.actions.get(&key) {
                    action.state.send_if_modified(|state| match state {
                        State::Executing { started, .. } if !*started => std::mem::replace(started, true),
                        _ => false,
                    });
                }
            }
            Effect::Requeued { key, reason, .. } => {
                tracing::warn!(action = &*key.0, reason, "action runs again");
                self.set(&key, State::Queued);
                self.waits(&key, true);
            }
            Effect::Completed { key, lease, waiters } => {
                self.forget(&waiters);
                let response =
                    self.finished.remove(&lease).unwrap_or_else(|| failed(Code::Internal, "the result was lost"));
                self.finish(&key, Done { response, farm_fault: false });
            }
            Effect::Failed { key, waiters, failure } => {
                self.forget(&waiters);
                self.finish(&key, Done { response: failure_response(&failure), farm_fault: true });
            }
            Effect::LeaseEnded(lease) => self.end_lease(lease),
        }
    }

    fn forget(&mut self, waiters: &[WaiterId]) {
        for waiter in waiters {
            self.waiters.remove(waiter);
        }
    }

    fn set(&self, key: &ActionKey, state: State) {
        if let Some(action) = self.actions.get(key) {
            action.state.send_replace(state);
        }
    }

    /// Records that an action starts or stops waiting for a worker.
    fn waits(&mut self, key: &ActionKey, on: bool) {
        if let Some(action) = self.actions.get_mut(key) {
            action.queue = on.then(|| super::queue_span(&action.traceparent));
        }
    }

    pub(super) fn finish(&mut self, key: &ActionKey, done: Done) {
        if let Some(action) = self.actions.remove(key) {
            let done = Arc::new(done);
            action.state.send_modify(|state| {
                let ran = match state {
                    State::Executing { running, .. } => Some(running.clone()),
                    State::Queued | State::Done { .. } => None,
                };
                *state = State::Done { done, ran };
            });
        }
    }

    fn assign(&mut self, worker: &WorkerId, lease: LeaseId, key: &ActionKey, attempt: u32, reserved: Capacity) {
        self.waits(key, false);
        let Some(action) = self.actions.get(key) else {
            // All callers left since the decision; the scheduler hears of that next.
            let outcome = Outcome::WorkerFault("no caller is waiting for it".to_owned());
            return self.step(Event::Finished { worker: worker.clone(), lease, outcome });
        };
        let prepared = &action.prepared;
        let is_call = prepared.requirements.opportunistic && prepared.unlike.is_none();
        let grant = Grant {
            lease: lease.0,
            worker: worker.0.to_string(),
            instance: prepared.instance.clone(),
            action: prepared.digest,
            times: prepared.times,
            caches: prepared.caches.iter().filter_map(|cache| cache.name.as_ref()).map(root::entitlement).collect(),
            calls: if prepared.split { environment_of_calls(prepared) } else { String::new() },
            tools: prepared.tools.clone(),
            shell: action.shell.is_some(),
            challenge: self.links.get(worker).is_some_and(|link| link.shows).then(|| Challenge::of(rand::random())),
        };
        let message = v1::Lease {
            lease: lease.0,
            instance: prepared.instance.clone(),
            action_digest: Some(prepared.digest.to_wire()),
            digest_function: prepared.digest.function.to_wire(),
            action: Some(prepared.action.clone()),
            command: Some(prepared.command.clone()),
            timeout: Some(kiln_proto::protobuf::Duration {
                seconds: prepared.timeout.as_secs() as i64,
                nanos: prepared.timeout.subsec_nanos() as i32,
            }),
            reserved: Some(v1::Capacity { milli_cpus: reserved.milli_cpus, memory_bytes: reserved.memory_bytes }),
            attempt,
            queued: Some(Timestamp { seconds: action.queued.seconds, nanos: action.queued.nanos }),
            network: prepared.network,
            traceparent: action.traceparent.clone(),
            secrets: action.secrets.clone(),
            grant: grant.seal(self.live.key(), if grant.shell { LONGEST } else { prepared.timeout }),
            credentials: prepared.credentials.clone(),
            times: prepared.times.map(|times| times.to_wire()),
            variables: prepared.variables.clone().into_iter().collect(),
            caches: prepared.caches.clone(),
            hosts: prepared.hosts.clone(),
            split: prepared.split,
            call: is_call,
            // What workers have kept of whoever is distrusted now is not found again.
            tools: match prepared.tools.name.as_str() {
                "" => String::new(),
                name => format!("{name}\n{}", self.distrusted.mark()),
            },
            tools_read_only: prepared.tools.read_only,
            shell: action.shell.as_ref().map(|wanted| wanted.shell.clone()),
            challenge: grant.challenge.map(|challenge| challenge.to_wire()).unwrap_or_default(),
            other_conditions: prepared
                .unlike
                .as_ref()
                .map(|unlike| v1::OtherConditions { not_cpus: unlike.cpus, host_name: unlike.host_name.clone() }),
        };
        let charge = prepared.spread.then(|| action.charge.clone());
        let shell = action.shell.as_ref().map(|wanted| wanted.ends.clone());
        let agents = action.agents.clone().map(|agents| (agents, prepared.agents.clone()));
        self.lease_begins(lease, grant);
        if let Some((agents, names)) = agents {
            self.live.give_agents(lease.0, agents, names);
        }
        if let Some(ends) = shell {
            self.live.give_shell(lease.0, ends);
        }
        if let Some(charge) = charge {
            self.live.charge(lease.0, charge);
        }
        let logs = self.logs.of(lease.0);
        let running = Running { worker: worker.0.to_string(), lease: lease.0, logs };
        self.set(key, State::Executing { running, started: false });
        self.tell(worker, coordinator_message::Message::Lease(message));
    }

    pub(super) fn tell(&mut self, worker: &WorkerId, message: coordinator_message::Message) {
        let Some(link) = self.links.get(worker) else { return };
        let message = v1::CoordinatorMessage { message: Some(message) };
        if link.sender.try_send(message).is_err() {
            // A worker that does not read is treated as lost: its stream ends, and it registers again.
            let connection = link.connection;
            let _ = self.messages.send(Message::Disconnected { worker: worker.0.to_string(), connection });
        }
    }
}

/// What results of an action's compiler calls are kept apart by: the environment that it requires, or the processors whose programs it runs
/// if it brings a root of its own. Compilers and whatever they read are in the keys themselves.
fn environment_of_calls(prepared: &Prepared) -> String {
    let properties = prepared.action.platform.as_ref().map_or(&[][..], |platform| &platform.properties);
    let value = |name: &str| properties.iter().find(|property| property.name == name).map(|found| found.value.clone());
    value(property::ENVIRONMENT)
        .or_else(|| value(property::ISA).map(|isa| format!("root of {isa}")))
        .unwrap_or_default()
}
