//! The files that the configuration names, besides certificates, tokens and the like, which `kiln_auth` follows by itself.

use kiln_auth::credentials::Credentials;
use kiln_execution::properties::Rules;
use kiln_planner::plan::Toolchains;

use crate::Config;
use crate::tenants::Quotas;
use crate::toolchains;

/// What is in the files.
#[derive(Debug)]
pub struct Files {
    /// `--quotas`.
    pub quotas: Quotas,
    /// `--toolchains`.
    pub toolchains: Toolchains,
    /// `--properties`.
    pub rules: Rules,
    /// `--credentials`.
    pub credentials: Credentials,
    /// `--webhooks`.
    pub hooks: Option<kiln_webhooks::Config>,
    /// `--notify`.
    pub notify: kiln_notify::Config,
}

impl Files {
    /// Reads all of them, and the files that they name.
    ///
    /// # Errors
    /// What is wrong with the first one that cannot be used.
    pub fn read(config: &Config) -> anyhow::Result<Self> {
        Ok(Self {
            quotas: config.quotas.as_deref().map(Quotas::read).transpose()?.unwrap_or_default(),
            toolchains: config.toolchains.as_deref().map(toolchains::read).transpose()?.unwrap_or_default(),
            rules: config.properties.as_deref().map(Rules::read).transpose()?.unwrap_or_default(),
            credentials: Credentials::open(config.credentials.as_deref(), config.own_credentials)?,
            hooks: config.webhooks.as_deref().map(kiln_webhooks::Config::read).transpose()?,
            notify: config.notify.file.as_deref().map(kiln_notify::Config::read).transpose()?.unwrap_or_default(),
        })
    }

    /// What is wrong with each of them.
    pub fn problems(config: &Config) -> Vec<anyhow::Error> {
        // Each one by itself: a coordinator that has only this file.
        let mut one = Config::on_disk(config.listen, config.data_dir.clone(), config.store_bytes);
        let mut problems = Vec::new();
        let mut look = |change: &dyn Fn(&mut Config)| {
            change(&mut one);
            problems.extend(Self::read(&one).err());
            one = Config::on_disk(config.listen, config.data_dir.clone(), config.store_bytes);
        };
        look(&|one| one.quotas.clone_from(&config.quotas));
        look(&|one| one.toolchains.clone_from(&config.toolchains));
        look(&|one| one.properties.clone_from(&config.properties));
        look(&|one| one.credentials.clone_from(&config.credentials));
        look(&|one| one.webhooks.clone_from(&config.webhooks));
        look(&|one| one.notify.file.clone_from(&config.notify.file));
        problems
    }
}
