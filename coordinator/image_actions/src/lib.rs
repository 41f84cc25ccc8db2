//! REAPI's property `container-image` without Docker: such an action becomes one in the image's file system.
//!
//! Invariants: an image is read with the credentials of the tenant whose action it is; the result of the action that runs is that of the
//! action that was asked for.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_artifacts::Bases;
use kiln_auth::credentials::Credentials;
use kiln_execution::{ExecutionHandle, Known};
use kiln_images::name::ImageName;
use kiln_images::registry;
use kiln_planner::plan::Base;
use kiln_proto::digest::Digest;
use kiln_proto::root::{self as contract, BUILD_DIRECTORY, ROOT_DIRECTORY};
use kiln_proto::{property, reapi, v1};
use kiln_roots::Roots;
use kiln_store::{BlobStore, Stores, trees};
use kiln_trees::tree::{Entry, Tree};
use parking_lot::Mutex;
use prost::Message;
use tonic::Status;

/// How long the image that a name means is not asked for again.
const FRESH: Duration = Duration::from_secs(60);
/// Images that are remembered.
const MAX_IMAGES: usize = 256;

/// Makes actions in images' file systems of those that name an image.
#[derive(Debug)]
pub struct ImageActions {
    stores: Stores,
    execution: ExecutionHandle,
    registries: registry::Options,
    credentials: Credentials,
    images: Mutex<HashMap<Key, (Instant, Arc<Image>)>>,
}

/// The instance, the image and the architecture.
type Key = (String, String, &'static str);

/// An image's file system.
#[derive(Debug)]
struct Image {
    tree: Digest,
    times: Digest,
    env: BTreeMap<String, String>,
}

/// The action that runs in place of another.
#[derive(Debug, Clone)]
pub struct InRoot {
    /// Its digest.
    pub action: Digest,
    /// Its messages.
    pub known: Arc<Known>,
}

/// What runs for an action.
#[derive(Debug, Clone)]
pub enum Runs {
    /// Another action in its place.
    Other(InRoot),
    /// The action itself, whose messages these are.
    Itself(Arc<Known>),
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}

impl ImageActions {
    /// For the actions of a tenant.
    pub fn new(
        stores: Stores,
        execution: ExecutionHandle,
        registries: registry::Options,
        credentials: Credentials,
    ) -> Self {
        Self { stores, execution, registries, credentials, images: Mutex::default() }
    }

    /// What runs for an action: another one in its place, or the action itself, because it names no image of a registry, asks for
    /// containers, or no worker runs actions in roots of their own, or because its result is cached and `may_be_cached`.
    ///
    /// # Errors
    /// If the action is malformed or missing, or its image cannot be used and no worker has Docker to try that.
    pub async fn what_runs(&self, instance: &str, digest: &Digest, may_be_cached: bool) -> Result<Runs, Status> {
        let (action, command) = self.execution.load(digest).await?;
        match self.in_root(instance, digest, (&action, &command), may_be_cached).await? {
            Some(in_root) => Ok(Runs::Other(in_root)),
            None => Ok(Runs::Itself(Arc::new(Known { action, command, ..Known::default() }))),
        }
    }

    async fn in_root(
        &self,
        instance: &str,
        digest: &Digest,
        (action, command): (&reapi::Action, &reapi::Command),
        may_be_cached: bool,
    ) -> Result<Option<InRoot>, Status> {
        #[allow(deprecated)]
        let platform = action.platform.clone().or(command.platform.clone()).unwrap_or_default();
        let value =
            |wanted: &str| platform.properties.iter().find(|one| one.name == wanted).map(|one| one.value.as_str());
        let Some(Ok(name @ ImageName::Registry(_))) = value(property::CONTAINER_IMAGE).map(str::parse) else {
            return Ok(None);
        };
        // An instance that nobody may name is refused where the action is run.
        if value(property::EXECUTOR).is_some() || !kiln_proto::scope::is_lawful(instance) {
            return Ok(None);
        }
        let looks = may_be_cached && !action.do_not_cache;
        if looks && self.stores.cached_result(instance, digest).await?.is_some() {
            return Ok(None);
        }
        let farm = self.execution.farm().await?;
        let environments = farm.workers.iter().filter_map(|worker| worker.environment.as_ref());
        let fitting: Vec<&v1::Environment> =
            environments.filter(|one| value(property::ISA).is_none_or(|isa| isa == one.isa)).collect();
        let with = |executor: &str| fitting.iter().find(|one| one.executors.iter().any(|known| known == executor));
        let Some(architecture) = with(property::IN_ROOT).and_then(|one| property::architecture(&one.isa)) else {
            return Ok(None);
        };
        let image = match self.image(instance, &name, architecture, digest).await {
            Ok(image) => image,
            // Docker may reach what the coordinator does not.
            Err(_) if with(property::DOCKER).is_some() => return Ok(None),
            Err(status) => return Err(status),
        };
        self.made(action, command, platform, &image, digest).await.map(Some)
    }

    async fn image(
        &self,
        instance: &str,
        name: &ImageName,
        architecture: &'static str,
        digest: &Digest,
    ) -> Result<Arc<Image>, Status> {
        let key = (instance.to_owned(), name.to_string(), architecture);
        if let Some((_, image)) = self.images.lock().get(&key).filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(image.clone());
        }
        let function = digest.function;
        let bases =
            Bases::new(self.stores.clone(), instance, function, (self.registries.clone(), self.credentials.clone()));
        let roots = Roots::new(self.stores.clone(), instance, function);
        let platform = kiln_images::platform::Platform::linux(architecture);
        let found = bases.root(&roots, &Base::Reference(name.to_string()), &Tree::default(), &platform).await;
        let found = found.map_err(|error| {
            let words = format!("image `{name}`: {error}");
            if error.is_project_fault() { Status::invalid_argument(words) } else { Status::unavailable(words) }
        })?;
        let times = found.files.times.encode();
        let digest = function.digest(&times);
        self.stores.blobs.put(&digest, times.into()).await?;
        let image = Arc::new(Image { tree: found.files.root, times: digest, env: found.env });
        let mut images = self.images.lock();
        images.retain(|_, (at, _)| at.elapsed() < FRESH);
        if images.len() < MAX_IMAGES {
            images.insert(key, (Instant::now(), image.clone()));
        }
        Ok(image)
    }

    async fn made(
        &self,
        action: &reapi::Action,
        command: &reapi::Command,
        mut platform: reapi::Platform,
        image: &Image,
        digest: &Digest,
    ) -> Result<InRoot, Status> {
        let (function, store) = (digest.function, &*self.stores.blobs);
        let inputs = Digest::required(function, action.input_root_digest.as_ref()).map_err(internal)?;
        let sealed = |digest: Digest| Entry::Sealed { digest };
        let mut tree = Tree::default();
        tree.entries.insert(ROOT_DIRECTORY.to_owned(), sealed(image.tree));
        tree.entries.insert(BUILD_DIRECTORY.to_owned(), sealed(inputs));
        let (input_root, directories) = trees::store_directories(store, function, &tree).await?;
        let mut variables = image.env.clone();
        variables.extend(command.environment_variables.iter().map(|one| (one.name.clone(), one.value.clone())));
        let variables = variables.into_iter();
        let within = format!("{BUILD_DIRECTORY}/{}", command.working_directory.trim_matches('/'));
        #[allow(deprecated)]
        let command = reapi::Command {
            environment_variables: variables
                .map(|(name, value)| reapi::command::EnvironmentVariable { name, value })
                .collect(),
            working_directory: within.trim_end_matches('/').to_owned(),
            platform: None,
            ..command.clone()
        };
        platform.properties.retain(|one| one.name != property::CONTAINER_IMAGE);
        for (name, value) in [(contract::ROOT, ROOT_DIRECTORY), (contract::USER, contract::BUILD_USER)] {
            platform.properties.push(reapi::platform::Property { name: name.to_owned(), value: value.to_owned() });
        }
        platform.properties.sort_by(|a, b| a.name.cmp(&b.name));
        let action = reapi::Action {
            command_digest: Some(put(store, digest, &command).await?.to_wire()),
            input_root_digest: Some(input_root.to_wire()),
            platform: Some(platform),
            ..action.clone()
        };
        let digest = put(store, digest, &action).await?;
        let known = Known { action, command, directories, times: Some(image.times), ..Known::default() };
        Ok(InRoot { action: digest, known: Arc::new(known) })
    }

    /// Lets the action that was asked for have the result of the one that ran in its place.
    pub async fn keep(&self, instance: &str, asked: &Digest, ran: &InRoot, response: &reapi::ExecuteResponse) {
        let is_success = response.status.as_ref().is_none_or(|status| status.code == 0);
        let result = response.result.clone().filter(|result| is_success && result.exit_code == 0);
        let Some(result) = result.filter(|_| !ran.known.action.do_not_cache) else { return };
        if let Err(error) = self.stores.actions.put(instance, asked, result).await {
            tracing::warn!(%error, action = %asked, "cannot keep the result of an action in an image under its own name");
        }
    }
}

async fn put(store: &dyn BlobStore, like: &Digest, message: &impl Message) -> Result<Digest, Status> {
    let data = message.encode_to_vec();
    let digest = like.function.digest(&data);
    store.put(&digest, data.into()).await?;
    Ok(digest)
}
