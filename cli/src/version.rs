//! Which build of Kiln this is.

use kiln_proto::protocol::PROTOCOL;

/// The commit that this program was built from; empty where the build knew none.
pub const COMMIT: &str = env!("KILN_BUILD_COMMIT");

/// What `--version` says after the name.
pub static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
    let commit = if COMMIT.is_empty() { "unknown" } else { COMMIT };
    format!("{} (commit {commit}, protocol {PROTOCOL})", env!("CARGO_PKG_VERSION"))
});
