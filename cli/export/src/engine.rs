//! The local Docker: an image is streamed to `docker load` in the format of `docker save`.

use std::path::Path;
use std::process::Stdio;

use kiln_images::blobs::Blobs;
use kiln_images::image::Image;
use kiln_images::manifest::Descriptor;

use crate::archive::Content;
use crate::{Done, Error};

/// Most images of an engine that are asked for their layers.
const MAX_IMAGES: usize = 500;

/// Loads an image, without the lowest layers that the engine has already.
///
/// # Errors
/// If there is no engine, or it refuses the image.
pub async fn load(image: &Image, blobs: &dyn Blobs, names: &[String]) -> Result<Done, Error> {
    let reference = if names.is_empty() { "the image".to_owned() } else { names.join(", ") };
    let content = Content::saved(image, names);
    let known = known(image).await;
    let rest = content.without(&known);
    let done = match send(&rest, blobs, &reference).await {
        // An engine that stores images in another way wants all of it.
        Err(Error::Load { .. }) if !known.is_empty() => send(&content, blobs, &reference).await.map(|()| 0),
        sent => sent.map(|()| content.layer_bytes() - rest.layer_bytes()),
    };
    let present = done?;
    let digest = image.config.descriptor.digest.to_string();
    let bytes = (content.layer_bytes() - present, present);
    Ok(Done { how: "loaded", reference, digest, bytes, note: None })
}

/// The lowest layers of an image that another image of the engine begins with. None if the engine does not tell.
async fn known(image: &Image) -> Vec<Descriptor> {
    async fn docker(arguments: &[&str]) -> Option<String> {
        let mut command = tokio::process::Command::new("docker");
        let output = command.args(arguments).stdin(Stdio::null()).kill_on_drop(true).output().await.ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    }
    async fn all() -> Option<Vec<Vec<String>>> {
        let ids = docker(&["image", "ls", "--quiet", "--no-trunc"]).await?;
        let ids: Vec<&str> = ids.lines().take(MAX_IMAGES).collect();
        if ids.is_empty() {
            return None;
        }
        let inspect = ["image", "inspect", "--format", "{{json .RootFS.Layers}}"];
        let told = docker(&[&inspect, &ids[..]].concat()).await?;
        Some(told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }
    let config: serde_json::Value = serde_json::from_slice(&image.config.data).unwrap_or_default();
    let ids: Vec<&str> =
        config["rootfs"]["diff_ids"].as_array().into_iter().flatten().filter_map(|id| id.as_str()).collect();
    if ids.len() != image.layers.len() {
        return Vec::new();
    }
    let common = |other: &Vec<String>| ids.iter().zip(other).take_while(|(own, other)| **own == other.as_str()).count();
    let longest = all().await.unwrap_or_default().iter().map(common).max().unwrap_or(0);
    image.layers.iter().take(longest).cloned().collect()
}

async fn send(content: &Content, blobs: &dyn Blobs, reference: &str) -> Result<(), Error> {
    let failed = |reason: String| Error::Load { name: reference.to_owned(), reason };
    let mut docker = tokio::process::Command::new("docker")
        .args(["load", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| failed(format!("cannot start `docker`: {error}; install Docker's command line")))?;
    let stdin = docker.stdin.take();
    let sending = async {
        let Some(mut stdin) = stdin else { return Ok(()) };
        // If Docker rejects it, the pipe closes, and Docker's own message explains why.
        match content.write(blobs, &mut stdin, Path::new("docker")).await {
            Err(Error::Write { .. }) => Ok(()),
            result => result,
        }
    };
    let (sent, output) = tokio::join!(sending, docker.wait_with_output());
    let output = output.map_err(|error| failed(error.to_string()))?;
    sent.map_err(|error| failed(error.chain()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().chars().take(500).collect::<String>();
    Err(failed(if said.is_empty() { output.status.to_string() } else { said }))
}
