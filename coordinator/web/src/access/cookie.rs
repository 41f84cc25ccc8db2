//! The session's cookie (RFC 6265).

use axum::http::{HeaderMap, header};

/// How long a browser keeps it, in seconds; the session may end earlier.
const KEPT: u64 = 7 * 24 * 60 * 60;

/// The value of a cookie.
pub(super) fn read(headers: &HeaderMap, name: &str) -> Option<String> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
}

fn attributes(is_https: bool) -> &'static str {
    if is_https { "Path=/; HttpOnly; SameSite=Strict; Secure" } else { "Path=/; HttpOnly; SameSite=Strict" }
}

/// The header that sets a cookie.
pub(super) fn set(name: &str, value: &str, is_https: bool) -> String {
    format!("{name}={value}; Max-Age={KEPT}; {}", attributes(is_https))
}

/// The header that removes it.
pub(super) fn remove(name: &str, is_https: bool) -> String {
    format!("{name}=; Max-Age=0; {}", attributes(is_https))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_read_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.append(header::COOKIE, "xkiln-1=a; kiln-1=b".parse().unwrap());
        headers.append(header::COOKIE, "kiln-2=c".parse().unwrap());
        assert_eq!(read(&headers, "kiln-1").as_deref(), Some("b"));
        assert_eq!(read(&headers, "kiln-2").as_deref(), Some("c"));
        assert_eq!(read(&headers, "kiln-"), None);
    }

    #[test]
    fn only_over_tls_is_it_confined_to_tls() {
        assert!(set("a", "b", true).contains("; Secure") && !set("a", "b", false).contains("Secure"));
    }
}
