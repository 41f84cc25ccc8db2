//! What the coordinators of one farm agree by: a lease that one of them holds, and a journal that only its holder writes.
//!
//! Invariants: whoever leads stops before its lease ends, by its own monotonic clock, counted from when it asked for the lease. Whatever
//! a coordinator believes, its commits are refused unless its term holds the lease at the moment of the commit.

mod clock;
mod error;
mod holder;
pub mod memory;
mod redis;
mod register;
mod replica;
mod replicas;
mod shelf;
mod standing;
mod timing;

pub use error::Error;
pub use redis::RedisRegister;
pub use register::{Claimed, Register};
pub use replica::{Replica, Term};
pub use replicas::Replicas;
pub use shelf::Shelf;
pub use standing::{Lead, Standing};
pub use timing::Timing;
