//! Artifacts and images: what is in them, where they come from, and what they consist of.

use axum::extract::{Path, Query};
use axum::response::{IntoResponse, Response};
use kiln_proto::reapi;
use kiln_proto::v1::{Artifact, GetArtifactRequest, ListArtifactsRequest};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;
use tonic::Code;

use super::download::download_blob;
use super::{Guest, layers};
use crate::answer::Failure;
use crate::blobs::{self, Files, Found, Space};
use crate::markup::{Section, encoded, nothing, reproduced, stated, tree, words};

/// Artifacts of one list.
const LISTED: u32 = 200;
/// Components of an SBOM that are shown.
const COMPONENTS: usize = 1_000;
/// Largest files that are named.
const LARGEST: usize = 12;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Asked {
    name: String,
}

/// The list.
pub(crate) async fn list(guest: Guest, Query(Asked { name }): Query<Asked>) -> Result<Markup, Failure> {
    let request = ListArtifactsRequest { name: name.clone(), limit: LISTED };
    let artifacts = guest.client.artifacts().list(request).await?.into_inner().artifacts;
    let content = html! {
        h1 { "Artifacts" }
        form .filters.short method="get" action="/artifacts" role="search" {
            input name="name" type="search" value=(name) placeholder="Name of an artifact" aria-label="Name" data-key="/";
            button type="submit" { "Show" }
        }
        @if artifacts.is_empty() { (nothing(html! { p { "No artifact" @if !name.is_empty() { " of this name" } "." } })) }
        @else {
            div .scroll {
                table {
                    thead { tr { th { "Name" } th { "Version" } th { "Platform" } th { "Kind" } th .number { "Size" } th { "Built" } } }
                    tbody {
                        @for one in &artifacts {
                            tr {
                                td { a href={ "/artifacts/" (encoded(&one.id)) } { (one.name) } }
                                td { (one.version) }
                                td { (one.platform) }
                                td { (one.kind) }
                                td .number { (words::size(one.size_bytes)) }
                                td .dim { @if let Some(created) = &one.created { (words::ago(created)) } }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(guest.page("Artifacts", Section::Artifacts, None, content))
}

/// The artifact with this id, if this visitor may see it.
pub(crate) async fn get(guest: &Guest, id: &str) -> Result<Artifact, Failure> {
    let request = GetArtifactRequest { id: id.to_owned(), host_platform: String::new() };
    match guest.client.artifacts().get(request).await {
        Ok(found) => Ok(found.into_inner()),
        Err(status) if status.code() == Code::NotFound => Err(Failure::not_found("There is no such artifact.")),
        Err(status) => Err(status.into()),
    }
}

async fn json(guest: &Guest, artifact: &Artifact, digest: Option<&reapi::Digest>) -> Option<Value> {
    let data = blobs::read(&guest.client, &Space::of_artifact(artifact), digest?).await.ok()?;
    serde_json::from_slice(&data).ok()
}

/// The page.
pub(crate) async fn page(guest: Guest, Path(id): Path<String>) -> Result<Markup, Failure> {
    let artifact = get(&guest, &id).await?;
    let base = format!("/artifacts/{}", encoded(&artifact.id));
    let provenance = json(&guest, &artifact, artifact.provenance.as_ref()).await;
    let sbom = json(&guest, &artifact, artifact.sbom.as_ref()).await;
    let content = html! {
        nav .crumbs aria-label="Where you are" { a href="/artifacts" { "Artifacts" } span .dim { "/" } h1 { (artifact.name) " " span .dim { (artifact.version) } } }
        (facts(&artifact))
        (gates(&artifact))
        (contents(&guest, &artifact, &base).await)
        (reproduced::section(&artifact.reproducibility))
        (stated::section(&base, &artifact.attestations))
        (self::provenance(&base, provenance.as_ref()))
        (self::sbom(&base, sbom.as_ref()))
    };
    Ok(guest.page(&artifact.name, Section::Artifacts, None, content))
}

fn facts(artifact: &Artifact) -> Markup {
    html! {
        dl .facts {
            div { dt { "Platform" } dd { (artifact.platform) @if artifact.emulated { " (built emulated)" } } }
            div { dt { "Kind" } dd { (artifact.kind) } }
            div { dt { "Size" } dd { (words::size(artifact.size_bytes)) } }
            @if !artifact.commit.is_empty() {
                div { dt { "Commit" } dd { code title=(artifact.commit) { (words::short(&artifact.commit, 12)) } @if artifact.dirty { " + changes" } } }
            }
            @if let Some(created) = &artifact.created { div { dt { "Built" } dd { (words::ago(created)) } } }
            div { dt { "Build" } dd { a href={ "/builds/" (encoded(&artifact.build)) } { (words::short(&artifact.build, 13)) } } }
            @if let Some(digest) = &artifact.digest { div { dt { "Digest" } dd { code { (digest.hash) } } } }
        }
        pre .code { "kiln fetch " (artifact.id) }
    }
}

/// The gates that it has passed.
fn gates(artifact: &Artifact) -> Markup {
    html! {
        @if !artifact.gates.is_empty() {
            section aria-labelledby="gates-title" {
                h2 #gates-title { "Gates" }
                div .scroll { table {
                    thead { tr { th { "Gate" } th { "Result" } th { "Time" } th { "Found" } } }
                    tbody { @for gate in &artifact.gates {
                        tr {
                            td { (gate.name) }
                            td { (if gate.warned { "passed with warnings" } else { "passed" }) }
                            td .number { @if gate.cached { "cached" } @else { (words::duration(gate.duration_ms)) } }
                            td .dim { (gate.message) }
                        }
                    } }
                } }
            }
        }
    }
}

async fn contents(guest: &Guest, artifact: &Artifact, base: &str) -> Markup {
    let Some(root) = &artifact.root else { return html! {} };
    let files = Files::of(&guest.client, Space::of_artifact(artifact), root).await;
    let Ok(files) = files else {
        return html! { section { h2 { "Files" } p .dim { "The store no longer has them." } } };
    };
    let layers = layers::of(guest, artifact, &files).await;
    let largest = if layers.is_none() { files.largest(LARGEST).await.unwrap_or_default() } else { Vec::new() };
    html! {
        @if let Some(layers) = layers {
            section aria-labelledby="layers-title" {
                h2 #layers-title { (if artifact.kind == "image" { "Layers" } else { "Contents" }) }
                @let total = layers.iter().map(|layer| layer.size).max().unwrap_or(1).max(1);
                div .scroll { table { tbody {
                    @for (number, layer) in (1..).zip(&layers) {
                        tr {
                            td .number { (words::size(layer.size)) }
                            td .share { svg .bar viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" { rect class="run" width=(words::percent(layer.size, total)) height="10" {} } }
                            td { a .plain href={ (base) "/layers/" (number) } { code { (layer.by) } } }
                        }
                    }
                } } }
                p { a href={ (base) "/layers" } { "Files, the largest of them, and wasted space" } }
            }
        }
        section aria-labelledby="files-title" {
            h2 #files-title { "Files" }
            @if largest.len() > 1 {
                p .dim { "The largest" }
                div .scroll { table { tbody {
                    @for (path, size) in &largest { tr { td .number { (words::size((*size).max(0) as u64)) } td { (path) } } }
                } } }
            }
            p { a href={ (base) "/files" } { "Browse its files" } }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn provenance(base: &str, provenance: Option<&Value>) -> Markup {
    let Some(provenance) = provenance else { return html! {} };
    let predicate = &provenance["predicate"];
    let (definition, run) = (&predicate["buildDefinition"], &predicate["runDetails"]);
    let rows = [
        ("Builder", &run["builder"]["id"]),
        ("Build type", &definition["buildType"]),
        ("Started", &run["metadata"]["startedOn"]),
        ("Finished", &run["metadata"]["finishedOn"]),
        ("Invocation", &run["metadata"]["invocationId"]),
    ];
    let materials = definition["resolvedDependencies"].as_array().cloned().unwrap_or_default();
    html! {
        section aria-labelledby="provenance-title" {
            h2 #provenance-title { "Provenance" }
            dl .facts { @for (name, value) in rows { @if !value.is_null() { div { dt { (name) } dd { (text(value)) } } } } }
            @if !materials.is_empty() {
                details #materials {
                    summary { (words::count(materials.len() as u64, "material", "materials")) }
                    ul { @for one in materials.iter().take(COMPONENTS) {
                        li { (text(&one["uri"])) @if let Some(digest) = one["digest"].as_object().and_then(|all| all.values().next()) { " " code .dim { (words::short(&text(digest), 16)) } } }
                    } }
                }
            }
            p { a href={ (base) "/provenance" } download { "Download (in-toto, SLSA v1)" } }
        }
    }
}

fn sbom(base: &str, sbom: Option<&Value>) -> Markup {
    let Some(sbom) = sbom else { return html! {} };
    let components = sbom["components"].as_array().cloned().unwrap_or_default();
    html! {
        section aria-labelledby="sbom-title" {
            h2 #sbom-title { "What it consists of" }
            @if components.is_empty() { p .dim { "No components were found." } }
            @else {
                details #components {
                    summary { (words::count(components.len() as u64, "component", "components")) }
                    div .scroll { table {
                        thead { tr { th { "Name" } th { "Version" } th { "Kind" } th { "Identifier" } } }
                        tbody { @for one in components.iter().take(COMPONENTS) {
                            tr {
                                td { (text(&one["name"])) }
                                td { @if !one["version"].is_null() { (text(&one["version"])) } }
                                td .dim { @if !one["type"].is_null() { (text(&one["type"])) } }
                                td { @if !one["purl"].is_null() { code { (text(&one["purl"])) } } }
                            }
                        } }
                    } }
                }
            }
            p { a href={ (base) "/sbom" } download { "Download (CycloneDX)" } }
        }
    }
}

/// A document of an artifact.
pub(crate) async fn document(guest: Guest, Path((id, kind)): Path<(String, String)>) -> Result<Response, Failure> {
    let artifact = get(&guest, &id).await?;
    let digest = match kind.as_str() {
        "provenance" => artifact.provenance.clone(),
        "sbom" => artifact.sbom.clone(),
        "spdx" => artifact.spdx.clone(),
        _ => None,
    };
    let Some(digest) = digest else { return Err(Failure::not_found("The artifact has no such document.")) };
    let name = format!("{}.{kind}.json", artifact.id);
    download_blob(&guest.client, &Space::of_artifact(&artifact), &digest, &name, "application/json").await
}

/// A statement about an artifact: its bundle if it is signed.
pub(crate) async fn statement(guest: Guest, Path((id, name)): Path<(String, String)>) -> Result<Response, Failure> {
    let artifact = get(&guest, &id).await?;
    let found = artifact.attestations.iter().find(|one| one.name == name);
    let document = found.and_then(|one| {
        let signed = one.bundle.as_ref().map(|digest| (digest, "sigstore.json"));
        signed.or(one.statement.as_ref().map(|digest| (digest, "json")))
    });
    let Some((digest, ending)) = document else {
        return Err(Failure::not_found("The artifact has no such statement."));
    };
    let file = format!("{}.{name}.{ending}", artifact.id);
    download_blob(&guest.client, &Space::of_artifact(&artifact), digest, &file, "application/json").await
}

/// Its files, at a path.
pub(crate) async fn browse(guest: Guest, Path(path): Path<Vec<String>>) -> Result<Response, Failure> {
    let [id, rest @ ..] = path.as_slice() else { return Err(Failure::not_found("There is no such page.")) };
    let path = rest.first().cloned().unwrap_or_default();
    let artifact = get(&guest, id).await?;
    let root = artifact.root.clone().ok_or_else(|| Failure::not_found("The artifact has no files."))?;
    let files = Files::of(&guest.client, Space::of_artifact(&artifact), &root).await?;
    match files.find(&path).await? {
        Found::File(file) => {
            let digest = file.digest.unwrap_or_default();
            download_blob(
                &guest.client,
                &Space::of_artifact(&artifact),
                &digest,
                &file.name,
                "application/octet-stream",
            )
            .await
        }
        Found::Directory(directory) => {
            let base = format!("/artifacts/{}", encoded(&artifact.id));
            let content = html! {
                nav .crumbs aria-label="Where you are" { a href=(base) { (artifact.name) } span .dim { "/" } h1 { "files" } }
                (tree::directory(&format!("{base}/files"), &path, &directory))
            };
            Ok(guest.page(&artifact.name, Section::Artifacts, None, content).into_response())
        }
    }
}
