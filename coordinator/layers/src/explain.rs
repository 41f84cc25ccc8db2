//! Explains why the last run of a step missed: compares its action with the one of the last hit or success.

use std::collections::{BTreeMap, BTreeSet};

use kiln_proto::digest::Digest;
use kiln_proto::v1::step_finished::Cache;
use kiln_proto::v1::{self, Ingredients, StepLayers, StepRef, StepRun};
use prost::Message;

use super::inputs::{self, Found};
use super::{Error, Layers, diff, is_of};

impl Layers {
    /// Explains a build's run of a step, as far as it is remembered; of no build, the last run, for each target and each shard of its latest
    /// build.
    pub async fn explain(
        &self,
        instance: &str,
        project: &str,
        step: &str,
        build: &str,
    ) -> Result<v1::ExplainResponse, Error> {
        self.settle().await;
        let records = self.shared.list(instance).await?;
        let of_project = records.iter().map(|(_, record)| record).filter(|record| is_of(record, project, ""));
        let steps: BTreeSet<String> =
            of_project.filter_map(|record| Some(record.step.as_ref()?.step.clone())).collect();
        let mut explanations = Vec::new();
        for step in meant(&steps, step) {
            let of_step = records.iter().map(|(_, record)| record).filter(|record| is_of(record, project, step));
            let of_step = of_step.cloned().collect();
            let meant = if build.is_empty() { latest(of_step) } else { ran_by(of_step, build) };
            for (step, run) in meant {
                explanations.push(self.explanation(step, run).await?);
            }
        }
        Ok(v1::ExplainResponse { explanations, steps: steps.into_iter().collect() })
    }

    async fn explanation(&self, step: Option<StepRef>, run: StepRun) -> Result<v1::Explanation, Error> {
        let mut explanation = v1::Explanation { step, run: Some(run.clone()), ..Default::default() };
        let base = run.base.clone().unwrap_or_default();
        if run.cache() == Cache::Hit || base.action.is_empty() || base.action == run.action {
            return Ok(explanation);
        }
        let (Some(before), Some(after)) =
            (self.ingredients(&base.ingredients).await?, self.ingredients_of(&run).await?)
        else {
            explanation.forgotten = true;
            return Ok(explanation);
        };
        let mut found = Found::default();
        let root = |text: &str| text.parse::<Digest>().ok();
        let (from, to) = (root(&before.input_root), root(&after.input_root));
        inputs::compare(&*self.shared.stores.blobs, from, to, "", &mut found).await?;
        explanation.differences = found.differences;
        explanation.more = found.more;
        explanation.differences.extend(diff::differences(&before, &after));
        Ok(explanation)
    }

    async fn ingredients_of(&self, run: &StepRun) -> Result<Option<Ingredients>, Error> {
        self.ingredients(&run.ingredients).await
    }

    /// Stored ingredients; `None` if they are no longer stored.
    async fn ingredients(&self, digest: &str) -> Result<Option<Ingredients>, Error> {
        let Ok(digest) = digest.parse::<Digest>() else { return Ok(None) };
        match self.shared.stores.blobs.get(&digest).await {
            Ok(data) => Ok(Some(Ingredients::decode(data)?)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Platform and target of a record, and its shard.
fn place(record: &StepLayers) -> ((String, String), u32) {
    let step = record.step.clone().unwrap_or_default();
    ((step.platform, step.target), step.shard)
}

/// A build's runs, in order.
fn ran_by(mut records: Vec<StepLayers>, build: &str) -> Vec<(Option<StepRef>, StepRun)> {
    records.sort_by_key(place);
    let of_build = |record: StepLayers| {
        let runs = record.last.into_iter().chain(record.missed.into_iter().rev());
        Some((record.step, runs.into_iter().find(|run| run.build == build)?))
    };
    records.into_iter().filter_map(of_build).collect()
}

/// The last run of each target's latest build, in order: if a step has fewer shards than before, old ones are left over.
fn latest(records: Vec<StepLayers>) -> Vec<(Option<StepRef>, StepRun)> {
    let mut newest: BTreeMap<(String, String), (i64, String)> = BTreeMap::new();
    for record in &records {
        let last = record.last.clone().unwrap_or_default();
        let known = newest.entry(place(record).0).or_default();
        *known = std::cmp::max(known.clone(), (last.at_ms, last.build));
    }
    let mut kept: Vec<StepLayers> = records
        .into_iter()
        .filter(|record| {
            let build = record.last.as_ref().map_or("", |last| last.build.as_str());
            newest.get(&place(record).0).is_some_and(|(_, newest)| newest == build)
        })
        .collect();
    kept.sort_by_key(place);
    kept.into_iter().map(|record| (record.step, record.last.unwrap_or_default())).collect()
}

/// The steps that a name means: the one that has it, or else those whose names begin with it, or else those that contain it. An
/// instruction of a Dockerfile has a long name.
fn meant<'a>(steps: &'a BTreeSet<String>, name: &str) -> Vec<&'a str> {
    let of = |fits: &dyn Fn(&str) -> bool| -> Vec<&'a str> {
        steps.iter().map(String::as_str).filter(|step| fits(step)).collect()
    };
    let ways: [&dyn Fn(&str) -> bool; 3] =
        [&|step| step == name, &|step| step.starts_with(name), &|step| step.contains(name)];
    ways.into_iter().map(of).find(|found| !found.is_empty()).unwrap_or_default()
}
