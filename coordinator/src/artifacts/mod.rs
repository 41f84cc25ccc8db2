//! Artifacts: from the outputs of steps to an immutable, traceable thing under one identifier.

mod assemble;
mod identity;
mod layout;
mod provenance;

pub use assemble::{Error, Made, assemble};
pub use identity::id;
pub use provenance::{StepFact, Subject, statement};
