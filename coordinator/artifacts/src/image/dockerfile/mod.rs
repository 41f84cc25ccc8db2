//! An image that a Dockerfile builds: bases come from registries or the project, copies are made here, and commands run on workers.

mod building;
mod command;
mod maker;
mod remembered;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_dockerfile::patterns::Ignore;
use kiln_dockerfile::{BaseImage, Build, Operator};
use kiln_images::image::Image;
use kiln_images::layer::Compression;
use kiln_images::manifest::{Document, Manifest};
use kiln_images::platform::Platform;
use kiln_planner::plan;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_roots::{Packing, Roots};
use kiln_trees::root::Time;
use tokio::sync::Mutex;

pub use command::{Checkout, Command, Commands, DEFAULT_AGENT, Download, Login, Ran, network};

use remembered::Carried;

use super::base::Stored;
use super::store_layout;
use crate::assemble::{Error, Ingredients, Made};
use crate::{Material, Subject};

/// Repeated bytes of a layer from which on a note names the instruction.
const WORTH_A_NOTE: u64 = 1 << 20;

/// Builds the image of a Dockerfile.
pub(crate) async fn assemble(given: &Ingredients<'_>, description: &plan::Dockerfile) -> Result<Made, Error> {
    let platform = Platform::linux(given.target.platform.architecture());
    let maker = Maker {
        given,
        description,
        roots: Roots::new(given.stores.clone(), given.instance, given.function),
        bases: Mutex::default(),
        platform,
    };
    let text = maker
        .text(&description.file)
        .await?
        .ok_or_else(|| maker.wrong(format!("there is no `{}`", description.file)))?;
    let ignore = maker.ignore(&description.context, Some(&description.file)).await?;
    let (build, mut notes) = maker.lower(&text, ignore.clone()).await?;
    let runs = |kind: &Operator| matches!(kind, Operator::Run(_) | Operator::Fetch(_) | Operator::Git(_));
    let copies = |kind: &Operator| matches!(kind, Operator::Copy(_) | Operator::Workdir { .. });
    let steps = build.operations.iter().filter(|operation| runs(&operation.kind));
    let steps = steps.map(|operation| operation.name.clone()).collect();
    given.commands.begin(steps, build.operations.iter().filter(|operation| copies(&operation.kind)).count());
    let packing = Packing {
        compression: match description.compression {
            plan::Compression::Gzip => Compression::Gzip,
            plan::Compression::Zstd => Compression::Zstd,
        },
        epoch: build.epoch.unwrap_or(given.origin.created),
        undated: build.epoch.unwrap_or(Time::UNDATED.seconds),
        clamp: description.rewrite_timestamp && build.epoch.is_some(),
    };
    let host = Building { maker: &maker, ignore, build: &build, carried: parking_lot::Mutex::default() };
    let recipe = maker.recipe(&build, packing).await;
    if let Some(recipe) = &recipe
        && let Some(made) = host.recall(recipe).await?
    {
        notes.extend(made.notes);
        return Ok(Made { materials: maker.materials().await, notes, ..made });
    }
    let made = maker.go_through(&host, packing).await?;
    if let Some(recipe) = &recipe {
        host.remember(recipe, &made, &made.notes).await?;
    }
    notes.extend(made.notes);
    Ok(Made { materials: maker.materials().await, notes, ..made })
}

impl Maker<'_> {
    /// Goes through all instructions of a Dockerfile, and puts its image together.
    async fn go_through(&self, host: &Building<'_>, packing: Packing) -> Result<Made, Error> {
        let (given, description, build) = (self.given, self.description, host.build);
        let done = self.roots.carry_out(build, host).await.map_err(|(at, error)| self.failed(build, at, error))?;
        let below = self.base_of(build).await;
        let mut notes = Vec::new();
        let installed = match done.of(build.result) {
            Some(files) => {
                notes.extend(self.unlisted(files).await?);
                self.installed(files).await?
            }
            None => Vec::new(),
        };
        let layers = below.as_ref().map(|base| base.base.layers.clone()).unwrap_or_default();
        let assembled = self.roots.image(build, &done, &layers, packing).await?;
        for (at, layer) in assembled.added.iter().filter(|(_, layer)| layer.repeated_bytes >= WORTH_A_NOTE) {
            let Some(operation) = build.operations.get(*at) else { continue };
            notes.push(format!(
                "`{}` line {}: the layer of `{}` has {} of files again that the layers below have unchanged",
                description.file,
                operation.lines.0,
                operation.name,
                kiln_units::show_size(layer.repeated_bytes)
            ));
        }
        let mut blobs = assembled.blobs;
        blobs.extend(below.iter().flat_map(|base| base.blobs.clone()));
        let image = annotated(assembled.image, description)
            .map_err(|error| self.wrong(format!("its manifest cannot be annotated: {error}")))?;
        let manifest = image.manifest.clone();
        let made = store_layout(given, &[image], &self.tag(), &blobs).await?;
        let hash = manifest.descriptor.digest.bytes();
        let subject = Digest { function: DigestFunction::Sha256, hash, size: manifest.descriptor.size };
        Ok(Made {
            content: given.function.digest(&manifest.data),
            subjects: vec![Subject { name: given.artifact.name.clone(), digest: subject }],
            installed,
            notes,
            ..made
        })
    }

    /// The images that it is made from.
    async fn materials(&self) -> Vec<Material> {
        let bases = self.bases.lock().await;
        bases.values().map(|base| base.material()).collect()
    }

    /// The tag in its layout.
    fn tag(&self) -> String {
        kiln_images::reference::tag_from(&self.given.origin.version)
    }
}

/// The image with the annotations of its manifest.
fn annotated(image: Image, description: &plan::Dockerfile) -> Result<Image, serde_json::Error> {
    let platform = image.manifest.descriptor.platform.clone();
    let own = platform.as_ref().map(ToString::to_string).unwrap_or_default();
    let wanted = description.annotations.iter().filter(|(of, ..)| of.as_ref().is_none_or(|of| *of == own));
    let wanted: Vec<_> = wanted.collect();
    if wanted.is_empty() {
        return Ok(image);
    }
    let mut manifest: Manifest = serde_json::from_slice(&image.manifest.data)?;
    manifest.annotations.extend(wanted.into_iter().map(|(_, key, value)| (key.clone(), value.clone())));
    let mut manifest = Document::from(&manifest);
    manifest.descriptor.platform = platform;
    Ok(Image { manifest, ..image })
}

/// What the image is made with.
struct Maker<'a> {
    given: &'a Ingredients<'a>,
    description: &'a plan::Dockerfile,
    roots: Roots,
    bases: Mutex<BTreeMap<BaseImage, Arc<Stored>>>,
    platform: Platform,
}

/// What carries out its operations.
struct Building<'a> {
    maker: &'a Maker<'a>,
    ignore: Option<Ignore>,
    build: &'a Build,
    /// The commands that were carried out, by their operations.
    carried: parking_lot::Mutex<BTreeMap<usize, Carried>>,
}
