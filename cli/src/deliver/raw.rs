//! Delivers artifacts as plain files to a bucket, or to a repository that accepts files by HTTP PUT.
//!
//! Below the destination, `NAME/ID/…` contains an artifact's files with its provenance, SBOM, signatures and checksums, and
//! `NAME/ID.json` lists them. Invariant: the list is written last and only once, so an artifact without a list is
//! incomplete, and one with a list is complete.

use bytes::Bytes;
use kiln_proto::digest::Digest;
use kiln_proto::v1;
use kiln_stores::{Content, Place, Refused, Store, patiently};
use serde_json::json;

use super::stored::Stored;
use super::{Delivered, Error};
use crate::download::beside_it;

/// Pushes artifacts to a destination.
pub(super) async fn push(place: &Place, stored: &[Stored], insecure: &[String]) -> Result<Vec<Delivered>, Error> {
    let store = place.open(insecure)?;
    let mut done = Vec::new();
    for one in stored {
        done.push(push_one(place, &*store, one).await?);
    }
    Ok(done)
}

async fn push_one(place: &Place, store: &dyn Store, stored: &Stored) -> Result<Delivered, Error> {
    let artifact = &stored.artifact;
    let files = files(stored)?;
    let list = list(artifact, &files);
    let base = format!("{}/{}", artifact.name, artifact.id);
    let marker = format!("{base}.json");
    let mut moved = (0, 0);
    match patiently(|| store.read(&marker)).await? {
        Some(there) if is_there(&there, stored) => moved.1 = files.iter().map(|(_, digest)| digest.size).sum(),
        Some(_) => return Err(Refused::Taken { place: place.to_string(), path: marker }.into()),
        None => {
            for (path, digest) in &files {
                let path = format!("{base}/{path}");
                // Files that an interrupted push stored completely are not sent again.
                if patiently(|| store.size(&path)).await? == Some(digest.size) {
                    moved.1 += digest.size;
                    continue;
                }
                let content = Content { client: stored.client(), digest: *digest };
                patiently(|| store.put(&path, &content)).await?;
                moved.0 += digest.size;
            }
            patiently(|| store.create(&marker, list.clone())).await?;
        }
    }
    Ok(Delivered {
        name: artifact.name.clone(),
        how: "pushed",
        reference: format!("{place}/{base}"),
        digest: artifact.digest.as_ref().map(|digest| digest.hash.clone()).unwrap_or_default(),
        bytes: moved,
    })
}

/// Every file to push, by path.
fn files(stored: &Stored) -> Result<Vec<(String, Digest)>, Error> {
    let artifact = &stored.artifact;
    let mut files: Vec<(String, Digest)> = stored.files().map(|(path, digest)| (path.to_owned(), *digest)).collect();
    let checksums = artifact.checksums.iter().map(|wire| ("sha256".to_owned(), wire));
    for (ending, wire) in beside_it(artifact).into_iter().chain(checksums) {
        let digest = Digest::from_wire(stored.client().function(), wire);
        let digest = digest.map_err(|error| stored.malformed(error.to_string()))?;
        files.push((format!("{}.{ending}", artifact.name), digest));
    }
    Ok(files)
}

/// Whether a list is of this artifact. What is stated about it may differ: the same may have been built from several sources.
fn is_there(list: &[u8], stored: &Stored) -> bool {
    let list: serde_json::Value = serde_json::from_slice(list).unwrap_or_default();
    let files = list["files"].as_array().map(Vec::as_slice).unwrap_or_default();
    let is_listed = |(path, digest): (&str, &Digest)| {
        files.iter().any(|file| file["path"] == path && file[digest.function.name()] == digest.hex())
    };
    list["id"] == stored.artifact.id.as_str() && stored.files().all(is_listed)
}

/// The content of the list, always the same for the same artifact.
fn list(artifact: &v1::Artifact, files: &[(String, Digest)]) -> Bytes {
    let text = json!({
        "id": artifact.id,
        "name": artifact.name,
        "version": artifact.version,
        "platform": artifact.platform,
        "kind": artifact.kind,
        "commit": artifact.commit,
        "files": files
            .iter()
            .map(|(path, digest)| json!({ "path": path, digest.function.name(): digest.hex(), "size": digest.size }))
            .collect::<Vec<_>>(),
    });
    format!("{text:#}\n").into_bytes().into()
}
