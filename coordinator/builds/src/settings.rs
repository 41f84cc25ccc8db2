//! What builds are run with, beside the stores and the workers.

use std::sync::Arc;

use kiln_images::registry;
use tokio::sync::watch;

use crate::BuildMetrics;
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
#[derive(Debug, Clone, Default)]
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
