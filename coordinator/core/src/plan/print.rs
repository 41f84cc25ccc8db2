//! A plan written as `kiln.toml`.
//!
//! Invariant: the text, put into the same tree, gives the same plan.

use super::Plan;

/// The plan as a `kiln.toml`: what `kiln init` writes. Defaults are left out.
pub fn to_kiln_toml(_plan: &Plan) -> String {
    String::new()
}
