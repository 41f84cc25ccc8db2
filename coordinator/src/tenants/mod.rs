//! Tenants: each has stores, builds and layers of its own, and services over them that know of nobody else's.
//!
//! Invariant: what a tenant stores lies where only its own services look, so that no digest, name or number of another's opens anything.
//! Tenants share workers and the scheduler, and no byte: what two of them build alike is built and kept twice. That is the price of a
//! digest proving nothing.

mod quotas;
mod route;
mod stack;

pub use quotas::{Error as QuotaError, Quotas, TenantQuota};
pub use route::ByTenant;
pub use stack::{Shared, Stack, Tenants};
