//! What jobs on the machine's own system have beside their inputs: caches, which are overlays like those of roots, and sockets. They are mounted
//! into the job's root.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_executor::Job;
use kiln_executor::rooted::{self, CACHES};
use kiln_executor::scratch::Scratch;
use serde::{Deserialize, Serialize};

use super::super::ids::Lease;
use super::super::root;
use super::super::spec::Source;
use super::points::Points;
use super::prepare::Preparing;
use super::spec::Layers;
use super::{Failed, Roots, Way, outside};

/// What the init is told about them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(in super::super) struct Beside {
    way: Way,
    stage: Vec<Source>,
    overlays: Vec<Layers>,
    /// Below stages.
    sockets: Vec<PathBuf>,
    /// Where each overlay and then each socket is in the job's root.
    targets: Vec<PathBuf>,
}

impl Beside {
    /// The caches of a job. Their mounts are added to those that are sent along.
    pub(in super::super) fn prepare(
        (roots, objects): (Roots, &Path),
        ids: &Lease,
        scratch: &Scratch,
        job: &Job,
        sent: &mut Vec<OwnedFd>,
    ) -> Result<Self, String> {
        let directory = scratch.directory(CACHES).map_err(|error| format!("cannot prepare a job: {error}"))?;
        let mut preparing = Preparing::begin((roots, objects), ids, &directory)?;
        // Whoever reads what was written finds out by its owner whose it is.
        preparing.directory("work", (0o700, 0, 0))?;
        let (mut overlays, mut targets) = (Vec::new(), Vec::new());
        let (mut sockets, mut at) = (Vec::new(), Vec::new());
        for (number, mount) in job.beside.iter().enumerate() {
            match &mount.what {
                rooted::What::Tree { layers, writable, top, .. } => {
                    let overlay = preparing.mounted(layers, number, *top)?;
                    overlays.push(Layers { writable: *writable, ..overlay });
                    targets.push(mount.target.clone().into());
                }
                rooted::What::Socket { path, attributes } => {
                    sockets.push(preparing.socket(path, *attributes)?);
                    at.push(mount.target.clone().into());
                }
                _ => return Err(format!("what is mounted at `{}` is neither a cache nor a socket", mount.target)),
            }
        }
        targets.append(&mut at);
        let before = sent.len();
        sent.append(&mut preparing.made);
        let stage = (before..sent.len()).map(Source::Sent).collect();
        Ok(Self { way: roots.way, stage, overlays, sockets, targets })
    }

    /// Makes the mounts in a mount namespace that is left afterwards, if they are mounted from outside the job's user namespace. The mounts are
    /// added to those that were sent.
    pub(in super::super) fn mount_outside(&self, sent: &mut Vec<OwnedFd>) -> Result<(), String> {
        if self.way == Way::Outside {
            let place = outside::apart()?;
            let mut mounted = self.made(&place, sent)?;
            sent.append(&mut mounted);
        }
        Ok(())
    }

    /// The mounts, while the root is being built at this place.
    pub(in super::super) fn mounted(&self, place: &Path, sent: &[OwnedFd]) -> Result<Vec<OwnedFd>, String> {
        if self.way != Way::Outside {
            return self.made(&root::directory(place, "caches")?, sent);
        }
        let first = sent.len().checked_sub(self.targets.len()).ok_or("a mount from the worker is missing")?;
        let cloned = sent[first..].iter().map(OwnedFd::try_clone).collect::<Result<_, _>>();
        cloned.map_err(|error| format!("cannot keep a mount: {error}"))
    }

    fn made(&self, place: &Path, sent: &[OwnedFd]) -> Result<Vec<OwnedFd>, String> {
        let stages = root::Stages { directory: root::directory(place, "stage")?, sent };
        stages.fill(&self.stage)?;
        let mut trees = outside::overlays_at(place, &stages, self.way, &self.overlays, 0)?;
        trees.append(&mut outside::sockets_at(&stages, &self.sockets)?);
        Ok(trees)
    }

    /// Mounts them in the root, which this process is in. Paths are followed as the job would follow them.
    pub(in super::super) fn attach(&self, mounted: &[OwnedFd]) -> Result<(), Failed> {
        let mut points = Points::default();
        for (number, (target, tree)) in self.targets.iter().zip(mounted).enumerate() {
            let is_cache = number < self.overlays.len();
            points.attach(target, tree, is_cache).map_err(|reason| {
                let what = if is_cache { "cache" } else { "socket" };
                Failed::Refused(format!(
                    "there can be no {what} at `{}`: {reason}; choose another path",
                    target.display()
                ))
            })?;
        }
        Ok(())
    }
}
