//! Issues workers' first certificates and their renewals.

use std::time::SystemTime;

use rcgen::{CertificateSigningRequestParams, PublicKeyData};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use sha2::{Digest, Sha256};
use tonic::Status;

use super::authority::{self, Subject};
use super::joined::{Issued, Refused};
use super::{Authenticator, Error, Identity, Role};

impl Authenticator {
    /// Issues a certificate to a worker with a join token, bound to the token's tenant and pool.
    ///
    /// # Errors
    /// `UNAUTHENTICATED` for a token that is unknown, expired or used up, `PERMISSION_DENIED` for a worker that the
    /// token is not for, `ALREADY_EXISTS` for a name that belongs to another key, `FAILED_PRECONDITION` if this
    /// coordinator issues no certificates.
    pub async fn join(&self, token: &str, worker: &str, request: &str) -> Result<String, Status> {
        let known = self.known_with(token).await;
        let entry = known.tokens.join(token, SystemTime::now()).map_err(Status::unauthenticated)?;
        if known.revoked.has_name(&entry.name) {
            return Err(Status::permission_denied(format!("the join token `{}` was revoked", entry.name)));
        }
        if !entry.takes(worker) {
            return Err(Status::permission_denied(format!(
                "the join token `{}` is for workers named `{}`, not for `{worker}`; give the worker such a `--name`",
                entry.name,
                entry.workers.as_deref().unwrap_or("*")
            )));
        }
        let identity = Identity {
            name: worker.to_owned(),
            tenant: entry.tenant.clone(),
            roles: [Role::Worker].into(),
            pool: entry.pool.clone(),
            ..Identity::anonymous()
        };
        if known.revoked.has(&identity) {
            return Err(Status::permission_denied(format!("worker `{worker}` was revoked")));
        }
        let key = key_of(request)?;
        let (joined, token) = (self.joined(), (entry.name.clone(), entry.sha256.clone(), entry.uses));
        let name = worker.to_owned();
        let revoked = known.clone();
        let admitted = tokio::task::spawn_blocking(move || {
            let token = (token.0.as_str(), token.1.as_str(), token.2);
            joined.lock().admit(&name, &key, token, &revoked.revoked, SystemTime::now())
        });
        match admitted.await.map_err(|error| Status::internal(error.to_string()))? {
            Ok(()) => {}
            Err(refused @ Refused::NameInUse { .. }) => return Err(Status::already_exists(refused.to_string())),
            Err(refused @ Refused::UsedUp { .. }) => return Err(Status::unauthenticated(refused.to_string())),
            Err(Refused::File(error)) => return Err(unrecorded(&error)),
        }
        let chain = self.certify(&identity, request).await?;
        tracing::info!(worker, token = entry.name, tenant = entry.tenant, pool = entry.pool, "a worker joined");
        Ok(chain)
    }

    /// Renews a worker's certificate.
    ///
    /// # Errors
    /// `FAILED_PRECONDITION` for a caller without a certificate, or if this coordinator issues no certificates.
    pub async fn renew(&self, identity: &Identity, request: &str) -> Result<String, Status> {
        if identity.serial.is_none() {
            return Err(Status::failed_precondition("only a caller with a certificate can renew it"));
        }
        let next = Identity { roles: [Role::Worker].into(), serial: None, expires: None, ..identity.clone() };
        self.certify(&next, request).await
    }

    async fn certify(&self, identity: &Identity, request: &str) -> Result<String, Status> {
        let Some((authority, life)) = self.authority() else {
            return Err(Status::failed_precondition(
                "this coordinator issues no certificates: it was started without a `--farm-dir` that holds the authority's key",
            ));
        };
        let chain = authority
            .answer(request, &Subject::Client(identity), life)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let internal =
            |error: &dyn std::fmt::Display| Status::internal(format!("cannot record the certificate: {error}"));
        let certificate = CertificateDer::from_pem_slice(chain.as_bytes()).map_err(|error| internal(&error))?;
        let made = authority::identify(&certificate).map_err(|error| internal(&error))?;
        let issued = Issued {
            name: made.name,
            key: authority::key_of(&certificate).map_err(|error| internal(&error))?,
            serial: made.serial.unwrap_or_default(),
            family: made.family.unwrap_or_default(),
            expires: made.expires.unwrap_or_else(SystemTime::now),
        };
        let joined = self.joined();
        let noted = tokio::task::spawn_blocking(move || joined.lock().note(issued, SystemTime::now()));
        noted.await.map_err(|error| internal(&error))?.map_err(|error| unrecorded(&error))?;
        self.note_issued(&chain);
        Ok(chain)
    }
}

/// What was decided cannot be recorded. Where all coordinators record it, that passes.
fn unrecorded(error: &Error) -> Status {
    let words = format!("cannot record the certificate: {error}");
    if matches!(error, Error::Ledger { .. }) { Status::unavailable(words) } else { Status::internal(words) }
}

/// SHA-256 of the public key in a request in PEM, in hex.
fn key_of(request: &str) -> Result<String, Status> {
    let request = CertificateSigningRequestParams::from_pem(request)
        .map_err(|error| Status::invalid_argument(format!("cannot read the certificate request: {error}")))?;
    Ok(hex::encode(Sha256::digest(request.public_key.subject_public_key_info())))
}
