//! Authentication and authorisation: identities from certificates and tokens, roles, and the one table of the roles
//! that each call requires.
//!
//! Invariant: a call reaches a service only after [`layer`] has put an [`Identity`] into its extensions; services read
//! it with [`identity()`] and never look at credentials.

mod accepted;
pub mod audit;
mod authenticator;
pub mod authority;
mod beliefs;
mod by_name;
mod config;
pub mod connections;
pub mod credentials;
mod error;
mod identity;
pub mod issued;
mod joined;
mod joining;
pub mod jwt;
pub mod layer;
pub mod ledger;
pub mod listener;
mod open_call;
pub mod outgoing;
pub mod peers;
mod problems;
pub mod relay;
pub mod revoked;
mod shelf;
mod shown;
mod table;
pub mod tls;
pub mod tokens;
mod waiting;

pub use accepted::{Accepted, Caller};
pub use authenticator::{Authenticated, Authenticator, Known, Others};
pub use beliefs::Beliefs;
pub use config::{Config, Files};
pub use error::Error;
pub use identity::{Identity, Role, Unknown, check_name, check_scope};
pub use kiln_state::{FarmKey, farm_key};
pub use ledger::Ledger;
pub use open_call::{End, Guarded, end};
pub use shelf::Shelf;
pub use table::{Needs, TABLE, needs};

/// The identity of this call's caller.
pub fn identity<T>(request: &tonic::Request<T>) -> Identity {
    // Services that a test calls directly have no gate.
    request.extensions().get::<Identity>().cloned().unwrap_or_else(Identity::anonymous)
}
