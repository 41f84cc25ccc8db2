//! Caches of jobs on the machine's own system: overlays like those of roots, mounted into the job's root.

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
pub(in super::super) struct Caches {
    way: Way,
    stage: Vec<Source>,
    overlays: Vec<Layers>,
    /// Where each is in the job's root.
    targets: Vec<PathBuf>,
}

impl Caches {
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
        for (number, mount) in job.caches.iter().enumerate() {
            let rooted::What::Tree { layers, writable, top, .. } = &mount.what else {
                return Err(format!("what is mounted at `{}` is no cache", mount.target));
            };
            let overlay = preparing.mounted(layers, number, *top)?;
            overlays.push(Layers { writable: *writable, ..overlay });
            targets.push(mount.target.clone().into());
        }
        let before = sent.len();
        sent.append(&mut preparing.made);
        let stage = (before..sent.len()).map(Source::Sent).collect();
        Ok(Self { way: roots.way, stage, overlays, targets })
    }

    /// Mounts the overlays in a mount namespace that is left afterwards, if they are mounted from outside the job's user namespace. The mounts are
    /// added to those that were sent.
    pub(in super::super) fn mount_outside(&self, sent: &mut Vec<OwnedFd>) -> Result<(), String> {
        if self.way == Way::Outside {
            let place = outside::apart()?;
            let mut mounted = self.overlays(&place, sent)?;
            sent.append(&mut mounted);
        }
        Ok(())
    }

    /// The mounts, while the root is being built at this place.
    pub(in super::super) fn mounted(&self, place: &Path, sent: &[OwnedFd]) -> Result<Vec<OwnedFd>, String> {
        if self.way != Way::Outside {
            return self.overlays(&root::directory(place, "caches")?, sent);
        }
        let first = sent.len().checked_sub(self.overlays.len()).ok_or("a mount from the worker is missing")?;
        let cloned = sent[first..].iter().map(OwnedFd::try_clone).collect::<Result<_, _>>();
        cloned.map_err(|error| format!("cannot keep a mount: {error}"))
    }

    fn overlays(&self, place: &Path, sent: &[OwnedFd]) -> Result<Vec<OwnedFd>, String> {
        let stages = root::Stages { directory: root::directory(place, "stage")?, sent };
        stages.fill(&self.stage)?;
        outside::overlays_at(place, &stages, self.way, &self.overlays, 0)
    }

    /// Mounts them in the root, which this process is in. Paths are followed as the job would follow them.
    pub(in super::super) fn attach(&self, mounted: &[OwnedFd]) -> Result<(), Failed> {
        let mut points = Points::default();
        for (target, tree) in self.targets.iter().zip(mounted) {
            points.attach(target, tree, true).map_err(|reason| {
                Failed::Refused(format!(
                    "there can be no cache at `{}`: {reason}; choose another path",
                    target.display()
                ))
            })?;
        }
        Ok(())
    }
}
