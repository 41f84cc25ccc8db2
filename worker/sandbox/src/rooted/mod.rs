//! Jobs in a root file system of their own: root in a user namespace, on an overlay over the root's layers.
//!
//! Invariants: no id of the job is one of the machine's; the job has the capabilities that installing packages takes, and no way to
//! mount, to load into the kernel, or to create a namespace; what the sandbox itself put into the root is gone when the job has ended.

mod apart;
mod authorities;
mod beside;
mod build;
mod image;
mod outside;
mod points;
mod prepare;
mod service;
mod spec;
mod start;
mod system;
mod trial;

use std::collections::BTreeMap;

use kiln_executor::rooted::PATH;
use kiln_executor::{HOME, Job, Rooted};
use serde::{Deserialize, Serialize};

use super::Shared;
use super::ids::Ids;
use super::init::USER;

pub(super) use authorities::of_machine as authorities_of_machine;
pub(super) use beside::Beside;
pub(super) use build::{Built, Failed, build};
pub(super) use outside::overlays as overlays_from_outside;
pub(super) use service::begin as begin_service;
pub(super) use spec::RootSpec;
pub(super) use start::start;
pub(super) use trial::best;

/// How the overlay of a root is mounted, which decides what its layers look like on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
pub enum Way {
    /// Inside the job's user namespace, over layers and writes whose owners are mapped: on disk they are the root's own.
    Inside,
    /// By the worker, over layers whose owners are mapped. What the job writes has the job's ids on disk.
    Outside,
    /// Inside the namespace, without mapping: on disk, layers and writes have the ids that all jobs share.
    Shared,
}

/// What the layers of a root are on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
pub enum Layout {
    /// An EROFS image of names and attributes for each root; content is where other inputs have it. Needs Linux 6.16 and root.
    Erofs,
    /// A directory with everything.
    Unpacked,
}

/// What is different on disk in files of a root, and in files that a job wrote to one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnDisk {
    /// The id on disk of the root's user 0 in its layers.
    pub layers: u32,
    /// The id on disk of the root's user 0 in what a job wrote; `None` if each job has another one, which the owner of what it wrote shows.
    pub written: Option<u32>,
    /// What the names of overlayfs's own attributes begin with.
    pub marks: &'static str,
}

impl Way {
    /// What layers and writes look like on disk. `shared`: the id of user 0 where all jobs share their ids.
    fn on_disk(self, shared: u32) -> OnDisk {
        match self {
            Self::Inside => OnDisk { layers: 0, written: Some(0), marks: "user.overlay." },
            Self::Outside => OnDisk { layers: 0, written: None, marks: "trusted.overlay." },
            Self::Shared => OnDisk { layers: shared, written: Some(shared), marks: "user.overlay." },
        }
    }
}

/// How jobs run in roots of their own.
#[derive(Clone, Copy, Debug)]
pub struct Roots {
    /// How their overlays are mounted.
    pub way: Way,
    /// What a root is on disk before anything has run in it. What runs in one leaves a directory in any case.
    pub layout: Layout,
    /// What they look like on disk.
    pub on_disk: OnDisk,
}

impl Roots {
    fn new(way: Way, layout: Layout, ids: &Ids) -> Self {
        let shared = ids.owner().map_or(0, |owner| owner - USER);
        Self { way, layout, on_disk: way.on_disk(shared) }
    }

    /// Describes it for people.
    pub fn describe(&self) -> &'static str {
        match (self.layout, self.way) {
            (Layout::Erofs, Way::Outside) => "EROFS images, overlays of the worker, owners of layers mapped",
            (Layout::Erofs, _) => "EROFS images, overlays in their own namespaces, owners mapped",
            (Layout::Unpacked, Way::Inside) => "unpacked, overlays in their own namespaces, owners mapped",
            (Layout::Unpacked, Way::Outside) => "unpacked, overlays of the worker, owners of layers mapped",
            (Layout::Unpacked, Way::Shared) => "unpacked, overlays in their own namespaces, ids shared by all steps",
        }
    }
}

/// Variables that say how the network is reached: of the machine's, the only ones that a job in a root has.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "all_proxy", "no_proxy"];

/// The environment of a job in a root: its own, what every job with inputs has, and the machine's proxies if it may use the network.
pub(super) fn environment(shared: &Shared, job: &Job, rooted: &Rooted) -> BTreeMap<String, String> {
    let mut environment = job.environment.clone();
    if rooted.inputs.is_some() {
        Job::add_defaults(&mut environment, PATH, HOME);
    }
    if let (Some(offer), Some(path)) = (&job.calls.offer, environment.get_mut("PATH")) {
        *path = format!("{}:{path}", offer.programs.display());
    }
    if job.network {
        let machine = shared.host.network_environment.iter();
        for (name, value) in machine.filter(|(name, _)| PROXIES.contains(&name.to_ascii_lowercase().as_str())) {
            environment.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if shared.config.host_authorities {
            for (name, value) in authorities::variables() {
                environment.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
    }
    environment
}
