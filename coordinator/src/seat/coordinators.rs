//! `kiln.v1.Coordinators`: the farm's coordinators, as each says of itself.

use kiln_auth::Authenticator;
use kiln_peers::Others;
use kiln_proto::digest::DigestFunction;
use kiln_proto::v1::coordinator::Seat as Shown;
use kiln_proto::v1::coordinators_server;
use kiln_proto::{clock, v1};
use kiln_replicas::Replica;
use tonic::{Request, Response, Status};

use super::{Seat, Seats};
use crate::services::membership;

/// Says how this coordinator is, and asks the others.
#[derive(Debug, Clone)]
pub struct Coordinators {
    me: Replica,
    seats: Seats,
    authenticator: Authenticator,
    others: Option<Others>,
}

impl Coordinators {
    /// This coordinator in its seat; none others for the only one of a farm.
    pub(crate) fn new(me: Replica, seats: Seats, authenticator: Authenticator, others: Option<Others>) -> Self {
        Self { me, seats, authenticator, others }
    }

    fn own(&self) -> v1::Coordinator {
        let Replica { name, address, version, .. } = self.me.clone();
        let (seat, since) = self.seats.now_since();
        let (seat, leader) = match seat {
            Seat::Leads(_) => (Shown::Leads, address.clone()),
            Seat::Follows(relay) => (Shown::Follows, relay.address().to_owned()),
            Seat::Begins | Seat::Vacant => (Shown::Vacant, String::new()),
        };
        v1::Coordinator {
            name,
            address,
            version,
            seat: seat.into(),
            since: Some(clock::timestamp(since)),
            time: Some(clock::now()),
            trouble: self
                .seats
                .trouble()
                .map(|why| format!("it cannot find out which one leads: {why}"))
                .unwrap_or_default(),
            leader,
            called: true,
            identities: self.identities(),
        }
    }

    /// A digest of what the farm's directory on this machine says of identities.
    fn identities(&self) -> String {
        let Some((authority, _)) = self.authenticator.authority() else { return String::new() };
        let mut text = authority.certificate().to_owned();
        text.extend(self.authenticator.known().borrow().tokens.hashes());
        DigestFunction::Sha256.digest(text.as_bytes()).to_wire().hash
    }
}

#[tonic::async_trait]
impl coordinators_server::Coordinators for Coordinators {
    async fn list(
        &self,
        request: Request<v1::ListCoordinatorsRequest>,
    ) -> Result<Response<v1::ListCoordinatorsResponse>, Status> {
        let mut coordinators = match &self.others {
            Some(others) if !request.into_inner().only_itself => others.say().await,
            _ => Vec::new(),
        };
        coordinators.iter_mut().for_each(|other| other.called = false);
        coordinators.push(self.own());
        coordinators.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(Response::new(v1::ListCoordinatorsResponse { coordinators }))
    }

    async fn members(&self, _request: Request<v1::ListMembersRequest>) -> Result<Response<v1::Members>, Status> {
        Ok(Response::new(membership::known_to(&self.authenticator).await))
    }

    async fn challenge(
        &self,
        _request: Request<v1::ChallengeRequest>,
    ) -> Result<Response<v1::ChallengeResponse>, Status> {
        match self.authenticator.challenge() {
            Some(challenge) => Ok(Response::new(v1::ChallengeResponse { challenge })),
            None => Err(Status::failed_precondition(
                "this coordinator is the farm's only one: nobody passes calls on to it",
            )),
        }
    }
}
