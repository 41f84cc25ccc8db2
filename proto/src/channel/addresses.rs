//! The addresses of a farm's coordinators as people write them: one URL, or several separated by commas.

use tonic::transport::Uri;

/// Why a list of addresses cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("an address is missing in `{urls}`; expected the coordinators' addresses separated by single commas")]
    Empty { urls: String },
    #[error(
        "`{urls}` mixes TLS and plain HTTP; expected `https://…` for all coordinators of a farm, or `http://…` for all"
    )]
    Mixed { urls: String },
    #[error("`{url}` is twice in `{urls}`; expected each coordinator once")]
    Repeated { url: String, urls: String },
    #[error("`{url}` cannot be one of several addresses; expected `https://HOST:PORT` or `http://HOST:PORT`")]
    Unusable { url: String },
}

/// The addresses in `urls`, in their order. A single one is not looked at: whoever connects to it does.
///
/// # Errors
/// If one is missing or given twice, or some of them use TLS and others do not.
pub fn addresses(urls: &str) -> Result<Vec<String>, Error> {
    let all = urls.trim();
    // A socket's path may contain commas.
    if !all.contains(',') || all.starts_with("unix:") {
        return Ok(vec![all.to_owned()]);
    }
    let mut found: Vec<(String, Place)> = Vec::new();
    for url in all.split(',').map(str::trim) {
        if url.is_empty() {
            return Err(Error::Empty { urls: all.to_owned() });
        }
        let place = place(url).ok_or_else(|| Error::Unusable { url: url.to_owned() })?;
        if found.iter().any(|(_, known)| known.is_tls != place.is_tls) {
            return Err(Error::Mixed { urls: all.to_owned() });
        }
        if found.iter().any(|(_, known)| *known == place) {
            return Err(Error::Repeated { url: url.to_owned(), urls: all.to_owned() });
        }
        found.push((url.to_owned(), place));
    }
    Ok(found.into_iter().map(|(url, _)| url).collect())
}

/// An address, however it is written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    is_tls: bool,
    pub(super) host: String,
    pub(super) port: u16,
}

/// Where a URL leads; `None` if it is not one of a coordinator on the network.
pub(super) fn place(url: &str) -> Option<Place> {
    let uri: Uri = super::normal(url)?.parse().ok()?;
    let is_tls = match uri.scheme_str()? {
        "https" => true,
        "http" => false,
        _ => return None,
    };
    let port = match uri.authority()?.as_str().strip_prefix(uri.host()?)? {
        "" if is_tls => 443,
        "" => 80,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    let host = uri.host()?.trim_matches(['[', ']']).to_ascii_lowercase();
    Some(Place { is_tls, host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_separated_by_commas() {
        for (urls, expected) in [
            ("https://a:8980", vec!["https://a:8980"]),
            (" https://a:8980 , https://b:8980 ", vec!["https://a:8980", "https://b:8980"]),
            ("a:1,http://b:1,grpc://c:1", vec!["a:1", "http://b:1", "grpc://c:1"]),
            ("http://[::1]:1,http://127.0.0.1:1", vec!["http://[::1]:1", "http://127.0.0.1:1"]),
            ("unix:///home/a,b/socket", vec!["unix:///home/a,b/socket"]),
        ] {
            assert_eq!(addresses(urls).unwrap(), expected);
        }
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused_with_the_reason() {
        for (urls, word) in [
            ("https://a:1,,https://b:1", "missing"),
            ("https://a:1,", "missing"),
            (",", "missing"),
            ("https://a:1,http://b:1", "mixes"),
            ("grpcs://a:1,b:1", "mixes"),
            ("https://a:1,https://A:1/", "twice"),
            ("https://a,grpcs://a:443", "twice"),
            ("http://a:1,unix:///b", "cannot be one of several"),
            ("http://a:1,ftp://b:1", "cannot be one of several"),
            ("http://a:1,http://b:99999", "cannot be one of several"),
            ("http://a:1,http://me@b:1", "cannot be one of several"),
        ] {
            let refused = addresses(urls).expect_err(urls).to_string();
            assert!(refused.contains(word), "expected `{word}` in: {refused}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_a_list_or_a_reason(text in "[a-z:/,. 0-9\\[\\]]{0,40}") {
            if let Ok(all) = addresses(&text) {
                proptest::prop_assert!(!all.is_empty());
                proptest::prop_assert!(all.len() == 1 || all.iter().all(|one| !one.is_empty() && !one.contains(',')));
            }
        }
    }
}
