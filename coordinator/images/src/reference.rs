//! Image references: `debian`, `debian:12`, `registry.example:5000/team/shop@sha256:…`.
//!
//! Parsed like Docker does: the default registry is Docker Hub, where names without a path are in `library`. Source:
//! the grammar in distribution's `reference` package.
//! Invariant: a [`Reference`] is complete and normalised; its displayed form parses back to the same value.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The default registry.
pub const DOCKER_HUB: &str = "docker.io";
/// The default tag.
pub const LATEST: &str = "latest";
/// Maximum length of a name, including the registry.
const MAX_NAME: usize = 255;
/// Maximum number of characters of an invalid text that are shown.
const SHOWN: usize = 300;
/// Maximum length of a tag.
const MAX_TAG: usize = 128;

/// Refers to an image, or to a repository of images, in a registry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Text that is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid image name `{text}`: {problem}")]
pub struct Invalid {
    /// The text that was found.
    pub text: String,
    /// What is wrong with it, and what was expected.
    pub problem: String,
}

impl Invalid {
    /// The same error for the whole text that contained the reference.
    #[must_use]
    pub(crate) fn of(self, text: &str) -> Self {
        Self { text: text.chars().take(SHOWN).collect(), ..self }
    }
}

impl Reference {
    /// Host, with a port if one is named.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one is named.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one is named.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// The digest, else the tag, else `latest`: the last part of a registry URL.
    pub fn wanted(&self) -> String {
        match (self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => LATEST.to_owned(),
        }
    }

    /// The same repository with a tag.
    ///
    /// # Errors
    /// If the tag is invalid.
    pub fn at_tag(&self, tag: &str) -> Result<Self, Invalid> {
        check_tag(tag).map_err(|problem| Invalid { text: format!("{self}:{tag}"), problem })?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with a digest instead of a tag.
    pub fn at_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// The short form: without Docker Hub's host and `library`.
    pub fn familiar(&self) -> String {
        let whole = self.to_string();
        // Docker Hub's `library` is only omitted for names without a path; otherwise it would not be added back.
        let single = |rest: &&str| !rest.split(['@', ':']).next().unwrap_or_default().contains('/');
        let short =
            whole.strip_prefix("docker.io/").map(|rest| rest.strip_prefix("library/").filter(single).unwrap_or(rest));
        // A path whose first part looks like a host would be parsed as one.
        let short = short.filter(|short| short.split_once('/').is_none_or(|(first, _)| !is_host(first)));
        short.map_or(whole.clone(), str::to_owned)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse(text).map_err(|problem| Invalid { text: text.chars().take(SHOWN).collect(), problem })
    }
}

fn parse(text: &str) -> Result<Reference, String> {
    if text.is_empty() {
        return Err("it is empty; expected for example `debian:12`".to_owned());
    }
    if let Some((scheme, rest)) = text.split_once("://") {
        return Err(format!("it begins with `{scheme}://`; leave that out: `{rest}`"));
    }
    let (name, digest) = match text.split_once('@') {
        None => (text, None),
        Some((name, digest)) => (name, Some(digest.parse::<Digest>().map_err(|error| error.to_string())?)),
    };
    // A colon after the last slash starts a tag; before it, a port.
    let (name, tag) = match name.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((name, tag)) => (name, Some(tag.to_owned())),
        None => (name, None),
    };
    if let Some(tag) = &tag {
        check_tag(tag)?;
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, rest)) if is_host(first) => (first, rest.to_owned()),
        _ => (DOCKER_HUB, name.to_owned()),
    };
    let registry = if registry == "index.docker.io" { DOCKER_HUB } else { registry };
    check_host(registry)?;
    let repository = match (registry, path.contains('/')) {
        (DOCKER_HUB, false) => format!("library/{path}"),
        _ => path,
    };
    check_path(&repository)?;
    if registry.len().saturating_add(repository.len()) >= MAX_NAME {
        return Err(format!("it is longer than {MAX_NAME} characters"));
    }
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// Docker's rule for whether the first part is a registry.
fn is_host(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.chars().any(|c| c.is_ascii_uppercase())
}

fn check_host(host: &str) -> Result<(), String> {
    let bad = || format!("`{host}` is not a valid host and port; expected for example `registry.example:5000`");
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, rest)) => {
            address.parse::<std::net::Ipv6Addr>().map_err(|_| bad())?;
            ("", rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("0")).ok_or_else(bad)?)
        }
        None => host.split_once(':').unwrap_or((host, "0")),
    };
    port.parse::<u16>().map_err(|_| bad())?;
    let label = |label: &str| {
        !label.is_empty()
            && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if host.starts_with('[') || name.split('.').all(label) { Ok(()) } else { Err(bad()) }
}

fn check_path(path: &str) -> Result<(), String> {
    for part in path.split('/') {
        if part.is_empty() {
            return Err("a part of its path is empty; expected for example `team/shop`".to_owned());
        }
        if let Some(upper) = part.chars().find(char::is_ascii_uppercase) {
            return Err(format!("`{upper}` is upper case; repositories are lower case: `{}`", path.to_lowercase()));
        }
        if !is_path_part(part) {
            return Err(format!(
                "`{part}` is not a valid part of a repository's path; expected lower-case letters and digits, with single `.`, \
                 `_` or `__`, or any number of `-`, between them"
            ));
        }
    }
    Ok(())
}

/// Letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn is_path_part(part: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !part.starts_with(is_word) || !part.ends_with(is_word) {
        return false;
    }
    part.split(is_word).all(|joint| matches!(joint, "" | "." | "_" | "__") || joint.chars().all(|c| c == '-'))
}

fn check_tag(tag: &str) -> Result<(), String> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let bad = |problem: &str| {
        Err(format!("its tag `{}` {problem}; expected for example `1.4.2`", tag.chars().take(200).collect::<String>()))
    };
    if tag.is_empty() {
        return bad("is empty");
    }
    if tag.len() > MAX_TAG {
        return bad("is longer than 128 characters");
    }
    match tag.chars().find(|c| !is_word(*c) && !matches!(c, '.' | '-')) {
        Some(c) => bad(&format!("has a `{c}`")),
        None if !tag.starts_with(is_word) => bad("begins with neither a letter, a digit nor `_`"),
        None => Ok(()),
    }
}

/// A version as a tag: characters that are invalid in a tag become `-`, such as the `+` in `1.0+build`.
pub fn tag_from(version: &str) -> String {
    let clean = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let tag: String = version.chars().map(clean).collect();
    let tag: String = tag.trim_start_matches(['.', '-']).chars().take(MAX_TAG).collect();
    if tag.is_empty() { LATEST.to_owned() } else { tag }
}

/// The known name that is most similar to `name`, if any is close enough.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.into_iter().filter(|candidate| *candidate != name).map(|candidate| {
        let distance = strsim::damerau_levenshtein(name, candidate);
        (distance, candidate)
    });
    near.filter(|(distance, candidate)| *distance <= candidate.len().max(name.len()).div_ceil(3))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn normal(text: &str) -> String {
        text.parse::<Reference>().map(|reference| reference.to_string()).unwrap_or_else(|error| error.to_string())
    }

    #[test]
    fn references_take_dockers_normal_form() {
        for (text, expected) in [
            ("debian", "docker.io/library/debian"),
            ("debian:12", "docker.io/library/debian:12"),
            ("team/shop", "docker.io/team/shop"),
            ("index.docker.io/team/shop", "docker.io/team/shop"),
            ("localhost/shop", "localhost/shop"),
            ("localhost:5000/shop:1", "localhost:5000/shop:1"),
            ("[::1]:5000/shop", "[::1]:5000/shop"),
            ("registry.example/a/b_c__d-e---f.g:V1_x", "registry.example/a/b_c__d-e---f.g:V1_x"),
        ] {
            assert_eq!(normal(text), expected);
        }
        let digest = Digest::of(b"x");
        let both: Reference = format!("debian:12@{digest}").parse().unwrap();
        assert_eq!((both.tag(), both.digest(), both.wanted()), (Some("12"), Some(digest), digest.to_string()));
        assert_eq!("docker.io/library/debian:12".parse::<Reference>().unwrap().familiar(), "debian:12");
        assert_eq!("debian".parse::<Reference>().unwrap().wanted(), "latest");
    }

    #[test]
    fn what_is_wrong_with_a_reference_is_said() {
        for (text, words) in [
            ("", "it is empty"),
            ("https://registry.example/shop", "leave that out: `registry.example/shop`"),
            ("team/Shop", "repositories are lower case: `team/shop`"),
            ("a..b", "`a..b` is not a valid part"),
            ("a//b", "a part of its path is empty"),
            ("debian:", "its tag `` is empty"),
            ("debian:1+2", "its tag `1+2` has a `+`"),
            ("debian@sha256:12", "invalid digest `sha256:12`"),
            ("host:99999/a", "`host:99999` is not a valid host"),
            ("a b", "is not a valid part"),
        ] {
            let found = normal(text);
            assert!(found.contains(words), "expected `{words}` of `{text}`, found: {found}");
        }
    }

    #[test]
    fn the_nearest_known_name_is_found_and_a_far_one_is_not() {
        assert_eq!(nearest("debain", ["ubuntu", "debian", "alpine"]), Some("debian"));
        assert_eq!(nearest("12.1", ["12.10", "11"]), Some("12.10"));
        assert_eq!(nearest("shop", ["postgres"]), None);
        assert_eq!(tag_from("1.0+dirty"), "1.0-dirty");
        assert_eq!(tag_from("+"), "latest");
    }

    proptest! {
        #[test]
        fn what_is_displayed_parses_to_the_same(
            host in "(([a-z]{1,5}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?|docker\\.io/[a-z]\\.[a-z])/)?",
            path in "[a-z0-9]{1,4}([_-][a-z0-9]{1,3}){0,2}(/[a-z0-9]{1,4}(__[a-z0-9]{1,3})?){0,2}",
            tag in "(:[A-Za-z0-9_][A-Za-z0-9_.-]{0,8})?",
            digest in any::<Option<u8>>(),
        ) {
            let digest = digest.map_or(String::new(), |seed| format!("@{}", Digest::of(&[seed])));
            let parsed: Reference = format!("{host}{path}{tag}{digest}").parse().unwrap();
            prop_assert_eq!(parsed.to_string().parse::<Reference>().unwrap(), parsed.clone());
            prop_assert_eq!(parsed.familiar().parse::<Reference>().unwrap(), parsed);
        }

        #[test]
        fn no_text_panics(text: String) {
            let _ = text.parse::<Reference>();
            let tagged = format!("a:{}", tag_from(&text));
            prop_assert!(tagged.parse::<Reference>().is_ok(), "expected `{}` to be a reference", tagged);
        }
    }
}
