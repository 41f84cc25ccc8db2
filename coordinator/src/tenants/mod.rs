//! Tenants: each has its own stores, builds and layers, and services that only access these.
//!
//! Invariant: a tenant's data is accessible only to its own services, so no digest, name or number of another tenant
//! opens anything. Tenants share workers and the scheduler but no data: what two of them build alike is built and
//! stored twice. In return, knowing a digest proves nothing.

mod quotas;
mod route;
mod stack;

pub use quotas::{Error as QuotaError, Limits, Quotas, TenantQuota};
pub use route::ByTenant;
pub use stack::{Shared, Stack, Tenants, journal};
