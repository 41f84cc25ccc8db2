//! Artifacts: turns steps' outputs into an immutable, traceable artifact with an identifier.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod archive;
mod assemble;
mod bundle;
mod check;
mod checks;
mod choose;
pub(crate) mod elf;
mod gates;
mod identity;
mod image;
mod links;
mod owed;
mod provenance;
mod sbom;
mod start;

pub use assemble::{Error, Ingredients, Made, SentContext, SentContexts, assemble};
pub use bundle::{Found, System};
pub use checks::{CheckError, Checked, Checking};
pub use gates::{asks_for_provenance, beside, definition, stable_provenance};
pub use identity::{id, stem};
pub use image::dockerfile::{Checkout, Command, Commands, DEFAULT_AGENT, Download, Login, Ran, network};
pub use image::{BaseError, Bases, ImageRoot, ImageRootError, InImage, Shown, install, invalid_base, report_path};
pub use owed::steps_owed_to;
pub use provenance::{Material, StepFact, Subject, about, statement};
pub use sbom::spdx::document as spdx;
pub use sbom::system::Installed;
pub use sbom::{document as sbom, read_locks};

/// Timestamp in archives and layers: 2000-01-01, as everywhere in a build. The commit's date would change every layer
/// with each commit.
const MTIME: u64 = 946_684_800;

/// A file's permission bits in archives and layers.
fn file_mode(executable: bool, mode: Option<u32>) -> u32 {
    mode.unwrap_or(if executable { 0o755 } else { 0o644 })
}
