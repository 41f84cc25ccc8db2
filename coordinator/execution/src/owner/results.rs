//! Leases that workers hold, and the results that they bring.

use std::sync::Arc;
use std::time::SystemTime;

use kiln_proto::possession::Named;
use kiln_proto::v1::coordinator_message;
use kiln_proto::{made, reapi, scope, v1};
use kiln_scheduler::{Event, LeaseId, Outcome, WorkerId};

use super::super::leases::{Grant, is_sealed};
use super::super::scopes::Scope;
use super::recent::Recent;
use super::{Leased, Message, Owner, key_of};

impl Owner {
    pub(super) fn lease_finished(&mut self, worker: WorkerId, finished: v1::LeaseFinished) {
        let lease = LeaseId(finished.lease);
        if !self.has(&worker, lease) {
            // Nobody waits for it. A worker keeps a result until it is acknowledged.
            if !self.leases.contains_key(&lease) {
                self.acknowledge(&worker, lease);
            }
            return;
        }
        match finished.outcome {
            Some(v1::lease_finished::Outcome::Response(response)) => match self.disbelief(&worker, &response) {
                None => self.examine(worker, lease, response, &finished.seal),
                Some(maker) => {
                    let fault = format!("a result is not believed: its worker `{maker}` is distrusted");
                    self.could_not_run(worker, lease, fault);
                }
            },
            Some(v1::lease_finished::Outcome::WorkerFault(fault)) => self.could_not_run(worker, lease, fault),
            None => self.could_not_run(worker, lease, "the worker reported no outcome".to_owned()),
        }
    }

    /// A worker did not carry out a lease; another one may.
    fn could_not_run(&mut self, worker: WorkerId, lease: LeaseId, fault: String) {
        tracing::warn!(worker = &*worker.0, lease = lease.0, fault, "worker could not run a lease");
        self.live.finish(lease.0);
        self.step(Event::Finished { worker: worker.clone(), lease, outcome: Outcome::WorkerFault(fault) });
        self.acknowledge(&worker, lease);
    }

    /// Looks at what a result names, since others may read it: its worker must have all of it. A sealed result was looked at before, be it by another
    /// coordinator. Continues with [`Message::Examined`].
    fn examine(&mut self, worker: WorkerId, lease: LeaseId, response: reapi::ExecuteResponse, seal: &[u8]) {
        let Some(leased) = self.leases.get(&lease) else { return };
        let Some(access) = self.live.access_of(&leased.grant, &self.scopes) else { return };
        if access.is_refuted() {
            let fault = "its worker wanted to show a blob that it does not have; check its disk, and who runs it";
            return self.could_not_run(worker, lease, fault.to_owned());
        }
        let named = Named::of(leased.action.function, response.result.as_ref().unwrap_or(&Default::default()));
        let named = match named {
            Ok(named) => named,
            Err(error) => {
                return self.could_not_run(worker, lease, format!("the result names an invalid digest: {error}"));
            }
        };
        if named.is_empty() || is_sealed(self.live.key(), lease.0, &named, seal) {
            return self.examined(worker, lease, response, None);
        }
        let messages = self.messages.clone();
        tokio::spawn(async move {
            let objection =
                access.has_named(&named).await.err().map(|status| {
                    format!("the result names what its worker has not shown to have: {}", status.message())
                });
            let response = Box::new(response);
            let _ =
                messages.send(Message::Examined { worker: worker.0.to_string(), lease: lease.0, response, objection });
        });
    }

    pub(super) fn examined(
        &mut self,
        worker: WorkerId,
        lease: LeaseId,
        response: reapi::ExecuteResponse,
        objection: Option<String>,
    ) {
        if !self.has(&worker, lease) {
            return;
        }
        match objection {
            None => self.store_result(worker, lease, response),
            Some(fault) => self.could_not_run(worker, lease, fault),
        }
    }

    /// The worker that is distrusted now, of those that a result is owed to.
    fn disbelief(&self, worker: &WorkerId, response: &reapi::ExecuteResponse) -> Option<String> {
        if self.distrusted.is_empty() {
            return None;
        }
        let metadata = response.result.as_ref().and_then(|result| result.execution_metadata.clone());
        let mut makers = made::makers(&metadata.unwrap_or_default());
        let now = SystemTime::now();
        makers.insert(worker.0.to_string(), Some((now, now)));
        self.distrusted.refuses(&makers).map(str::to_owned)
    }

    /// A worker is distrusted from now on, or trusted again. In the first case what it runs is given to others, and what it has just
    /// made is forgotten.
    pub(super) fn believe(&mut self, worker: WorkerId) {
        if self.distrusted.now().lasts(&worker.0) {
            self.recent = Recent::default();
            let held = self.leases.iter().filter(|(_, leased)| leased.worker == worker).map(|(lease, _)| *lease);
            for lease in held.collect::<Vec<_>>() {
                self.tell(&worker, coordinator_message::Message::Cancel(v1::CancelLease { lease: lease.0 }));
                self.live.finish(lease.0);
                let outcome = Outcome::WorkerFault(format!("its worker `{}` is distrusted", worker.0));
                self.step(Event::Finished { worker: worker.clone(), lease, outcome });
            }
        }
        self.drain(worker);
    }

    /// Ends the shells of a worker that drains: they could last for hours, and nothing of them is kept.
    pub(super) fn end_shells(&mut self, worker: &WorkerId) {
        let held = self.leases.iter().filter(|(_, leased)| leased.is_shell && leased.worker == *worker);
        for lease in held.map(|(lease, _)| *lease).collect::<Vec<_>>() {
            self.tell(worker, coordinator_message::Message::Cancel(v1::CancelLease { lease: lease.0 }));
            let words = "it is draining, which has ended the shell; open another one, it begins anew";
            let outcome = Outcome::WorkerFault(words.to_owned());
            self.step(Event::Finished { worker: worker.clone(), lease, outcome });
        }
    }

    pub(super) fn acknowledge(&mut self, worker: &WorkerId, lease: LeaseId) {
        self.tell(worker, coordinator_message::Message::FinishedAck(v1::FinishedAck { lease: lease.0 }));
    }

    /// Whether this worker holds that lease.
    pub(super) fn has(&self, worker: &WorkerId, lease: LeaseId) -> bool {
        let has = self.leases.get(&lease).is_some_and(|leased| leased.worker == *worker);
        if !has {
            tracing::warn!(
                worker = &*worker.0,
                lease = lease.0,
                "ignored a worker's message about a lease that it does not hold"
            );
        }
        has
    }

    /// Records that a worker holds this lease.
    pub(super) fn lease_begins(&mut self, lease: LeaseId, grant: Grant) {
        self.logs.of(lease.0).belong_to(grant.tenant());
        let leased = Leased {
            worker: WorkerId(grant.worker.as_str().into()),
            instance: grant.instance.clone(),
            action: grant.action,
            is_shell: grant.shell,
            grant: Arc::new(grant),
        };
        self.leases.insert(lease, leased);
        self.live.begin(lease.0);
    }

    /// Stores a success in the action cache, then continues with [`Message::Stored`].
    pub(super) fn store_result(&mut self, worker: WorkerId, lease: LeaseId, mut response: reapi::ExecuteResponse) {
        if let Some(metadata) = response.result.as_mut().and_then(|result| result.execution_metadata.as_mut()) {
            metadata.worker = worker.0.to_string();
            made::record(metadata, SystemTime::now());
        }
        let stored =
            |response| Message::Stored { worker: worker.0.to_string(), lease: lease.0, response: Box::new(response) };
        let (Some(leased), true) =
            (self.leases.get(&lease).cloned().filter(|leased| !leased.is_shell), is_success(&response))
        else {
            return self.handle(stored(response));
        };
        let known = self.actions.get(&key_of(&leased.instance, &leased.action)).map(|action| action.prepared.clone());
        let message = stored(response.clone());
        let (tenant, instance) = scope::split(&leased.instance);
        // A worker may bring a lease of a tenant that is not known here.
        let Some(Scope { stores, preparer }) = self.scopes.of(tenant) else { return self.handle(message) };
        let (instance, messages) = (instance.to_owned(), self.messages.clone());
        tokio::spawn(async move {
            let cacheable = match known {
                Some(prepared) => !prepared.action.do_not_cache,
                // A worker brought the lease. An earlier coordinator may have finished it: a result that exists already
                // stands.
                None => {
                    let has_result =
                        stores.actions.get(&instance, &leased.action).await.is_ok_and(|found| found.is_some());
                    let loaded = preparer.load(&leased.action).await;
                    !has_result && loaded.is_ok_and(|(action, _)| !action.do_not_cache)
                }
            };
            if let (true, Some(result)) = (cacheable, response.result)
                && let Err(error) = stores.actions.put(&instance, &leased.action, result).await
            {
                tracing::error!(%error, action = %leased.action, "cannot write to the action cache; the result is not reused");
            }
            let _ = messages.send(message);
        });
    }
}

pub(super) fn is_success(response: &reapi::ExecuteResponse) -> bool {
    response.status.as_ref().is_none_or(|status| status.code == 0)
        && response.result.as_ref().is_some_and(|result| result.exit_code == 0)
}
