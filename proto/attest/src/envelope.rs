//! Envelopes: a payload with signatures over it and its type.
//!
//! Source: secure-systems-lab/dsse, "DSSE v1.0" (protocol and envelope).

use serde::{Deserialize, Serialize};

use crate::keys::{Key, Keys};
use crate::{Error, MAX_BYTES, Statement, base64};

/// The type of a payload that is an in-toto statement.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
/// Maximum number of signatures of an envelope.
const MAX_SIGNATURES: usize = 16;

/// What is signed: the type and the payload with their lengths.
pub fn pae(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let mut message = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len()).into_bytes();
    message.extend_from_slice(payload);
    message
}

/// A signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// The key that made it, as somebody claims; empty if nobody does.
    pub key: String,
    /// DER for ECDSA, 64 bytes for Ed25519.
    pub bytes: Vec<u8>,
}

/// A payload with signatures that nobody has verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    pub(crate) payload_type: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) signatures: Vec<Signature>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Wire {
    payload: String,
    payload_type: String,
    signatures: Vec<WireSignature>,
}

#[derive(Serialize, Deserialize)]
struct WireSignature {
    sig: String,
    #[serde(default)]
    keyid: String,
}

impl Envelope {
    /// A statement in JSON, with signatures over [`pae`] of it.
    pub fn new(payload: Vec<u8>, signatures: Vec<Signature>) -> Self {
        Self { payload_type: PAYLOAD_TYPE.to_owned(), payload, signatures }
    }

    /// Reads an envelope.
    ///
    /// # Errors
    /// If it is malformed, too large, or has no signature.
    pub fn parse(data: &[u8]) -> Result<Self, Error> {
        if data.len() > MAX_BYTES {
            return Err(Error::Large { what: "envelope" });
        }
        let wire: Wire = serde_json::from_slice(data).map_err(|error| Error::malformed("envelope", error))?;
        Self::from_wire(wire)
    }

    pub(crate) fn from_wire(wire: Wire) -> Result<Self, Error> {
        let malformed = |reason: String| Error::malformed("envelope", reason);
        if wire.signatures.is_empty() {
            return Err(malformed("it has no signature".to_owned()));
        }
        if wire.signatures.len() > MAX_SIGNATURES {
            return Err(malformed(format!("it has more than {MAX_SIGNATURES} signatures")));
        }
        let decode =
            |name: &str, text: &str| base64::decode(text).ok_or_else(|| malformed(format!("`{name}` is not base64")));
        let payload = decode("payload", &wire.payload)?;
        let signature = |one: WireSignature| Ok(Signature { bytes: decode("sig", &one.sig)?, key: one.keyid });
        let signatures = wire.signatures.into_iter().map(signature).collect::<Result<_, Error>>()?;
        Ok(Self { payload_type: wire.payload_type, payload, signatures })
    }

    pub(crate) fn to_wire(&self) -> Wire {
        let signature = |one: &Signature| WireSignature { sig: base64::encode(&one.bytes), keyid: one.key.clone() };
        Wire {
            payload: base64::encode(&self.payload),
            payload_type: self.payload_type.clone(),
            signatures: self.signatures.iter().map(signature).collect(),
        }
    }

    /// The envelope as JSON.
    ///
    /// # Errors
    /// Never for an envelope of this crate.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        serde_json::to_vec(&self.to_wire()).map_err(|error| Error::malformed("envelope", error))
    }

    /// The statement, if one of these keys signed it, and that key.
    ///
    /// Whether the key is still or already valid is the caller's to decide ([`Key::state`]).
    ///
    /// # Errors
    /// If no key of them signed it, or what was signed is not a statement.
    pub fn verify<'a>(&self, keys: &'a Keys) -> Result<(Statement, &'a Key), Error> {
        let message = pae(&self.payload_type, &self.payload);
        let signed = |key: &&Key| self.signatures.iter().any(|one| key.public.verifies(&message, &one.bytes));
        let Some(key) = keys.iter().find(signed) else {
            let claimed = |key: &&Key| self.signatures.iter().any(|one| one.key == key.public.id());
            return Err(match keys.iter().find(claimed) {
                Some(key) => Error::Forged { key: key.public.id().to_owned() },
                None => Error::Untrusted {
                    hint: self.signatures.first().map(|one| one.key.clone()).unwrap_or_default(),
                    trusted: keys.iter().map(|key| key.public.id().to_owned()).collect(),
                },
            });
        };
        if self.payload_type != PAYLOAD_TYPE {
            let reason = format!("its payload has the type `{}`; expected `{PAYLOAD_TYPE}`", self.payload_type);
            return Err(Error::malformed("envelope", reason));
        }
        Ok((Statement::parse(&self.payload)?, key))
    }
}
