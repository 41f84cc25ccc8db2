//! `--output`: where a result goes.

use crate::annotation::Annotation;
use crate::csv::{boolean, fields, pairs};
use crate::error::{Error, hint};

const FLAG: &str = "--output";
const TYPES: [&str; 7] = ["local", "tar", "oci", "docker", "image", "registry", "cacheonly"];
/// Fields of images that change nothing here.
const WITHOUT_EFFECT: [&str; 12] = [
    "unpack",
    "store",
    "name-canonical",
    "dangling-name-prefix",
    "compression-level",
    "prefer-nondist-layers",
    "compatibility-version",
    "context",
    "buildinfo",
    "buildinfo-attrs",
    "attestation-inline",
    "overwrite",
];
const IMAGE: [&str; 13] = [
    "type",
    "dest",
    "name",
    "push",
    "push-by-digest",
    "registry.insecure",
    "compression",
    "force-compression",
    "rewrite-timestamp",
    "oci-mediatypes",
    "oci-artifact",
    "tar",
    "source-date-epoch",
];
const FILES: [&str; 5] = ["type", "dest", "platform-split", "attestation-prefix", "mode"];

/// A place for files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Standard output.
    Stdout,
    /// A file or a directory.
    Path(String),
}

/// Where a result goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Its files, into a directory.
    Local(Files),
    /// Its files, as an archive.
    Tar(Files),
    /// The image as an OCI layout: an archive, or with `tar=false` a directory.
    Oci {
        /// Where to.
        to: Place,
        /// Whether it is an archive.
        is_archive: bool,
    },
    /// The image as `docker save` writes it; into the local Docker without a place.
    Docker(Option<Place>),
    /// The image on the farm, and in registries with `push`.
    Image {
        /// Whether it is pushed.
        push: bool,
        /// Whether it is pushed without a tag.
        by_digest: bool,
        /// Whether its registry may be contacted over plain HTTP.
        insecure: bool,
    },
    /// Nowhere: the farm's cache has it.
    CacheOnly,
}

/// Files of a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// Where they go.
    pub to: Place,
    /// Whether each platform has a directory of its own; default: if there are several.
    pub split: Option<bool>,
    /// What names of attestations begin with.
    pub prefix: String,
}

/// How the image is written, whatever its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Format {
    /// `gzip` or `zstd`; none: gzip.
    pub compression: Option<String>,
    /// Whether no file is younger than `SOURCE_DATE_EPOCH`.
    pub rewrite_timestamp: bool,
    /// Whether the media types are Docker's.
    pub docker_types: bool,
    /// Whether attestations are images instead of artifacts.
    pub image_attestations: bool,
}

/// What one `--output` says.
#[derive(Debug, Default)]
pub(crate) struct Said {
    pub(crate) names: Vec<String>,
    pub(crate) annotations: Vec<Annotation>,
    pub(crate) epoch: Option<String>,
}

/// Reads a value.
pub(crate) fn read(text: &str, format: &mut Format, said: &mut Said) -> Result<Output, Error> {
    let invalid = |reason: String| Error::value(FLAG, reason);
    let whole = fields(text).map_err(invalid)?;
    if let [only] = whole.as_slice()
        && *only == text
        && !text.starts_with("type=")
    {
        let files = |to| Files { to, split: None, prefix: String::new() };
        return Ok(match text {
            "-" => Output::Tar(files(Place::Stdout)),
            "" => return Err(invalid("no destination; expected a directory, `-` or `type=…`".to_owned())),
            path => Output::Local(files(Place::Path(path.to_owned()))),
        });
    }
    let pairs = pairs(text).map_err(invalid)?;
    let get = |name: &str| pairs.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let truth = |name: &str| match get(name) {
        None => Ok(None),
        Some("") => Ok(Some(true)),
        Some(value) => boolean(value)
            .map(Some)
            .ok_or_else(|| invalid(format!("invalid value `{value}` of `{name}`; expected `true` or `false`"))),
    };
    let kind = get("type").filter(|kind| !kind.is_empty()).ok_or_else(|| invalid("`type` is required".to_owned()))?;
    if !TYPES.contains(&kind) {
        return Err(invalid(format!(
            "unknown type `{kind}`{}; expected one of {}",
            hint(kind, TYPES),
            TYPES.join(", ")
        )));
    }
    let known: &[&str] = match kind {
        "local" | "tar" => &FILES,
        "cacheonly" => &["type"],
        _ => &IMAGE,
    };
    for (name, value) in &pairs {
        if let Some(annotation) = name.strip_prefix("annotation") {
            said.annotations.push(Annotation::of_field(annotation, value).map_err(invalid)?);
        } else if !known.contains(&name.as_str()) && !WITHOUT_EFFECT.contains(&name.as_str()) {
            let hint = hint(name, known.iter().copied());
            return Err(invalid(format!("`{name}` is not a field of type `{kind}`{hint}")));
        }
    }
    let place = |otherwise: Option<Place>| match get("dest") {
        Some("-") => Ok(Place::Stdout),
        Some(path) if !path.is_empty() => Ok(Place::Path(path.to_owned())),
        _ => otherwise.ok_or_else(|| invalid(format!("type `{kind}` needs `dest`"))),
    };
    let files = |otherwise| {
        let prefix = get("attestation-prefix").unwrap_or_default().to_owned();
        Ok::<_, Error>(Files { to: place(otherwise)?, split: truth("platform-split")?, prefix })
    };
    if matches!(kind, "oci" | "docker" | "image" | "registry") {
        formats(format, &get, &truth)?;
        said.names.extend(get("name").into_iter().flat_map(|names| names.split(',')).map(str::to_owned));
        said.epoch = said.epoch.take().or(get("source-date-epoch").map(str::to_owned));
    }
    Ok(match kind {
        "local" => match files(None)? {
            Files { to: Place::Stdout, .. } => {
                return Err(invalid("type `local` needs a directory; use `type=tar` for standard output".to_owned()));
            }
            Files { .. } if get("mode").is_some_and(|mode| mode != "copy") => {
                return Err(Error::refused(FLAG, "`mode=delete`: Kiln removes no files of yours; use a new directory"));
            }
            files => Output::Local(files),
        },
        "tar" => Output::Tar(files(Some(Place::Stdout))?),
        "oci" => Output::Oci { to: place(Some(Place::Stdout))?, is_archive: truth("tar")?.unwrap_or(true) },
        "docker" if truth("tar")? == Some(false) => {
            return Err(Error::refused(FLAG, "`type=docker,tar=false`; use `type=oci,tar=false` for a directory"));
        }
        "docker" => Output::Docker(get("dest").map(|_| place(None)).transpose()?),
        "cacheonly" => Output::CacheOnly,
        _ => {
            let by_digest = truth("push-by-digest")?.unwrap_or(false);
            let push = truth("push")?.unwrap_or(kind == "registry");
            Output::Image { push, by_digest, insecure: truth("registry.insecure")?.unwrap_or(false) }
        }
    })
}

/// How layers are written is the same for all outputs, because the farm writes them once.
fn formats<'a>(
    format: &mut Format,
    get: &impl Fn(&str) -> Option<&'a str>,
    truth: &impl Fn(&str) -> Result<Option<bool>, Error>,
) -> Result<(), Error> {
    if let Some(compression) = get("compression") {
        if !matches!(compression, "gzip" | "zstd") {
            return Err(Error::refused(FLAG, format!("`compression={compression}`; use `gzip` or `zstd`")));
        }
        if format.compression.as_deref().is_some_and(|other| other != compression) {
            return Err(Error::Together("all outputs of a build have the same `compression`".to_owned()));
        }
        format.compression = Some(compression.to_owned());
    }
    if truth("force-compression")? == Some(true) {
        return Err(Error::refused(FLAG, "`force-compression`: layers of the base image stay as they are"));
    }
    format.rewrite_timestamp |= truth("rewrite-timestamp")?.unwrap_or(false);
    format.docker_types |= truth("oci-mediatypes")? == Some(false);
    format.image_attestations |= truth("oci-artifact")? == Some(false);
    Ok(())
}
