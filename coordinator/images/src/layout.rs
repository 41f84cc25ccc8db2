//! OCI image layouts: the files of a directory of images.
//!
//! Invariant: a layout is a map from path to content, stored on a disk, in a tar or in a blob store. Source: OCI image
//! specification 1.1, "Image Layout".

use crate::digest::Digest;
use crate::image::Image;
use crate::manifest::{Descriptor, Document, Index};

/// The file that identifies a layout.
pub const MARKER: &str = "oci-layout";
/// The content of that file.
pub const MARKER_CONTENT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}";
/// The file that lists the images.
pub const INDEX: &str = "index.json";
/// The annotation that holds a tag.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The path of a blob in a layout.
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// The digest of the blob at a path of a layout.
pub fn blob_at(path: &str) -> Option<Digest> {
    format!("sha256:{}", path.strip_prefix("blobs/sha256/")?).parse().ok()
}

/// The document that a tag refers to: the manifest of one image, or an index for several platforms.
pub fn top(images: &[Image]) -> Document {
    match images {
        [only] => only.manifest.clone(),
        several => joined(several.iter().map(|image| image.manifest.descriptor.clone()).collect()),
    }
}

/// The index of these manifests, by platform.
pub fn joined(mut manifests: Vec<Descriptor>) -> Document {
    manifests.sort_by_key(|one| one.platform.as_ref().map(ToString::to_string));
    Document::from(&Index::new(manifests))
}

/// The small files of a layout with one image for some platforms, by path. The caller has to add the layers at
/// [`blob_path`].
pub fn files(images: &[Image], tag: &str) -> Vec<(String, Document)> {
    let top = top(images);
    let mut named = top.descriptor.clone();
    named.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    let mut files = vec![
        (MARKER.to_owned(), Document::new("application/json", MARKER_CONTENT)),
        (INDEX.to_owned(), Document::from(&Index::new(vec![named]))),
    ];
    let documents = images.iter().flat_map(|image| [image.manifest.clone(), image.config.clone()]);
    for document in documents.chain([top]) {
        let path = blob_path(&document.descriptor.digest);
        if !files.iter().any(|(known, _)| *known == path) {
            files.push((path, document));
        }
    }
    files
}
