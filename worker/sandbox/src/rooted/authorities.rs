//! The machine's certificate authorities for jobs in roots: with those of a company whose proxy ends TLS, a job can reach the network.
//!
//! Invariant: nothing of them is in the root. They are a file of the job's `/dev`, which variables name; so what the job does to its own
//! authorities is its own, and nothing of the machine's is in its result.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Where the job finds the machine's authorities, and its root's own.
pub(super) const BUNDLE: &str = "/dev/kiln/ca-certificates.crt";
/// What `apt` reads before its own configuration.
pub(super) const APT: &str = "/dev/kiln/apt.conf";
/// That file's content.
pub(super) const APT_CONFIGURATION: &str = "Acquire::https::CAInfo \"/dev/kiln/ca-certificates.crt\";\n";
/// Where systems keep the authorities that they trust: Debian, Alpine and Arch; Fedora, Red Hat and Amazon; openSUSE; Alpine again.
const PLACES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// Largest such file that is read, in bytes.
const MAX_BYTES: u64 = 4 << 20;
/// Variables that name a file of authorities: of OpenSSL and Go, curl, Python, Node, git, Cargo, libfetch (`apk`), Bundler, Deno, Nix and AWS.
const VARIABLES: [&str; 12] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "CARGO_HTTP_CAINFO",
    "SSL_CA_CERT_FILE",
    "BUNDLE_SSL_CA_CERT",
    "DENO_CERT",
    "NIX_SSL_CERT_FILE",
    "AWS_CA_BUNDLE",
];

/// Variables of a job that has the machine's authorities, unless it has them itself.
pub(super) fn variables() -> impl Iterator<Item = (&'static str, &'static str)> {
    VARIABLES.into_iter().map(|name| (name, BUNDLE)).chain([("APT_CONFIG", APT)])
}

/// The machine's authorities: what `SSL_CERT_FILE` names, or the system's.
pub(in super::super) fn of_machine() -> Result<String, String> {
    let named = std::env::var("SSL_CERT_FILE").ok().filter(|path| !path.is_empty());
    let mut places = named.iter().map(String::as_str).chain(PLACES);
    places.find_map(|place| read(Path::new(place))).ok_or_else(|| {
        let places = PLACES.join("`, `");
        format!(
            "this machine has no file of certificate authorities: expected `SSL_CERT_FILE` to name one, or `{places}`"
        )
    })
}

/// Adds the authorities of the root that this process is in.
pub(super) fn add_own(bundle: &mut File) -> std::io::Result<()> {
    match PLACES.iter().find_map(|place| read(Path::new(place))) {
        Some(own) => bundle.write_all(format!("\n{own}").as_bytes()),
        None => Ok(()),
    }
}

/// A small file, whatever a root has in its place.
fn read(path: &Path) -> Option<String> {
    let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.try_into().ok()?).open(path).ok()?;
    let data = file.metadata().ok()?;
    if !data.is_file() || data.len() > MAX_BYTES {
        return None;
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).ok()?;
    text.contains("-----BEGIN").then_some(text)
}
