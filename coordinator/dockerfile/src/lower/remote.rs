//! Sources of `ADD` that are elsewhere.

use percent_encoding::percent_decode_str;

use crate::git::GitSource;
use crate::golang;

/// Whether a source is a URL of a file.
pub(super) fn is_url(source: &str) -> bool {
    (source.starts_with("http://") || source.starts_with("https://")) && GitSource::read(source).is_none()
}

/// The name of the file at a URL: the last part of its path.
pub(super) fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    match golang::base(&percent_decode_str(path).decode_utf8_lossy()) {
        "." | ".." | "/" => "__unnamed__".to_owned(),
        name => name.replace('\0', "_"),
    }
}

/// Whether a text is a digest of a file.
pub(super) fn is_digest(text: &str) -> bool {
    let Some((algorithm, hex)) = text.split_once(':') else { return false };
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return false,
    };
    hex.len() == length && hex.chars().all(|c| c.is_ascii_digit() || matches!(c, 'a'..='f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_by_their_urls() {
        for (url, name) in [
            ("https://example.com/a/b.tar.gz?x=/y#z", "b.tar.gz"),
            ("https://example.com", "__unnamed__"),
            ("https://example.com/", "__unnamed__"),
            ("https://example.com/a/", "a"),
            ("https://example.com/a%20b", "a b"),
            ("https://example.com/..", "__unnamed__"),
            ("https://example.com/%2e%2e", "__unnamed__"),
            ("https://example.com/a%+ab%2", "a%+ab%2"),
        ] {
            assert_eq!(file_name(url), name, "{url}");
        }
        assert!(is_url("http://a/b") && !is_url("https://a/b.git") && !is_url("a/b"));
    }
}
