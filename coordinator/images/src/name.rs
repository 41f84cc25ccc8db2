//! The value of the platform property `container-image`: the image that an action runs in.
//!
//! Forms: `docker://debian:12` and `debian:12`, as used by clients and Docker; `debian@sha256:…`; and, for images that
//! are not in a registry, skopeo's `docker-daemon:sha256:…` with an image id or `docker-daemon:shop:1` with a name in a
//! Docker Engine. Source: REAPI's `platform.md`.
//!
//! Invariant: the displayed form of an [`ImageName`] parses back to the same value.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;
use crate::reference::{Invalid, LATEST, Reference};

const DAEMON: &str = "docker-daemon:";

/// The name of an image that an action runs in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ImageName {
    /// An image in a registry. A tag next to a digest is ignored.
    Registry(Reference),
    /// An image in a Docker Engine, by its id.
    Id(Digest),
    /// An image in a Docker Engine, by its name there.
    Held(Reference),
}

impl ImageName {
    /// Whether it always refers to the same content.
    pub fn is_fixed(&self) -> bool {
        match self {
            Self::Registry(reference) => reference.digest().is_some(),
            Self::Id(_) => true,
            Self::Held(_) => false,
        }
    }

    /// The registry's host, with a port if one is named; `None` for an image in an engine.
    pub fn registry(&self) -> Option<&str> {
        match self {
            Self::Registry(reference) => Some(reference.registry()),
            _ => None,
        }
    }

    /// Whether both are in the same repository of a registry.
    pub fn is_of_repository(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Registry(one), Self::Registry(other)) => {
                (one.registry(), one.repository()) == (other.registry(), other.repository())
            }
            _ => false,
        }
    }

    /// The same repository at a digest; other names are unchanged.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        match self {
            Self::Registry(reference) => Self::Registry(reference.at_digest(digest)),
            other => other.clone(),
        }
    }

    /// The name to use with a Docker Engine.
    pub fn engine_name(&self) -> String {
        match self {
            Self::Registry(reference) | Self::Held(reference) => {
                let is_whole = reference.tag().is_some() || reference.digest().is_some();
                let name = shown(reference);
                if is_whole { name } else { format!("{name}:{LATEST}") }
            }
            Self::Id(id) => id.to_string(),
        }
    }
}

/// The short form, unless that would be parsed as something else: an id, or a name in an engine.
fn shown(reference: &Reference) -> String {
    let short = reference.familiar();
    let is_other = short.starts_with(DAEMON) || short.parse::<Digest>().is_ok();
    if is_other { reference.to_string() } else { short }
}

impl fmt::Display for ImageName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&shown(reference)),
            Self::Id(id) => write!(f, "{DAEMON}{id}"),
            Self::Held(reference) => write!(f, "{DAEMON}{}", shown(reference)),
        }
    }
}

impl FromStr for ImageName {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let held = text.strip_prefix(DAEMON);
        let plain = held.or(text.strip_prefix("docker://")).unwrap_or(text);
        if let Ok(id) = plain.parse() {
            return Ok(Self::Id(id));
        }
        let reference: Reference = plain.parse().map_err(|error: Invalid| error.of(text))?;
        match (held, reference.digest()) {
            (None, None) => Ok(Self::Registry(reference)),
            (None, Some(digest)) => Ok(Self::Registry(reference.at_digest(digest))),
            (Some(_), None) => Ok(Self::Held(reference)),
            (Some(_), Some(_)) => {
                let problem = "an engine's images are named by id, or by name and tag".to_owned();
                Err(Invalid { text: String::new(), problem }.of(text))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    fn name(text: &str) -> ImageName {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn what_clients_write_is_read_and_displays_to_itself() {
        for (text, shown, registry, engine) in [
            ("debian", "debian", "docker.io", "debian:latest"),
            ("docker://debian:12", "debian:12", "docker.io", "debian:12"),
            ("localhost:5000/a/b", "localhost:5000/a/b", "localhost:5000", "localhost:5000/a/b:latest"),
            ("docker://gcr.io/x/y:t", "gcr.io/x/y:t", "gcr.io", "gcr.io/x/y:t"),
            ("docker.io/library/debian", "debian", "docker.io", "debian:latest"),
        ] {
            let read = name(text);
            assert_eq!((read.to_string().as_str(), read.registry()), (shown, Some(registry)));
            assert_eq!((read.engine_name().as_str(), read.is_fixed()), (engine, false));
            assert_eq!(name(shown), read);
        }
    }

    #[test]
    fn a_digest_or_an_id_fixes_the_content_and_a_tag_beside_a_digest_says_nothing() {
        let fixed = name(&format!("docker://debian:12@{DIGEST}"));
        assert_eq!((fixed.to_string(), fixed.is_fixed()), (format!("debian@{DIGEST}"), true));
        assert_eq!(fixed.engine_name(), format!("debian@{DIGEST}"));
        for text in [format!("docker-daemon:{DIGEST}"), DIGEST.to_owned()] {
            let id = name(&text);
            assert!(id.is_fixed() && id.engine_name() == DIGEST, "{id:?}");
            assert_eq!(name(&id.to_string()), id);
        }
        let held = name("docker-daemon:shop:1");
        assert_eq!((held.engine_name().as_str(), held.is_fixed()), ("shop:1", false));
        assert_eq!(name(&held.to_string()), held);
        assert_eq!(name("debian:12").at(DIGEST.parse().unwrap()), fixed);
        assert!(fixed.is_of_repository(&name("docker.io/library/debian:13")));
        assert!(!fixed.is_of_repository(&name("example.org/debian:12")) && !fixed.is_of_repository(&held));
    }

    #[test]
    fn what_names_no_image_is_refused_in_words_and_as_it_was_written() {
        for (text, words) in [
            ("", "it is empty"),
            ("docker://team/Shop", "`S` is upper case"),
            ("debian:", "its tag `` is empty"),
            ("debian:1 2", "has a ` `"),
            ("debian@sha256:12", "invalid digest"),
            ("a//b", "a part of its path is empty"),
            ("http://debian", "leave that out"),
            ("docker-daemon:", "it is empty"),
        ] {
            let error = text.parse::<ImageName>().expect_err(text).to_string();
            let whole = error.starts_with(&format!("invalid image name `{text}`"));
            assert!(whole && error.contains(words), "expected `{words}` of `{text}` in: {error}");
        }
        assert!(format!("docker-daemon:shop@{DIGEST}").parse::<ImageName>().is_err());
    }
}
