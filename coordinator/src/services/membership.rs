//! `kiln.v1.Membership`: exchanges join tokens for workers' certificates, lists members, and revokes access.

use std::collections::BTreeSet;

use kiln_proto::v1::{self, membership_server};
use tonic::{Request, Response, Status};

use kiln_auth::audit::Subject;
use kiln_auth::{Authenticator, Identity, Role, check_name, issued, revoked, tokens};
use kiln_execution::ExecutionHandle;

/// Serves memberships.
#[derive(Debug, Clone)]
pub struct Membership {
    authenticator: Authenticator,
    execution: ExecutionHandle,
}

impl Membership {
    /// Serves the members known to this authenticator.
    pub fn new(authenticator: Authenticator, execution: ExecutionHandle) -> Self {
        Self { authenticator, execution }
    }

    /// Whether there is a member with this name, as far as the farm knows.
    async fn knows(&self, name: &str) -> Result<bool, Status> {
        if self.authenticator.knows(name).await {
            return Ok(true);
        }
        let farm = self.execution.farm().await?;
        Ok(farm.workers.iter().chain(&farm.away).any(|worker| worker.worker == name))
    }
}

#[tonic::async_trait]
impl membership_server::Membership for Membership {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::Certificate>, Status> {
        let subject = Subject::of(&request);
        let v1::JoinRequest { token, worker, certificate_request } = request.into_inner();
        subject.is(format!("worker {worker}"));
        check_name("worker", &worker).map_err(Status::invalid_argument)?;
        let chain = self.authenticator.join(&token, &worker, &certificate_request).await?;
        Ok(Response::new(v1::Certificate { chain }))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::Certificate>, Status> {
        let identity = kiln_auth::identity(&request);
        Subject::of(&request).is(match &identity.serial {
            Some(serial) => format!("certificate {serial} of {}", identity.name),
            None => identity.name.clone(),
        });
        let chain = self.authenticator.renew(&identity, &request.into_inner().certificate_request).await?;
        Ok(Response::new(v1::Certificate { chain }))
    }

    async fn revoke(&self, request: Request<v1::RevokeRequest>) -> Result<Response<v1::RevokeResponse>, Status> {
        let by = kiln_auth::identity(&request);
        let subject = Subject::of(&request);
        let v1::RevokeRequest { name, serial, unknown } = request.into_inner();
        subject.is(named(&name, &serial));
        if name.is_empty() == serial.is_empty() {
            return Err(Status::invalid_argument("expected either a name or a certificate's serial number"));
        }
        if !by.is_anonymous() && name == by.name {
            return Err(Status::invalid_argument(format!(
                "you cannot revoke yourself (`{name}`); ask another admin to do it"
            )));
        }
        if !name.is_empty() && !unknown && !self.knows(&name).await? {
            return Err(Status::not_found(format!(
                "nobody on this farm is named `{name}`: no token, certificate or worker has that name, and nobody called with it \
                 since the coordinator started (`kiln farm list`); `--unknown` revokes it anyway"
            )));
        }
        let whom = whom(name, serial);
        self.authenticator.revoke(&whom).await?;
        tracing::info!(by = by.name, name = whom.name, serial = whom.serial, "access revoked");
        Ok(Response::new(v1::RevokeResponse {}))
    }

    async fn unrevoke(&self, request: Request<v1::UnrevokeRequest>) -> Result<Response<v1::UnrevokeResponse>, Status> {
        let by = kiln_auth::identity(&request);
        let subject = Subject::of(&request);
        let v1::UnrevokeRequest { name, serial } = request.into_inner();
        subject.is(named(&name, &serial));
        if name.is_empty() == serial.is_empty() {
            return Err(Status::invalid_argument("expected either a name or a certificate's serial number"));
        }
        let whom = whom(name, serial);
        self.authenticator.unrevoke(&whom).await?;
        tracing::info!(by = by.name, name = whom.name, serial = whom.serial, "access restored");
        Ok(Response::new(v1::UnrevokeResponse {}))
    }

    async fn list(&self, _: Request<v1::ListMembersRequest>) -> Result<Response<v1::Members>, Status> {
        let known = self.authenticator.known().borrow().clone();
        let certificates = self.authenticator.issued().await;
        let tokens: Vec<tokens::Entry> = known.tokens.entries().cloned().collect();
        Ok(Response::new(members(certificates, tokens, &known.revoked)))
    }
}

fn named(name: &str, serial: &str) -> String {
    if serial.is_empty() { name.to_owned() } else { format!("certificate {serial}") }
}

fn whom(name: String, serial: String) -> Identity {
    Identity { name, serial: Some(serial).filter(|serial| !serial.is_empty()), ..Identity::anonymous() }
}

/// The farm's members for the wire, sorted by name within each kind.
pub fn members(
    mut certificates: Vec<issued::Entry>,
    mut tokens: Vec<tokens::Entry>,
    revoked: &revoked::File,
) -> v1::Members {
    let roles = |roles: &BTreeSet<Role>| roles.iter().map(|role| role.name().to_owned()).collect();
    let sorted = |names: &std::collections::HashSet<String>| {
        let mut names: Vec<String> = names.iter().cloned().collect();
        names.sort_unstable();
        names
    };
    certificates.sort_by(|one, other| (&one.name, one.expires).cmp(&(&other.name, other.expires)));
    tokens.sort_by(|one, other| (&one.name, one.expires).cmp(&(&other.name, other.expires)));
    v1::Members {
        certificates: certificates
            .into_iter()
            .map(|entry| v1::IssuedCertificate {
                roles: roles(&entry.roles),
                name: entry.name,
                tenant: entry.tenant,
                serial: entry.serial,
                expires: entry.expires.map(kiln_proto::clock::timestamp),
            })
            .collect(),
        tokens: tokens
            .into_iter()
            .map(|entry| v1::IssuedToken {
                roles: roles(&entry.roles),
                name: entry.name,
                tenant: entry.tenant,
                join: entry.join,
                expires: entry.expires.map(kiln_proto::clock::timestamp),
            })
            .collect(),
        revoked_names: sorted(&revoked.names),
        revoked_serials: sorted(&revoked.serials),
    }
}
