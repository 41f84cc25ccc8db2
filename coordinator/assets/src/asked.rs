//! What a client asks for. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_proto::asset::Qualifier;
use kiln_proto::digest::DigestFunction;
use url::Url;

/// The content, as the Subresource Integrity standard of the W3C names it.
const CHECKSUM: &str = "checksum.sri";
/// A name that a client gives to the content at all addresses of a request.
const CANONICAL: &str = "bazel.canonical_id";
/// Headers for all addresses, and for the one with a number.
const HEADER: &str = "http_header:";
const HEADER_OF: &str = "http_header_url:";
/// The same in one, as older versions of Bazel send it: a JSON object from addresses to headers.
const OLD_HEADERS: &str = "bazel.auth_headers";
/// What the content is; it is a file in any case.
const TYPE: &str = "resource_type";
/// Addresses and qualifiers of one request.
const MAX_URIS: usize = 32;
const MAX_QUALIFIERS: usize = 64;
/// Longest address, name or value.
const MAX_TEXT: usize = 8 << 10;

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) uris: Vec<Url>,
    /// SHA-256 of the content, if the client knows it.
    pub(crate) sha256: Option<[u8; 32]>,
    /// Headers by the number of an address, or for all.
    headers: Vec<(Option<usize>, String, String)>,
    canonical: String,
}

impl Asked {
    /// # Errors
    /// In words for the client.
    pub(crate) fn read(uris: &[String], qualifiers: &[Qualifier]) -> Result<Self, String> {
        let long = |text: &String| text.len() > MAX_TEXT;
        if uris.is_empty() || uris.len() > MAX_URIS || qualifiers.len() > MAX_QUALIFIERS {
            return Err(format!("expected 1 to {MAX_URIS} addresses and at most {MAX_QUALIFIERS} qualifiers"));
        }
        if uris.iter().chain(qualifiers.iter().flat_map(|one| [&one.name, &one.value])).any(long) {
            return Err(format!("an address or a qualifier is longer than {MAX_TEXT} bytes"));
        }
        let parsed = uris.iter().map(|uri| address(uri)).collect::<Result<Vec<_>, _>>()?;
        let mut asked = Self { uris: parsed, sha256: None, headers: Vec::new(), canonical: String::new() };
        for Qualifier { name, value } in qualifiers {
            match name.as_str() {
                CHECKSUM => asked.sha256 = Some(checksum(value)?),
                CANONICAL => asked.canonical.clone_from(value),
                TYPE => {}
                OLD_HEADERS => asked.old_headers(uris, value)?,
                name => asked.header(name, value)?,
            }
        }
        Ok(asked)
    }

    fn header(&mut self, name: &str, value: &str) -> Result<(), String> {
        if let Some(header) = name.strip_prefix(HEADER) {
            self.headers.push((None, header.to_owned(), value.to_owned()));
            return Ok(());
        }
        let of = name.strip_prefix(HEADER_OF).and_then(|rest| rest.split_once(':'));
        match of.and_then(|(number, header)| Some((number.parse().ok()?, header))) {
            Some((number, header)) if number < self.uris.len() => {
                self.headers.push((Some(number), header.to_owned(), value.to_owned()));
                Ok(())
            }
            _ => Err(format!("unknown qualifier `{}`", name.escape_default())),
        }
    }

    fn old_headers(&mut self, uris: &[String], value: &str) -> Result<(), String> {
        let wrong = || format!("expected `{OLD_HEADERS}` to be an object of addresses with an object of headers each");
        let all: serde_json::Value = serde_json::from_str(value).map_err(|_| wrong())?;
        for (uri, headers) in all.as_object().ok_or_else(wrong)? {
            let Some(number) = uris.iter().position(|one| one == uri) else { continue };
            for (name, value) in headers.as_object().ok_or_else(wrong)? {
                let value = value.as_str().ok_or_else(wrong)?;
                self.headers.push((Some(number), name.clone(), value.to_owned()));
            }
        }
        Ok(())
    }

    /// The headers for one of the addresses.
    pub(crate) fn headers_of(&self, number: usize) -> impl Iterator<Item = (&str, &str)> {
        let is_for = move |of: &Option<usize>| of.is_none_or(|of| of == number);
        self.headers.iter().filter(move |(of, ..)| is_for(of)).map(|(_, name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether what is fetched may be told to others who do not know its checksum: not if a login was needed.
    pub(crate) fn may_be_shared(&self) -> bool {
        self.headers.is_empty()
    }

    /// Under which names the content is recorded: that of each address, or of the checksum.
    pub(crate) fn names(&self) -> Vec<String> {
        match self.sha256 {
            Some(hash) => vec![of_checksum(hash)],
            None => self.uris.iter().map(|uri| name(&["uri", uri.as_str(), &self.canonical])).collect(),
        }
    }
}

/// The record's name of content with a checksum.
pub(crate) fn of_checksum(hash: [u8; 32]) -> String {
    let digest = kiln_proto::digest::Digest { function: DigestFunction::Sha256, hash, size: 0 };
    name(&["sha256", &digest.hex()])
}

/// A name of fixed length: no part of it runs into the next one.
fn name(parts: &[&str]) -> String {
    let text: Vec<u8> =
        parts.iter().flat_map(|part| [&(part.len() as u64).to_le_bytes()[..], part.as_bytes()].concat()).collect();
    DigestFunction::Sha256.digest(&text).hex()
}

fn address(uri: &str) -> Result<Url, String> {
    let shown = uri.escape_default();
    let url = Url::parse(uri).map_err(|error| format!("`{shown}` is no address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("`{shown}` cannot be fetched; expected `https://…` or `http://…`"));
    }
    Ok(url)
}

fn checksum(value: &str) -> Result<[u8; 32], String> {
    // Several are alternatives; the strongest that is known here counts.
    let decoded = value.split_whitespace().find_map(|one| {
        let encoded = one.strip_prefix("sha256-")?.split('?').next()?;
        STANDARD.decode(encoded).ok()?.try_into().ok()
    });
    decoded.ok_or_else(|| format!("expected a checksum `sha256-BASE64`, found `{}`", value.escape_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn qualifiers(all: &[(&str, &str)]) -> Vec<Qualifier> {
        all.iter().map(|(name, value)| Qualifier { name: (*name).into(), value: (*value).into() }).collect()
    }

    fn read(uris: &[&str], all: &[(&str, &str)]) -> Result<Asked, String> {
        Asked::read(&uris.iter().map(|uri| (*uri).to_owned()).collect::<Vec<_>>(), &qualifiers(all))
    }

    const A: &str = "https://a.example/x.tar";
    const B: &str = "https://b.example/x.tar";
    const SRI: &str = "sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=";

    #[test]
    fn headers_belong_to_their_address() {
        let old = format!(r#"{{"{B}": {{"Authorization": "Bearer b"}}, "https://c.example/": {{"X": "c"}}}}"#);
        let of = |asked: &Asked, number| {
            asked.headers_of(number).map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>()
        };
        let asked =
            read(&[A, B], &[("http_header:X", "1"), ("http_header_url:0:Y", "2"), (OLD_HEADERS, &old)]).unwrap();
        assert_eq!(of(&asked, 0), ["X=1", "Y=2"]);
        assert_eq!(of(&asked, 1), ["X=1", "Authorization=Bearer b"]);
        assert!(!asked.may_be_shared());
    }

    #[test]
    fn a_checksum_names_the_content_and_otherwise_the_address_does() {
        let with = |uris: &[&str]| read(uris, &[(CHECKSUM, SRI)]).unwrap();
        assert_eq!(with(&[A]).names(), with(&[B, A]).names());
        assert_eq!(with(&[A]).sha256.unwrap(), DigestFunction::Sha256.digest(b"").hash);
        let plain = read(&[A, B], &[]).unwrap().names();
        assert_eq!(plain.len(), 2);
        assert_eq!(plain[0], read(&[A], &[("resource_type", "x")]).unwrap().names()[0]);
        assert_ne!(plain[0], read(&[A], &[(CANONICAL, "1")]).unwrap().names()[0]);
    }

    #[test]
    fn what_cannot_be_fetched_is_refused_in_words() {
        for (uris, all, expected) in [
            (&[][..], &[][..], "1 to 32 addresses"),
            (&["file:///etc/passwd"], &[], "cannot be fetched"),
            (&["x"], &[], "is no address"),
            (&[A], &[("vcs.branch", "main")], "unknown qualifier `vcs.branch`"),
            (&[A], &[("http_header_url:1:X", "y")], "unknown qualifier"),
            (&[A], &[(CHECKSUM, "sha512-AAAA")], "expected a checksum"),
            (&[A], &[(CHECKSUM, "sha256-AAAA")], "expected a checksum"),
            (&[A], &[(OLD_HEADERS, "[]")], "to be an object"),
        ] {
            let refusal = read(uris, all).unwrap_err();
            assert!(refusal.contains(expected), "{refusal}");
        }
    }
}
