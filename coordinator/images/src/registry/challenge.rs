//! The challenge in a 401 response. Source: RFC 9110, "WWW-Authenticate"; distribution's token authentication.

use std::collections::BTreeMap;

/// An authentication scheme that a registry accepts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from `realm`.
    Bearer { realm: String, service: String, scope: String },
}

/// Parses the header; of several schemes the most secure is used.
pub(super) fn parse(header: &str) -> Option<Challenge> {
    let mut basic = None;
    for (scheme, parameters) in schemes(header) {
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => {
                let get = |name: &str| parameters.get(name).cloned().unwrap_or_default();
                let realm = parameters.get("realm").cloned()?;
                return Some(Challenge::Bearer { realm, service: get("service"), scope: get("scope") });
            }
            "basic" => basic = Some(Challenge::Basic),
            _ => {}
        }
    }
    basic
}

/// Each scheme with its parameters, in order.
fn schemes(header: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        match after.strip_prefix('=') {
            Some(value) => {
                let (value, left) = read_value(value);
                if let Some((_, parameters)) = found.last_mut() {
                    parameters.insert(word.to_ascii_lowercase(), value);
                }
                rest = left;
            }
            None => {
                found.push((word.to_owned(), BTreeMap::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    found
}

/// A token or quoted string, and the rest.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([' ', ',']);
        let (token, rest) = end.and_then(|end| text.split_at_checked(end)).unwrap_or((text, ""));
        return (token.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => return (value, characters.as_str()),
            '\\' => value.extend(characters.next()),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn realm_service_and_scope_are_read() {
        let header =
            r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#;
        let expected = Challenge::Bearer {
            realm: "https://auth.example/token".into(),
            service: "registry.example".into(),
            scope: "repository:a/b:pull,push".into(),
        };
        assert_eq!(parse(header), Some(expected));
        assert_eq!(parse("Basic realm=\"x\""), Some(Challenge::Basic));
        assert!(matches!(parse(r#"Basic realm="a", Bearer realm="b""#), Some(Challenge::Bearer { .. })));
        assert_eq!(parse("Negotiate"), None);
    }

    proptest::proptest! {
        #[test]
        fn no_header_panics(header: String) {
            let _ = parse(&header);
        }
    }
}
