//! The value of the platform property `container-image`: which image an action runs in.
//!
//! Forms: `docker://debian:12` and `debian:12`, as clients write it and as Docker reads it; `debian@sha256:…`; and for images that no
//! registry knows, as skopeo writes it, `docker-daemon:sha256:…` by an image's id or `docker-daemon:shop:1` by a name that a Docker
//! Engine holds it under. Source: REAPI's `platform.md`; the grammar of distribution's `reference` package.
//!
//! Invariant: what an [`ImageName`] displays parses to itself.

use std::fmt;
use std::str::FromStr;

const DAEMON: &str = "docker-daemon:";
/// Longest repository, registry included.
const MAX_REPOSITORY: usize = 255;
/// Longest tag.
const MAX_TAG: usize = 128;

/// Names an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageName {
    /// One that a registry has.
    Registry {
        /// Such as `debian` or `registry.example:5000/team/shop`.
        repository: String,
        /// Such as `12`.
        tag: Option<String>,
        /// Such as `sha256:…`; where it is named, the tag says nothing.
        digest: Option<String>,
    },
    /// One that Docker Engines hold, by its id: `sha256:…`.
    Id(String),
    /// One that a Docker Engine holds, by its name there.
    Held(String),
}

/// A text that names no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` names no image: {problem}; expected such as `debian:12`, `debian@sha256:…` or `docker-daemon:sha256:…`"
)]
pub struct Invalid {
    /// What was found.
    pub text: String,
    /// What is wrong with it.
    pub problem: String,
}

impl ImageName {
    /// Whether it names the same content for ever.
    pub fn is_fixed(&self) -> bool {
        match self {
            Self::Registry { digest, .. } => digest.is_some(),
            Self::Id(_) => true,
            Self::Held(_) => false,
        }
    }

    /// The registry's host, and port where one is named: `docker.io` where none is.
    pub fn registry(&self) -> Option<&str> {
        match self {
            Self::Registry { repository, .. } => Some(
                repository
                    .split_once('/')
                    .map(|(first, _)| first)
                    .filter(|first| is_host(first))
                    .unwrap_or("docker.io"),
            ),
            _ => None,
        }
    }

    /// The same repository at a digest; anything else stays as it is.
    #[must_use]
    pub fn at(&self, digest: &str) -> Self {
        match self {
            Self::Registry { repository, .. } => {
                Self::Registry { repository: repository.clone(), tag: None, digest: Some(digest.to_owned()) }
            }
            other => other.clone(),
        }
    }

    /// What a Docker Engine calls it.
    pub fn engine_name(&self) -> String {
        match self {
            Self::Registry { tag: None, digest: None, repository } => format!("{repository}:latest"),
            Self::Registry { .. } => self.to_string(),
            Self::Id(id) => id.clone(),
            Self::Held(name) => name.clone(),
        }
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry { repository, digest: Some(digest), .. } => write!(f, "{repository}@{digest}"),
            Self::Registry { repository, tag: Some(tag), .. } => write!(f, "{repository}:{tag}"),
            Self::Registry { repository, .. } => f.write_str(repository),
            Self::Id(id) => write!(f, "{DAEMON}{id}"),
            Self::Held(name) => write!(f, "{DAEMON}{name}"),
        }
    }
}

impl FromStr for ImageName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |problem: String| Invalid { text: text.chars().take(300).collect(), problem };
        if let Some(held) = text.strip_prefix(DAEMON) {
            return match read(held).map_err(invalid)? {
                Self::Registry { digest: None, .. } => Ok(Self::Held(held.to_owned())),
                Self::Registry { .. } => Err(invalid("an engine holds images by id or by name and tag".to_owned())),
                id => Ok(id),
            };
        }
        read(text.strip_prefix("docker://").unwrap_or(text)).map_err(invalid)
    }
}

fn read(text: &str) -> Result<ImageName, String> {
    if is_digest(text) {
        return Ok(ImageName::Id(text.to_owned()));
    }
    let (name, digest) = match text.split_once('@') {
        Some((_, digest)) if !is_digest(digest) => {
            return Err(format!("`{digest}` is no digest, which is `sha256:` and 64 digits from 0 to f"));
        }
        Some((name, digest)) => (name, Some(digest.to_owned())),
        None => (text, None),
    };
    // A colon before the last slash is of a port.
    let (repository, tag) = match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (name, None),
    };
    check_repository(repository)?;
    if let Some(tag) = tag {
        let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if tag.is_empty() || tag.len() > MAX_TAG || tag.starts_with(['.', '-']) || !tag.chars().all(lawful) {
            return Err(format!("`{tag}` is no tag"));
        }
    }
    let tag = tag.filter(|_| digest.is_none()).map(str::to_owned);
    Ok(ImageName::Registry { repository: repository.to_owned(), tag, digest })
}

fn is_digest(text: &str) -> bool {
    text.strip_prefix("sha256:")
        .is_some_and(|hex| hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')))
}

fn is_host(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

fn check_repository(repository: &str) -> Result<(), String> {
    if repository.is_empty() {
        return Err("it has no name".to_owned());
    }
    if repository.len() > MAX_REPOSITORY {
        return Err(format!("its name is longer than {MAX_REPOSITORY} characters"));
    }
    let (host, path) = match repository.split_once('/') {
        Some((host, path)) if is_host(host) => (Some(host), path),
        _ => (None, repository),
    };
    if let Some(host) = host {
        let lawful = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
        if !host.chars().all(lawful) || host.starts_with([':', '-', '.']) {
            return Err(format!("`{host}` is no registry's host"));
        }
    }
    for part in path.split('/') {
        if part.chars().any(|c| c.is_ascii_uppercase()) {
            return Err(format!("`{part}` has capital letters, and names are in lower case"));
        }
        let lawful = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
        let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        if !part.chars().all(lawful) || !part.starts_with(ends) || !part.ends_with(ends) {
            return Err(format!("`{part}` is no part of a name"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn what_clients_write_is_read_and_displays_to_itself() {
        let forms = [
            ("debian", "debian", "docker.io", "debian:latest"),
            ("docker://debian:12", "debian:12", "docker.io", "debian:12"),
            ("localhost:5000/a/b", "localhost:5000/a/b", "localhost:5000", "localhost:5000/a/b:latest"),
            ("docker://gcr.io/x/y:t", "gcr.io/x/y:t", "gcr.io", "gcr.io/x/y:t"),
            ("library/debian", "library/debian", "docker.io", "library/debian:latest"),
        ];
        for (text, shown, registry, engine) in forms {
            let name: ImageName = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((name.to_string().as_str(), name.registry()), (shown, Some(registry)));
            assert_eq!((name.engine_name().as_str(), name.is_fixed()), (engine, false));
            assert_eq!(shown.parse(), Ok(name));
        }
    }

    #[test]
    fn a_digest_or_an_id_fixes_the_content_and_a_tag_beside_a_digest_says_nothing() {
        let name: ImageName = format!("docker://debian:12@{DIGEST}").parse().unwrap();
        assert_eq!((name.to_string(), name.is_fixed()), (format!("debian@{DIGEST}"), true));
        for text in [format!("docker-daemon:{DIGEST}"), DIGEST.to_owned()] {
            let id: ImageName = text.parse().unwrap();
            assert_eq!(id, ImageName::Id(DIGEST.to_owned()));
            assert!(id.is_fixed() && id.to_string().parse() == Ok(id));
        }
        let held: ImageName = "docker-daemon:shop:1".parse().unwrap();
        assert_eq!((held.engine_name().as_str(), held.is_fixed()), ("shop:1", false));
        assert_eq!("debian:12".parse::<ImageName>().unwrap().at(DIGEST), name);
    }

    #[test]
    fn what_names_no_image_is_refused_in_words() {
        for (text, word) in [
            ("", "no name"),
            ("Debian:12", "lower case"),
            ("debian:", "no tag"),
            ("debian:1 2", "no tag"),
            ("debian@sha256:12", "no digest"),
            ("a//b", "no part"),
            ("http://debian", "no part"),
            ("docker-daemon:", "no name"),
        ] {
            let error = text.parse::<ImageName>().expect_err(text).to_string();
            assert!(error.contains(word), "expected `{word}` in: {error}");
        }
    }
}
