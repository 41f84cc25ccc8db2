//! What the coordinators of a farm say of themselves, each when it is asked.
//!
//! Invariant: what another one says decides where calls are passed on to, and never who leads.

use std::time::Duration;

use futures::future::join_all;
use kiln_auth::relay::Relayed;
use kiln_proto::v1;
use kiln_proto::v1::coordinator::Seat;
use kiln_proto::v1::coordinators_client::CoordinatorsClient;
use kiln_replicas::{Replica, Replicas};
use tonic::Status;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::http;

use crate::dial::myself;
use crate::peer::Error;
use crate::peers::Peers;

/// How long a coordinator may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// The farm's other coordinators. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Others {
    peers: Peers,
    replicas: Replicas,
}

impl Others {
    /// Those that these replicas know, reached by these ways.
    pub fn new(peers: Peers, replicas: Replicas) -> Self {
        Self { peers, replicas }
    }

    /// What each of them says of itself, or why it does not answer.
    pub async fn say(&self) -> Vec<v1::Coordinator> {
        join_all(self.all().into_iter().map(|other| self.ask(other))).await
    }

    /// The certificates and tokens that each of them knows, or the URL of one that does not answer.
    pub async fn members(&self) -> Vec<Result<v1::Members, String>> {
        let ask = async |other: Replica| {
            let mut asked = CoordinatorsClient::new(self.calls(&other.address));
            match tokio::time::timeout(ANSWER, asked.members(v1::ListMembersRequest {})).await {
                Ok(Ok(members)) => Ok(members.into_inner()),
                Ok(Err(error)) => Err((other.address, error.message().to_owned())),
                Err(_) => Err((other.address, late())),
            }
            .map_err(|(address, why)| {
                tracing::warn!(address, why, "another coordinator does not say which certificates and tokens it knows");
                address
            })
        };
        join_all(self.all().into_iter().map(ask)).await
    }

    fn all(&self) -> Vec<Replica> {
        let mut all = self.replicas.all();
        all.retain(|other| other.name != self.replicas.me().name);
        all
    }

    /// The URL of the one that leads, if one of them leads or knows another that does.
    pub async fn leader(&self) -> Option<String> {
        let said = self.say().await;
        let leads = said.iter().find(|one| one.seat() == Seat::Leads).map(|one| &one.address);
        let known = said.iter().map(|one| &one.leader);
        leads.into_iter().chain(known).find(|url| !url.is_empty() && **url != self.replicas.me().address).cloned()
    }

    async fn ask(&self, other: Replica) -> v1::Coordinator {
        let answer = tokio::time::timeout(ANSWER, self.call(&other.address)).await;
        let why = match answer {
            Ok(Ok(said)) => return said,
            Ok(Err(status)) => status.message().to_owned(),
            Err(_) => late(),
        };
        let trouble = format!("it does not say how it is: {why}");
        v1::Coordinator {
            name: other.name,
            address: other.address,
            version: other.version,
            trouble,
            ..Default::default()
        }
    }

    async fn call(&self, address: &str) -> Result<v1::Coordinator, Status> {
        let mut asked = CoordinatorsClient::new(self.calls(address));
        let said = asked.list(v1::ListCoordinatorsRequest { only_itself: true }).await?.into_inner().coordinators;
        said.into_iter().next().ok_or_else(|| Status::internal("it said nothing"))
    }

    /// Calls of the one at this URL, whose answers are one small message.
    fn calls(&self, address: &str) -> impl GrpcService<Body, ResponseBody = Body, Error = Error, Future: Send> + use<> {
        let peer = self.peers.at(address);
        tower::service_fn(move |call: http::Request<Body>| {
            let peer = peer.clone();
            async move {
                let caller = Relayed { identity: myself(), address: None };
                let (answer, place) = peer.call(&caller, call).await?;
                // The rest of the answer comes with its head.
                drop(place);
                Ok::<_, Error>(answer)
            }
        })
    }
}

fn late() -> String {
    format!("no answer within {} s", ANSWER.as_secs())
}
