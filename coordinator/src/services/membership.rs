//! `kiln.v1.Membership`: join tokens and requests in, certificates of workers out.

use std::time::SystemTime;

use kiln_proto::v1::{self, membership_server};
use tonic::{Request, Response, Status};

use crate::auth::authority::Subject;
use crate::auth::{self, Authenticator, Identity, Role, check_name};

/// Makes workers members.
#[derive(Debug, Clone)]
pub struct Membership {
    authenticator: Authenticator,
}

impl Membership {
    /// Members of the farm that this authenticator knows.
    pub fn new(authenticator: Authenticator) -> Self {
        Self { authenticator }
    }

    fn certificate(&self, worker: &str, request: &str) -> Result<Response<v1::Certificate>, Status> {
        let Some((authority, life)) = self.authenticator.authority() else {
            return Err(Status::failed_precondition(
                "this coordinator makes no certificates: it was started without a `--farm-dir` that holds the authority's key",
            ));
        };
        let identity = Identity { name: worker.to_owned(), roles: [Role::Worker].into(), ..Identity::anonymous() };
        if self.authenticator.known().borrow().revoked.has(&identity) {
            return Err(Status::permission_denied(format!("`{worker}` is no longer let into this farm")));
        }
        let chain = authority
            .answer(request, &Subject::Client(&identity), life)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(Response::new(v1::Certificate { chain }))
    }
}

#[tonic::async_trait]
impl membership_server::Membership for Membership {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::Certificate>, Status> {
        let v1::JoinRequest { token, worker, certificate_request } = request.into_inner();
        check_name("worker", &worker).map_err(Status::invalid_argument)?;
        let known = self.authenticator.known().borrow().clone();
        let by = known.tokens.join(&token, SystemTime::now()).map_err(Status::unauthenticated)?;
        if known.revoked.has_name(&by) {
            return Err(Status::permission_denied(format!("the join token `{by}` is no longer taken by this farm")));
        }
        let certificate = self.certificate(&worker, &certificate_request)?;
        tracing::info!(worker, token = by, "a worker joined");
        Ok(certificate)
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::Certificate>, Status> {
        let identity = auth::identity(&request);
        if identity.serial.is_none() {
            return Err(Status::failed_precondition("only who came by a certificate has one to replace"));
        }
        self.certificate(&identity.name, &request.into_inner().certificate_request)
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        let by = auth::identity(&request);
        let v1::RevokeRequest { name, serial } = request.into_inner();
        if name.is_empty() == serial.is_empty() {
            return Err(Status::invalid_argument("expected either a name or a certificate's serial number"));
        }
        if !by.is_anonymous() && name == by.name {
            return Err(Status::invalid_argument(format!(
                "`{name}` is who asks: whoever revokes themselves can call nobody back; let another admin do it"
            )));
        }
        let whom = Identity { name, serial: Some(serial).filter(|serial| !serial.is_empty()), ..Identity::anonymous() };
        self.authenticator.revoke(&whom).await?;
        tracing::info!(by = by.name, name = whom.name, serial = whom.serial, "somebody is let in no more");
        Ok(Response::new(v1::RevokeResponse {}))
    }
}
