//! What is in an image layer by layer, or in an archive: all files, the largest, and the space that is wasted.

use std::sync::Arc;

use axum::extract::{Path, Query, State};
use kiln_proto::reapi;
use kiln_proto::v1::Artifact;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::{Guest, artifact};
use crate::answer::Failure;
use crate::blobs::{self, Files, Found, Space};
use crate::markup::{Section, encoded, nothing, words};
use crate::site::Site;
use kiln_web_contents::{Entry, Kind, Listing, Placed, Sum, Waste};

/// Rows of the largest files and the like.
pub(crate) const ROWS: usize = 25;
/// Files of one page.
const FILES: usize = 1_000;
/// Largest document of a layout.
const DOCUMENT: i64 = 16 << 20;

/// A layer as its image's manifest names it, or the whole of an archive.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    /// The instruction or step that made it.
    pub(crate) by: String,
    /// As it is stored.
    pub(crate) size: u64,
    pub(crate) media_type: String,
    /// None if the store does not have it.
    pub(crate) digest: Option<reapi::Digest>,
}

/// The layers of an artifact, the lowest first: those of an image's OCI layout for its first platform, or the one file of an archive.
pub(crate) async fn of(guest: &Guest, artifact: &Artifact, files: &Files<'_>) -> Option<Vec<Layer>> {
    if artifact.kind == "archive" {
        return archive(files).await;
    }
    let read = async |path: &str| -> Option<Value> {
        let Found::File(file) = files.find(path).await.ok()? else { return None };
        let digest = file.digest.filter(|digest| digest.size_bytes <= DOCUMENT)?;
        let data = blobs::read(&guest.client, &Space::of_artifact(artifact), &digest).await.ok()?;
        serde_json::from_slice(&data).ok()
    };
    let path = |descriptor: &Value| {
        let digest = descriptor["digest"].as_str()?;
        Some(format!("blobs/{}", digest.replacen(':', "/", 1)))
    };
    let index = read("index.json").await?;
    let mut manifest = read(&path(&index["manifests"][0])?).await?;
    if manifest["manifests"].is_array() {
        manifest = read(&path(&manifest["manifests"][0])?).await?;
    }
    let config = read(&path(&manifest["config"])?).await.unwrap_or_default();
    let history = config["history"].as_array().cloned().unwrap_or_default();
    let mut made = history.iter().filter(|one| one["empty_layer"] != true);
    let mut layers = Vec::new();
    for layer in manifest["layers"].as_array()? {
        let by = made.next().and_then(|one| one["created_by"].as_str()).unwrap_or("a layer of the base image");
        let digest = match files.find(&path(layer)?).await {
            Ok(Found::File(file)) => file.digest,
            _ => None,
        };
        layers.push(Layer {
            by: by.chars().take(400).collect(),
            size: layer["size"].as_u64().unwrap_or(0),
            media_type: layer["mediaType"].as_str().unwrap_or_default().to_owned(),
            digest,
        });
    }
    Some(layers)
}

async fn archive(files: &Files<'_>) -> Option<Vec<Layer>> {
    let Ok(Found::Directory(root)) = files.find("").await else { return None };
    let media_type = |name: &str| match name {
        name if name.ends_with(".tar.zst") => Some("application/vnd.oci.image.layer.v1.tar+zstd"),
        name if name.ends_with(".tar.gz") || name.ends_with(".tgz") => {
            Some("application/vnd.oci.image.layer.v1.tar+gzip")
        }
        name if name.ends_with(".tar") => Some("application/vnd.oci.image.layer.v1.tar"),
        _ => None,
    };
    let found = root.files.iter().filter_map(|file| {
        let media_type = media_type(&file.name)?.to_owned();
        let digest = file.digest.clone()?;
        let size = u64::try_from(digest.size_bytes).unwrap_or(0);
        Some(Layer { by: file.name.clone(), size, media_type, digest: Some(digest) })
    });
    Some(found.collect::<Vec<_>>()).filter(|found| !found.is_empty())
}

/// Everything that an artifact's layers contain.
pub(crate) struct Contents {
    pub(crate) artifact: Artifact,
    pub(crate) layers: Vec<Layer>,
    /// As far as the store has them.
    pub(crate) listings: Vec<Arc<Listing>>,
}

impl Contents {
    pub(crate) async fn of(site: &Site, guest: &Guest, id: &str) -> Result<Self, Failure> {
        let none = || Failure::not_found("The artifact has no layers.");
        let artifact = artifact(guest, id).await?;
        let (space, root) = (Space::of_artifact(&artifact), artifact.root.clone().ok_or_else(none)?);
        let files = Files::of(&guest.client, space.clone(), &root).await?;
        let layers = of(guest, &artifact, &files).await.ok_or_else(none)?;
        let mut listings = Vec::new();
        for layer in &layers {
            listings.push(match &layer.digest {
                Some(digest) => {
                    let visitor = (&guest.client, guest.identity.tenant.as_str());
                    site.layers.read(visitor, &space, digest, &layer.media_type).await?
                }
                None => Arc::new(Listing { is_cut: true, ..Listing::default() }),
            });
        }
        Ok(Self { artifact, layers, listings })
    }

    pub(crate) fn is_complete(&self) -> bool {
        !self.listings.iter().any(|listing| listing.is_cut)
    }

    fn address(&self) -> String {
        format!("/artifacts/{}/layers", encoded(&self.artifact.id))
    }

    fn crumbs(&self, here: Markup) -> Markup {
        html! {
            nav .crumbs aria-label="Where you are" {
                a href={ "/artifacts/" (encoded(&self.artifact.id)) } { (self.artifact.name) } span .dim { "/" } (here)
            }
        }
    }
}

/// The page of all layers.
pub(crate) async fn page(State(site): State<Site>, guest: Guest, Path(id): Path<String>) -> Result<Markup, Failure> {
    let contents = Contents::of(&site, &guest, &id).await?;
    let waste = Waste::of(&contents.listings, ROWS);
    let sum = waste.sum();
    let content = html! {
        (contents.crumbs(html! { h1 { "layers" } }))
        @if !contents.is_complete() { (cut()) }
        div .tiles {
            (tile("Files", &words::grouped(sum.files), &words::count(contents.layers.len() as u64, "layer", "layers")))
            (tile("Unpacked", &words::size(sum.bytes), &format!("{} as it is stored", words::size(contents.layers.iter().map(|layer| layer.size).sum()))))
            (tile("Overwritten or removed", &words::size(sum.hidden), &format!("{}% that nobody sees", words::percent(sum.hidden, sum.bytes))))
            (tile("Duplicates", &words::size(sum.again), &format!("{}% is in another file already", words::percent(sum.again, sum.bytes))))
        }
        section aria-labelledby="layers-title" {
            h2 #layers-title { "Layers" }
            div .scroll { table {
                thead { tr { th .number { "#" } th { "Made by" } th .number { "Stored" } th .number { "Unpacked" } th .number { "Files" } th .number { "Overwritten later" } th .number { "Duplicates" } } }
                tbody {
                    @for (number, (layer, sum)) in (1..).zip(contents.layers.iter().zip(&waste.layers)) { (row(&contents.address(), number, layer, sum)) }
                }
            } }
        }
        (placed("Largest files", &waste.largest, None))
        (placed("Overwritten or removed by a later layer", &waste.hidden, Some("By layer")))
        (placed("Duplicates of other files", &waste.again, Some("First in layer")))
    };
    Ok(guest.page(&format!("{} · layers", contents.artifact.name), Section::Artifacts, None, content))
}

fn cut() -> Markup {
    html! { p .notice.odd { "This is not all: a layer has more files than are shown, or the store no longer has it." } }
}

fn tile(name: &str, value: &str, more: &str) -> Markup {
    html! { div .tile { span .dim { (name) } strong { (value) } span .dim { (more) } } }
}

fn row(address: &str, number: usize, layer: &Layer, sum: &Sum) -> Markup {
    let bytes =
        |bytes: u64| html! { td .number { @if bytes > 0 { (words::size(bytes)) } @else { span .dim { "0" } } } };
    html! {
        tr {
            td .number { (number) }
            td { a href={ (address) "/" (number) } { code { (layer.by) } } }
            td .number { (words::size(layer.size)) }
            td .number { (words::size(sum.bytes)) }
            td .number { (words::grouped(sum.files)) }
            (bytes(sum.hidden))
            (bytes(sum.again))
        }
    }
}

fn placed(title: &str, files: &[Placed], other: Option<&str>) -> Markup {
    html! {
        @if !files.is_empty() {
            section {
                h2 { (title) }
                div .scroll { table {
                    thead { tr { th { "File" } th .number { "Size" } th .number { "Layer" } @if let Some(other) = other { th .number { (other) } } } }
                    tbody { @for file in files {
                        tr {
                            td .grow { (file.path) }
                            td .number { (words::size(file.size)) }
                            td .number { (file.layer + 1) }
                            @if other.is_some() { td .number { @if let Some(other) = file.other { (other + 1) } } }
                        }
                    } }
                } }
            }
        }
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    /// What the path contains.
    q: String,
    from: usize,
}

/// The page of one layer: its files, the largest first.
pub(crate) async fn files(
    State(site): State<Site>,
    guest: Guest,
    Path((id, number)): Path<(String, usize)>,
    Query(asked): Query<Asked>,
) -> Result<Markup, Failure> {
    let contents = Contents::of(&site, &guest, &id).await?;
    let none = || Failure::not_found("The artifact has no such layer.");
    let place = number.checked_sub(1).ok_or_else(none)?;
    let (layer, listing) = contents.layers.get(place).zip(contents.listings.get(place)).ok_or_else(none)?;
    let wanted = asked.q.trim();
    let mut entries: Vec<&Entry> = listing.entries.iter().filter(|entry| entry.path.contains(wanted)).collect();
    entries.sort_by(|one, other| (other.size(), &one.path).cmp(&(one.size(), &other.path)));
    let address = format!("{}/{number}", contents.address());
    let rest = entries.len().saturating_sub(asked.from.saturating_add(FILES));
    let content = html! {
        (contents.crumbs(html! { a href=(contents.address()) { "layers" } span .dim { "/" } h1 { (number) } }))
        p { code { (layer.by) } }
        @if listing.is_cut { (cut()) }
        form .filters.short method="get" action=(address) role="search" {
            input name="q" type="search" value=(asked.q) placeholder="Part of a path" aria-label="Part of a path" data-key="/";
            button type="submit" { "Search" }
        }
        p .dim { (words::count(entries.len() as u64, "entry", "entries")) }
        @if entries.is_empty() { (nothing(html! { p { "No file" @if !wanted.is_empty() { " of this name" } "." } })) }
        @else {
            div .scroll { table .tree { tbody {
                @for entry in entries.iter().skip(asked.from).take(FILES) {
                    tr {
                        td { (entry.path) @if entry.kind == Kind::Directory { "/" } }
                        td .number { @if let Kind::File(digest) = entry.kind { (words::size(digest.size)) } }
                        td .dim { (kind(entry.kind)) }
                    }
                }
            } } }
        }
        @if rest > 0 {
            nav .pages aria-label="Pages" {
                a rel="next" href={ (address) "?q=" (encoded(&asked.q)) "&from=" (asked.from + FILES) } { (words::count(rest as u64, "more entry", "more entries")) }
            }
        }
    };
    Ok(guest.page(&format!("{} · layer {number}", contents.artifact.name), Section::Artifacts, None, content))
}

fn kind(kind: Kind) -> &'static str {
    match kind {
        Kind::File(_) | Kind::Directory => "",
        Kind::Other => "link or device",
        Kind::Removed => "removes what was there",
        Kind::Emptied => "hides what was in it",
    }
}
