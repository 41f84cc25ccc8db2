//! Divides the tests of a step among its shards, by what they took before.
//!
//! Invariant: what a build's shards are is settled when it begins, and stays the same while the sources do, whatever has been learned or is idle. A record that
//! is missing or wrong costs time and nothing else.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kiln_planner::plan::{PRINTED, Step, compile_globs};
use kiln_proto::digest::Digest;
use kiln_proto::v1::{self, TestReport, event, test_case::Outcome};
use kiln_records::tests_key;
use kiln_runners::{Learned, Tool, Wanted};
use kiln_store::trees;
use prost::Message;

use super::reports;
use super::steps::{Finished, Job};
use super::{Builds, RecordsError, Work};

/// How many files are named that shards wrote differently.
const NAMED: usize = 3;

/// Which tests each shard of a step has: those that are known, by the name that their runner is given.
pub(crate) type Shares = Vec<(u32, String)>;

fn is_divided(step: &Step) -> bool {
    step.shards > 1 || step.shards_auto
}

fn wanted(step: &Step) -> Wanted {
    if step.shards_auto { Wanted::Auto } else { Wanted::Count(step.shards) }
}

fn key_of(work: &Work, step: &Step) -> String {
    tests_key(work.request.instance.trim_matches('/'), &work.build.lock().project, &step.name)
}

impl Builds {
    /// How many shards a step with `shards = "auto"` has when its sources change; 0: nothing is known of its tests.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn shards(&self, instance: &str, project: &str, step: &str) -> Result<u32, RecordsError> {
        let (mut learned, _) = self.shared.records.tests(&tests_key(instance, project, step)).await?;
        if learned.shards > 0 {
            learned.settle(Wanted::Auto);
        }
        Ok(learned.shards)
    }
}

/// Settles how many shards each step of a build has, and which tests each shard: the same as in the last build of the same sources.
pub(super) async fn settle(work: &mut Work) {
    let source = work.source.root.to_string();
    let mut settled = Vec::new();
    for step in work.plan.steps.iter().filter(|step| is_divided(step)) {
        let key = key_of(work, step);
        let settle = async {
            let (mut learned, before) = work.records.tests(&key).await?;
            // Another number in the project's own words is another source, but a variable of the caller's is not.
            if before != source || (!step.shards_auto && learned.shards != step.shards) {
                learned.settle(wanted(step));
                work.records.put_tests(&key, &learned, &source).await?;
            }
            Ok::<_, RecordsError>(learned)
        };
        let learned = settle.await.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot settle shards by what tests took before");
            Learned::default()
        });
        settled.push((step.name.clone(), learned));
    }
    for (name, learned) in settled {
        if let Some(step) = work.plan.steps.iter_mut().find(|step| step.name == name && step.shards_auto) {
            step.shards = learned.shards.max(1);
        }
        work.shares.insert(name, Arc::new(learned.shares()));
    }
}

/// The job with the command that runs the tests of its shard.
pub(super) fn divided(mut job: Job) -> Job {
    let Some(shares) = job.shares.as_ref().filter(|_| job.step.shards > 1) else { return job };
    let step = &mut job.step;
    if let Some(chosen) = kiln_runners::sharded(&step.run, step.working_directory.as_deref(), shares) {
        step.run = chosen.run;
        step.files.extend(chosen.files);
    }
    job
}

/// All shards of a step have ended: says what they wrote differently, and remembers what their tests took.
pub(super) async fn ended(work: &Work, step: &Step, shards: &[&Finished]) {
    if !is_divided(step) {
        return;
    }
    warn(work, step, shards).await;
    // A shard may have had no tests.
    let reports: Vec<(u32, Digest)> =
        (1..).zip(shards).filter_map(|(shard, finished)| Some((shard, finished.tests?))).collect();
    if reports.is_empty() || shards.iter().all(|finished| finished.fact.cached) {
        return;
    }
    let (mut seen, mut total_ms): (BTreeMap<String, (u64, u32)>, u64) = Default::default();
    let tool = Tool::of(&step.run);
    for (shard, report) in reports {
        let Ok(data) = work.stores.blobs.get(&report).await else { return };
        let Ok(report) = TestReport::decode(data) else { return };
        for test in report.tests.into_iter().filter(|test| test.outcome() != Outcome::Skipped) {
            total_ms += test.duration_ms;
            if let Some(unit) = tool.and_then(|tool| tool.shared_unit(&test.suite, &test.name)) {
                seen.entry(unit).or_insert((0, shard)).0 += test.duration_ms;
            }
        }
    }
    let key = key_of(work, step);
    let remembered = async {
        let (mut learned, source) = work.records.tests(&key).await?;
        learned.ran(seen, total_ms);
        work.records.put_tests(&key, &learned, &source).await
    };
    if let Err(error) = remembered.await {
        tracing::warn!(%error, "cannot record what tests took");
    }
}

/// Warns of files that shards wrote differently: only one of them can be the step's. Each has reports of its own.
async fn warn(work: &Work, step: &Step, shards: &[&Finished]) {
    let own = compile_globs(step.reports.iter().map(String::as_str).filter(|report| *report != PRINTED));
    let mut first: HashMap<String, (usize, Digest)> = HashMap::new();
    let mut different: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (shard, finished) in shards.iter().enumerate() {
        let mut tree = finished.outputs.tree.clone();
        if trees::expand_in_place(&*work.stores.blobs, &mut tree).await.is_err() {
            return;
        }
        reports::collect(&tree, "", &mut |path, digest| match first.get(path) {
            Some((other, known)) if *known != digest => {
                different.entry(path.to_owned()).or_insert((*other, shard));
            }
            Some(_) => {}
            None => drop(first.insert(path.to_owned(), (shard, digest))),
        });
    }
    let named: Vec<_> = different.iter().filter(|(path, _)| !own.is_match(path)).collect();
    for (path, (one, other)) in named.iter().take(NAMED) {
        let text = format!(
            "step `{}`: its shards {} and {} wrote `{path}` differently, and the last one's is kept; put $KILN_SHARD into its name to keep all",
            step.name,
            one + 1,
            other + 1
        );
        work.tell(event::Event::Warning(v1::Warning { text }));
    }
    if named.len() > NAMED {
        let text = format!("step `{}`: its shards wrote {} more files differently", step.name, named.len() - NAMED);
        work.tell(event::Event::Warning(v1::Warning { text }));
    }
}
