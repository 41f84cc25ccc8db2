//! Loads an image into the local Docker.

use kiln_images::platform::Platform;
use kiln_images::reference::tag_from;

use super::stored::{OnFarm, Stored};
use super::{Delivered, Error};

/// Loads the image for this machine's architecture, or else the first one, as `NAME:VERSION`.
pub(super) async fn load(stored: &Stored) -> Result<Delivered, Error> {
    let images = stored.images().await?;
    let here = Platform::linux(crate::local::host().architecture());
    let fits = |image: &&kiln_images::image::Image| {
        image.manifest.descriptor.platform.as_ref().is_some_and(|one| one.fits(&here))
    };
    let image = images.iter().find(fits).or(images.first()).ok_or_else(|| stored.malformed("its layout is empty"))?;
    let reference = format!("{}:{}", stored.artifact.name.to_lowercase(), tag_from(&stored.artifact.version));
    let done = kiln_export::load(image, &OnFarm(std::slice::from_ref(stored)), &[reference]).await?;
    Ok(super::docker::delivered(&stored.artifact.name, done))
}
