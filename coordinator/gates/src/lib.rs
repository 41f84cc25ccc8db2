//! What gates check of a finished artifact, from its bill of materials: known vulnerabilities, licences, size.
//!
//! Invariants: pure; whatever cannot be judged is [`Level::Unknown`] and never passes as fine; no input panics.

#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::string_slice,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod components;
mod ecosystem;
mod licenses;
mod osv;
mod predicate;
mod purl;
mod severity;
mod size;
mod verdict;
mod versions;
mod vulnerabilities;

pub use components::{Component, Unreadable, components};
pub use licenses::{InvalidPolicy, Policy as LicensePolicy, check as check_licenses, is_spdx};
pub use predicate::{TEST_RESULT, VULNERABILITIES, read_report, test_result};
pub use severity::Severity;
pub use size::check as check_size;
pub use verdict::{Finding, Level, Outcome, Verdict};
pub use versions::{Scheme, compare};
pub use vulnerabilities::{Ignored, Policy as VulnerabilityPolicy, Scan};
