//! The Docker Engine on this machine: how it is reached, its properties and its containers.
//!
//! Inputs are mounted into containers, so the engine has to run on the worker's own machine.

use std::collections::HashMap;
use std::time::Duration;

use bollard::query_parameters::{ListContainersOptionsBuilder, RemoveContainerOptionsBuilder};
use bollard::{API_DEFAULT_VERSION, Docker};

/// Where an engine listens by default.
pub const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Limit for one response of the engine; a pull consists of many.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(120);
/// Limit for the first response, with its version.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The label that holds the worker's name.
pub(super) const WORKER_LABEL: &str = "kiln.worker";
/// The label that holds the id of the worker's state directory: that worker may remove whatever carries it.
pub(super) const STATE_LABEL: &str = "kiln.state";

/// Why an engine cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("invalid address `{host}` for a Docker Engine on this machine; expected for example `{DEFAULT_HOST}`")]
    Host { host: String },
    #[error("there is no Docker Engine at `{host}`: {reason}")]
    Away { host: String, reason: String },
    #[error("the Docker Engine at `{host}` runs containers of `{os}`; expected `linux`")]
    Os { host: String, os: String },
    #[error("Docker cannot be used: {0}")]
    Setup(String),
}

/// An engine.
#[derive(Debug, Clone)]
pub(super) struct Engine {
    pub(super) api: Docker,
    pub(super) host: String,
    pub(super) version: String,
    /// In the notation of images, such as `amd64`.
    pub(super) architecture: String,
    pub(super) is_podman: bool,
}

impl Engine {
    /// Connects and reads the engine's version.
    pub(super) async fn connect(host: &str) -> Result<Self, Error> {
        let api = dial(host)?;
        let away = |reason: String| Error::Away { host: host.to_owned(), reason };
        let asking = async { api.negotiate_version().await.map_err(|error| away(words(&error))) };
        let api = tokio::time::timeout(CONNECT_TIMEOUT, asking)
            .await
            .map_err(|_| away(format!("no answer within {} s", CONNECT_TIMEOUT.as_secs())))??;
        let version = api.version().await.map_err(|error| away(words(&error)))?;
        let os = version.os.unwrap_or_default();
        if os != "linux" {
            return Err(Error::Os { host: host.to_owned(), os });
        }
        let is_podman = version.components.iter().flatten().any(|component| component.name.starts_with("Podman"));
        Ok(Self {
            api,
            is_podman,
            host: host.to_owned(),
            version: version.version.unwrap_or_default(),
            architecture: version.arch.unwrap_or_default(),
        })
    }

    /// Whether it currently responds.
    pub(super) async fn answers(&self) -> bool {
        matches!(tokio::time::timeout(CONNECT_TIMEOUT, self.api.ping()).await, Ok(Ok(_)))
    }

    /// Describes the engine.
    pub(super) fn describe(&self) -> String {
        let kind = if self.is_podman { "Podman" } else { "Docker Engine" };
        format!("{kind} {} (linux/{})", self.version, self.architecture)
    }

    /// Kills and removes a container with its anonymous volumes.
    pub(super) async fn remove(&self, id: &str) {
        let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
        if let Err(error) = self.api.remove_container(id, Some(options)).await
            && !is_status(&error, 404)
            && !is_status(&error, 409)
        {
            tracing::warn!(
                container = id,
                error = words(&error),
                "cannot remove a container; the next start of this worker will"
            );
        }
    }

    /// Removes all containers that belong to this state directory.
    pub(super) async fn sweep(&self, state: &str) -> Result<(), bollard::errors::Error> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{STATE_LABEL}={state}")])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        for container in self.api.list_containers(Some(options)).await? {
            if let Some(id) = container.id {
                tracing::info!(container = id, "removing a container of an earlier run");
                self.remove(&id).await;
            }
        }
        Ok(())
    }
}

fn dial(host: &str) -> Result<Docker, Error> {
    let wrong = || Error::Host { host: host.to_owned() };
    let away = |error: bollard::errors::Error| Error::Away { host: host.to_owned(), reason: words(&error) };
    match host.split_once("://") {
        Some(("unix", path)) => {
            use std::os::unix::fs::FileTypeExt;
            let reason = match std::fs::metadata(path) {
                Ok(data) if data.file_type().is_socket() => None,
                Ok(_) => Some("not a socket".to_owned()),
                Err(error) => Some(error.to_string()),
            };
            if let Some(reason) = reason {
                return Err(Error::Away { host: host.to_owned(), reason });
            }
            Docker::connect_with_unix(path, REQUEST_TIMEOUT.as_secs(), API_DEFAULT_VERSION).map_err(away)
        }
        Some(("tcp" | "http", address)) => {
            let name = address.rsplit_once(':').map_or(address, |(name, _)| name);
            if !matches!(name, "localhost" | "127.0.0.1" | "[::1]") {
                return Err(wrong());
            }
            Docker::connect_with_http(address, REQUEST_TIMEOUT.as_secs(), API_DEFAULT_VERSION).map_err(away)
        }
        _ => Err(wrong()),
    }
}

/// An engine's error message, without the client library's wrapping.
pub(super) fn words(error: &bollard::errors::Error) -> String {
    use bollard::errors::Error;
    let text = match error {
        Error::DockerResponseServerError { message, .. } => message.clone(),
        Error::DockerStreamError { error } => error.clone(),
        other => {
            // The cause is more informative than its wrapper.
            let mut cause: &dyn std::error::Error = other;
            while let Some(next) = cause.source() {
                cause = next;
            }
            cause.to_string()
        }
    };
    text.trim().trim_end_matches('.').to_owned()
}

/// Whether the engine answered with this HTTP status.
pub(super) fn is_status(error: &bollard::errors::Error, status: u16) -> bool {
    matches!(error, bollard::errors::Error::DockerResponseServerError { status_code, .. } if *status_code == status)
}
