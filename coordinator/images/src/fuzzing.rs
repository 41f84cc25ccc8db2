//! Fuzz targets, used by `coordinator/images/fuzz` and, in a short form, by `tests/hostile_bytes.rs`.
//!
//! Each function accepts any bytes, and panics if an invariant is violated.

use std::io::Write;

use crate::archive::Archive;
use crate::contents::Contents;
use crate::manifest::{Descriptor, Index, Manifest, media_type};
use crate::name::ImageName;
use crate::reference::Reference;

/// A file as from `docker save`.
pub fn archive(data: &[u8]) {
    let Ok(mut file) = tempfile::NamedTempFile::new() else { return };
    if file.write_all(data).is_ok()
        && let Ok(archive) = Archive::open(file.path(), "an archive")
    {
        assert!(archive.top().data.len() as u64 <= crate::blobs::MAX_DOCUMENT_BYTES);
    }
}

/// A layer, in each supported compression.
pub fn layer(data: &[u8]) {
    for kind in [media_type::OCI_LAYER, media_type::OCI_LAYER_GZIP, media_type::OCI_LAYER_ZSTD] {
        let mut contents = Contents::default();
        let _ = contents.add(kind, data);
        for path in contents.links.keys() {
            let _ = contents.link_above(path);
        }
    }
}

/// The documents of an image.
pub fn manifest(data: &[u8]) {
    let _ = serde_json::from_slice::<Descriptor>(data);
    if let Ok(manifest) = serde_json::from_slice::<Manifest>(data) {
        let written = serde_json::to_vec(&manifest).expect("a manifest is written");
        assert_eq!(serde_json::from_slice::<Manifest>(&written).ok(), Some(manifest));
    }
    if let Ok(index) = serde_json::from_slice::<Index>(data) {
        let written = serde_json::to_vec(&index).expect("an index is written");
        assert_eq!(serde_json::from_slice::<Index>(&written).ok(), Some(index));
    }
}

/// An image name, which must survive formatting and parsing.
pub fn reference(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string().parse::<Reference>(), Ok(reference.clone()));
        assert_eq!(reference.familiar().parse::<Reference>(), Ok(reference));
    }
    if let Ok(name) = text.parse::<ImageName>() {
        assert_eq!(name.to_string().parse::<ImageName>().ok(), Some(name));
    }
}
