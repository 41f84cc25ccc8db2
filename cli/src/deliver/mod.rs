//! Delivers artifacts from the farm: to a container registry, a store of plain files, or the local Docker.
//!
//! Invariant: nothing is delivered before the whole build has succeeded, and errors in the command line are reported
//! before it starts.

mod destination;
mod docker;
mod joint;
mod load;
mod push;
mod raw;
mod stored;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use kiln_images::registry::{self, Credentials, Registries};
use kiln_proto::{transfer, v1};

use crate::Code;
use crate::farm::Farm;
use crate::{args, download};
use destination::{Destination, Place};
pub use joint::join;
use kiln_progress::Delivered;
use stored::Stored;
pub(crate) use stored::evidence;

/// Why an artifact could not be delivered.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Destination(#[from] destination::Error),
    #[error("cannot push `{reference}`")]
    Push {
        reference: String,
        #[source]
        source: Box<registry::Error>,
    },
    #[error("cannot read `{}`, which names the destinations of `--store`", .path.display())]
    Project {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Configuration(#[from] kiln_planner::project::Error),
    #[error("`--store`: `{}` lists no destination; add `[store]` with `push = [\"…\"]`", .path.display())]
    NoStore { path: PathBuf },
    #[error(transparent)]
    Output(#[from] download::Error),
    #[error(transparent)]
    Raw(#[from] kiln_stores::Refused),
    #[error(transparent)]
    Registry(#[from] Box<registry::Error>),
    #[error("cannot fetch artifact `{name}` from the farm")]
    Transfer {
        name: String,
        #[source]
        source: Box<transfer::Error>,
    },
    #[error("artifact `{name}` is malformed: {reason}; report this to the farm's operator")]
    Malformed { name: String, reason: String },
    #[error("the build produced no image to load: `--load` is for artifacts of `kind = \"image\"`")]
    NoImage,
    #[error(transparent)]
    Export(#[from] kiln_export::Error),
}

impl Error {
    /// Whose fault it is, as an exit code.
    pub fn code(&self) -> Code {
        match self {
            Self::Output(error) => error.code(),
            Self::Raw(refused) if refused.is_users() => Code::Usage,
            Self::Project { .. } | Self::Configuration(_) | Self::NoStore { .. } => Code::Usage,
            Self::Destination(_) | Self::NoImage => Code::Usage,
            Self::Export(error) if error.is_users() => Code::Usage,
            Self::Export(_) => Code::Farm,
            Self::Push { source, .. } | Self::Registry(source) if source.is_users() => Code::Usage,
            Self::Raw(_) | Self::Push { .. } | Self::Registry(_) | Self::Transfer { .. } | Self::Malformed { .. } => {
                Code::Farm
            }
        }
    }
}

/// The destinations in a project's `[store]`.
fn places_of(project: &Path) -> Result<Vec<String>, Error> {
    let path = project.join("kiln.toml");
    let text = std::fs::read(&path).map_err(|source| Error::Project { path: path.clone(), source })?;
    let places = kiln_planner::project::push_places(&text)?;
    if places.is_empty() { Err(Error::NoStore { path }) } else { Ok(places) }
}

/// What is done with a build's artifacts.
#[async_trait(?Send)]
pub trait Deliveries {
    /// Whether this artifact is delivered somewhere and need not be written to the output directory.
    fn takes(&self, artifact: &v1::Artifact) -> bool;

    /// Delivers the artifacts of a build that succeeded.
    async fn run(&self, farm: &Farm, artifacts: &[v1::Artifact]) -> Result<Vec<Delivered>, Error>;
}

/// The destinations of a build's artifacts.
pub struct Deliver {
    destinations: Vec<Destination>,
    over: bool,
    load: bool,
    registries: Registries,
    insecure: Vec<String>,
}

impl Deliver {
    /// From the command line, and from `[store]` in `project`'s `kiln.toml` if requested; `None` if there are none.
    pub fn new(args: &args::Deliver, project: &Path) -> Result<Option<Self>, Error> {
        if !args.is_asked() {
            return Ok(None);
        }
        let mut places = args.push.clone();
        if args.store {
            places.extend(places_of(project)?);
        }
        let destinations = places.iter().map(|text| text.parse()).collect::<Result<Vec<_>, _>>()?;
        let options = registry::Options { insecure: args.insecure_registry.clone(), ..Default::default() };
        let credentials = Credentials::of_user().map_err(Box::new)?;
        let registries = Registries::new(options, credentials);
        Ok(Some(Self {
            destinations,
            over: args.push_over,
            load: args.load,
            registries,
            insecure: args.insecure_registry.clone(),
        }))
    }
}

#[async_trait(?Send)]
impl Deliveries for Deliver {
    fn takes(&self, artifact: &v1::Artifact) -> bool {
        let pushed = self.destinations.iter().any(|destination| destination.is_for(&artifact.name));
        pushed || (self.load && artifact.kind == "image")
    }

    async fn run(&self, farm: &Farm, artifacts: &[v1::Artifact]) -> Result<Vec<Delivered>, Error> {
        let mut done = Vec::new();
        for (destination, chosen) in destination::assign(&self.destinations, artifacts)? {
            let stored = Stored::open_all(farm, &chosen).await?;
            match destination {
                Place::Registry(reference) => {
                    done.push(push::push(farm, &self.registries, &reference, &stored, self.over).await?);
                }
                Place::Files(place) => done.extend(raw::push(&place, &stored, &self.insecure).await?),
            }
        }
        if self.load {
            let images: Vec<&v1::Artifact> = artifacts.iter().filter(|artifact| artifact.kind == "image").collect();
            if images.is_empty() {
                return Err(Error::NoImage);
            }
            for image in Stored::open_all(farm, &images).await? {
                done.push(load::load(&image).await?);
            }
        }
        Ok(done)
    }
}
