//! What can change while the coordinator runs.
//!
//! Invariant: a configuration replaces the earlier one only if all of its files can be used; otherwise nothing changes.

use kiln_auth::credentials::Credentials;
use kiln_execution::properties::Rules;
use kiln_notify::Notifier;
use kiln_planner::plan::Toolchains;
use kiln_state::Current;
use tokio::sync::{mpsc, oneshot};

use crate::Config;
use crate::check;
use crate::files::Files;
use crate::seat::{Base, Hooks};
use crate::tenants::Limits;

/// Options of the coordinator that a reload applies.
pub const RELOADED: [&str; 7] = ["log", "quotas", "toolchains", "properties", "credentials", "notify", "webhooks"];

/// Replaces the configuration of a coordinator that runs.
#[derive(Debug, Clone)]
pub struct Reload(mpsc::Sender<Order>);

/// Configurations that replace that of a coordinator.
#[derive(Debug)]
pub struct Reloads(mpsc::Receiver<Order>);

type Order = (Box<Config>, oneshot::Sender<Result<Vec<String>, Vec<String>>>);

impl Reloads {
    /// Both ends.
    pub fn new() -> (Reload, Self) {
        let (sender, receiver) = mpsc::channel(1);
        (Reload(sender), Self(receiver))
    }

    /// None ever.
    pub(crate) fn never() -> Self {
        Self::new().1
    }
}

impl Reload {
    /// Applies a configuration, and answers what of it takes effect after a restart only.
    ///
    /// # Errors
    /// What is wrong with its files. Nothing has changed then.
    pub async fn apply(&self, config: Config) -> Result<Vec<String>, Vec<String>> {
        let (done, applied) = oneshot::channel();
        let ends = || Err(vec!["the coordinator is starting or ending".to_owned()]);
        if self.0.send((Box::new(config), done)).await.is_err() {
            return ends();
        }
        applied.await.unwrap_or_else(|_| ends())
    }
}

/// Everything in a running coordinator that can be replaced.
#[derive(Debug)]
pub(crate) struct Live {
    pub quotas: Limits,
    pub toolchains: Current<Toolchains>,
    pub rules: Current<Rules>,
    pub credentials: Credentials,
    pub notifier: Notifier,
    pub hooks: Hooks,
}

impl Live {
    /// What of a coordinator can be replaced.
    pub fn of(base: &Base) -> Self {
        Self {
            quotas: base.quotas.clone(),
            toolchains: base.toolchains.clone(),
            rules: base.rules.clone(),
            credentials: base.credentials.clone(),
            notifier: base.notifier.clone(),
            hooks: base.hooks.clone(),
        }
    }

    /// Applies configurations for as long as there are any.
    pub async fn follow(self, mut reloads: Reloads) {
        while let Some((config, done)) = reloads.0.recv().await {
            let reading = tokio::task::spawn_blocking(move || {
                let problems = check::problems(&config);
                if problems.is_empty() {
                    Files::read(&config).map_err(|error| vec![format!("{error:#}")])
                } else {
                    Err(problems)
                }
            });
            let read = reading.await.unwrap_or_else(|error| Err(vec![error.to_string()]));
            let _ = done.send(read.map(|files| self.replace(files)));
        }
    }

    fn replace(&self, files: Files) -> Vec<String> {
        let Files { quotas, toolchains, rules, credentials, hooks, notify } = files;
        let stores = self.quotas.replace(quotas);
        let mut late: Vec<String> =
            stores.iter().map(|tenant| format!("`store` of tenant `{tenant}` in `--quotas`")).collect();
        self.toolchains.set(toolchains);
        self.rules.set(rules);
        self.credentials.replace(&credentials);
        self.notifier.replace(notify);
        late.extend(self.hooks.replace(hooks).map(str::to_owned));
        late
    }
}
