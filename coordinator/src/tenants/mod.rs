//! Tenants: each has its own stores, builds and layers, and services that only access these.
//!
//! Invariant: a tenant's data is accessible only to its own services, so no digest, name or number of another tenant
//! opens anything. Tenants share workers and the scheduler but no data: what two of them build alike is built and
//! stored twice. In return, knowing a digest proves nothing.

mod dependents;
mod journals;
mod quotas;
mod stack;
mod stores;

use tonic::Status;

pub use journals::Journals;
pub use quotas::{Error as QuotaError, Limits, Quotas, TenantQuota};
pub use stack::{Shared, Stack, Tenants};
pub use stores::{AllStores, Opened};

/// The answer to a call for a tenant that cannot be opened; the reason is the farm's business.
fn cannot_open(tenant: &str, error: &anyhow::Error) -> Status {
    tracing::error!(tenant, error = format!("{error:#}"), "cannot open a tenant");
    Status::unavailable(format!("cannot open the data of tenant `{tenant}`; see the coordinator's log for the reason"))
}
