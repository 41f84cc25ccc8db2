//! The variants of a call, newest first.

use std::path::PathBuf;

use prost::Message;

use super::format;
use super::variant::Variant;

/// How many variants a manifest has at most.
pub const MAX_VARIANTS: usize = 8;
/// How many bytes an encoded manifest has at most.
pub const MAX_BYTES: usize = 64 * 1024;

/// Why a manifest cannot be written or read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("one variant takes {bytes} bytes, and a manifest has room for {MAX_BYTES}; the call is not remembered")]
    TooLarge { bytes: usize },
    #[error("path `{}` is not absolute", path.display())]
    Relative { path: PathBuf },
    #[error("the manifest is not one that this version writes: {reason}")]
    Invalid { reason: String },
}

/// What is remembered about a call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Manifest {
    variants: Vec<Variant>,
}

impl Manifest {
    /// The variants, newest first.
    pub fn variants(&self) -> &[Variant] {
        &self.variants
    }

    /// Adds a variant as the newest. One that is equal moves to the front; the oldest go until there are at most
    /// [`MAX_VARIANTS`] and they fit into [`MAX_BYTES`].
    ///
    /// Fails, and changes nothing, if the variant alone does not fit, or a path in it is not absolute.
    pub fn add(&mut self, variant: Variant) -> Result<(), Error> {
        let mut paths = variant.read.keys().chain(&variant.absent).chain(variant.listed.keys());
        if let Some(path) = paths.find(|path| !path.is_absolute()) {
            return Err(Error::Relative { path: path.clone() });
        }
        let alone = format::encode(std::slice::from_ref(&variant));
        if !format::fits(&alone, MAX_BYTES) {
            return Err(Error::TooLarge { bytes: alone.encoded_len() });
        }
        self.variants.retain(|other| *other != variant);
        self.variants.insert(0, variant);
        self.variants.truncate(MAX_VARIANTS);
        while self.variants.len() > 1 && !format::fits(&format::encode(&self.variants), MAX_BYTES) {
            self.variants.pop();
        }
        Ok(())
    }

    /// The encoded form, of at most [`MAX_BYTES`]. Equal manifests have equal bytes.
    pub fn encode(&self) -> Vec<u8> {
        format::encode(&self.variants).encode_to_vec()
    }

    /// Reads the encoded form.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let invalid = |reason: String| Error::Invalid { reason };
        if bytes.len() > MAX_BYTES {
            return Err(invalid(format!("it has {} bytes", bytes.len())));
        }
        let message = format::Manifest::decode(bytes).map_err(|error| invalid(error.to_string()))?;
        let variants = format::decode(&message).map_err(|reason| invalid(reason.to_owned()))?;
        if variants.len() > MAX_VARIANTS {
            return Err(invalid(format!("it has {} variants", variants.len())));
        }
        Ok(Self { variants })
    }
}
