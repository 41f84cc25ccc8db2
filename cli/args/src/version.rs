//! The version of this program.

use kiln_proto::protocol::PROTOCOL;

/// The commit that this program was built from; empty if unknown.
pub const COMMIT: &str = env!("KILN_BUILD_COMMIT");

/// The text of `--version` after the name.
pub static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    let commit = if COMMIT.is_empty() { "unknown" } else { COMMIT };
    format!("{} (commit {commit}, protocol {PROTOCOL})", env!("CARGO_PKG_VERSION"))
});
