//! The same attempts, each in the namespaces of another job that has ended.

pub(crate) use super::{attempts, cannot_run};

mod place {
    pub(crate) use crate::place::used as confined;
    pub(crate) use crate::place::{MIB, Place, on};
}

#[path = "calls.rs"]
mod calls;
#[path = "devices.rs"]
mod devices;
#[path = "escape.rs"]
mod escape;
#[path = "recorded.rs"]
mod recorded;
