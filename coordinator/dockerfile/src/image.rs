//! Names of images, normalised: `alpine` is `docker.io/library/alpine:latest`.
//!
//! Source: the grammar in distribution's `reference` package.

/// Maximum length of a name without tag and digest.
const MAX_NAME: usize = 255;
/// Maximum length of a tag.
const MAX_TAG: usize = 128;
const HUB: &str = "docker.io";

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    host: String,
    path: String,
    tag: Option<String>,
    digest: Option<String>,
}

impl ImageName {
    /// Reads a name.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(text: &str) -> Result<Self, String> {
        let (name, digest) = match text.split_once('@') {
            None => (text, None),
            Some((name, digest)) => {
                check_digest(digest)?;
                (name, Some(digest.to_owned()))
            }
        };
        let (name, tag) = match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
            Some((name, tag)) => (name, Some(tag.to_owned())),
            None => (name, None),
        };
        if let Some(tag) = &tag {
            let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if tag.len() > MAX_TAG
                || !tag.starts_with(is_word)
                || !tag.chars().all(|c| is_word(c) || matches!(c, '.' | '-'))
            {
                return Err(format!("its tag is invalid; expected up to {MAX_TAG} letters, digits, `_`, `.` and `-`"));
            }
        }
        let (host, path) = match name.split_once('/') {
            Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
            _ => (HUB, name.to_owned()),
        };
        let host = if host == "index.docker.io" { HUB } else { host };
        let is_host_char = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if !host.chars().all(is_host_char) {
            return Err("its registry is invalid; expected for example `registry.example:5000`".to_owned());
        }
        let path = if host == HUB && !path.contains('/') { format!("library/{path}") } else { path };
        let path = path.strip_prefix("library/").filter(|rest| rest.is_empty()).map_or(path.clone(), str::to_owned);
        if path.chars().any(|c| c.is_ascii_uppercase()) {
            return Err("it has upper-case letters; names of images and stages are lower case".to_owned());
        }
        if !path.split('/').all(is_part) {
            return Err(
                "expected lower-case letters and digits with single `.`, `_` or `__`, or `-`, between them".to_owned()
            );
        }
        if host.len().saturating_add(path.len()) >= MAX_NAME {
            return Err(format!("it is longer than {MAX_NAME} characters"));
        }
        Ok(Self { host: host.to_owned(), path, tag, digest })
    }

    /// The repository within the registry.
    pub fn repository(&self) -> &str {
        &self.path
    }

    /// The whole name, with the tag `latest` if it has neither tag nor digest.
    pub fn full(&self) -> String {
        let tag = match (&self.tag, &self.digest) {
            (Some(tag), _) => format!(":{tag}"),
            (None, None) => ":latest".to_owned(),
            (None, Some(_)) => String::new(),
        };
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        format!("{}/{}{tag}{digest}", self.host, self.path)
    }

    /// The name by which a named context takes its place: as short as possible, and without the tag `latest`.
    pub fn context(&self) -> String {
        let path = match (self.host.as_str(), self.path.strip_prefix("library/")) {
            (HUB, Some(rest)) if !rest.contains('/') => rest.to_owned(),
            (HUB, _) => self.path.clone(),
            (host, _) => format!("{host}/{}", self.path),
        };
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.as_ref().map(|digest| format!("@{digest}")).unwrap_or_default();
        let name = format!("{path}{tag}{digest}");
        name.strip_suffix(":latest").map_or(name.clone(), str::to_owned)
    }

    /// The same image at a digest.
    #[must_use]
    pub fn at_digest(&self, digest: &str) -> Self {
        let tag = self.tag.clone().or_else(|| self.digest.is_none().then(|| "latest".to_owned()));
        Self { tag, digest: Some(digest.to_owned()), ..self.clone() }
    }
}

/// The name of a named context as it is compared: normalised as an image's, if it is one.
pub fn context_name(name: &str) -> String {
    let (name, platform) = name.split_once("::").map_or((name, None), |(name, platform)| (name, Some(platform)));
    let name = ImageName::read(name).map_or_else(|_| name.to_owned(), |image| image.context());
    platform.map_or(name.clone(), |platform| format!("{name}::{platform}"))
}

fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(|c| c.is_ascii_uppercase())
}

/// Letters and digits, with one `.`, one or two `_`, or any number of `-` between them.
fn is_part(part: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separators = part.split(is_letter).filter(|separator| !separator.is_empty());
    part.starts_with(is_letter)
        && part.ends_with(is_letter)
        && separators.into_iter().all(|s| matches!(s, "." | "_" | "__") || s.chars().all(|c| c == '-'))
}

fn check_digest(digest: &str) -> Result<(), String> {
    let is_hex = |hex: &str, length: usize| {
        hex.len() == length && hex.chars().all(|c| c.is_ascii_digit() || matches!(c, 'a'..='f'))
    };
    match digest.split_once(':') {
        Some(("sha256", hex)) if is_hex(hex, 64) => Ok(()),
        Some(("sha384", hex)) if is_hex(hex, 96) => Ok(()),
        Some(("sha512", hex)) if is_hex(hex, 128) => Ok(()),
        _ => Err("its digest is invalid; expected `sha256:` and 64 hexadecimal digits".to_owned()),
    }
}
