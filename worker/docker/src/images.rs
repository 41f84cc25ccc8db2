//! Images: finds them in the engine, pulls missing ones, and resolves names to digests.
//!
//! Invariant: an image is used for the requested platform or not at all. If tenants have their own credentials, an
//! image that was pulled with one tenant's is used for another, by any name or id, only if its registry admits that one
//! too.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard::auth::DockerCredentials;
use bollard::models::ImageInspect;
use bollard::query_parameters::{CreateImageOptionsBuilder, ListContainersOptionsBuilder, RemoveImageOptionsBuilder};
use futures::StreamExt;
use kiln_images::name::ImageName;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::blame::{OTHER_PLATFORM, failed, is_access_denied, mentions, other_platform};
use super::engine::{Engine, is_status, words};
use super::progress::Progress;
use super::pulled::Pulled;
use super::{Own, credentials};
use kiln_executor::{Chunk, Error, Job, Secrets};

/// How long a resolved tag is trusted for actions that name a tag. Builds name digests.
const TAG_AGE: Duration = Duration::from_secs(300);
/// An image that the engine holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) id: String,
    /// Whether a container of it can write only to the worker's mounts: the image declares no volumes.
    pub(super) is_closed: bool,
}

/// A name with its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) name: ImageName,
    /// A note for the user.
    pub(super) note: Option<String>,
}

/// On whose behalf an image is obtained.
#[derive(Debug, Clone, Copy)]
pub(super) struct For<'a> {
    tenant: &'a str,
    given: &'a Secrets,
}

impl<'a> For<'a> {
    pub(super) fn job(job: &'a Job) -> Self {
        let tenant = kiln_proto::scope::split(&job.tenant).0;
        Self { tenant, given: &job.secrets }
    }
}

/// Tenant, image and architecture.
type Key = (String, ImageName, String);

/// The engine's images.
#[derive(Debug)]
pub(super) struct Images {
    engine: Engine,
    own: Own,
    known: Mutex<HashMap<Key, Image>>,
    tags: Mutex<HashMap<Key, (ImageName, Instant)>>,
    pulled: Pulled,
    /// Ensures that each image is pulled only once at a time.
    pulls: Mutex<HashMap<ImageName, Arc<tokio::sync::Mutex<()>>>>,
}

impl Images {
    pub(super) fn new(engine: Engine, own: Own, pulled: Pulled) -> Self {
        Self { engine, own, known: Mutex::default(), tags: Mutex::default(), pulled, pulls: Mutex::default() }
    }

    /// Returns the image of this name for this architecture, and pulls it if the engine does not have it. Progress goes
    /// to `tell`.
    pub(super) async fn ensure(
        &self,
        name: &ImageName,
        architecture: &str,
        whom: For<'_>,
        tell: &mpsc::Sender<Chunk>,
    ) -> Result<Image, Error> {
        let name = self.fixed(name, architecture, whom).await?;
        self.pulled.touch(&name.engine_name());
        let key = (whom.tenant.to_owned(), name.clone(), architecture.to_owned());
        if let Some(image) = self.known.lock().get(&key) {
            return Ok(image.clone());
        }
        let image = self.find_or_pull(&name, architecture, whom, tell).await?;
        self.known.lock().insert(key, image.clone());
        Ok(image)
    }

    /// Forgets remembered images, because one no longer exists.
    pub(super) fn forget(&self) {
        self.known.lock().clear();
    }

    /// Removes unused images that this worker pulled.
    pub(super) async fn sweep(&self) {
        for name in self.pulled.unwanted() {
            match self.needed(&name).await {
                Ok(None) => {}
                Ok(Some(why)) => {
                    tracing::debug!(image = name, why, "keeping an image");
                    continue;
                }
                Err(error) => {
                    tracing::debug!(image = name, error = words(&error), "keeping an image");
                    continue;
                }
            }
            let options = RemoveImageOptionsBuilder::default().build();
            match self.engine.api.remove_image(&name, Some(options), None).await {
                Ok(_) => {
                    tracing::info!(image = name, "removed an unused image");
                    self.pulled.forget(&name);
                    self.forget();
                }
                Err(error) if is_status(&error, 404) => self.pulled.forget(&name),
                Err(error) => tracing::debug!(image = name, error = words(&error), "keeping an image"),
            }
        }
    }

    /// Why an image must be kept because something else uses it now.
    async fn needed(&self, name: &str) -> Result<Option<&'static str>, bollard::errors::Error> {
        let found = match self.engine.api.inspect_image(name).await {
            // Removing it finds that out too, and it is forgotten.
            Err(error) if is_status(&error, 404) => return Ok(None),
            found => found?,
        };
        if found.repo_tags.as_ref().is_some_and(|tags| !tags.is_empty()) {
            return Ok(Some("it was tagged, or pulled by a tag"));
        }
        if self.pulled.is_taken(name, tagged(&found).as_deref()) {
            return Ok(Some("it was tagged or pulled again"));
        }
        let filters = HashMap::from([("ancestor".to_owned(), vec![found.id.unwrap_or_default()])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let containers = self.engine.api.list_containers(Some(options)).await?;
        Ok((!containers.is_empty()).then_some("it is used by a container, or by an image built on it"))
    }

    async fn fixed(&self, name: &ImageName, architecture: &str, whom: For<'_>) -> Result<ImageName, Error> {
        if name.is_fixed() {
            return Ok(name.clone());
        }
        let key = (whom.tenant.to_owned(), name.clone(), architecture.to_owned());
        let known = self.tags.lock().get(&key).filter(|(_, at)| at.elapsed() < TAG_AGE).map(|(fixed, _)| fixed.clone());
        if let Some(fixed) = known {
            return Ok(fixed);
        }
        let fixed = self.resolve(name, architecture, whom).await?.name;
        self.tags.lock().insert(key, (fixed.clone(), Instant::now()));
        Ok(fixed)
    }

    async fn find_or_pull(
        &self,
        name: &ImageName,
        architecture: &str,
        whom: For<'_>,
        tell: &mpsc::Sender<Chunk>,
    ) -> Result<Image, Error> {
        let pull = self.pulls.lock().entry(name.clone()).or_default().clone();
        let _alone = pull.lock().await;
        if let Some(found) = self.inspect(name).await?
            && (is_for(&found, architecture) || name.registry().is_none())
        {
            self.may_use(name, &found, architecture, whom).await?;
            return checked(found, name, architecture);
        }
        if name.registry().is_none() {
            return Err(not_held(name));
        }
        let is_new = self.inspect(name).await?.is_none();
        self.pull(name, architecture, whom, tell).await?;
        match self.inspect(name).await? {
            Some(found) => {
                self.pulled.add(&name.engine_name(), is_new, tagged(&found));
                checked(found, name, architecture)
            }
            None => Err(Error::Worker(format!("`{name}` was pulled but is missing"))),
        }
    }

    async fn inspect(&self, name: &ImageName) -> Result<Option<ImageInspect>, Error> {
        match self.engine.api.inspect_image(&name.engine_name()).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if is_status(&error, 404) => Ok(None),
            Err(error) => Err(self.away(&error)),
        }
    }

    fn away(&self, error: &bollard::errors::Error) -> Error {
        Error::Worker(format!("the Docker Engine at `{}` failed: {}", self.engine.host, words(error)))
    }

    async fn credentials(&self, name: &ImageName, whom: For<'_>) -> Result<Option<DockerCredentials>, Error> {
        let Some(registry) = name.registry() else { return Ok(None) };
        credentials::of(whom.given, &self.own, registry).await.map_err(Error::Worker)
    }

    /// Whether this tenant may use an image of the engine that may have been pulled for another tenant.
    async fn may_use(
        &self,
        name: &ImageName,
        found: &ImageInspect,
        architecture: &str,
        whom: For<'_>,
    ) -> Result<(), Error> {
        if self.own != Own::None {
            return Ok(());
        }
        if name.registry().is_some() {
            return self.admits(name, architecture, whom).await;
        }
        // An id gives no more access than the names under which the image was pulled. The image is open to everyone
        // only if it has a name that something other than this worker gave it.
        let parse = |text: &String| text.parse::<ImageName>().ok();
        let came_as: Vec<ImageName> = found.repo_digests.iter().flatten().filter_map(parse).collect();
        let came_as: Vec<ImageName> = came_as.into_iter().filter(|name| self.pulled.has(&name.engine_name())).collect();
        let is_pulls = |tag: &ImageName| came_as.iter().any(|pulled| pulled.is_of_repository(tag));
        let tags: Vec<ImageName> = found.repo_tags.iter().flatten().filter_map(parse).collect();
        if came_as.is_empty() || !tags.iter().all(is_pulls) {
            return Ok(());
        }
        for pulled in &came_as {
            if self.admits(pulled, architecture, whom).await.is_ok() {
                return Ok(());
            }
        }
        Err(not_held(name))
    }

    /// Whether a registry admits a tenant to an image. An unreachable registry does not count as a refusal.
    async fn admits(&self, name: &ImageName, architecture: &str, whom: For<'_>) -> Result<(), Error> {
        let error = if self.engine.is_podman {
            let (tell, _nobody) = mpsc::channel(1);
            self.pull(name, architecture, whom, &tell).await.err()
        } else {
            let credentials = self.credentials(name, whom).await?;
            let answer = self.engine.api.inspect_registry_image(&name.engine_name(), credentials).await;
            answer.err().filter(is_access_denied).map(|error| failed(name, &error))
        };
        error.map_or(Ok(()), Err)
    }

    async fn pull(
        &self,
        name: &ImageName,
        architecture: &str,
        whom: For<'_>,
        tell: &mpsc::Sender<Chunk>,
    ) -> Result<(), Error> {
        let credentials = self.credentials(name, whom).await?;
        let options = CreateImageOptionsBuilder::default()
            .from_image(&name.engine_name())
            .platform(&format!("linux/{architecture}"))
            .build();
        let mut progress = Progress::new(name, tell);
        let mut answers = std::pin::pin!(self.engine.api.create_image(Some(options), None, credentials));
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(info) => progress.saw(&info).await,
                Err(error) => return Err(self.pull_failed(name, architecture, whom, &error).await),
            }
        }
        progress.done().await;
        Ok(())
    }

    async fn pull_failed(
        &self,
        name: &ImageName,
        architecture: &str,
        whom: For<'_>,
        error: &bollard::errors::Error,
    ) -> Error {
        if mentions(error, &OTHER_PLATFORM) {
            let found = match self.credentials(name, whom).await {
                Ok(credentials) => self.engine.api.inspect_registry_image(&name.engine_name(), credentials).await.ok(),
                Err(_) => None,
            };
            let there: Vec<String> = found.iter().flat_map(|found| &found.platforms).map(platform).collect();
            return other_platform(name, architecture, &there);
        }
        failed(name, error)
    }

    /// The name with its current digest, from the registry or, if that cannot be reached, from the engine.
    pub(super) async fn resolve(&self, name: &ImageName, architecture: &str, whom: For<'_>) -> Result<Resolved, Error> {
        if name.is_fixed() {
            return Ok(Resolved { name: name.clone(), note: None });
        }
        if name.registry().is_none() {
            let absent =
                || Error::Worker(format!("this worker's engine has no image `{}`; load it there", name.engine_name()));
            let found = self.inspect(name).await?.ok_or_else(absent)?;
            let image = checked(found, name, architecture)?;
            return Ok(Resolved { name: by_id(name, &image.id)?, note: None });
        }
        let error = match self.ask_registry(name, architecture, whom).await {
            Ok(name) => return Ok(Resolved { name, note: None }),
            Err(error) => error,
        };
        match self.inspect(name).await? {
            Some(found) if is_for(&found, architecture) => {
                // The image of this tag may belong to another tenant or to the machine's own user.
                self.may_use(name, &found, architecture, whom).await?;
                let note = format!("{error}; using the image of that name in the worker's engine");
                Ok(Resolved { name: held(name, &found)?, note: Some(note) })
            }
            _ => Err(error),
        }
    }

    async fn ask_registry(&self, name: &ImageName, architecture: &str, whom: For<'_>) -> Result<ImageName, Error> {
        let credentials = self.credentials(name, whom).await?;
        if self.engine.is_podman {
            // Podman lacks this API: pull the image, then read its digest.
            let (tell, _nobody) = mpsc::channel(1);
            self.pull(name, architecture, whom, &tell).await?;
            let found = self.inspect(name).await?;
            let absent = || Error::Worker(format!("`{name}` was pulled but is missing"));
            return held(name, &found.ok_or_else(absent)?);
        }
        let answer = self.engine.api.inspect_registry_image(&name.engine_name(), credentials).await;
        let found = answer.map_err(|error| failed(name, &error))?;
        let there: Vec<String> = found.platforms.iter().map(platform).collect();
        let wanted = format!("linux/{architecture}");
        if !there.is_empty() && !there.iter().any(|one| *one == wanted || one.starts_with(&format!("{wanted}/"))) {
            return Err(other_platform(name, architecture, &there));
        }
        let digest = found.descriptor.digest.unwrap_or_default();
        let unusable = |_| Error::Worker(format!("the registry returned an invalid digest for `{name}`: `{digest}`"));
        Ok(name.at(digest.parse().map_err(unusable)?))
    }
}

fn not_held(name: &ImageName) -> Error {
    Error::Worker(format!(
        "this worker's engine does not have `{name}`; load it there, or push it to a registry and use that name"
    ))
}

/// The digest under which an image came from this repository, or else its id.
fn held(name: &ImageName, found: &ImageInspect) -> Result<ImageName, Error> {
    let of_repository = |text: &String| {
        let digested: ImageName = text.parse().ok()?;
        let (_, digest) = text.split_once('@')?;
        (name.at(digest.parse().ok()?) == digested).then_some(digested)
    };
    match found.repo_digests.iter().flatten().find_map(of_repository) {
        Some(from_registry) => Ok(from_registry),
        None => by_id(name, found.id.as_deref().unwrap_or_default()),
    }
}

/// When an image was last tagged, as the engine reports it; some engines count a pull.
fn tagged(found: &ImageInspect) -> Option<String> {
    found.metadata.as_ref()?.last_tag_time.clone()
}

fn by_id(name: &ImageName, id: &str) -> Result<ImageName, Error> {
    // Podman omits the algorithm.
    let whole = if id.contains(':') { id.to_owned() } else { format!("sha256:{id}") };
    let unusable = |_| Error::Worker(format!("this worker's engine returned an invalid id for `{name}`: `{id}`"));
    Ok(ImageName::Id(whole.parse().map_err(unusable)?))
}

fn platform(found: &bollard::models::OciPlatform) -> String {
    let part = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let parts = [part(&found.os), part(&found.architecture), part(&found.variant)];
    parts.into_iter().flatten().collect::<Vec<_>>().join("/")
}

fn is_for(found: &ImageInspect, architecture: &str) -> bool {
    found.architecture.as_deref() == Some(architecture) && found.os.as_deref().is_none_or(|os| os == "linux")
}

fn checked(found: ImageInspect, name: &ImageName, architecture: &str) -> Result<Image, Error> {
    if !is_for(&found, architecture) {
        let of = |text: &Option<String>| text.clone().unwrap_or_else(|| "?".to_owned());
        return Err(other_platform(name, architecture, &[format!("{}/{}", of(&found.os), of(&found.architecture))]));
    }
    let is_closed = found.config.as_ref().and_then(|config| config.volumes.as_ref()).is_none_or(Vec::is_empty);
    Ok(Image { id: found.id.unwrap_or_default(), is_closed })
}
