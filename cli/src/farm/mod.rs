//! The farm that a command uses: a remote one, or one inside this process.

#[cfg_attr(not(feature = "embedded"), path = "absent.rs")]
mod embedded;
mod error;
#[cfg(feature = "embedded")]
pub mod parts;
#[cfg(feature = "embedded")]
mod socket;
#[cfg(feature = "embedded")]
mod variables;

use std::future::Future;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use kiln_proto::channel::Channel;
use kiln_proto::channel::{self, MAX_MESSAGE_BYTES};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::meter::Meter;
use kiln_proto::transfer;
use kiln_proto::v1::artifacts_client::ArtifactsClient;
use kiln_proto::v1::builds_client::BuildsClient;
use kiln_proto::v1::cache_client::CacheClient;
use kiln_proto::v1::coordinators_client::CoordinatorsClient;
use kiln_proto::v1::farm_client::FarmClient;
use kiln_proto::v1::membership_client::MembershipClient;
use kiln_proto::v1::shells_client::ShellsClient;
use kiln_proto::v1::{self, CancelRequest, GetRequest, WatchRequest};
use kiln_telemetry::trace::{Traced, traced};
use prost::Message;
use tonic::{Code, Status};

pub use error::Error;

/// Maximum size of a step's report of tests.
const MAX_REPORT: u64 = 512 << 20;

/// The REAPI instance of this command line's blobs.
pub const INSTANCE: &str = "";
/// The digest function for this command line's blobs.
pub const FUNCTION: DigestFunction = DigestFunction::Sha256;

/// A connection to a farm.
pub struct Farm {
    url: String,
    channel: Channel,
    lost_after: Duration,
    embedded: Option<embedded::Opened>,
    /// Counts the bytes of transferred blobs.
    meter: Meter,
}

impl Farm {
    /// Connects to the configured farm, or else starts or joins one on this machine.
    pub async fn open(args: &crate::args::Farm) -> Result<Self, crate::Error> {
        match args.farm.as_deref().map(str::trim).filter(|url| !url.is_empty()) {
            Some(url) => {
                let channel = first_contact(url, args).await?;
                Ok(Self {
                    url: url.to_owned(),
                    channel,
                    lost_after: args.lost_after,
                    embedded: None,
                    meter: Meter::default(),
                })
            }
            None => {
                let dir = crate::local::cache_dir()?.join("farm");
                let opened = embedded::open(&dir, args.store_size).await?;
                // The host of this farm is on this machine: if it is gone, it will not return.
                let lost_after = args.lost_after.min(Duration::from_secs(5));
                Ok(Self {
                    url: opened.url.clone(),
                    channel: opened.channel.clone(),
                    lost_after,
                    embedded: Some(opened),
                    meter: Meter::default(),
                })
            }
        }
    }

    /// Its address; of a farm with several coordinators, all of them.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address of the coordinator that is called.
    pub fn address(&self) -> String {
        self.channel.url()
    }

    /// The addresses of its coordinators, first the one that is called.
    pub fn addresses(&self) -> Vec<String> {
        let (used, mut all) = (self.address(), channel::addresses(&self.url).unwrap_or_default());
        all.retain(|url| *url != used);
        all.insert(0, used);
        all
    }

    /// Whether it is inside a command on this machine.
    pub fn is_embedded(&self) -> bool {
        self.embedded.is_some()
    }

    /// The service for builds.
    pub fn builds(&self) -> BuildsClient<Traced<Channel>> {
        BuildsClient::new(traced(self.channel.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The service for artifacts.
    pub fn artifacts(&self) -> ArtifactsClient<Traced<Channel>> {
        ArtifactsClient::new(traced(self.channel.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The service for cache records.
    pub fn cache(&self) -> CacheClient<Traced<Channel>> {
        CacheClient::new(traced(self.channel.clone())).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// The service for the farm's administration.
    pub fn farm(&self) -> FarmClient<Traced<Channel>> {
        FarmClient::new(traced(self.channel.clone()))
    }

    /// The service in which coordinators speak for themselves.
    pub fn coordinators(&self) -> CoordinatorsClient<Traced<Channel>> {
        CoordinatorsClient::new(traced(self.channel.clone()))
    }

    /// The service for memberships.
    pub fn membership(&self) -> MembershipClient<Traced<Channel>> {
        MembershipClient::new(traced(self.channel.clone()))
    }

    /// The service for shells in steps' places.
    pub fn shells(&self) -> ShellsClient<Traced<Channel>> {
        ShellsClient::new(traced(self.channel.clone()))
    }

    /// The client that serves SSH agents to the farm's steps.
    pub fn agents(&self) -> kiln_agents::Client {
        kiln_agents::Client::new(traced(self.channel.clone()))
    }

    /// The transfer client for an instance and a digest function.
    pub fn blobs(&self, instance: &str, function: DigestFunction) -> transfer::Client {
        transfer::Client::new(self.channel.clone(), instance, function).metered(self.meter.clone())
    }

    /// The transfer client for the blobs of a build, whatever they are named by.
    ///
    /// # Errors
    /// If the farm names them by a function that this client does not know.
    pub fn blobs_of(&self, build: &v1::Build) -> Result<transfer::Client, Error> {
        let function = DigestFunction::from_wire(build.digest_function);
        Ok(self.blobs(&build.instance, function.map_err(|error| Error::Answer(error.to_string()))?))
    }

    /// The progress of the current transfer of blobs.
    pub fn meter(&self) -> &Meter {
        &self.meter
    }

    /// The farm's status.
    pub async fn status(&self) -> Result<v1::FarmStatus, Error> {
        let mut client = FarmClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        Ok(self.call(client.status(v1::StatusRequest {})).await?.into_inner())
    }

    /// A build by its id, an unambiguous prefix of it, or `latest`.
    pub async fn build(&self, id: &str) -> Result<v1::Build, Error> {
        let request = GetRequest { build: id.to_owned(), user: crate::local::user() };
        Ok(self.call(self.builds().get(request)).await?.into_inner())
    }

    /// The tests of a step, if its reports tell of any, among these blobs of its build.
    pub async fn tests(
        &self,
        blobs: &transfer::Client,
        finished: &v1::StepFinished,
    ) -> Result<Vec<v1::TestCase>, Error> {
        let report = finished.tests.as_ref().and_then(|tests| tests.report.as_ref());
        let Some(wire) = report else { return Ok(Vec::new()) };
        let digest = Digest::from_wire(blobs.function(), wire).map_err(|error| Error::Answer(error.to_string()))?;
        if digest.size > MAX_REPORT {
            return Err(Error::Answer(format!("a report of {} bytes", digest.size)));
        }
        let data = blobs.get(&digest).await?;
        let report = v1::TestReport::decode(&data[..]).map_err(|error| Error::Answer(error.to_string()))?;
        Ok(report.tests)
    }

    /// Cancels a build.
    pub async fn cancel(&self, id: &str) -> Result<v1::Build, Error> {
        self.cancel_by(CancelRequest { build: id.to_owned(), ..CancelRequest::default() }).await
    }

    /// Cancels the build that was submitted with a request id.
    pub async fn cancel_request(&self, request_id: &str) -> Result<v1::Build, Error> {
        self.cancel_by(CancelRequest { request_id: request_id.to_owned(), ..CancelRequest::default() }).await
    }

    async fn cancel_by(&self, request: CancelRequest) -> Result<v1::Build, Error> {
        Ok(self.patiently("cancel the build", || self.cancel_once(request.clone())).await?.into_inner())
    }

    async fn cancel_once(&self, request: CancelRequest) -> Result<tonic::Response<v1::Build>, Status> {
        self.builds().cancel(request).await
    }

    /// A build's events from an offset on.
    pub async fn watch(&self, id: &str, offset: u64) -> Result<tonic::Streaming<v1::Event>, Status> {
        Ok(self
            .builds()
            .watch(WatchRequest { build: id.to_owned(), offset, ..WatchRequest::default() })
            .await?
            .into_inner())
    }

    /// The answer to a call, with the farm's address in errors.
    pub async fn call<T>(&self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Error> {
        match call.await {
            Ok(answer) => Ok(answer),
            Err(status) => Err(match self.stranger(&status).await {
                Some(error) => error,
                None => Error::call(&self.url, status),
            }),
        }
    }

    /// The error if the call failed because the service at the address is not a farm.
    pub async fn stranger(&self, status: &Status) -> Option<Error> {
        let url = self.url.clone();
        if status.message().starts_with("grpc-status header missing") {
            return Some(Error::Stranger { url, what: "a web server responds there, not a coordinator".to_owned() });
        }
        // The farm's own refusals have no source; the transport's error for an unexpected response has one.
        let is_transport = std::error::Error::source(status).is_some();
        if !is_transport || self.embedded.is_some() {
            return None;
        }
        // Of several, any other may be the farm's.
        let mut found = None;
        for url in self.addresses() {
            let what = channel::stranger(&url).await?;
            found.get_or_insert(Error::Stranger { url, what });
        }
        found
    }

    /// Repeats a call while the farm is unavailable. The call must be idempotent.
    pub async fn patiently<T, F: Future<Output = Result<T, Status>>>(
        &self,
        what: &'static str,
        call: impl Fn() -> F,
    ) -> Result<T, Error> {
        let mut reconnect = self.reconnect();
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(status) => reconnect.wait(self, what, status).await?,
            }
        }
    }

    /// A new waiting period for this farm.
    pub fn reconnect(&self) -> Reconnect {
        Reconnect { since: None, pauses: PAUSES.build() }
    }

    /// Leaves the farm; one inside this process is stopped once nobody else uses it.
    pub async fn close(self) {
        if let Some(opened) = self.embedded {
            drop(self.channel);
            opened.close().await;
        }
    }
}

/// Longest pause between attempts to reach the farm, before jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(LONGEST_PAUSE)
    .with_jitter()
    .without_max_times();
/// How long to wait for a farm at first: about as long as a coordinator takes to restart.
const FIRST_CONTACT: Duration = Duration::from_secs(10);

/// Connects to a farm, which may be restarting.
async fn first_contact(url: &str, args: &crate::args::Farm) -> Result<Channel, Error> {
    let (began, longest) = (Instant::now(), FIRST_CONTACT.min(args.lost_after));
    let (mut pauses, mut is_first) = (PAUSES.build(), true);
    loop {
        let error = match channel::connect(url, &args.access).await {
            Err(error) if error.is_away() && began.elapsed() < longest => error,
            other => return Ok(other?),
        };
        if std::mem::take(&mut is_first) {
            eprintln!("the farm at `{url}` does not respond; retrying for {} s", longest.as_secs());
        }
        tracing::info!(%error, "no connection to the farm yet");
        tokio::time::sleep(pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

/// How long a farm has been unavailable, and when to try it again.
pub struct Reconnect {
    since: Option<Instant>,
    pauses: ExponentialBackoff,
}

impl Reconnect {
    /// Records that the farm responded.
    pub fn reset(&mut self) {
        (self.since, self.pauses) = (None, PAUSES.build());
    }

    /// Waits before the next attempt; fails if waiting is pointless or took too long.
    pub async fn wait(&mut self, farm: &Farm, what: &'static str, status: Status) -> Result<(), Error> {
        let away = matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Aborted);
        if !away || channel::refusal(&status).is_some() {
            return Err(Error::call(&farm.url, status));
        }
        if let Some(reason) = farm.embedded.as_ref().and_then(embedded::Opened::fault) {
            return Err(Error::Embedded { reason });
        }
        if self.since.is_none()
            && let Some(error) = farm.stranger(&status).await
        {
            return Err(error);
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        if since.elapsed() >= farm.lost_after {
            return Err(Error::Lost { url: farm.url.clone(), what, status: Box::new(status) });
        }
        tracing::info!("the farm at `{}` is unreachable ({}); retrying", farm.url, status.message());
        tokio::time::sleep(self.pauses.next().unwrap_or(LONGEST_PAUSE)).await;
        Ok(())
    }
}
