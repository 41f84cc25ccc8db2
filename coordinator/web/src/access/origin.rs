//! Where a request comes from, and under which name it reached this farm.

use std::net::IpAddr;

use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, header};

/// The host that a request names, with its port if it names one.
pub(super) fn host(parts: &Parts) -> Option<String> {
    // HTTP/2 has it in the URI.
    if let Some(authority) = parts.uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    parts.headers.get(header::HOST)?.to_str().ok().map(str::to_owned)
}

/// Whether a page of another site cannot have this name: an address, `localhost`, or the farm's own name. A site that rebinds its name to
/// this machine's address still sends its name.
pub(super) fn is_safe_host(host: Option<&str>, own: Option<&str>) -> bool {
    let Some(authority) = host.and_then(|host| host.parse::<Authority>().ok()) else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
    name.parse::<IpAddr>().is_ok() || name == "localhost" || own.is_some_and(|own| own.eq_ignore_ascii_case(&name))
}

/// Whether a request was made by a page of this farm. A browser says so; what does not say it is refused.
pub(super) fn is_same(headers: &HeaderMap, host: Option<&str>) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    // https://www.w3.org/TR/fetch-metadata/
    if let Some(site) = text("sec-fetch-site") {
        return site == "same-origin";
    }
    let origin = text("origin").and_then(|origin| url::Url::parse(origin).ok());
    let (Some(origin), Some(host)) = (origin, host) else { return false };
    let Some(name) = origin.host_str() else { return false };
    let own = origin.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
    own.eq_ignore_ascii_case(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_another_site_could_have_is_not_safe() {
        for safe in ["127.0.0.1:8982", "localhost:1", "LOCALHOST", "[::1]:8982", "10.1.2.3", "farm.example:8982"] {
            assert!(is_safe_host(Some(safe), Some("farm.example")), "for `{safe}`");
        }
        for unsafe_host in ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "a b", "evil:x"] {
            assert!(!is_safe_host(Some(unsafe_host), Some("farm.example")), "for `{unsafe_host}`");
        }
        assert!(!is_safe_host(None, None));
    }

    #[test]
    fn a_form_is_of_the_same_site_only_if_the_browser_says_so() {
        let with = |pairs: &[(&'static str, &str)]| {
            pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect::<HeaderMap>()
        };
        let is = |pairs: &[(&'static str, &str)]| is_same(&with(pairs), Some("farm.example:8982"));
        assert!(is(&[("sec-fetch-site", "same-origin")]));
        assert!(is(&[("origin", "https://farm.example:8982")]));
        for site in ["cross-site", "same-site", "none", ""] {
            assert!(!is(&[("sec-fetch-site", site), ("origin", "https://farm.example:8982")]), "for `{site}`");
        }
        for origin in ["null", "https://evil.example", "https://farm.example", "https://farm.example:1", ""] {
            assert!(!is(&[("origin", origin)]), "for `{origin}`");
        }
        assert!(!is(&[]), "what does not say where it is from is refused");
    }
}
