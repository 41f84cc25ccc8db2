//! What Kiln's programs say to `--version`.

use std::sync::LazyLock;

use kiln_proto::protocol::PROTOCOL;

/// The commit that this program was built from; empty if unknown.
pub const COMMIT: &str = env!("KILN_BUILD_COMMIT");

/// The text of `--version` after the name, as `0.1.0 (commit 0123456789ab, protocol 2)`.
pub static TEXT: LazyLock<String> = LazyLock::new(|| {
    let commit = if COMMIT.is_empty() { "unknown" } else { COMMIT };
    format!("{} (commit {commit}, protocol {PROTOCOL})", env!("CARGO_PKG_VERSION"))
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_has_version_commit_and_protocol() {
        let (version, rest) = TEXT.split_once(" (commit ").unwrap();
        assert_eq!(version.split('.').count(), 3, "{version}");
        assert!(rest.ends_with(&format!(", protocol {PROTOCOL})")), "{rest}");
    }
}
