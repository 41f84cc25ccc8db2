//! Names of a farm's keys. All contain the hash tag `{PREFIX}`, so that a cluster keeps them on one node, where a script can use
//! all of them.

/// Names of the keys below one prefix.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// `None` if the prefix cannot be a hash tag.
    pub(super) fn new(prefix: &str) -> Option<Self> {
        let is_tag = !prefix.is_empty() && !prefix.contains(['{', '}']);
        is_tag.then(|| Self { prefix: prefix.to_owned() })
    }

    /// The hash tag, and the farm's name.
    pub(super) fn tag(&self) -> &str {
        &self.prefix
    }

    fn named(&self, name: &str) -> String {
        format!("{{{}}}:{name}", self.prefix)
    }

    /// A hash: who holds the lease. It expires with the lease.
    pub(super) fn lease(&self) -> String {
        self.named("lease")
    }

    /// The last epoch.
    pub(super) fn epoch(&self) -> String {
        self.named("epoch")
    }

    /// A hash: replicas by name, with the time of their announcement by the clock of Redis.
    pub(super) fn announced(&self) -> String {
        self.named("replicas")
    }

    /// The farm's id, sealed.
    pub(super) fn farm(&self) -> String {
        self.named("farm")
    }

    /// What is kept for a while under a name.
    pub(super) fn shelf(&self, name: &str) -> String {
        self.named(&format!("shelf:{name}"))
    }

    /// A set: tenants that have a journal.
    pub(super) fn tenants(&self) -> String {
        self.named("tenants")
    }

    /// Keys of a tenant's journal.
    pub(super) fn journal(&self, tenant: &str) -> JournalKeys {
        // A colon would end it.
        let tenant = tenant.replace('%', "%25").replace(':', "%3A");
        JournalKeys { prefix: self.named(&format!("journal:{tenant}:")) }
    }
}

/// Names of the keys of one journal.
#[derive(Debug, Clone)]
pub(super) struct JournalKeys {
    prefix: String,
}

impl JournalKeys {
    /// The last commit: its term and its number.
    pub(super) fn last(&self) -> String {
        format!("{}last", self.prefix)
    }

    /// A stream.
    pub(super) fn stream(&self, name: &str) -> String {
        format!("{}stream:{name}", self.prefix)
    }

    /// A hash: the records of a space.
    pub(super) fn records(&self, space: &str) -> String {
        format!("{}records:{space}", self.prefix)
    }

    /// A sorted set: the keys of a space in their order.
    pub(super) fn order(&self, space: &str) -> String {
        format!("{}order:{space}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_journals_share_a_key() {
        let keys = Keys::new("kiln").unwrap();
        assert_eq!(keys.journal("").stream("x"), "{kiln}:journal::stream:x");
        let keys = ["a", "a:stream", "a%3Astream", ""].map(|tenant| keys.journal(tenant).stream("stream:x"));
        let different: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert!(["", "a{b", "}"].iter().all(|prefix| Keys::new(prefix).is_none()));
    }
}
