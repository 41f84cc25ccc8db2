//! The endpoint under load: its connections and capabilities.

use std::sync::Arc;

use kiln_proto::channel::{self, Access, Channel, MAX_MESSAGE_BYTES};
use kiln_proto::reapi::capabilities_client::CapabilitiesClient;
use kiln_proto::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_proto::reapi::{self, ServerCapabilities};
use kiln_proto::transfer::{self, Client};
use tonic::{Code, Status};

use crate::actions::FUNCTION;

/// Size of a batch for an endpoint without an advertised limit: gRPC's usual message limit less the envelope. Also the
/// maximum for any endpoint, so that endpoints are compared by the same calls.
const BATCH_BYTES: u64 = 4 * 1024 * 1024;
const BATCH_BYTES_UNNAMED: u64 = BATCH_BYTES - 512 * 1024;

/// The target of calls. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Endpoint {
    channels: Arc<[Channel]>,
    /// One of its connections.
    pub channel: Channel,
    /// REAPI's instance name.
    pub instance: String,
    /// Maximum bytes of blobs in one batch.
    pub batch_bytes: u64,
    /// Platform properties of the actions.
    pub platform: Vec<(String, String)>,
    capabilities: Option<ServerCapabilities>,
}

impl Endpoint {
    /// Connects and reads the endpoint's capabilities.
    ///
    /// # Errors
    /// If the endpoint does not respond.
    pub async fn connect(
        url: &str,
        access: &Access,
        instance: &str,
        platform: &[(String, String)],
        connections: usize,
    ) -> anyhow::Result<Self> {
        let mut channels = vec![channel::connect(url, access).await?];
        while channels.len() < connections {
            channels.push(channel::connect(url, access).await?);
        }
        let request = reapi::GetCapabilitiesRequest { instance_name: instance.to_owned() };
        let capabilities = match CapabilitiesClient::new(channels[0].clone()).get_capabilities(request).await {
            Ok(answer) => Some(answer.into_inner()),
            Err(status) if status.code() == Code::Unimplemented => None,
            Err(status) => anyhow::bail!("`{url}` does not report its capabilities: {}", words(&status)),
        };
        let cache = capabilities.as_ref().and_then(|all| all.cache_capabilities.as_ref());
        let batch_bytes = match cache.map_or(0, |cache| cache.max_batch_total_size_bytes) {
            limit if limit > 0 => limit.unsigned_abs().min(BATCH_BYTES),
            _ => BATCH_BYTES_UNNAMED,
        };
        let channel = channels[0].clone();
        let (instance, platform) = (instance.to_owned(), platform.to_vec());
        Ok(Self { channels: channels.into(), channel, instance, batch_bytes, platform, capabilities })
    }

    /// The same endpoint over one caller's connection.
    pub fn lane(&self, number: usize) -> Self {
        Self { channel: self.channels[number % self.channels.len()].clone(), ..self.clone() }
    }

    /// Fails if the endpoint's capabilities exclude execution.
    pub fn must_execute(&self) -> Result<(), Status> {
        match &self.capabilities {
            Some(all) if !all.execution_capabilities.as_ref().is_some_and(|execution| execution.exec_enabled) => {
                Err(Status::unimplemented("its capabilities exclude execution"))
            }
            _ => Ok(()),
        }
    }

    /// Fails if the endpoint's capabilities exclude updates of the action cache.
    pub fn must_take_results(&self) -> Result<(), Status> {
        let cache = self.capabilities.as_ref().and_then(|all| all.cache_capabilities.as_ref());
        match cache.and_then(|cache| cache.action_cache_update_capabilities) {
            Some(update) if !update.update_enabled => {
                Err(Status::permission_denied("its capabilities exclude updates of the action cache"))
            }
            _ => Ok(()),
        }
    }

    /// A transfer client for it.
    pub fn client(&self) -> Client {
        Client::new(self.channel.clone(), &self.instance, FUNCTION)
    }

    /// A plain gRPC client of the store, for individual calls.
    pub fn cas(&self) -> ContentAddressableStorageClient<Channel> {
        ContentAddressableStorageClient::new(self.channel.clone())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// A failed transfer's status.
pub fn status(error: transfer::Error) -> Status {
    match error {
        transfer::Error::Status(status) => *status,
        error @ transfer::Error::Missing { .. } => Status::not_found(error.to_string()),
        error => Status::data_loss(error.to_string()),
    }
}

/// A status for people.
pub fn words(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        message => format!("{:?}: {message}", status.code()),
    }
}
