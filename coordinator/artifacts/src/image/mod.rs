//! Assembles container images from the store's blobs: one layer per step, on a base, as an OCI layout.
//!
//! Invariant: each step's files are a separate layer, in the plan's order, so that a change of the sources does not
//! affect the layers of dependencies. A layer that exists is neither read nor compressed again.

mod base;
pub(crate) mod dockerfile;
mod feed;
mod gate;
mod layers;
mod packages;
mod root;

use std::collections::{BTreeMap, BTreeSet};

use kiln_images::image::{Added, Settings};
use kiln_images::layer::{Compression, Options};
use kiln_images::layout;
use kiln_images::platform::Platform;
use kiln_planner::plan::{self, Base as Described, Image as Description};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_trees::tree::{Entry, Tree};

use super::assemble::{Error, Ingredients, Made, checksums, store_files};
use super::choose::{Chosen, lay_out};
use super::{MTIME, Material, Subject, check, start};
use crate::elf::{Ground, Wants};
use base::Stored;
pub use base::{BaseError, Bases, invalid_base};
pub use gate::{InImage, Shown, report_path};
use layers::Layering;
pub use packages::install;
pub use root::{ImageRoot, ImageRootError};

/// Makes an image of the selected files. `outputs` are the individual steps' trees, `merged` is their combination.
pub(super) async fn assemble(
    given: &Ingredients<'_>,
    description: &Description,
    chosen: &[Chosen],
    tree: &Tree,
    outputs: &[(String, Tree)],
    merged: &Tree,
) -> Result<Made, Error> {
    let platform = Platform::linux(given.target.platform.architecture());
    let base = match base(given, description, merged, &platform).await? {
        Some(base) => Some(packages::with_packages(given, description, base).await?),
        None => None,
    };
    let on = base.as_deref();
    refuse_links(given, on, chosen)?;
    let layering = Layering { given, options: options(description, on) };
    let (mut added, mut blobs, mut wants) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
    for (step, files) in by_step(given, chosen, outputs) {
        let (least, most) = files.into_iter().partition(|one| changes_least(description, one));
        for (files, what) in [(least, ": dependencies"), (most, "")] {
            if Vec::is_empty(&files) {
                continue;
            }
            let made = layering.layer(&lay_out(given.artifact, files)?).await?;
            blobs.insert(made.kept.layer.descriptor.digest, made.blob);
            wants.extend(made.kept.wants);
            added.push(Added { layer: made.kept.layer, by: format!("step {step}{what}") });
        }
    }
    if given.artifact.check_elf {
        hold(given, on, tree, &wants)?;
    }
    blobs.extend(on.iter().flat_map(|base| base.blobs.clone()));
    let origin = kiln_images::image::Origin {
        title: given.artifact.name.clone(),
        base_name: on.map(|base| base.name.clone()).unwrap_or_default(),
        ..given.origin.clone()
    };
    let settings = settings(given, description, tree)?;
    let image = kiln_images::image::assemble(on.map(|base| &base.base), &platform, &settings, &added, &origin);
    let manifest = image.manifest.clone();
    let tag = kiln_images::reference::tag_from(&given.origin.version);
    let made = store_layout(given, &[image], &tag, &blobs).await?;
    let subject = Digest {
        function: DigestFunction::Sha256,
        hash: manifest.descriptor.digest.bytes(),
        size: manifest.descriptor.size,
    };
    Ok(Made {
        content: given.function.digest(&manifest.data),
        subjects: vec![Subject { name: given.artifact.name.clone(), digest: subject }],
        materials: on.map(|base| base.material()).into_iter().collect(),
        wants,
        checksums: checksums(tree),
        ..made
    })
}

async fn base(
    given: &Ingredients<'_>,
    description: &Description,
    merged: &Tree,
    platform: &Platform,
) -> Result<Option<std::sync::Arc<Stored>>, Error> {
    let found = match &description.base {
        Described::Scratch => return Ok(None),
        Described::Reference(reference) => given.bases.of_registry(reference, platform).await,
        Described::Path(path) => given.bases.of_project(path, merged, given.sources, platform).await,
    };
    let failed = |source| Error::Base {
        artifact: given.artifact.name.clone(),
        base: description.base.show(),
        source: Box::new(source),
    };
    found.map(Some).map_err(failed)
}

fn options(description: &Description, base: Option<&Stored>) -> Options {
    Options {
        owner: (description.owner.0.into(), description.owner.1.into()),
        mtime: MTIME,
        compression: match description.compression {
            plan::Compression::Gzip => Compression::Gzip,
            plan::Compression::Zstd => Compression::Zstd,
        },
        directories: base.map(|base| base.contents.directories.clone()).unwrap_or_default(),
    }
}

fn settings(given: &Ingredients<'_>, description: &Description, tree: &Tree) -> Result<Settings, Error> {
    let mut entrypoint = description.entrypoint.clone();
    if description.start && entrypoint.is_none() {
        entrypoint = Some(started(given, description, tree)?);
    }
    Ok(Settings {
        entrypoint,
        cmd: description.cmd.clone(),
        env: description.env.clone(),
        user: description.user.clone(),
        workdir: description.workdir.clone(),
        labels: description.labels.clone(),
        ports: description.ports.clone(),
    })
}

/// The command that starts the program which is found in an image's files.
fn started(given: &Ingredients<'_>, description: &Description, tree: &Tree) -> Result<Vec<String>, Error> {
    let directory = description.place("");
    let directory = directory.trim_end_matches('/');
    let own = match tree.get(directory) {
        _ if directory.is_empty() => tree,
        Some(Entry::Directory(own)) => own,
        _ => tree,
    };
    let start = start::of(own, &given.artifact.name);
    if start.program.is_empty() {
        let reason =
            "its files show no program to start; set `entrypoint` in `kiln.toml` (`kiln init --image` writes one)";
        return Err(Error::Layout { artifact: given.artifact.name.clone(), reason: reason.to_owned() });
    }
    let program = format!("/{directory}/{}", start.program).replace("//", "/");
    Ok(start.with.split_whitespace().map(str::to_owned).chain([program]).collect())
}

/// Whether a file is in a layer of its own below the others.
fn changes_least(description: &Description, one: &Chosen) -> bool {
    let directory = description.place("");
    let within = one.to.strip_prefix(directory.as_str()).map_or(one.to.as_str(), |path| path.trim_start_matches('/'));
    plan::matches(&description.layers, within)
}

/// A directory that replaces a link of the base, such as Debian's `/lib`, would hide what the link leads to.
fn refuse_links(given: &Ingredients<'_>, base: Option<&Stored>, chosen: &[Chosen]) -> Result<(), Error> {
    let Some(base) = base else { return Ok(()) };
    for one in chosen {
        if let Some((link, target)) = base.contents.link_above(&one.to) {
            let reason = format!(
                "`/{}` would take the place of the base's link `/{link}`: put it below where that leads, `{target}`",
                one.to
            );
            return Err(Error::Layout { artifact: given.artifact.name.clone(), reason });
        }
    }
    Ok(())
}

/// The selected files of each step, in the plan's order. A file of two steps belongs to the later one in the artifact's
/// `from`.
fn by_step<'a>(
    given: &Ingredients<'_>,
    chosen: &'a [Chosen],
    outputs: &'a [(String, Tree)],
) -> Vec<(&'a str, Vec<&'a Chosen>)> {
    let mut groups: Vec<(&str, Vec<&Chosen>)> = outputs.iter().map(|(step, _)| (step.as_str(), Vec::new())).collect();
    for one in chosen {
        let holds = |name: &&String| outputs.iter().any(|(step, tree)| step == *name && tree.get(&one.from).is_some());
        let owner = given.artifact.from.iter().rev().find(holds);
        let group = owner.and_then(|owner| groups.iter_mut().find(|(step, _)| step == owner));
        if let Some((_, files)) = group {
            files.push(one);
        }
    }
    groups.retain(|(_, files)| !files.is_empty());
    groups
}

/// Checks the executables. An image contains its own libraries: the target's do not count.
fn hold(
    given: &Ingredients<'_>,
    base: Option<&Stored>,
    tree: &Tree,
    wants: &BTreeMap<String, Wants>,
) -> Result<(), Error> {
    let carried = check::carried(tree);
    let none = BTreeSet::new();
    let glibc = base.and_then(|base| base.contents.glibc);
    let ground = Ground {
        target: given.target,
        glibc: glibc.or(given.target.glibc),
        libraries: [&carried, base.map_or(&none, |base| &base.contents.libraries)],
        lacking: match base {
            Some(_) => "which is neither in the image nor in its base",
            None => "which is not in the image: link it statically, or choose a `base` that has it",
        },
    };
    check::hold(&given.artifact.name, wants, &ground, String::new())
}

/// Stores an OCI layout. `blobs` maps each layer's digest to the store's.
pub(super) async fn store_layout(
    given: &Ingredients<'_>,
    images: &[kiln_images::image::Image],
    tag: &str,
    blobs: &BTreeMap<kiln_images::digest::Digest, Digest>,
) -> Result<Made, Error> {
    let store = &*given.stores.blobs;
    let mut tree = Tree::default();
    let lay = |tree: &mut Tree, path: &str, digest: Digest| {
        tree.insert(path, Entry::file(digest, false))
            .map_err(|error| Error::Layout { artifact: given.artifact.name.clone(), reason: error.to_string() })
    };
    for (path, document) in layout::files(images, tag) {
        let digest = given.function.digest(&document.data);
        store.put(&digest, document.data).await?;
        lay(&mut tree, &path, digest)?;
    }
    for layer in images.iter().flat_map(|image| &image.layers) {
        if let Some(digest) = blobs.get(&layer.digest) {
            lay(&mut tree, &layout::blob_path(&layer.digest), *digest)?;
        }
    }
    store_files(store, given.function, &tree).await
}
