//! Where a result goes: registries, the local Docker, archives and directories.
//!
//! Invariant: all documents are made before anything is written, and a tag is moved last.

use std::path::{Path, PathBuf};
use std::sync::Mutex;

use bytes::Bytes;
use kiln_buildx::{Format, Level, Mode, Output, Place, Request};
use kiln_images::blobs::Blobs;
use kiln_images::image::Image;
use kiln_images::manifest::Document;
use kiln_images::manifest::Manifest;
use kiln_images::push::{Push, Pushed};
use kiln_images::reference::Reference;
use kiln_images::referrer::Referrer;
use kiln_images::registry::{self, Credentials, Registries};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;

use crate::archive::Content;
use crate::files::Files;
use crate::statement::Statement;
use crate::{Attested, Beside, Error, Set};

const BASE: &str = "org.opencontainers.image.base.name";

/// The exports of a build.
#[derive(Debug)]
pub struct Exports<'a> {
    request: &'a Request,
    names: Vec<Reference>,
    registries: Registries,
    /// What was made, for files about it.
    made: Mutex<Option<Made>>,
}

/// What was made.
#[derive(Debug, Clone, Default)]
pub struct Made {
    /// The image's id; empty if there is no image.
    pub id: String,
    /// What `--metadata-file` says.
    pub metadata: Value,
}

/// What the farm built for a platform.
#[derive(Debug, Clone)]
pub struct Part {
    /// The platform, as `linux/amd64`.
    pub platform: String,
    /// The build that made it.
    pub build: String,
    /// Its images: one.
    pub images: Vec<Image>,
    /// The farm's provenance.
    pub provenance: Bytes,
    /// The farm's bill of materials, in SPDX.
    pub sbom: Option<Bytes>,
    /// What the farm signed about the image, by the names of the statements.
    pub signed: Vec<(String, Referrer)>,
}

/// Something that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    /// `pushed`, `loaded` or `wrote`.
    pub how: &'static str,
    /// Where it is.
    pub reference: String,
    /// Its digest there; empty for files.
    pub digest: String,
    /// Bytes that were sent, and bytes that were there already.
    pub bytes: (u64, u64),
    /// What the user should know.
    pub note: Option<String>,
}

impl<'a> Exports<'a> {
    /// Checks names and credentials, before anything is built. `insecure` are registries to use over plain HTTP.
    ///
    /// # Errors
    /// If a name is invalid, or something is to be pushed without one.
    pub fn new(request: &'a Request, insecure: &[String]) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Tag(reason);
        let mut names = Vec::new();
        for text in &request.tags {
            let name: Reference =
                text.parse().map_err(|error: kiln_images::reference::Invalid| invalid(error.to_string()))?;
            if name.digest().is_some() {
                return Err(invalid(format!(
                    "`{text}` contains a digest, which is determined by the content: use a tag"
                )));
            }
            let name = if name.tag().is_some() {
                name
            } else {
                name.at_tag("latest").map_err(|error| invalid(error.to_string()))?
            };
            if !names.contains(&name) {
                names.push(name);
            }
        }
        let mut insecure = insecure.to_vec();
        for output in &request.outputs {
            if let Output::Image { push: true, insecure: plain, .. } = output {
                if names.is_empty() {
                    return Err(invalid(
                        "an image that is pushed needs a name: `--tag registry.example/team/name`".to_owned(),
                    ));
                }
                if *plain {
                    insecure.extend(names.iter().map(|name| name.registry().to_owned()));
                }
            }
        }
        let credentials = Credentials::of_user().map_err(Box::new)?;
        let registries = Registries::new(registry::Options { insecure, ..Default::default() }, credentials);
        Ok(Self { request, names, registries, made: Mutex::default() })
    }

    /// The name of the image for people, if it has one.
    pub fn name(&self) -> Option<String> {
        self.names.first().and_then(|name| name.repository().rsplit('/').next().map(str::to_owned))
    }

    /// What was made; none if the build did not get so far.
    pub fn made(&self) -> Option<Made> {
        self.made.lock().ok()?.take()
    }

    fn familiar(&self) -> Vec<String> {
        self.names.iter().map(Reference::familiar).collect()
    }

    /// The images with or without attestations.
    fn set(&self, parts: &[Part], with: bool, format: &Format) -> Result<Set, Error> {
        let mut attested = Vec::new();
        for part in parts {
            let statements = if with { self.statements(part, false)? } else { Vec::new() };
            for image in part.images.iter().cloned() {
                attested.push(Attested { image, statements: statements.clone() });
            }
        }
        // The farm has annotated the manifests. What stays there, or goes to Docker, has no index of its own.
        let wanted = self.request.annotations.iter().filter(|one| with && one.level != Level::Manifest);
        let annotations: Vec<_> = wanted.cloned().collect();
        Set::new(attested, format, &annotations, &self.familiar())
    }

    /// The attestations of an image; with `explicit`, only those that were asked for.
    fn statements(&self, part: &Part, explicit: bool) -> Result<Vec<Statement>, Error> {
        let wanted = self.request.attestations;
        let mut statements = Vec::new();
        if let Some(mode) = wanted.provenance.filter(|_| wanted.provenance_wanted || !explicit) {
            statements.push(self.provenance(part, mode)?);
        }
        if let Some(sbom) = part.sbom.as_ref().filter(|_| wanted.sbom) {
            statements.push(Statement::sbom(sbom)?);
        }
        Ok(statements)
    }

    fn provenance(&self, part: &Part, mode: Mode) -> Result<Statement, Error> {
        let request = json!({
            "args": self.request.build_args, "labels": self.request.labels, "target": self.request.target,
            "file": self.request.file, "secrets": self.request.secrets.iter().map(|secret| &secret.id).collect::<Vec<_>>(),
        });
        Ok(Statement::provenance(&part.provenance, mode, request)?)
    }

    /// Puts what was built where it goes. `blobs` are those of the farm.
    ///
    /// # Errors
    /// If an output cannot be made or written.
    pub async fn export(&self, parts: &[Part], blobs: &dyn Blobs) -> Result<Vec<Done>, Error> {
        let format = &self.request.format;
        let plain = self.set(parts, false, &Format { docker_types: false, ..format.clone() });
        let whole = self.set(parts, true, format);
        let (mut done, mut top) = (Vec::new(), None);
        for output in &self.request.outputs {
            match output {
                Output::Image { push: false, .. } | Output::CacheOnly => {}
                Output::Image { by_digest, .. } => {
                    let set = whole.as_ref().map_err(Error::again)?;
                    done.extend(self.push(set, parts, *by_digest, blobs).await?);
                    top = Some(set);
                }
                Output::Oci { to, is_archive } => {
                    let set = whole.as_ref().map_err(Error::again)?;
                    let names = |name: &Reference| (name.to_string(), name.tag().unwrap_or("latest").to_owned());
                    let names: Vec<_> = self.names.iter().map(names).collect();
                    let content = Content::layout(set, &names, &self.request.annotations);
                    done.push(written(&content, blobs, to, *is_archive).await?);
                    top = top.or(Some(set));
                }
                Output::Docker(to) => {
                    let set = plain.as_ref().map_err(Error::again)?;
                    let image = set.images.first().ok_or_else(|| Error::NoImage)?;
                    done.push(match to {
                        None => crate::load(image, blobs, &self.familiar()).await?,
                        Some(to) => written(&Content::saved(image, &self.familiar()), blobs, to, true).await?,
                    });
                    top = top.or(Some(set));
                }
                Output::Local(files) => done.push(self.files(parts, blobs, files, false).await?),
                Output::Tar(files) => done.push(self.files(parts, blobs, files, true).await?),
            }
        }
        let files_only = !self.request.outputs.is_empty()
            && self.request.outputs.iter().all(|output| matches!(output, Output::Local(_) | Output::Tar(_)));
        let top = match top {
            Some(set) => Some(set),
            None if files_only => None,
            None => Some(plain.as_ref().map_err(Error::again)?),
        };
        let metadata = self.metadata(top, parts)?;
        if let Ok(mut made) = self.made.lock() {
            *made = Some(Made { id: top.map(Set::id).unwrap_or_default(), metadata });
        }
        Ok(done)
    }

    /// What the farm signed about a manifest, if that is pushed as the farm made it and the same was asked for without signature: the
    /// farm's own provenance has what `mode=min` leaves out.
    fn signed(&self, parts: &[Part], manifest: &Document) -> Vec<Referrer> {
        let wanted = self.request.attestations;
        let is_wanted = |name: &str| match name {
            "provenance" => wanted.provenance == Some(Mode::Max),
            "sbom" | "spdx" => wanted.sbom,
            _ => true,
        };
        let is_its = |part: &&Part| part.images.iter().any(|image| image.manifest.data == manifest.data);
        let signed = parts.iter().find(is_its).into_iter().flat_map(|part| &part.signed);
        signed.filter(|(name, _)| is_wanted(name)).map(|(_, referrer)| referrer.clone()).collect()
    }

    async fn push(&self, set: &Set, parts: &[Part], by_digest: bool, farm: &dyn Blobs) -> Result<Vec<Done>, Error> {
        let source = Beside::new(&set.documents, farm);
        let mut done = Vec::new();
        for name in &self.names {
            let to = if by_digest { name.at_digest(set.top.descriptor.digest) } else { name.clone() };
            let pushed = |one: &Document| Pushed { manifest: one.clone(), referrers: self.signed(parts, one) };
            let manifests = set.manifests.iter().map(pushed);
            let beside = set.images.iter().find_map(base_of);
            let push = Push {
                to: to.clone(),
                manifests: manifests.collect(),
                top: set.top.clone(),
                about_top: Vec::new(),
                beside,
                over: true,
            };
            let failed = |source| Error::Push { reference: to.familiar(), source: Box::new(source) };
            let outcome = push.run(&self.registries, &source).await.map_err(failed)?;
            done.push(Done {
                how: "pushed",
                reference: name.familiar(),
                digest: set.top.descriptor.digest.to_string(),
                bytes: (outcome.sent.1, outcome.mounted.1 + outcome.present.1),
                note: None,
            });
            if by_digest {
                break;
            }
        }
        Ok(done)
    }

    /// The files of the images.
    async fn files(
        &self,
        parts: &[Part],
        blobs: &dyn Blobs,
        wanted: &kiln_buildx::Files,
        as_archive: bool,
    ) -> Result<Done, Error> {
        let mut all = Vec::new();
        for part in parts {
            for image in &part.images {
                let mut files = Files::read(blobs, image).await?;
                for statement in self.statements(part, true)? {
                    let name =
                        if statement.predicate_type.contains("slsa") { "provenance.json" } else { "sbom.spdx.json" };
                    let data = serde_json::to_vec_pretty(&statement.predicate)?;
                    files.add(&format!("{}{name}", wanted.prefix), &data)?;
                }
                all.push((part.platform.replace('/', "_"), files));
            }
        }
        let split = wanted.split.unwrap_or(all.len() > 1);
        let epoch = self.request.build_args.get("SOURCE_DATE_EPOCH").and_then(|text| text.parse::<i64>().ok());
        let to = wanted.to.clone();
        let writing = tokio::task::spawn_blocking(move || -> Result<Vec<String>, Error> {
            let all = Files::join(all, split)?;
            let mut left_out = Vec::new();
            match (&to, as_archive) {
                (Place::Path(path), false) => {
                    for files in &all {
                        left_out.extend(files.write_directory(Path::new(path), epoch)?);
                    }
                }
                (Place::Stdout, _) => Files::write_archives(&all, std::io::stdout().lock(), epoch, Path::new("-"))?,
                (Place::Path(path), true) => {
                    let path = Path::new(path);
                    let file =
                        std::fs::File::create(path).map_err(|source| Error::Write { path: path.to_owned(), source })?;
                    Files::write_archives(&all, std::io::BufWriter::new(file), epoch, path)?;
                }
            }
            Ok(left_out)
        });
        let left_out = writing.await.map_err(|error| Error::Temporary(std::io::Error::other(error)))??;
        let note = left_out.first().map(|first| {
            let more = left_out.len() - 1;
            format!("`{first}` and {more} more pipes or devices are not written; an archive (`type=tar`) has them")
        });
        Ok(Done { how: "wrote", reference: shown(&wanted.to), digest: String::new(), bytes: (0, 0), note })
    }

    fn metadata(&self, set: Option<&Set>, parts: &[Part]) -> Result<Value, Error> {
        let mut metadata = serde_json::Map::new();
        let build = parts.first().map(|part| part.build.clone()).unwrap_or_default();
        metadata.insert("buildx.build.ref".to_owned(), format!("kiln/kiln/{build}").into());
        if let Some(set) = set {
            let descriptor = &set.top.descriptor;
            metadata.insert("containerimage.digest".to_owned(), descriptor.digest.to_string().into());
            metadata.insert("containerimage.descriptor".to_owned(), json!(descriptor));
            if let ([only], false) = (set.images.as_slice(), set.is_index()) {
                metadata.insert(
                    "containerimage.config.digest".to_owned(),
                    only.config.descriptor.digest.to_string().into(),
                );
            }
            if !self.names.is_empty() {
                let names: Vec<String> = self.names.iter().map(ToString::to_string).collect();
                metadata.insert("image.name".to_owned(), names.join(",").into());
            }
        }
        let mode = match std::env::var("BUILDX_METADATA_PROVENANCE").as_deref() {
            Ok("disabled" | "false" | "0") => None,
            Ok("max") => Some(Mode::Max),
            _ => Some(Mode::Min),
        };
        if let Some(mode) = mode {
            for part in parts {
                let several = if parts.len() > 1 { format!("/{}", part.platform) } else { String::new() };
                metadata.insert(format!("buildx.build.provenance{several}"), self.provenance(part, mode)?.predicate);
            }
        }
        Ok(Value::Object(metadata))
    }
}

/// The repository of an image's base.
fn base_of(image: &Image) -> Option<Reference> {
    let manifest: Manifest = serde_json::from_slice(&image.manifest.data).ok()?;
    manifest.annotations.get(BASE)?.parse().ok()
}

fn shown(place: &Place) -> String {
    match place {
        Place::Stdout => "standard output".to_owned(),
        Place::Path(path) => path.clone(),
    }
}

/// Writes an archive or a directory.
async fn written(content: &Content, blobs: &dyn Blobs, to: &Place, is_archive: bool) -> Result<Done, Error> {
    match to {
        Place::Stdout => {
            let failed = |source| Error::Write { path: PathBuf::from("-"), source };
            let mut stdout = tokio::fs::File::from_std(kiln_system::stdout().map_err(failed)?);
            content.write(blobs, &mut stdout, Path::new("-")).await?;
        }
        Place::Path(path) if !is_archive => content.write_directory(blobs, Path::new(path)).await?,
        Place::Path(path) => {
            let path = PathBuf::from(path);
            let failed = |source| Error::Write { path: path.clone(), source };
            let file = tokio::fs::File::create(&path).await.map_err(failed)?;
            let mut file = tokio::io::BufWriter::new(file);
            content.write(blobs, &mut file, &path).await?;
            file.shutdown().await.map_err(failed)?;
        }
    }
    let bytes = (content.layer_bytes(), 0);
    Ok(Done { how: "wrote", reference: shown(to), digest: String::new(), bytes, note: None })
}
