//! Combines the images of several platforms into one layout in the output directory, whose index lists them all.
//!
//! Invariant: its blobs are hard links to those of the platforms' layouts: nothing is fetched or copied again.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use kiln_images::image::Image;
use kiln_images::layout;
use kiln_proto::v1;

use super::stored::Stored;
use super::{Delivered, Error};
use crate::download;
use crate::farm::Farm;
use crate::output::Output;

/// What the names of bundles end with.
const SIGNED: &str = ".sigstore.json";

/// Creates a layout at `output/NAME` for each image built for several platforms; `here` are the downloaded artifacts
/// with their paths.
pub async fn join(farm: &Farm, here: &[(v1::Artifact, PathBuf)], output: &Output) -> Result<Vec<Delivered>, Error> {
    let mut by_name: BTreeMap<&str, Vec<&(v1::Artifact, PathBuf)>> = BTreeMap::new();
    for one in here.iter().filter(|(artifact, _)| artifact.kind == "image") {
        by_name.entry(&one.0.name).or_default().push(one);
    }
    let mut done = Vec::new();
    for (name, several) in by_name {
        let mut platforms: Vec<&str> = several.iter().map(|(artifact, _)| artifact.platform.as_str()).collect();
        platforms.sort_unstable();
        platforms.dedup();
        // Two targets with the same platform cannot be in one index.
        if several.len() < 2 || platforms.len() != several.len() {
            continue;
        }
        done.push(join_one(farm, name, &several, output).await?);
    }
    Ok(done)
}

async fn join_one(
    farm: &Farm,
    name: &str,
    several: &[&(v1::Artifact, PathBuf)],
    output: &Output,
) -> Result<Delivered, Error> {
    let artifacts: Vec<&v1::Artifact> = several.iter().map(|(artifact, _)| artifact).collect();
    let mut images: Vec<Image> = Vec::new();
    for stored in Stored::open_all(farm, &artifacts).await? {
        images.extend(stored.images().await?);
    }
    let place = output.dir().join(name);
    let write = |source| download::Error::Write { path: place.clone(), source };
    let beside = output.staging().map_err(download::Error::from)?;
    let staged = beside.path().join("new");
    let tag = artifacts.first().map(|artifact| artifact.version.as_str()).unwrap_or_default();
    let layouts: Vec<&Path> = several.iter().map(|(_, path)| path.as_path()).collect();
    let bytes = lay_out(&images, tag, &layouts, &staged).map_err(write)?;
    let content = layout::top(&images).descriptor.digest.to_string();
    let id = artifacts.first().map(|artifact| artifact.id.as_str()).unwrap_or_default();
    output.place(name, &staged, &content, id).map_err(download::Error::from)?;
    for (artifact, path) in several.iter().map(|one| (&one.0, &one.1)) {
        put_beside(artifact, path, output)?;
    }
    Ok(Delivered {
        name: name.to_owned(),
        how: "joined",
        reference: place.display().to_string(),
        digest: content,
        bytes: (0, bytes),
    })
}

/// Puts what the farm signed about one platform beside the layout that has them all.
fn put_beside(artifact: &v1::Artifact, layout: &Path, output: &Output) -> Result<(), Error> {
    let (Some(directory), name) = (layout.parent(), &artifact.name) else { return Ok(()) };
    let platform = directory.file_name().map(|platform| platform.to_string_lossy()).unwrap_or_default();
    let beside = output.staging().map_err(download::Error::from)?;
    for (suffix, wire) in download::beside_it(artifact).iter().filter(|(suffix, _)| suffix.ends_with(SIGNED)) {
        let (from, staged) = (directory.join(format!("{name}.{suffix}")), beside.path().join(suffix));
        std::fs::copy(&from, &staged).map_err(|source| download::Error::Write { path: from, source })?;
        let to = format!("{name}.{platform}-{suffix}");
        output.place(&to, &staged, &wire.hash, &artifact.id).map_err(download::Error::from)?;
    }
    Ok(())
}

/// Writes the small files and links the blobs; returns the total size of the blobs.
fn lay_out(images: &[Image], tag: &str, layouts: &[&Path], into: &Path) -> io::Result<u64> {
    let tag = kiln_images::reference::tag_from(tag);
    let mut bytes = 0;
    std::fs::create_dir_all(into.join("blobs/sha256"))?;
    for (path, document) in layout::files(images, &tag) {
        std::fs::write(into.join(path), &document.data)?;
    }
    for layer in images.iter().flat_map(|image| &image.layers) {
        let path = layout::blob_path(&layer.digest);
        if into.join(&path).exists() {
            continue;
        }
        let from = layouts.iter().map(|layout| layout.join(&path)).find(|from| from.is_file());
        let from = from.ok_or_else(|| io::Error::other(format!("no platform's layout contains `{path}`")))?;
        // Falls back to copying if links are impossible.
        std::fs::hard_link(&from, into.join(&path)).or_else(|_| std::fs::copy(&from, into.join(&path)).map(drop))?;
        bytes += layer.size;
    }
    Ok(bytes)
}
