//! Whose a lease is: the tenant's name before the instance's, where coordinator and workers speak of both.
//!
//! Form: `@TENANT/INSTANCE`; the default tenant's is the instance alone. Clients never say it: their tenant is found out from what they
//! show, and an instance that begins so is refused.

use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// The header by which a worker says for whose lease it moves blobs.
pub const HEADER: &str = "kiln-tenant";

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

/// Adds the header to the calls for a tenant's leases.
#[derive(Debug, Clone, Default)]
pub struct OfTenant(Option<MetadataValue<Ascii>>);

impl OfTenant {
    /// The tenant of a scoped instance.
    pub fn of(scoped: &str) -> Self {
        let (tenant, _) = split(scoped);
        Self(Some(tenant).filter(|tenant| !tenant.is_empty()).and_then(|tenant| tenant.parse().ok()))
    }
}

impl Interceptor for OfTenant {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(tenant) = &self.0 {
            request.metadata_mut().insert(HEADER, tenant.clone());
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
