//! Loads an image into the local Docker: streams it to `docker load` in the format of `docker save`.

use std::process::Stdio;

use bytes::Bytes;
use futures::TryStreamExt;
use kiln_images::blobs::{self, Blobs};
use kiln_images::image::Image;
use kiln_images::manifest::{Descriptor, Document};
use kiln_images::platform::Platform;
use kiln_images::reference::tag_from;
use kiln_images::{archive, layout};
use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::stored::{OnFarm, Stored};
use super::{Delivered, Error};

/// Loads the image for this machine's architecture, or else the first one, as `NAME:VERSION`.
pub(super) async fn load(stored: &Stored) -> Result<Delivered, Error> {
    let failed = |reason: String| Error::Load { name: stored.artifact.name.clone(), reason };
    let images = stored.images().await?;
    let here = Platform::linux(crate::local::host().architecture());
    let fits = |image: &&Image| image.manifest.descriptor.platform.as_ref().is_some_and(|one| one.fits(&here));
    let image = images.iter().find(fits).or(images.first()).ok_or_else(|| stored.malformed("its layout is empty"))?;
    let reference = format!("{}:{}", stored.artifact.name.to_lowercase(), tag_from(&stored.artifact.version));
    let mut docker = tokio::process::Command::new("docker")
        .args(["load", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("cannot start `docker`: {error}; install Docker's command line")))?;
    let stdin = docker.stdin.take();
    let bytes = image.layers.iter().map(|layer| layer.size).sum();
    let sending = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        let sent = send(std::slice::from_ref(stored), image, &reference, &mut stdin).await;
        // If Docker rejects it, the pipe closes, and Docker's own message explains why.
        match sent {
            Err(blobs::Error::Io { .. }) => Ok(()),
            result => result,
        }
    };
    let (sent, output) = tokio::join!(sending, docker.wait_with_output());
    let output = output.map_err(|error| failed(error.to_string()))?;
    sent.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect::<String>();
        return Err(failed(if said.is_empty() { output.status.to_string() } else { said }));
    }
    let digest = image.config.descriptor.digest.to_string();
    Ok(Delivered { name: stored.artifact.name.clone(), how: "loaded", reference, digest, bytes: (bytes, 0) })
}

async fn send(
    stored: &[Stored],
    image: &Image,
    reference: &str,
    to: &mut (impl AsyncWrite + Unpin),
) -> Result<(), blobs::Error> {
    let broken = |source| blobs::Error::Io { path: "docker".into(), source };
    let mut files = layout::files(std::slice::from_ref(image), reference);
    files.push((archive::DOCKER_LIST.to_owned(), archive::docker_list(image, reference)));
    for (path, Document { data, .. }) in files {
        to.write_all(&archive::header(&path, data.len() as u64)).await.map_err(broken)?;
        to.write_all(&data).await.map_err(broken)?;
        to.write_all(&archive::padding(data.len() as u64)).await.map_err(broken)?;
    }
    let mut sent: Vec<&Descriptor> = Vec::new();
    for layer in &image.layers {
        if sent.iter().any(|one| one.digest == layer.digest) {
            continue;
        }
        sent.push(layer);
        let header = archive::header(&layout::blob_path(&layer.digest), layer.size);
        to.write_all(&header).await.map_err(broken)?;
        let mut pieces = blobs::checked(OnFarm(stored).open(layer).await?, layer);
        while let Some(piece) = pieces.try_next().await? {
            to.write_all(&piece).await.map_err(broken)?;
        }
        to.write_all(&archive::padding(layer.size)).await.map_err(broken)?;
    }
    to.write_all(&Bytes::from_static(&[0; 1024])).await.map_err(broken)?;
    to.flush().await.map_err(broken)
}
