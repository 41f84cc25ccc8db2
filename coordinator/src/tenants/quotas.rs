//! Tenants' quotas, from a file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use serde::Deserialize;

use kiln_execution::Quota;
use kiln_state::Current;
use kiln_units::size;

/// Why a file of quotas cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the quotas in `{}`: {reason}", .path.display())]
pub struct Error {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

/// One tenant's quota.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TenantQuota {
    /// Maximum concurrent actions; unlimited if absent.
    pub actions: Option<usize>,
    /// Maximum actions that wait for one of those to end; unlimited if absent.
    pub queue: Option<usize>,
    /// Maximum bytes of everything that it stores, such as `50GiB`; if absent, only the common limit `--store-size`
    /// applies to its blobs.
    pub store: Option<String>,
}

/// All quotas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quotas {
    /// For every tenant without a quota of its own.
    #[serde(default)]
    default: TenantQuota,
    /// Quotas by tenant.
    #[serde(default)]
    tenants: BTreeMap<String, TenantQuota>,
}

impl TenantQuota {
    fn check(&self) -> Result<(), String> {
        if self.actions == Some(0) {
            return Err("`actions = 0` allows nothing to run; expected at least 1".to_owned());
        }
        self.store.as_deref().map(size).transpose().map(drop).map_err(|error| error.to_string())
    }

    /// The limit in bytes, if there is one.
    pub fn store_bytes(&self) -> Option<u64> {
        self.store.as_deref().and_then(|text| size(text).ok())
    }

    /// Applies the quota, if there is one, to these stores.
    pub fn bound(&self, kept: &mut kiln_store::Config) {
        if let Some(bytes) = self.store_bytes() {
            kept.counts_all = true;
            kept.max_bytes = kiln_store::Bound::Bytes(bytes);
        }
    }

    fn limits(&self) -> (usize, usize) {
        (self.actions.unwrap_or(usize::MAX), self.queue.unwrap_or(usize::MAX))
    }
}

/// The quotas, and those of open tenants, which follow them. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Limits {
    quotas: Current<Quotas>,
    open: Arc<Mutex<BTreeMap<String, Quota>>>,
}

impl Limits {
    /// With these quotas.
    pub fn new(quotas: Quotas) -> Self {
        Self { quotas: Current::new(quotas), open: Arc::default() }
    }

    /// A tenant's quota.
    pub fn of(&self, tenant: &str) -> TenantQuota {
        self.quotas.get().of(tenant).clone()
    }

    /// The limit of a tenant's actions. It changes with the quotas.
    pub fn actions(&self, tenant: &str) -> Quota {
        let mut open = self.open.lock();
        let (actions, queue) = self.of(tenant).limits();
        open.entry(tenant.to_owned()).or_insert_with(|| Quota::new(tenant, actions, queue)).clone()
    }

    /// Takes over other quotas, and answers the open tenants whose limit of bytes stays as it was until a restart.
    pub fn replace(&self, quotas: Quotas) -> Vec<String> {
        let open = self.open.lock();
        let before = self.quotas.get();
        let mut late = Vec::new();
        for (tenant, quota) in open.iter() {
            let (actions, queue) = quotas.of(tenant).limits();
            quota.change(actions, queue);
            if quotas.of(tenant).store_bytes() != before.of(tenant).store_bytes() {
                late.push(tenant.clone());
            }
        }
        self.quotas.set(quotas);
        late
    }
}

impl Quotas {
    /// Reads a file.
    ///
    /// # Errors
    /// If it cannot be read, or a quota is invalid.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let wrong = |reason: String| Error { path: path.to_owned(), reason };
        let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
        let quotas: Self = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
        quotas.default.check().map_err(|reason| wrong(format!("`default`: {reason}")))?;
        for (tenant, quota) in &quotas.tenants {
            quota.check().map_err(|reason| wrong(format!("tenant `{tenant}`: {reason}")))?;
        }
        Ok(quotas)
    }

    /// A tenant's own quota, or else the default.
    pub fn of(&self, tenant: &str) -> &TenantQuota {
        self.tenants.get(tenant).unwrap_or(&self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Quotas, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("quotas.toml");
        std::fs::write(&path, text).unwrap();
        Quotas::read(&path)
    }

    #[test]
    fn a_tenant_has_its_own_quota_or_the_default() {
        let quotas = read("[default]\nactions = 4\n[tenants.shop]\nstore = \"1GiB\"\nqueue = 9\n").unwrap();
        assert_eq!((quotas.of("other").actions, quotas.of("other").store_bytes()), (Some(4), None));
        assert_eq!((quotas.of("shop").actions, quotas.of("shop").store_bytes()), (None, Some(1 << 30)));
        assert_eq!(quotas.of("shop").limits(), (usize::MAX, 9));
    }

    #[tokio::test]
    async fn open_tenants_follow_quotas_except_for_what_they_store() {
        let limits = Limits::new(read("[default]\nactions = 4\n").unwrap());
        for tenant in ["", "shop"] {
            limits.actions(tenant);
        }
        let late = limits.replace(read("[default]\nactions = 2\n[tenants.shop]\nstore = \"1GiB\"\n").unwrap());
        assert_eq!(late, ["shop"]);
        assert_eq!((limits.of("").actions, limits.of("shop").store_bytes()), (Some(2), Some(1 << 30)));
    }

    #[test]
    fn a_quota_that_is_none_is_refused_in_words() {
        for (text, word) in [
            ("[default]\nactions = 0", "`actions = 0` allows nothing to run"),
            ("[tenants.a]\nstore = \"much\"", "tenant `a`: invalid size `much`"),
            ("[tenants.a]\nspace = 1", "space"),
        ] {
            let error = read(text).expect_err(word).to_string();
            assert!(error.contains(word) && error.contains("quotas.toml"), "expected `{word}` in: {error}");
        }
    }
}
