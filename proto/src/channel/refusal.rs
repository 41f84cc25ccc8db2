//! Explains why one end of a connection does not trust the other.
//!
//! The TLS library's errors are wrapped in those of the transport and can only be distinguished by their text. With TLS
//! 1.3, a server's refusal of a client certificate arrives after the handshake, as a failure of the first call.

/// The TLS library's texts, and their meaning for the user.
const MEANINGS: &[(&str, &str)] = &[
    (
        "peer certificate: BadSignature",
        "its certificate is not signed by the trusted authority; is `--ca` (`KILN_CA`) the authority of this farm?",
    ),
    (
        "UnknownIssuer",
        "its certificate is signed by an untrusted authority; pass the farm's own with `--ca` (`KILN_CA`)",
    ),
    ("NotValidForName", "its certificate is for another name; use a name that is in it, or create one for this name"),
    (
        "not valid for name",
        "its certificate is for another name; use a name that is in it, or create one for this name",
    ),
    ("certificate expired", "its certificate has expired; the farm's operator must replace it"),
    ("invalid peer certificate: Expired", "its certificate has expired; the farm's operator must replace it"),
    ("not valid yet", "its certificate is not valid yet; is this machine's clock right?"),
    ("HTTP/2 was not negotiated", "it speaks TLS but not gRPC; is there a coordinator at this address?"),
    ("InvalidContentType", "it does not speak TLS; use `http://` for such a coordinator"),
    ("fatal alert: CertificateExpired", "it rejected this client's certificate, which has expired; get a new one"),
    ("fatal alert: UnknownCA", "it rejected this client's certificate, which is not signed by the farm's authority"),
    (
        "fatal alert: BadCertificate",
        "it rejected this client's certificate; expected one created by `kiln farm certificate` for this farm",
    ),
    ("fatal alert: DecryptError", "it rejected this client's certificate; expected one of this farm's own authority"),
    (
        "fatal alert: CertificateUnknown",
        "it rejected this client's certificate; expected one of this farm's own authority",
    ),
];

/// Why one end does not trust the other; `None` if an error has another reason, so that a retry may help.
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let said = super::words(error);
    let (_, meaning) = MEANINGS.iter().find(|(word, _)| said.contains(word))?;
    Some((*meaning).to_owned())
}
