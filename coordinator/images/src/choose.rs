//! Selects the manifest of an index for a platform.

use crate::manifest::{Descriptor, Index, media_type};
use crate::platform::{Others, Platform};

/// The manifest for a platform; the error lists the platforms that exist.
pub fn choose<'a>(index: &'a Index, wanted: &Platform) -> Result<&'a Descriptor, Others> {
    let images = || index.manifests.iter().filter(|one| media_type::is_manifest(&one.media_type));
    let fits = |one: &&Descriptor| one.platform.as_ref().is_some_and(|platform| platform.fits(wanted));
    if let Some(found) = images().find(fits) {
        return Ok(found);
    }
    // If the only image of an index has no platform, its configuration names it.
    if let ([only], 1) = (&index.manifests[..], images().count())
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let there = images().filter_map(|one| one.platform.as_ref()).filter(|platform| platform.os != "unknown");
    Err(Others(there.cloned().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn image(platform: Option<Platform>) -> Descriptor {
        Descriptor { platform, ..Descriptor::new(media_type::OCI_MANIFEST, Digest::of(b"x"), 1) }
    }

    #[test]
    fn the_platforms_there_are_are_named_where_none_fits() {
        let arm = Platform { variant: Some("v8".into()), ..Platform::linux("arm64") };
        let index = Index::new(vec![image(Some(arm)), image(Some(Platform::linux("s390x")))]);
        assert!(choose(&index, &Platform::linux("arm64")).is_ok());
        let others = choose(&index, &Platform::linux("amd64")).unwrap_err();
        assert_eq!(others.to_string(), "`linux/arm64/v8`, `linux/s390x`");
        assert_eq!(Others(Vec::new()).to_string(), "none that is named");
        assert!(choose(&Index::new(vec![image(None)]), &Platform::linux("amd64")).is_ok());
    }
}
