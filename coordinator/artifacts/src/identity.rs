//! The identifier that leads from what runs in production back to the commit.

use kiln_proto::digest::Digest;
use kiln_proto::v1::Source;

/// Hash digits in an identifier.
const HASH_DIGITS: usize = 12;

/// `{name}-{version, else commit}[-dirty]-{os}-{architecture}-{hash}`, with only characters that are safe in file
/// names.
pub fn id(name: &str, version: Option<&str>, source: &Source, platform: &str, content: &Digest) -> String {
    format!("{}-{:.HASH_DIGITS$}", stem(name, version, source, platform), content.hex())
}

/// An identifier without its hash, used as an archive's file name.
pub fn stem(name: &str, version: Option<&str>, source: &Source, platform: &str) -> String {
    let commit: String = source.commit.chars().take(12).collect();
    let version = match version {
        Some(version) if !version.is_empty() => version.to_owned(),
        _ if !commit.is_empty() => commit,
        _ => "0".to_owned(),
    };
    let dirty = if source.dirty && !version.ends_with("-dirty") { "-dirty" } else { "" };
    clean(&format!("{name}-{version}{dirty}-{}", platform.replace('/', "-")))
}

fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || "._+-".contains(c) { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::digest::DigestFunction;

    #[test]
    fn version_comes_before_commit_and_dirt_is_said() {
        let content = DigestFunction::Sha256.digest(b"abc");
        let mut source = Source { commit: "0123456789abcdef".into(), ..Default::default() };
        assert_eq!(id("shop", Some("1.4.2"), &source, "linux/amd64", &content), "shop-1.4.2-linux-amd64-ba7816bf8f01");
        assert_eq!(id("shop", None, &source, "linux/arm64", &content), "shop-0123456789ab-linux-arm64-ba7816bf8f01");
        source.dirty = true;
        assert_eq!(stem("shop", Some("1"), &source, "linux/amd64"), "shop-1-dirty-linux-amd64");
        assert_eq!(stem("shop", Some("v1-dirty"), &source, "linux/amd64"), "shop-v1-dirty-linux-amd64");
        assert_eq!(
            id("@a/shop", Some("1"), &source, "linux/amd64", &content),
            "_a_shop-1-dirty-linux-amd64-ba7816bf8f01"
        );
    }
}
