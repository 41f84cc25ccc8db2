//! What a coordinator has while it leads: workers and the queue, builds, journals.

use kiln_execution::{ExecutionHandle, Memory};
use kiln_proto::channel::MAX_MESSAGE_BYTES;
use kiln_proto::v1::deliveries_server::DeliveriesServer;
use kiln_proto::v1::membership_server::MembershipServer;
use kiln_proto::v1::workers_server::WorkersServer;
use kiln_webhooks::Webhooks;
use tonic::service::Routes;

use super::Base;
use crate::Config;
use crate::services::{membership, workers};
use crate::tenants::{Journals, Shared, Tenants};

/// How long after a start an action waits for a matching worker: workers connect within seconds.
const MATCH_GRACE_MS: u64 = 15_000;
/// How long an action waits for more workers after the first one connected.
const MATCH_SETTLE_MS: u64 = 2_000;
/// How long after a start an action waits for the workers that were connected before and may be running it: twice the longest pause
/// between their attempts to come back.
const RETURN_GRACE_MS: u64 = 10_000;

/// A period in which a coordinator leads.
#[derive(Debug)]
pub(crate) struct Term {
    pub tenants: Tenants,
    /// The services that belong to the farm rather than a tenant.
    pub farm: Routes,
}

impl Term {
    /// Opens all that was written down before, and continues it.
    ///
    /// # Errors
    /// If the journals cannot be used.
    pub(crate) async fn open(base: &Base, journals: Journals) -> anyhow::Result<Self> {
        let data_dir = &base.config.data_dir;
        let own = base.common.stores.own();
        let journal = journals.of("", own.directory()).await?;
        let options = kiln_execution::Options {
            key: Some(base.key.clone()),
            scheduling: scheduling(&base.config, journals.epoch()),
            rules: base.rules.clone(),
            memory: Memory::open(journal.clone(), &data_dir.join("workers")).await?,
            credentials: base.credentials.clone(),
            epoch: journals.epoch(),
        };
        let execution = ExecutionHandle::open(own.stores.clone(), options).with_quota(Some(base.quotas.actions("")));
        let shared = Shared {
            config: base.config.clone(),
            stores: base.common.stores.clone(),
            execution: execution.clone(),
            builds: base.counted.builds.clone(),
            known: base.authenticator.known(),
            stopping: base.stopping.clone(),
            quotas: base.quotas.clone(),
            toolchains: base.toolchains.clone(),
            links: base.links.clone(),
            downloads: base.config.downloads()?,
            notifier: base.notifier.clone(),
            signer: base.signer.clone(),
            journals,
        };
        let tenants = Tenants::open(shared, journal.clone()).await?;
        tenants.resume().await?;
        let mut webhooks = None;
        if let Some(served) = base.hooks.served() {
            let farm = kiln_webhooks::Farm {
                data_dir: data_dir.clone(),
                journal,
                tenants: std::sync::Arc::new(tenants.clone()),
                metrics: base.counted.webhooks.clone(),
                pages: base.pages.clone(),
            };
            webhooks = Some(Webhooks::open(served, farm, base.stopping.clone()).await?);
        }
        macro_rules! sized {
            ($service:expr) => {
                $service.max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES)
            };
        }
        let members = membership::Membership::new(
            base.authenticator.clone(),
            execution.clone(),
            std::sync::Arc::new(tenants.clone()),
            base.beliefs.clone(),
            base.others.clone(),
        );
        let mut farm = Routes::new(sized!(MembershipServer::new(members)))
            .add_service(sized!(WorkersServer::new(workers::Workers::new(execution))));
        if let Some(webhooks) = webhooks {
            farm = farm.add_service(sized!(DeliveriesServer::new(webhooks)));
        }
        Ok(Self { tenants, farm })
    }

    /// Workers and the queue.
    pub(crate) fn execution(&self) -> &ExecutionHandle {
        self.tenants.execution()
    }
}

fn scheduling(config: &Config, epoch: u64) -> kiln_scheduler::Config {
    kiln_scheduler::Config {
        // Random, so that lease ids cannot be guessed and those of an earlier run are distinct.
        lease_seed: Some(rand::random()),
        lease_epoch: epoch,
        match_grace: MATCH_GRACE_MS,
        match_settle: MATCH_SETTLE_MS,
        return_grace: RETURN_GRACE_MS,
        queue_timeout: config.queue_timeout.as_millis() as u64,
        pools: config.pools.clone(),
        ..kiln_scheduler::Config::default()
    }
}
