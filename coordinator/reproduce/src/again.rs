//! The second run of an action.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kiln_execution::{Agents, Done, ExecutionHandle, Known, Request, Unlike, Update};
use kiln_proto::digest::Digest;
use kiln_proto::v1::{self, Reproduced};
use kiln_proto::{clock, conditions, reapi};
use kiln_store::Stores;
use prost::Message;
use tonic::Code;

use super::made::{self, Sides};

/// How long after the end of the first run the second one begins at the earliest: longer than the two seconds to which archives round times.
const LATER: Duration = Duration::from_secs(3);
/// Differences of a step that are told of.
const DIFFERENCES: usize = 20;
/// Most bytes of a failed run's output that are searched for its error.
const SCANNED_BYTES: u64 = 1 << 20;

/// An action that has run, or whose result was known.
#[derive(Debug, Clone)]
pub struct First {
    /// The step that it is.
    pub step: v1::StepRef,
    /// REAPI instance name.
    pub instance: String,
    /// Its digest.
    pub digest: Digest,
    /// Its messages, and what belongs to it besides.
    pub known: Arc<Known>,
    /// What it made.
    pub result: reapi::ActionResult,
    /// Whether it has network access.
    pub network: bool,
    /// The values of its secrets.
    pub secrets: Vec<v1::Secret>,
    /// The SSH agents that it mounts.
    pub agents: Option<Arc<dyn Agents>>,
    /// The build that it belongs to.
    pub build: String,
    /// The share of the farm that it is charged to.
    pub share: String,
    /// Lower values are more urgent.
    pub priority: i32,
    /// Whether nobody waits for it: it then takes what is free, and holds nothing else up.
    pub is_sample: bool,
}

/// Runs actions again.
#[derive(Debug, Clone)]
pub struct Reproducer {
    stores: Stores,
    execution: ExecutionHandle,
}

impl Reproducer {
    /// A reproducer on this farm.
    pub fn new(stores: Stores, execution: ExecutionHandle) -> Self {
        Self { stores, execution }
    }

    /// Runs an action again and compares. `runs` is told the worker when the second run begins.
    pub async fn again(&self, first: &First, runs: impl Fn(&str)) -> v1::ReproducedStep {
        let metadata = first.result.execution_metadata.clone().unwrap_or_default();
        let mut found = v1::ReproducedStep {
            step: Some(first.step.clone()),
            action_digest: Some(first.digest.to_wire()),
            first: Some(conditions::of(&metadata)),
            network: first.network,
            ..v1::ReproducedStep::default()
        };
        if let Err(reason) = self.compare(first, runs, &mut found).await {
            found.set_outcome(Reproduced::NotRun);
            found.reason = reason;
        }
        found
    }

    async fn compare(&self, first: &First, runs: impl Fn(&str), found: &mut v1::ReproducedStep) -> Result<(), String> {
        let before = found.first.clone().unwrap_or_default();
        wait_until_later(&before).await;
        let done = self.run(first, &before, runs).await?;
        let status = done.response.status.clone().unwrap_or_default();
        if done.farm_fault || is_farm_fault(status.code) {
            return Err(status.message);
        }
        let result = done.response.result.clone().unwrap_or_default();
        let metadata = result.execution_metadata.clone().unwrap_or_default();
        found.second = Some(conditions::of(&metadata));
        if status.code != 0 || result.exit_code != 0 {
            found.set_outcome(Reproduced::Different);
            let words = self.failure(&status, &result, first.digest.function).await;
            found.differences = vec![v1::FileDifference { path: String::new(), kind: "content".to_owned(), words }];
            return Ok(());
        }
        let function = first.digest.function;
        let sides = Sides::of_results(&self.stores, function, (&first.result, &result)).await;
        let sides = sides.map_err(|error| error.to_string())?;
        let conditions = (before, found.second.clone().unwrap_or_default());
        let compared = made::compare(&self.stores, sides, &conditions).await.map_err(|error| error.to_string())?;
        found.set_outcome(if compared.files == 0 { Reproduced::Same } else { Reproduced::Different });
        (found.differences, found.files) = (compared.differences, compared.files);
        found.differences.truncate(DIFFERENCES);
        Ok(())
    }

    /// What differs between the files of two artifacts, given their roots and the conditions of their builds; at most 50.
    ///
    /// # Errors
    /// If one of them is not in the store any more.
    pub async fn artifacts(
        &self,
        roots: (Digest, Digest),
        conditions: &(v1::RunConditions, v1::RunConditions),
    ) -> Result<Vec<v1::FileDifference>, made::Error> {
        let sides = Sides::of_trees(&self.stores, roots).await?;
        Ok(made::compare(&self.stores, sides, conditions).await?.differences)
    }

    /// Runs the action to its end.
    async fn run(&self, first: &First, before: &v1::RunConditions, runs: impl Fn(&str)) -> Result<Arc<Done>, String> {
        let unique = uuid::Uuid::new_v4().simple().to_string();
        let salt = [&first.known.action.salt[..], b"kiln.verify", unique.as_bytes()].concat();
        let action = reapi::Action { salt, do_not_cache: true, ..first.known.action.clone() };
        let data = action.encode_to_vec();
        let digest = first.digest.function.digest(&data);
        self.stores.blobs.put(&digest, data.into()).await.map_err(|error| error.to_string())?;
        let unlike = Unlike {
            worker: before.worker.clone(),
            cpus: before.cpus,
            host_name: format!("kiln-{}", unique.get(..8).unwrap_or_default()),
            opportunistic: first.is_sample,
        };
        let known = Known {
            action,
            unlike: Some(unlike),
            // What earlier steps left in caches, and calls of compilers whose result is known, would prove nothing.
            caches: first.known.caches.iter().map(|cache| v1::CacheMount { name: None, ..cache.clone() }).collect(),
            split: false,
            spread: false,
            tools: kiln_execution::ToolSpace::default(),
            ..Known::clone(&first.known)
        };
        let request = Request {
            instance: first.instance.clone(),
            action_digest: digest,
            skip_cache_lookup: true,
            priority: first.priority,
            share: first.share.clone(),
            build: first.build.clone(),
            path_weight: 0,
            secrets: first.secrets.clone(),
            agents: first.agents.clone(),
            shell: None,
            queue_timeout: None,
            known: Some(Arc::new(known)),
        };
        let mut attached = self.execution.execute(request).await.map_err(|status| status.message().to_owned())?;
        loop {
            match attached.next().await {
                Update::Executing { worker, .. } => runs(&worker),
                Update::Done(done) => return Ok(done),
                Update::Queued | Update::Output { .. } | Update::Calls(_) | Update::Usage(_) => {}
            }
        }
    }

    /// How the second run failed, although the first one did not.
    async fn failure(
        &self,
        status: &kiln_proto::rpc::Status,
        result: &reapi::ActionResult,
        function: kiln_proto::digest::DigestFunction,
    ) -> String {
        if status.code != 0 {
            return format!("the second run failed: {}", status.message);
        }
        let stderr = self.output(result.stderr_digest.as_ref(), function).await;
        let stdout = self.output(result.stdout_digest.as_ref(), function).await;
        let error = kiln_failures::first_error(&stderr, &stdout);
        let error = kiln_failures::in_short(&error).map(|error| format!(": {error}")).unwrap_or_default();
        format!("the second run failed with {}{error}", kiln_failures::exit_code(result.exit_code))
    }

    async fn output(&self, digest: Option<&reapi::Digest>, function: kiln_proto::digest::DigestFunction) -> String {
        let read = async {
            let digest = Digest::required(function, digest).ok()?;
            let mut pieces = self.stores.blobs.read(&digest, 0, Some(SCANNED_BYTES)).await.ok()?;
            let mut data = Vec::new();
            while let Some(piece) = pieces.next().await {
                data.extend_from_slice(&piece.ok()?);
            }
            Some(data)
        };
        String::from_utf8_lossy(&read.await.unwrap_or_default()).into_owned()
    }
}

/// The clocks of no step can be set back, so the second run begins when all times that the first one saw are over.
async fn wait_until_later(first: &v1::RunConditions) {
    let Some(ended) = first.ended.as_ref().or(first.began.as_ref()) else { return };
    let since = Duration::from_millis(clock::milliseconds_between(Some(ended), Some(&clock::now())));
    tokio::time::sleep(LATER.saturating_sub(since)).await;
}

fn is_farm_fault(code: i32) -> bool {
    code != 0
        && !matches!(Code::from_i32(code), Code::DeadlineExceeded | Code::InvalidArgument | Code::ResourceExhausted)
}
