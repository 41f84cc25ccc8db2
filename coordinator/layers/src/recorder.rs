//! The task that records what builds report, one step after the other and with a short delay: a build whose steps are
//! all hits is over before recording competes with it for processor and disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use kiln_proto::digest::Digest;
use kiln_proto::v1::step_finished::Cache;
use prost::Message as _;
use tokio::sync::mpsc;

use super::record::{self, Run};
use super::{Error, Known, Message, Ran, Shared, key, outputs};
use kiln_store::BlobStore;

/// How long steps are collected after the first one. A reader does not wait for it.
const COLLECTED: Duration = Duration::from_millis(250);

/// Records what arrives, until nobody can report anything any more.
pub(super) async fn run(shared: Arc<Shared>, mut queue: mpsc::Receiver<Message>) {
    // One warning each time that the index fails, not one for each step.
    let mut failing = false;
    while let Some(first) = queue.recv().await {
        let (mut ran, mut waiting) = (BTreeMap::<String, Vec<(Ran, i64)>>::new(), Vec::new());
        for message in collect(first, &mut queue).await {
            match message {
                Message::Ran(one, at_ms) => ran.entry(one.instance.clone()).or_default().push((*one, at_ms)),
                Message::Settle(done) => waiting.push(done),
            }
        }
        for (instance, ran) in ran {
            match write(&shared, &instance, ran).await {
                Ok(()) => failing = false,
                Err(error) if !std::mem::replace(&mut failing, true) => warn(&error),
                Err(_) => {}
            }
        }
        for done in waiting {
            let _ = done.send(());
        }
    }
}

fn warn(error: &Error) {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    tracing::warn!(%error, cause, "`kiln cache` will lack some steps");
}

/// The first message with those that follow shortly, up to the first that someone waits for.
async fn collect(first: Message, queue: &mut mpsc::Receiver<Message>) -> Vec<Message> {
    let began = tokio::time::Instant::now();
    let until = began.checked_add(COLLECTED).unwrap_or(began);
    let mut messages = vec![first];
    while messages.len() < super::QUEUE && !matches!(messages.last(), Some(Message::Settle(_))) {
        let Ok(Some(next)) = tokio::time::timeout_at(until, queue.recv()).await else { break };
        messages.push(next);
    }
    messages
}

/// Records finished steps of an instance: one read and one write for all.
async fn write(shared: &Shared, instance: &str, ran: Vec<(Ran, i64)>) -> Result<(), Error> {
    let _writing = shared.writing.lock().await;
    let keys: BTreeSet<String> = ran.iter().map(|(ran, _)| key(&ran.project, &ran.step)).collect();
    let keys: Vec<String> = keys.into_iter().collect();
    let known = shared.records.get(instance, &keys).await?;
    let mut records: BTreeMap<String, Known> = keys.into_iter().zip(known).collect();
    let mut failed = None;
    for (ran, at_ms) in ran {
        let known = records.entry(key(&ran.project, &ran.step)).or_default();
        if let Err(error) = apply(&*shared.stores.blobs, known, ran, at_ms).await {
            failed = Some(error);
        }
    }
    let written = records.into_iter().filter(|(_, known)| known.own.last.is_some());
    shared.records.put(instance, written.map(|(key, known)| (key, known.own)).collect()).await?;
    failed.map_or(Ok(()), Err)
}

/// Adds a finished step to its record.
async fn apply(blobs: &dyn BlobStore, record: &mut Known, ran: Ran, at_ms: i64) -> Result<(), Error> {
    let (all, action) = (record.all(), ran.action.to_string());
    let layer = all.layers.iter().find(|layer| layer.action == action);
    let last = all.last.as_ref().filter(|last| last.action == action);
    let known = layer.map(|layer| &layer.ingredients).or(last.map(|last| &last.ingredients));
    let ingredients = match known {
        Some(known) if is_there(blobs, known).await? => known.clone(),
        _ => store_ingredients(blobs, &ran.action, ran.ingredients.await).await?,
    };
    let hit = ran.cache == Cache::Hit;
    let size_bytes = match layer {
        Some(layer) if hit => layer.size_bytes,
        _ => outputs::blobs(blobs, ran.action.function, &ran.result)
            .await?
            .map_or(0, |blobs| blobs.values().sum::<u64>()),
    };
    record.own.project = ran.project;
    record.own.step = Some(ran.step);
    let metadata = ran.result.execution_metadata.as_ref();
    let calls = metadata.and_then(kiln_proto::calls::of).filter(|_| ran.cache != Cache::Hit);
    let run = Run {
        build: ran.build,
        user: ran.user,
        action,
        cache: ran.cache,
        ok: ran.ok,
        no_cache: ran.no_cache,
        cacheable: ran.cacheable,
        again: ran.again,
        environment: ran.environment,
        os: ran.os,
        at_ms,
        size_bytes,
        ingredients,
        calls,
    };
    record::apply(&mut record.own, &all, &run);
    Ok(())
}

/// Whether ingredients are still stored; marks them as used.
async fn is_there(blobs: &dyn BlobStore, digest: &str) -> Result<bool, Error> {
    let Ok(digest) = digest.parse::<Digest>() else { return Ok(false) };
    Ok(blobs.find_missing(&[digest]).await?.is_empty())
}

/// Stores ingredients under their digest. Without them the run still counts, but cannot be explained.
async fn store_ingredients(
    blobs: &dyn BlobStore,
    action: &Digest,
    found: Result<kiln_proto::v1::Ingredients, String>,
) -> Result<String, Error> {
    match found {
        Ok(ingredients) => {
            let data = ingredients.encode_to_vec();
            let digest = action.function.digest(&data);
            blobs.put(&digest, data.into()).await?;
            Ok(digest.to_string())
        }
        Err(why) => {
            tracing::debug!(%action, why, "cannot tell what an action was made of");
            Ok(String::new())
        }
    }
}
