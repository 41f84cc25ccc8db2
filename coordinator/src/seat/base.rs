//! What a coordinator has whether it leads or not.

use std::sync::Arc;

use kiln_auth::credentials::Credentials;
use kiln_auth::{Authenticator, FarmKey};
use kiln_builds::BuildMetrics;
use kiln_execution::properties::Rules;
use kiln_notify::Notifier;
use kiln_planner::plan::Toolchains;
use kiln_signing::Signer;
use kiln_state::Current;
use kiln_webhooks::WebhookMetrics;
use parking_lot::Mutex;
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
    /// Cancelled when the coordinator shuts down.
    pub stopping: CancellationToken,
}

/// The metrics that what happens in a term counts in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Counted {
    pub builds: Option<BuildMetrics>,
    pub webhooks: Option<WebhookMetrics>,
}

/// The file of webhooks, and who serves it at the moment. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Hooks(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    config: Option<kiln_webhooks::Config>,
    served: Option<kiln_webhooks::Served>,
}

impl Hooks {
    pub(crate) fn new(config: Option<kiln_webhooks::Config>) -> Self {
        Self(Arc::new(Mutex::new(State { config, served: None })))
    }

    /// What to serve in a term that begins.
    pub(super) fn config(&self) -> Option<kiln_webhooks::Config> {
        self.0.lock().config.clone()
    }

    pub(super) fn serves(&self, served: kiln_webhooks::Served) {
        self.0.lock().served = Some(served);
    }

    /// Takes over another file, and answers what of it takes effect after a restart only.
    pub(crate) fn replace(&self, config: Option<kiln_webhooks::Config>) -> Option<&'static str> {
        let mut state = self.0.lock();
        let late = match (&state.served, &config) {
            (Some(served), Some(config)) if served.replace(config.clone()) => None,
            (Some(_), Some(_)) => Some("`listen`, `certificate` and `key` in `--webhooks`"),
            (None, None) => None,
            // There is no listener yet, or one that must go.
            (Some(_), None) | (None, Some(_)) => Some("`webhooks`"),
        };
        state.config = config;
        late
    }
}
