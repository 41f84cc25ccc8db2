//! `kiln.v1.Membership`: exchanges join tokens for workers' certificates, lists members, and revokes access.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::SystemTime;

use kiln_peers::Others;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::{self, membership_server};
use kiln_proto::{clock, made};
use tonic::{Request, Response, Status};

use kiln_state::distrust::{Period, Periods};

use kiln_auth::audit::Subject;
use kiln_auth::{Authenticator, Identity, Role, check_name, issued, revoked, tokens};
use kiln_execution::ExecutionHandle;

use kiln_auth::Beliefs;

/// Serves memberships.
#[derive(Debug, Clone)]
pub struct Membership {
    authenticator: Authenticator,
    execution: ExecutionHandle,
    made: Arc<dyn Made>,
    beliefs: Beliefs,
    others: Option<Others>,
}

/// Whose results may be wrong.
enum Maker {
    Worker(String),
    Client(String),
}

impl Maker {
    fn of(worker: String, client: String) -> Result<Self, Status> {
        match (worker.as_str(), client.as_str()) {
            (name, "") => check_name("worker", name).map(|()| Self::Worker(worker)).map_err(Status::invalid_argument),
            ("", name) if !name.contains(char::is_control) => Ok(Self::Client(client)),
            ("", _) => Err(Status::invalid_argument("expected a client's name without control characters")),
            _ => Err(Status::invalid_argument("expected the name of either a worker or a client, and found both")),
        }
    }

    /// As the makers of results are named.
    fn id(&self) -> String {
        match self {
            Self::Worker(name) => name.clone(),
            Self::Client(name) => made::of_client(name),
        }
    }
}

impl std::fmt::Display for Maker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Worker(name) => write!(f, "worker `{name}`"),
            Self::Client(name) => write!(f, "client `{name}`"),
        }
    }
}

/// What the tenants of a farm have of what workers made.
#[tonic::async_trait]
pub(crate) trait Made: std::fmt::Debug + Send + Sync {
    /// All tenants' artifacts that depend on what a worker made, or a client wrote, since then.
    async fn dependents(&self, maker: &str, since: SystemTime) -> Result<v1::DistrustResponse, Status>;

    /// Empties all tenants' cache mounts that were published since then, and returns how many they are.
    async fn forget_mounts(&self, since: SystemTime, dry_run: bool) -> Result<u64, Status>;
}

impl Membership {
    /// Serves the members known to this authenticator, and the workers of this execution.
    pub(crate) fn new(
        authenticator: Authenticator,
        execution: ExecutionHandle,
        made: Arc<dyn Made>,
        beliefs: Beliefs,
        others: Option<Others>,
    ) -> Self {
        Self { authenticator, execution, made, beliefs, others }
    }

    /// The certificates and tokens that the farm's coordinators know.
    async fn all(&self) -> v1::Members {
        let own = known_to(&self.authenticator).await;
        match &self.others {
            Some(others) => merged(own, others.members().await),
            None => own,
        }
    }

    /// Whether there is a member with this name, as far as the farm knows.
    async fn knows(&self, name: &str) -> Result<bool, Status> {
        if self.authenticator.knows(name).await {
            return Ok(true);
        }
        let farm = self.execution.farm().await?;
        if farm.workers.iter().chain(&farm.away).any(|worker| worker.worker == name) {
            return Ok(true);
        }
        let all = self.all().await;
        let mut names = all.certificates.iter().map(|one| &one.name).chain(all.tokens.iter().map(|one| &one.name));
        Ok(names.any(|known| known == name))
    }

    /// Refuses whoever is no member of the farm, as far as it knows.
    async fn must_know(&self, maker: &Maker) -> Result<(), Status> {
        match maker {
            Maker::Worker(name) if self.knows(name).await? => Ok(()),
            Maker::Client(name) if self.authenticator.knows(name).await => Ok(()),
            Maker::Worker(name) => Err(Status::not_found(format!(
                "the farm has no worker `{name}` and has not heard of one since the coordinator started (`kiln farm list`); `--unknown` \
                 distrusts it anyway"
            ))),
            Maker::Client(name) => Err(Status::not_found(format!(
                "the farm has issued no token or certificate to `{name}` (`kiln farm list`); `--unknown` distrusts it anyway, such as a job that \
                 its CI system has issued a token to"
            ))),
        }
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

    async fn distrust(&self, request: Request<v1::DistrustRequest>) -> Result<Response<v1::DistrustResponse>, Status> {
        let by = kiln_auth::identity(&request);
        let subject = Subject::of(&request);
        let v1::DistrustRequest { worker, since, dry_run, unknown, client } = request.into_inner();
        let maker = Maker::of(worker, client)?;
        subject.is(format!("{}{maker}", if dry_run { "dry run: " } else { "" }));
        let since = since.as_ref().and_then(clock::read_timestamp);
        let since = since.ok_or_else(|| Status::invalid_argument("expected a time since which it is distrusted"))?;
        if !unknown {
            self.must_know(&maker).await?;
        }
        if !dry_run {
            let distrust = |periods: &mut Periods| {
                periods.distrust(&maker.id(), since, &by.name);
                Ok(())
            };
            self.beliefs.change(distrust).await?;
            self.execution.believe(maker.id()).await?;
            tracing::warn!(by = by.name, %maker, "distrusted");
        }
        // What a client writes is in no cache mount, unless a step began with it.
        let mounts = self.made.forget_mounts(since, dry_run).await?;
        let found = self.made.dependents(&maker.id(), since).await?;
        subject.is(format!("{maker}: {} artifacts depend on it, {mounts} cache mounts", found.total));
        Ok(Response::new(v1::DistrustResponse { mounts, ..found }))
    }

    async fn trust(&self, request: Request<v1::TrustRequest>) -> Result<Response<v1::TrustResponse>, Status> {
        let by = kiln_auth::identity(&request);
        let subject = Subject::of(&request);
        let v1::TrustRequest { worker, client } = request.into_inner();
        let maker = Maker::of(worker, client)?;
        subject.is(maker.to_string());
        let trust = |periods: &mut Periods| match periods.trust(&maker.id(), SystemTime::now()) {
            true => Ok(()),
            false => Err(Status::not_found(format!("the {maker} is not distrusted; `kiln farm list` shows who is"))),
        };
        self.beliefs.change(trust).await?;
        self.execution.believe(maker.id()).await?;
        tracing::info!(by = by.name, %maker, "trusted again");
        Ok(Response::new(v1::TrustResponse {}))
    }

    async fn list(&self, _: Request<v1::ListMembersRequest>) -> Result<Response<v1::Members>, Status> {
        let distrusted = self.beliefs.known().now().all().iter().map(distrusted).collect();
        Ok(Response::new(v1::Members { distrusted, ..self.all().await }))
    }
}

/// The certificates and tokens in this coordinator's files, and who is revoked.
pub(crate) async fn known_to(authenticator: &Authenticator) -> v1::Members {
    let known = authenticator.known().borrow().clone();
    let certificates = authenticator.issued().await;
    members(certificates, known.tokens.entries().cloned().collect(), &known.revoked)
}

/// The members that a coordinator knows, with the certificates and tokens that only others know.
fn merged(mut own: v1::Members, others: Vec<Result<v1::Members, String>>) -> v1::Members {
    for other in others {
        match other {
            Ok(members) => {
                own.certificates.extend(members.certificates);
                own.tokens.extend(members.tokens);
            }
            Err(url) => own.unanswered.push(url),
        }
    }
    let mut serials = BTreeSet::new();
    own.certificates.retain(|one| serials.insert(one.serial.clone()));
    own.certificates.sort_by(|one, other| by_name(&one.name, &one.expires, &other.name, &other.expires));
    // Copies of one farm's directory have the same tokens.
    own.tokens.sort_by(|one, other| by_name(&one.name, &one.expires, &other.name, &other.expires));
    own.tokens.dedup();
    own
}

fn by_name(name: &str, expires: &Option<Timestamp>, other: &str, later: &Option<Timestamp>) -> Ordering {
    let at = |time: &Option<Timestamp>| time.as_ref().and_then(clock::read_timestamp);
    (name, at(expires)).cmp(&(other, at(later)))
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
        distrusted: Vec::new(),
        unanswered: Vec::new(),
    }
}

fn distrusted(period: &Period) -> v1::DistrustedWorker {
    let client = made::client(&period.worker).unwrap_or_default();
    v1::DistrustedWorker {
        worker: if client.is_empty() { period.worker.clone() } else { String::new() },
        client: client.to_owned(),
        since: Some(clock::timestamp(period.since)),
        until: period.until.map(clock::timestamp),
        by: period.by.clone(),
    }
}
