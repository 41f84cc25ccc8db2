//! What builds are run with, beside the stores and the workers.

use std::sync::Arc;
use std::time::Duration;

use kiln_images::registry;
use tokio::sync::watch;

use crate::{BuildMetrics, Keep};
use kiln_auth::credentials::Credentials;
use kiln_auth::{Identity, Known};

/// What becomes of the builds that ran when the coordinator ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unfinished {
    /// They go on: their clients come back, or nobody follows them anyway.
    #[default]
    Resume,
    /// Those that a client followed are cancelled, for it ended with the coordinator.
    Interrupt,
}

/// How builds are run.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Whose builds these are; empty for the default tenant's.
    pub tenant: String,
    /// Every build may take emulated workers.
    pub allow_emulation: bool,
    /// How bases of images are fetched.
    pub registries: registry::Options,
    /// What they are shown.
    pub credentials: Credentials,
    /// What is counted of builds.
    pub metrics: Option<BuildMetrics>,
    /// What becomes of builds that an earlier run left.
    pub unfinished: Unfinished,
    /// Who is revoked, where the farm asks who calls.
    pub known: Option<watch::Receiver<Arc<Known>>>,
    /// Which builds are kept.
    pub keep: Keep,
    /// How often it is looked for builds that have become too old.
    pub trim_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenant: String::new(),
            allow_emulation: false,
            registries: registry::Options::default(),
            credentials: Credentials::default(),
            metrics: None,
            unfinished: Unfinished::default(),
            known: None,
            keep: Keep::default(),
            trim_every: Duration::from_secs(60 * 60),
        }
    }
}

impl Settings {
    /// Resolves once this one has been revoked.
    pub(super) async fn revoked(&self, whom: &Identity) {
        if let Some(mut known) = self.known.clone().filter(|_| !whom.is_anonymous())
            && known.wait_for(|known| known.revoked.has(whom)).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
