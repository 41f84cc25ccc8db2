//! Determines which artifact goes to which destination.

use std::collections::BTreeSet;
use std::str::FromStr;

use kiln_images::reference::{self, Reference, nearest, tag_from};
use kiln_proto::v1;

/// Why a `--push` argument cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("`--push`: {0}")]
    Reference(#[from] reference::Invalid),
    #[error("`--push {0}` contains a digest, which is determined by the content: use a tag")]
    Digest(String),
    #[error("`--push {name}=…`: the build produced no artifact `{name}`; {hint}")]
    Unknown { name: String, hint: String },
    #[error("`--push {reference}` could be for {names}: write `--push ARTIFACT={reference}` for each")]
    Several { reference: String, names: String },
    #[error("the build produced nothing to push")]
    Nothing,
}

/// A place that artifacts are pushed to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// A repository of a container registry.
    Registry(Reference),
    /// A store of plain files.
    Files(kiln_stores::Place),
}

/// `[ARTIFACT=]REFERENCE` or `[ARTIFACT=]URL`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Destination {
    artifact: Option<String>,
    place: Place,
}

impl FromStr for Destination {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (artifact, reference) = match text.split_once('=') {
            // A URL may contain `=` too.
            Some((artifact, reference)) if !artifact.contains('/') => (Some(artifact.to_owned()), reference),
            _ => (None, text),
        };
        if let Some(place) = kiln_stores::Place::parse(reference) {
            return Ok(Self { artifact, place: Place::Files(place) });
        }
        let reference: Reference = reference.parse()?;
        match reference.digest() {
            Some(_) => Err(Error::Digest(text.to_owned())),
            None => Ok(Self { artifact, place: Place::Registry(reference) }),
        }
    }
}

impl Destination {
    fn shown(&self) -> String {
        match &self.place {
            Place::Registry(reference) => reference.familiar(),
            Place::Files(place) => place.to_string(),
        }
    }

    /// Whether it may be for an artifact with this name.
    pub(super) fn is_for(&self, name: &str) -> bool {
        self.artifact.as_deref().is_none_or(|artifact| artifact == name)
    }
}

type Assigned<'a> = Vec<(Place, Vec<&'a v1::Artifact>)>;

/// Assigns artifacts to destinations: all platforms of one artifact to one reference, whose default tag is the version.
///
/// Without a name it is for the only image or the only artifact; a store of plain files takes all artifacts.
pub(super) fn assign<'a>(destinations: &[Destination], artifacts: &'a [v1::Artifact]) -> Result<Assigned<'a>, Error> {
    let names: BTreeSet<&str> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
    let images: BTreeSet<&str> =
        artifacts.iter().filter(|artifact| artifact.kind == "image").map(|artifact| artifact.name.as_str()).collect();
    let mut assigned = Vec::new();
    for destination in destinations {
        let name = match &destination.artifact {
            Some(name) if names.contains(name.as_str()) => name.as_str(),
            Some(name) => {
                let hint = match nearest(name, names.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it produced {}", list(&names)),
                };
                return Err(Error::Unknown { name: name.clone(), hint });
            }
            None if matches!(destination.place, Place::Files(_)) => {
                if artifacts.is_empty() {
                    return Err(Error::Nothing);
                }
                assigned.push((destination.place.clone(), artifacts.iter().collect()));
                continue;
            }
            None => {
                let choice = if images.is_empty() { &names } else { &images };
                let mut choice_names = choice.iter();
                match (choice_names.next(), choice_names.next()) {
                    (Some(only), None) => only,
                    (None, _) => return Err(Error::Nothing),
                    _ => {
                        let reference = destination.shown();
                        return Err(Error::Several { reference, names: list(choice) });
                    }
                }
            }
        };
        let chosen: Vec<&v1::Artifact> = artifacts.iter().filter(|artifact| artifact.name == name).collect();
        let version = chosen.first().map(|artifact| version(artifact)).unwrap_or_default();
        let place = match &destination.place {
            Place::Registry(reference) if reference.tag().is_none() => {
                Place::Registry(reference.at_tag(&tag_from(&version))?)
            }
            place => place.clone(),
        };
        assigned.push((place, chosen));
    }
    Ok(assigned)
}

/// The version, or else the commit.
fn version(artifact: &v1::Artifact) -> String {
    match artifact.version.as_str() {
        "" => artifact.commit.chars().take(12).collect(),
        version => version.to_owned(),
    }
}

fn list(names: &BTreeSet<&str>) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn artifact(name: &str, kind: &str) -> v1::Artifact {
        v1::Artifact { name: name.into(), kind: kind.into(), version: "1.0+x".into(), ..Default::default() }
    }

    fn assigned(pushes: &[&str], artifacts: &[v1::Artifact]) -> Result<Vec<String>, String> {
        let parse = |text: &&str| text.parse::<Destination>().map_err(|error| error.to_string());
        let destinations = pushes.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let found = assign(&destinations, artifacts).map_err(|error| error.to_string())?;
        let shown = |place: &Place| match place {
            Place::Registry(reference) => reference.familiar(),
            Place::Files(place) => place.to_string(),
        };
        Ok(found.iter().map(|(to, what)| format!("{} {}x{}", shown(to), what[0].name, what.len())).collect())
    }

    #[test]
    fn the_one_image_goes_where_no_artifact_is_named_under_its_version() {
        let made = [artifact("tool", "binary"), artifact("shop", "image"), artifact("shop", "image")];
        assert_eq!(assigned(&["r.example/shop"], &made).unwrap(), ["r.example/shop:1.0-x shopx2"]);
        assert_eq!(assigned(&["tool=r.example/t:1"], &made).unwrap(), ["r.example/t:1 toolx1"]);
        assert_eq!(assigned(&["r.example/t"], &made[..1]).unwrap(), ["r.example/t:1.0-x toolx1"]);
        assert_eq!(assigned(&["s3://b/p/"], &made).unwrap(), ["s3://b/p toolx3"]);
        assert_eq!(assigned(&["tool=https://u:p@h/raw?a=b"], &made).unwrap(), ["https://h/raw?a=b toolx1"]);
    }

    #[test]
    fn what_is_not_clear_is_asked_about() {
        let made = [artifact("one", "image"), artifact("two", "image")];
        insta::assert_snapshot!(assigned(&["r.example/s:1"], &made).unwrap_err(), @"`--push r.example/s:1` could be for `one`, `two`: write `--push ARTIFACT=r.example/s:1` for each");
        insta::assert_snapshot!(assigned(&["tow=r.example/s"], &made).unwrap_err(), @"`--push tow=…`: the build produced no artifact `tow`; did you mean `two`?");
        insta::assert_snapshot!(assigned(&["r.example/S"], &made).unwrap_err(), @"`--push`: invalid image name `r.example/S`: `S` is upper case; repositories are lower case: `s`");
        assert!(assigned(&["r.example/s"], &[]).is_err());
    }
}
