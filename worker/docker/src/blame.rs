//! Whose fault it is that an image is unavailable, derived from the messages of engines and registries.
//!
//! An unknown name or a platform that the image lacks is the project's fault; credentials, connections and disks are
//! the worker's, and another worker may succeed. Engines distinguish these only in their messages.

use kiln_images::name::ImageName;

use super::engine::words;
use kiln_executor::Error;

/// Phrases by which registries and engines report an unknown name.
const UNKNOWN: [&str; 6] = [
    "manifest unknown",
    "not found",
    "name unknown",
    "name not known",
    "repository does not exist",
    "invalid reference format",
];
/// Phrases by which they report missing or wrong credentials.
const UNAUTHORIZED: [&str; 4] = ["unauthorized", "no basic auth credentials", "authentication required", "denied"];
/// Phrases by which they report that an image lacks the requested platform.
pub(super) const OTHER_PLATFORM: [&str; 3] =
    ["no matching manifest for", "does not match the specified platform", "no match for platform"];

/// Whether the engine's message contains any of these phrases.
pub(super) fn mentions(error: &bollard::errors::Error, any: &[&str]) -> bool {
    let text = words(error).to_ascii_lowercase();
    any.iter().any(|wanted| text.contains(wanted))
}

/// Whether a registry reports that the image does not exist, or not for this caller.
pub(super) fn is_access_denied(error: &bollard::errors::Error) -> bool {
    mentions(error, &UNAUTHORIZED) || mentions(error, &UNKNOWN) && !mentions(error, &["no such host"])
}

/// The image exists for these platforms but not for the requested one.
pub(super) fn other_platform(name: &ImageName, architecture: &str, there: &[String]) -> Error {
    let there = if there.is_empty() { "others".to_owned() } else { there.join(", ") };
    Error::Action(format!(
        "image `{name}` is not for linux/{architecture} but for {there}; use an image for that platform"
    ))
}

/// Why a pull or a registry request failed.
pub(super) fn failed(name: &ImageName, error: &bollard::errors::Error) -> Error {
    let message = words(error);
    let registry = name.registry().unwrap_or_default();
    // Registries that hide private repositories report both at once.
    if mentions(error, &UNKNOWN) && !mentions(error, &["no such host"]) {
        return Error::Action(format!(
            "there is no image `{name}` ({message}); check its name, and that the workers can access it"
        ));
    }
    if mentions(error, &UNAUTHORIZED) {
        return Error::Worker(format!(
            "registry `{registry}` rejected the available credentials for `{name}` ({message}); configure some for the tenant with the \
             coordinator's `--credentials`, or start the worker with `--own-credentials` and run `docker login {registry}` there as its user"
        ));
    }
    if mentions(error, &["no space left"]) {
        return Error::Worker(format!(
            "no space left for image `{name}` on the disk of this worker's engine ({message})"
        ));
    }
    Error::Worker(format!("cannot get image `{name}`: {message}"))
}
