//! Bundles: files with an envelope and a hint at the key that signed it.
//!
//! Source: sigstore/protobuf-specs, `sigstore_bundle.proto`, v0.3, with a public key in place of a certificate. Such a bundle needs no
//! transparency log: whoever verifies it has the key from the farm.

use serde::{Deserialize, Serialize};

use crate::envelope::{Envelope, Wire};
use crate::{Error, MAX_BYTES};

/// The media type of a bundle.
pub const MEDIA_TYPE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";
/// All versions begin so.
const ANY_VERSION: &str = "application/vnd.dev.sigstore.bundle";

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    media_type: String,
    verification_material: Material,
    dsse_envelope: Wire,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Material {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    public_key: Option<Hint>,
}

#[derive(Serialize, Deserialize)]
struct Hint {
    #[serde(default)]
    hint: String,
}

/// What of a file says whether it is a bundle.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    media_type: Option<String>,
}

/// The bundle with this envelope, as JSON. A bundle has one signature; further ones are left out.
///
/// # Errors
/// Never for an envelope of this crate.
pub fn bundle(envelope: &Envelope) -> Result<Vec<u8>, Error> {
    let mut envelope = envelope.clone();
    envelope.signatures.truncate(1);
    let hint = envelope.signatures.first().map(|one| one.key.clone()).unwrap_or_default();
    let file = File {
        media_type: MEDIA_TYPE.to_owned(),
        verification_material: Material { public_key: Some(Hint { hint }) },
        dsse_envelope: envelope.to_wire(),
    };
    serde_json::to_vec(&file).map_err(|error| Error::malformed("bundle", error))
}

/// The envelope in a bundle, or in a file that is an envelope.
///
/// # Errors
/// If it is neither, or too large.
pub fn parse(data: &[u8]) -> Result<Envelope, Error> {
    if data.len() > MAX_BYTES {
        return Err(Error::Large { what: "bundle" });
    }
    let malformed = |error: serde_json::Error| {
        let what = if error.is_eof() { "it is truncated: " } else { "" };
        Error::malformed("bundle", format!("{what}{error}"))
    };
    let kind: Kind = serde_json::from_slice(data).map_err(malformed)?;
    match kind.media_type {
        None => Envelope::parse(data),
        Some(kind) if kind.starts_with(ANY_VERSION) => {
            let file: File = serde_json::from_slice(data).map_err(malformed)?;
            let mut envelope = Envelope::from_wire(file.dsse_envelope)?;
            if let (Some(Hint { hint }), [only]) = (file.verification_material.public_key, &mut envelope.signatures[..])
                && only.key.is_empty()
            {
                only.key = hint;
            }
            Ok(envelope)
        }
        Some(other) => Err(Error::malformed("bundle", format!("it is `{other}`; expected `{MEDIA_TYPE}`"))),
    }
}
