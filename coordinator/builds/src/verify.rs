//! Verification: the steps of artifacts run again, and what they make is compared.
//!
//! Invariant: an artifact's provenance never changes: what a verification found is a record and a statement of its own, and in the provenance of
//! an artifact that is recorded after it.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::v1::{self, Reproduced, event};
use kiln_reproduce::{First, Reproducer};
use parking_lot::Mutex;
use tokio::sync::OnceCell;

use super::Work;
use super::steps::{Job, Ran};
use kiln_artifacts::StepFact;
use kiln_execution::Known;

/// The priority of a sample: whatever else waits goes first.
const LAST: i32 = i32::MAX;

/// What a build has run that may run again.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    ran: Mutex<HashMap<Digest, First>>,
    compared: Mutex<HashMap<Digest, Arc<OnceCell<v1::ReproducedStep>>>>,
    /// The artifacts that were made, each with the actions of its steps.
    artifacts: Mutex<Vec<(String, Vec<Digest>)>>,
}

impl Work {
    fn verify(&self) -> v1::Verify {
        self.request.verify.clone().unwrap_or_default()
    }

    /// Remembers what ran, if it may run again.
    pub(super) fn ran(&self, job: &Job, ran: &Ran) {
        let (build, sample) = (self.build.lock().clone(), self.settings.verify_sample);
        let digest = ran.lowered.digest;
        let is_sampled = kiln_reproduce::chosen(&digest, &build.id, sample);
        let Some(result) = ran.done.response.result.clone() else { return };
        if !(self.verify().steps || is_sampled) {
            return;
        }
        let known = Known { directories: HashMap::new(), ..Known::clone(&ran.known) };
        let first = First {
            step: job.reference(),
            instance: self.request.instance.trim_matches('/').to_owned(),
            digest,
            known: Arc::new(known),
            result,
            network: job.step.network,
            secrets: self.secrets.of(&job.step),
            agents: Some(self.agents.clone()),
            build: build.id,
            share: build.user,
            priority: if self.verify().steps { self.request.priority } else { LAST },
            is_sample: !self.verify().steps,
        };
        self.seen.ran.lock().insert(digest, first);
    }

    fn reproducer(&self) -> Reproducer {
        Reproducer::new(self.stores.clone(), self.execution.clone())
    }

    /// Runs the steps of an artifact again, if the build is verified; each once, however many artifacts it is in. The facts learn of it.
    pub(super) async fn reproduce(&self, facts: &mut [StepFact]) -> Option<v1::Reproducibility> {
        if !self.verify().steps {
            return None;
        }
        let again = facts.iter().map(|fact| self.step_again(fact.action));
        let steps = futures::future::join_all(again).await;
        for (fact, step) in facts.iter_mut().zip(&steps) {
            fact.reproduced = step.as_ref().map(kiln_reproduce::as_json);
        }
        let (build, network) = (self.build.lock().id.clone(), self.verify().network);
        Some(kiln_reproduce::summary(&build, steps.into_iter().flatten().collect(), network))
    }

    async fn step_again(&self, action: Digest) -> Option<v1::ReproducedStep> {
        let first = self.seen.ran.lock().get(&action).cloned()?;
        let cell = self.seen.compared.lock().entry(action).or_default().clone();
        let run = async || {
            let tell = |worker: &str, result: Option<v1::ReproducedStep>| {
                let (step, worker) = (Some(first.step.clone()), worker.to_owned());
                self.tell(event::Event::StepAgain(v1::StepAgain { step, worker, result }));
            };
            tell("", None);
            let found = self.reproducer().again(&first, |worker| tell(worker, None)).await;
            tell("", Some(found.clone()));
            found
        };
        Some(cell.get_or_init(run).await.clone())
    }

    /// This work with the images that the artifact was made with that it makes again, if it does that.
    pub(super) async fn pinned(mut self) -> Self {
        let id = self.verify().rebuild;
        if id.is_empty() {
            return self;
        }
        match self.pins_of(&id).await {
            Ok(pins) => {
                self.bases.pin(pins.bases.clone());
                self.pins = pins;
            }
            Err(error) => {
                let text =
                    format!("names of images stand for what they name now, not for what `{id}` was made with: {error}");
                self.tell(event::Event::Warning(v1::Warning { text }));
            }
        }
        self
    }

    async fn pins_of(&self, id: &str) -> Result<kiln_reproduce::Pins, String> {
        let artifact = self.records.artifact(id).await.map_err(|error| error.to_string())?;
        let artifact = artifact.ok_or_else(|| "it is not recorded any more".to_owned())?;
        let function = DigestFunction::from_wire(artifact.digest_function).map_err(|error| error.to_string())?;
        let digest = Digest::required(function, artifact.provenance.as_ref()).map_err(|error| error.to_string())?;
        let provenance = self.stores.artifacts.get(&digest).await.map_err(|error| error.to_string())?;
        kiln_reproduce::Pins::read(&provenance).map_err(|error| error.to_string())
    }

    /// Compares an artifact with the one that the build makes again, if it is that one.
    pub(super) async fn compare_rebuilt(
        &self,
        made: &v1::Artifact,
    ) -> Result<Option<(v1::Artifact, v1::Reproducibility)>, String> {
        let wanted = self.verify().rebuild;
        if wanted.is_empty() {
            return Ok(None);
        }
        let first = self.records.artifact(&wanted).await.map_err(|error| error.to_string())?;
        let first = first.ok_or_else(|| format!("there is no artifact `{wanted}`"))?;
        if (&first.name, &first.platform, &first.target) != (&made.name, &made.platform, &made.target) {
            return Ok(None);
        }
        let build = self.build.lock().clone();
        let is_same = first.root == made.root;
        let mut found = v1::Reproducibility {
            build: build.id.clone(),
            at: Some(kiln_proto::clock::now()),
            rebuilt: true,
            artifact: if is_same { String::new() } else { made.id.clone() },
            ..v1::Reproducibility::default()
        };
        found.set_outcome(if is_same { Reproduced::Same } else { Reproduced::Different });
        if !is_same {
            let earlier = self.records.build(&first.build).await.ok().flatten().unwrap_or_default();
            let conditions = (of_build(&earlier, first.created), of_build(&build, made.created));
            let root = |artifact: &v1::Artifact| Digest::required(self.function, artifact.root.as_ref());
            let roots =
                (root(&first).map_err(|error| error.to_string())?, root(made).map_err(|error| error.to_string())?);
            let compared = self.reproducer().artifacts(roots, &conditions).await;
            found.differences = compared.map_err(|error| error.to_string())?;
        }
        Ok(Some((first, found)))
    }

    /// Records what was found of an artifact, and tells of it. Returns why the build fails, if it does.
    pub(super) async fn compared(&self, artifact: &str, found: v1::Reproducibility) -> Result<(), (bool, String)> {
        let recorded = self.records.add_reproducibility(artifact, &found).await;
        recorded.map_err(|error| (false, error.to_string()))?;
        if let Some(metrics) = &self.metrics {
            metrics.compared(&found);
        }
        let result = Some(found.clone());
        self.tell(event::Event::ArtifactCompared(v1::ArtifactCompared { artifact: artifact.to_owned(), result }));
        kiln_reproduce::verdict(artifact, &found)
    }

    /// Remembers an artifact, some of whose steps may be run again when the build has ended.
    pub(super) fn made(&self, artifact: &str, facts: &[StepFact]) {
        if self.settings.verify_sample > 0 && !self.verify().steps {
            let actions = facts.iter().map(|fact| fact.action).collect();
            self.seen.artifacts.lock().push((artifact.to_owned(), actions));
        }
    }

    /// Runs the chosen steps of its artifacts again, when nobody waits for the build any more.
    pub(super) async fn sample(self) {
        let artifacts = std::mem::take(&mut *self.seen.artifacts.lock());
        let ran = std::mem::take(&mut *self.seen.ran.lock());
        let build = self.build.lock().id.clone();
        // Of a build that failed, some may not have been recorded.
        let recorded: Vec<String> = self.build.lock().artifacts.iter().map(|artifact| artifact.id.clone()).collect();
        let artifacts = artifacts.into_iter().filter(|(artifact, _)| recorded.contains(artifact)).collect();
        for (artifact, found) in self.reproducer().sample(&build, artifacts, &ran).await {
            if let Some(metrics) = &self.metrics {
                metrics.compared(&found);
            }
            if let Err(error) = self.sampled(&artifact, &found).await {
                tracing::error!(error, artifact, "cannot record what a verification found");
            }
        }
    }
}

/// What is known of the conditions of a whole build.
fn of_build(build: &v1::Build, made: Option<kiln_proto::protobuf::Timestamp>) -> v1::RunConditions {
    v1::RunConditions { began: build.started.or(made), ended: made, ..v1::RunConditions::default() }
}
