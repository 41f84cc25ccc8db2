//! What the coordinators of a farm say of themselves, each when it is asked.
//!
//! Invariant: what another one says decides where calls are passed on to, and never who leads.

use std::time::Duration;

use futures::future::join_all;
use kiln_auth::FarmKey;
use kiln_auth::relay::{HEADER, Relayed};
use kiln_proto::v1;
use kiln_proto::v1::coordinator::Seat;
use kiln_proto::v1::coordinators_client::CoordinatorsClient;
use kiln_replicas::{Replica, Replicas};
use tonic::codegen::http::HeaderValue;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::peers::{Peers, myself};

/// The call that asks a coordinator.
const LIST: &str = "/kiln.v1.Coordinators/List";
/// How long a coordinator may take to answer.
const ANSWER: Duration = Duration::from_secs(3);

/// The farm's other coordinators. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Others {
    key: FarmKey,
    peers: Peers,
    replicas: Replicas,
}

impl Others {
    /// Those that these replicas know, reached by these ways.
    pub fn new(key: FarmKey, peers: Peers, replicas: Replicas) -> Self {
        Self { key, peers, replicas }
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
            Ok(Err(status)) if status.code() == Code::Unimplemented => "it is of an earlier version".to_owned(),
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
        let channel = self.peers.connect(address).map_err(|error| Status::unavailable(format!("{error:#}")))?;
        let mut request = Request::new(v1::ListCoordinatorsRequest { only_itself: true });
        let header = Relayed { identity: myself(), address: None }.seal(&self.key, LIST)?;
        request.metadata_mut().insert(HEADER, metadata(&header)?);
        let said = CoordinatorsClient::new(channel).list(request).await?.into_inner().coordinators;
        said.into_iter().next().ok_or_else(|| Status::internal("it said nothing"))
    }
}

fn metadata(header: &HeaderValue) -> Result<MetadataValue<tonic::metadata::Ascii>, Status> {
    MetadataValue::try_from(header.as_bytes()).map_err(|error| Status::internal(error.to_string()))
}
