//! Whose fault it is that an image cannot be had, told from what engines and registries say.
//!
//! A name that no registry knows and a platform that an image has not are the project's; credentials, connections and disks are the
//! worker's, and another worker may do better. Engines tell these apart by words alone.

use kiln_images::name::ImageName;

use super::engine::words;
use kiln_executor::Error;

/// Words by which registries and engines say that a name is wrong.
const UNKNOWN: [&str; 6] = [
    "manifest unknown",
    "not found",
    "name unknown",
    "name not known",
    "repository does not exist",
    "invalid reference format",
];
/// Words by which they say that credentials are missing or wrong.
const UNAUTHORIZED: [&str; 4] = ["unauthorized", "no basic auth credentials", "authentication required", "denied"];
/// Words by which they say that an image has not the platform that was asked for.
pub(super) const OTHER_PLATFORM: [&str; 3] =
    ["no matching manifest for", "does not match the specified platform", "no match for platform"];

/// Whether the engine's words have any of these in them.
pub(super) fn says(error: &bollard::errors::Error, any: &[&str]) -> bool {
    let text = words(error).to_ascii_lowercase();
    any.iter().any(|wanted| text.contains(wanted))
}

/// Whether a registry says that the image is not there, or not for whoever asks.
pub(super) fn refuses(error: &bollard::errors::Error) -> bool {
    says(error, &UNAUTHORIZED) || says(error, &UNKNOWN) && !says(error, &["no such host"])
}

/// The image is for these platforms and not for the one that was asked for.
pub(super) fn other_platform(name: &ImageName, architecture: &str, there: &[String]) -> Error {
    let there = if there.is_empty() { "others".to_owned() } else { there.join(", ") };
    Error::Action(format!(
        "image `{name}` is not for linux/{architecture} but for {there}; name an image of that platform"
    ))
}

/// What a pull or a question to a registry failed of.
pub(super) fn failed(name: &ImageName, error: &bollard::errors::Error) -> Error {
    let said = words(error);
    let registry = name.registry().unwrap_or_default();
    // Registries that keep secret what they have say both at once.
    if says(error, &UNKNOWN) && !says(error, &["no such host"]) {
        return Error::Action(format!(
            "there is no image `{name}` ({said}); check its name, and that the workers can access it"
        ));
    }
    if says(error, &UNAUTHORIZED) {
        return Error::Worker(format!(
            "registry `{registry}` refuses the available credentials for `{name}` ({said}); configure some for the tenant with the \
             coordinator's `--credentials`, or start the worker with `--own-credentials` and run `docker login {registry}` there as its user"
        ));
    }
    if says(error, &["no space left"]) {
        return Error::Worker(format!(
            "there is no room for image `{name}` on the disk of this worker's engine ({said})"
        ));
    }
    Error::Worker(format!("cannot get image `{name}`: {said}"))
}
