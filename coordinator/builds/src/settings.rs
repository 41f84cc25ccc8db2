//! Settings of builds, apart from the stores and the workers.

use std::sync::Arc;
use std::time::Duration;

use kiln_images::registry;
use kiln_notify::Notifier;
use kiln_planner::plan::Toolchains;
use kiln_signing::Signer;
use kiln_state::Current;
use tokio::sync::watch;
use url::Url;

use crate::{BuildMetrics, Keep};
use kiln_auth::credentials::Credentials;
use kiln_auth::{Identity, Known};

/// What happens to builds that were running when the coordinator ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unfinished {
    /// They are resumed: their clients reconnect, or nobody follows them anyway.
    #[default]
    Resume,
    /// Builds that a client followed are cancelled, because the client ended with the coordinator.
    Interrupt,
}

/// Settings of builds.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The tenant that owns these builds; empty for the default tenant.
    pub tenant: String,
    /// Every build may use emulated workers.
    pub allow_emulation: bool,
    /// How bases of images are fetched.
    pub registries: registry::Options,
    /// The farm's images for languages.
    pub toolchains: Current<Toolchains>,
    /// Credentials for those registries.
    pub credentials: Credentials,
    /// Metrics of builds.
    pub metrics: Option<BuildMetrics>,
    /// What happens to builds that an earlier run left unfinished.
    pub unfinished: Unfinished,
    /// The known identities, to learn of revocations, if the farm requires authentication.
    pub known: Option<watch::Receiver<Arc<Known>>>,
    /// Which builds are kept.
    pub keep: Keep,
    /// How often builds that are too old are removed.
    pub trim_every: Duration,
    /// How long a shell stays open in which nothing happens.
    pub shell_idle: Duration,
    /// Of a million steps of artifacts, so many run again after their build, to be compared.
    pub verify_sample: u64,
    /// Tells webhooks of the ends of builds.
    pub notifier: Option<Notifier>,
    /// Signs what is stated about artifacts.
    pub signer: Option<Signer>,
    /// The farm, as provenance names it (`builder.id`), if it has a URL.
    pub farm_url: Option<Url>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tenant: String::new(),
            allow_emulation: false,
            registries: registry::Options::default(),
            toolchains: Current::default(),
            credentials: Credentials::default(),
            metrics: None,
            unfinished: Unfinished::default(),
            known: None,
            keep: Keep::default(),
            trim_every: Duration::from_secs(60 * 60),
            shell_idle: Duration::from_secs(15 * 60),
            verify_sample: 0,
            notifier: None,
            signer: None,
            farm_url: None,
        }
    }
}

impl Settings {
    /// The URI that identifies the farm.
    pub fn farm(&self) -> String {
        match (&self.farm_url, &self.signer) {
            (Some(url), _) => url.as_str().trim_end_matches('/').to_owned(),
            (None, Some(signer)) => format!("urn:kiln:farm:{}", signer.farm()),
            (None, None) => "urn:kiln:farm".to_owned(),
        }
    }

    /// Resolves once this identity has been revoked.
    pub(super) async fn revoked(&self, whom: &Identity) {
        if let Some(mut known) = self.known.clone().filter(|_| !whom.is_anonymous())
            && known.wait_for(|known| known.revoked.has(whom)).await.is_ok()
        {
            return;
        }
        std::future::pending().await
    }
}
