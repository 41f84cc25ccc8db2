//! Errors of registries, and whether a retry may help.

use std::time::Duration;

use crate::digest::Digest;

/// Why a registry did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot reach the registry `{registry}`: {reason}")]
    Unreachable { registry: String, reason: String },
    #[error(
        "the registry `{registry}` has an untrusted certificate ({reason}); \
         put its authority into `/etc/docker/certs.d/{registry}/ca.crt` or set `SSL_CERT_FILE` to it"
    )]
    Certificate { registry: String, reason: String },
    #[error(
        "the registry `{registry}` uses plain HTTP, which is not allowed: allow it with `--insecure-registry {registry}`"
    )]
    PlainHttp { registry: String },
    #[error(
        "{reason}, and the registry `{registry}` refers to it; a farm contacts only public registries unless its operator allows others: \
         `--allow-registry {allow}` on the coordinator"
    )]
    NotAllowed { registry: String, reason: String, allow: String },
    #[error(
        "the registry `{registry}` rejected the credentials of `{user}` from {from}; `docker login {registry}` renews them"
    )]
    Credentials { registry: String, user: String, from: String },
    #[error(
        "the registry `{registry}` requires credentials for `{repository}`, but none are configured: `docker login {registry}`"
    )]
    NoCredentials { registry: String, repository: String },
    #[error("the registry `{registry}` does not allow {doing} `{repository}`: {detail}")]
    Denied { registry: String, repository: String, doing: &'static str, detail: String },
    #[error("there is no image `{reference}`{hint}")]
    NotFound { reference: String, hint: String },
    #[error("the registry `{registry}` is full: {detail}; free some space and push again; the uploaded blobs are kept")]
    Full { registry: String, detail: String },
    #[error("the registry `{registry}` made no progress for {} s {doing}", .after.as_secs())]
    Stalled { registry: String, doing: &'static str, after: Duration },
    #[error("the registry `{registry}` failed {doing}: {status} {detail}")]
    Failing { registry: String, doing: &'static str, status: u16, detail: String },
    #[error("the registry `{registry}` refused {doing}: {status} {detail}")]
    Refused { registry: String, doing: &'static str, status: u16, detail: String },
    #[error("the registry `{registry}` sent an invalid response {doing}: {reason}")]
    Malformed { registry: String, doing: &'static str, reason: String },
    #[error(
        "`{reference}` already exists and is another image (`{existing}`, not `{offered}`); nothing was changed: \
         choose another tag, or move this one with `--push-over`"
    )]
    Taken { reference: String, existing: Digest, offered: Digest },
    #[error("cannot read `{path}`: {reason}")]
    CredentialFile { path: String, reason: String },
    #[error("the credential helper `{helper}` failed for `{registry}`: {reason}")]
    Helper { helper: String, registry: String, reason: String },
    #[error("the registry `{registry}` lost an upload: {why}")]
    SessionLost { registry: String, why: String },
    #[error(transparent)]
    Source(#[from] Box<crate::blobs::Error>),
}

impl Error {
    /// Whether a retry in a moment may succeed.
    pub fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Stalled { .. } | Self::Failing { .. } | Self::SessionLost { .. }
        )
    }

    /// Whether the user can fix it: a wrong name, missing credentials, a tag that exists. Otherwise the registry or the
    /// connection is at fault.
    pub fn is_users(&self) -> bool {
        match self {
            Self::Credentials { .. }
            | Self::NoCredentials { .. }
            | Self::Denied { .. }
            | Self::NotFound { .. }
            | Self::PlainHttp { .. }
            | Self::NotAllowed { .. }
            | Self::Certificate { .. }
            | Self::Taken { .. }
            | Self::CredentialFile { .. }
            | Self::Helper { .. } => true,
            Self::Unreachable { .. }
            | Self::Full { .. }
            | Self::Stalled { .. }
            | Self::Failing { .. }
            | Self::Refused { .. }
            | Self::Malformed { .. }
            | Self::SessionLost { .. }
            | Self::Source(_) => false,
        }
    }
}
