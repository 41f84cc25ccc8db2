//! Package URLs. Source: the purl specification (ECMA-427), `scheme:type/namespace/name@version?qualifiers#subpath`.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

/// A package URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Purl {
    /// Its type, such as `cargo`.
    pub(crate) kind: String,
    /// What is between type and name; empty if nothing is.
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) qualifiers: BTreeMap<String, String>,
}

impl Purl {
    /// Reads one; `None` if it is none, or names no version.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("pkg:")?.trim_start_matches('/');
        let rest = rest.split('#').next().unwrap_or_default();
        let (rest, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (kind, rest) = rest.split_once('/')?;
        let (path, version) = rest.rsplit_once('@')?;
        let path = path.trim_matches('/');
        let (namespace, name) = path.rsplit_once('/').unwrap_or(("", path));
        let pairs = qualifiers.split('&').filter_map(|pair| pair.split_once('='));
        let purl = Self {
            kind: kind.to_ascii_lowercase(),
            namespace: decoded(namespace)?,
            name: decoded(name)?,
            version: decoded(version)?,
            qualifiers: pairs.filter_map(|(name, value)| Some((name.to_ascii_lowercase(), decoded(value)?))).collect(),
        };
        (!purl.kind.is_empty() && !purl.name.is_empty() && !purl.version.is_empty()).then_some(purl)
    }
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_decoded_and_what_lacks_one_is_no_package() {
        let found = Purl::read("pkg:deb/debian/g%2B%2B-12@1%3A2%2Bb?distro=debian-12&upstream=gcc-12#x").unwrap();
        assert_eq!((found.kind.as_str(), found.namespace.as_str()), ("deb", "debian"));
        assert_eq!((found.name.as_str(), found.version.as_str()), ("g++-12", "1:2+b"));
        assert_eq!(found.qualifiers["upstream"], "gcc-12");
        let scoped = Purl::read("pkg:npm/%40babel/core@7.0.0").unwrap();
        assert_eq!((scoped.namespace.as_str(), scoped.name.as_str()), ("@babel", "core"));
        for bad in ["", "pkg:", "pkg:npm", "pkg:npm/left-pad", "pkg:npm/@1", "npm/a@1", "pkg:npm/a@%FF"] {
            assert_eq!(Purl::read(bad), None, "{bad}");
        }
    }
}
