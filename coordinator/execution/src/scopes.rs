//! The stores of each tenant that may have leases.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::prepare::Preparer;
use super::properties::Rules;
use kiln_state::Current;
use kiln_store::Stores;

/// The stores of one tenant's leases.
#[derive(Debug, Clone)]
pub(super) struct Scope {
    pub(super) stores: Stores,
    pub(super) preparer: Arc<Preparer>,
}

/// All tenants' stores; the default tenant has the empty name. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Scopes {
    all: Arc<RwLock<HashMap<String, Scope>>>,
    rules: Current<Rules>,
}

impl Scopes {
    pub(super) fn new(rules: Current<Rules>) -> Self {
        Self { all: Arc::default(), rules }
    }

    pub(super) fn add(&self, tenant: &str, stores: &Stores) -> Scope {
        let scope =
            Scope { preparer: Arc::new(Preparer::new(stores.clone(), self.rules.clone())), stores: stores.clone() };
        self.all.write().insert(tenant.to_owned(), scope.clone());
        scope
    }

    pub(super) fn of(&self, tenant: &str) -> Option<Scope> {
        self.all.read().get(tenant).cloned()
    }
}
