//! Why one end of a connection does not trust the other, in words.
//!
//! The TLS library's errors come wrapped in those of the transport; they are told apart by its own words. With TLS 1.3 a server's
//! refusal of a client's certificate arrives after the handshake, as the failure of the first call.

/// What TLS says, and what it means to who reads it.
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
    ("InvalidContentType", "it speaks no TLS; expected `http://` for such a coordinator"),
    ("fatal alert: CertificateExpired", "it refuses this client's certificate, which has expired; get a new one"),
    (
        "fatal alert: UnknownCA",
        "it refuses this client's certificate, which is signed by another authority than the farm's",
    ),
    (
        "fatal alert: BadCertificate",
        "it refuses this client's certificate; expected one created by `kiln farm certificate` for this farm",
    ),
    ("fatal alert: DecryptError", "it refuses this client's certificate; expected one of this farm's own authority"),
    (
        "fatal alert: CertificateUnknown",
        "it refuses this client's certificate; expected one of this farm's own authority",
    ),
];

/// Why the other end is not trusted, or does not trust this one; none where an error is about something else, and trying again may
/// help.
pub fn refusal(error: &(dyn std::error::Error + 'static)) -> Option<String> {
    let said = super::words(error);
    let (_, meaning) = MEANINGS.iter().find(|(word, _)| said.contains(word))?;
    Some((*meaning).to_owned())
}
