//! Artifacts: from the outputs of steps to an immutable, traceable thing under one identifier.

mod archive;
mod assemble;
mod check;
mod choose;
mod file;
mod identity;
mod image;
mod links;
mod provenance;
mod sbom;

pub use assemble::{Error, Ingredients, Made, assemble};
pub use identity::id;
pub use image::{BaseError, Bases, invalid_base};
pub use provenance::{Material, StepFact, Subject, statement};
pub use sbom::{document as sbom, read_locks};

/// Times in archives and layers: 2000-01-01, as everywhere in a build. The commit's own would give every commit other layers.
const MTIME: u64 = 946_684_800;
