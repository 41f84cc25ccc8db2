//! Whose a lease is: the tenant's name before the instance's, where coordinator and workers speak of both.
//!
//! Form: `@TENANT/INSTANCE`; the default tenant's is the instance alone. Clients never say it: their tenant is found out from what they
//! show, and an instance that begins so is refused.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The header by which a worker shows for which lease it moves blobs: the lease's grant, in URL-safe base64.
pub const LEASE_HEADER: &str = "kiln-lease";

/// The instance of a tenant.
pub fn scoped(tenant: &str, instance: &str) -> String {
    if tenant.is_empty() { instance.to_owned() } else { format!("@{tenant}/{instance}") }
}

/// The tenant and the instance.
pub fn split(scoped: &str) -> (&str, &str) {
    scoped.strip_prefix('@').and_then(|rest| rest.split_once('/')).unwrap_or(("", scoped))
}

/// Whether a client may name its instance so.
pub fn is_lawful(instance: &str) -> bool {
    !instance.starts_with('@')
}

/// Adds the header to the calls that a worker makes for a lease.
#[derive(Debug, Clone, Default)]
pub struct ForLease(Option<MetadataValue<Ascii>>);

impl ForLease {
    /// For the lease with this grant, as the coordinator sealed it; for none where it is empty.
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
