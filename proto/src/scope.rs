//! Scoped instance names: the tenant's name before the instance's, used between coordinator and workers.
//!
//! Form: `@TENANT/INSTANCE`; for the default tenant, only the instance. Clients never send the tenant, which follows
//! from their credentials, and an instance that starts like this is refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The header with the lease for which a worker transfers blobs: the lease's grant, in URL-safe base64.
pub const LEASE_HEADER: &str = "kiln-lease";

/// The scoped name of a tenant's instance.
pub fn scoped(tenant: &str, instance: &str) -> String {
    if tenant.is_empty() { instance.to_owned() } else { format!("@{tenant}/{instance}") }
}

/// The tenant and the instance of a scoped name.
pub fn split(scoped: &str) -> (&str, &str) {
    scoped.strip_prefix('@').and_then(|rest| rest.split_once('/')).unwrap_or(("", scoped))
}

/// Whether a client may use this instance name.
pub fn is_lawful(instance: &str) -> bool {
    !instance.starts_with('@')
}

/// Adds the header to a worker's calls for a lease.
#[derive(Debug, Clone, Default)]
pub struct ForLease(Option<MetadataValue<Ascii>>);

impl ForLease {
    /// For the lease with this grant, as sealed by the coordinator; empty for none.
    pub fn of(grant: &[u8]) -> Self {
        Self(Some(grant).filter(|grant| !grant.is_empty()).and_then(|grant| URL_SAFE_NO_PAD.encode(grant).parse().ok()))
    }
}

impl Interceptor for ForLease {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(grant) = &self.0 {
            request.metadata_mut().insert(LEASE_HEADER, grant.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_reads_as_it_was_written() {
        for (tenant, instance) in [("", ""), ("", "main"), ("shop", ""), ("shop", "a/b")] {
            assert_eq!(split(&scoped(tenant, instance)), (tenant, instance));
        }
        assert!(is_lawful("main") && !is_lawful("@shop/main"));
    }
}
