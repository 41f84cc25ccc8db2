//! What a coordinator has whether it leads or not.

use kiln_auth::credentials::Credentials;
use kiln_auth::{Authenticator, FarmKey};
use kiln_builds::BuildMetrics;
use kiln_execution::properties::Rules;
use kiln_notify::Notifier;
use kiln_peers::Others;
use kiln_planner::plan::Toolchains;
use kiln_signing::Signer;
use kiln_state::Current;
use kiln_webhooks::WebhookMetrics;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Common;
use crate::Config;
use crate::tenants::Limits;
use kiln_auth::Beliefs;

/// What a coordinator has in any case. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Base {
    pub config: Config,
    pub authenticator: Authenticator,
    pub key: FarmKey,
    /// Which workers are distrusted.
    pub beliefs: Beliefs,
    pub common: Common,
    pub quotas: Limits,
    pub toolchains: Current<Toolchains>,
    pub rules: Current<Rules>,
    pub credentials: Credentials,
    pub notifier: Notifier,
    /// Signs what is stated about artifacts.
    pub signer: Option<Signer>,
    pub hooks: Hooks,
    /// Links that log a browser in to the web pages.
    pub links: kiln_web::Links,
    /// Where the web pages are.
    pub pages: Option<Url>,
    pub counted: Counted,
    /// The farm's other coordinators; none if this is its only one.
    pub others: Option<Others>,
    /// Cancelled when the coordinator shuts down.
    pub stopping: CancellationToken,
}

/// The metrics that what happens in a term counts in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    pub builds: Option<BuildMetrics>,
    pub webhooks: Option<WebhookMetrics>,
}

/// What the file of webhooks says, if there is one. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Hooks(Option<kiln_webhooks::Served>);

impl Hooks {
    pub(crate) fn new(config: Option<kiln_webhooks::Config>) -> Self {
        Self(config.map(kiln_webhooks::Served::new))
    }

    /// What is served.
    pub(crate) fn served(&self) -> Option<&kiln_webhooks::Served> {
        self.0.as_ref()
    }

    /// Takes over another file, and answers what of it takes effect after a restart only.
    pub(crate) fn replace(&self, config: Option<kiln_webhooks::Config>) -> Option<&'static str> {
        match (&self.0, config) {
            (Some(served), Some(config)) => {
                (!served.replace(config)).then_some("`listen`, `certificate` and `key` in `--webhooks`")
            }
            (None, None) => None,
            // There is no listener yet, or one that must go.
            (Some(_), None) | (None, Some(_)) => Some("`webhooks`"),
        }
    }
}
