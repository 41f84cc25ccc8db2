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
use tonic::codegen::http;

use crate::peer::Error;
use crate::peers::{Peers, myself};

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
        let me = &self.replicas.me().name;
        let others = self.replicas.all().into_iter().filter(|other| other.name != *me);
        join_all(others.map(|other| self.ask(other))).await
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
            Err(_) => format!("no answer within {} s", ANSWER.as_secs()),
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
        let caller = Relayed { identity: myself(), address: None };
        let (peers, peer) = (self.peers.clone(), self.peers.at(address));
        let service = tower::service_fn(move |call: http::Request<Body>| {
            let (peers, peer, caller) = (peers.clone(), peer.clone(), caller.clone());
            async move {
                let (answer, place) = peer.call(&peers, &caller, call).await?;
                // The answer is one small message: it is there when its head is.
                drop(place);
                Ok::<_, Error>(answer)
            }
        });
        let mut asked = CoordinatorsClient::new(service);
        let said = asked.list(v1::ListCoordinatorsRequest { only_itself: true }).await?.into_inner().coordinators;
        said.into_iter().next().ok_or_else(|| Status::internal("it said nothing"))
    }
}
