//! Lists an instance's step results, with their sizes after deduplication and their usage counts.

use std::collections::{BTreeMap, HashMap};

use futures::{StreamExt, stream};
use kiln_proto::digest::Digest;
use kiln_proto::v1::{self, StepLayers, StoredLayer};

use super::{Error, Layers, is_of, outputs, record, timestamp};

/// Results whose trees are read at once.
const CONCURRENCY: usize = 8;
/// Marks a blob that several step results name.
const SHARED: usize = usize::MAX;

/// A step result with the record that contains it.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) key: String,
    pub(super) project: String,
    pub(super) step: v1::StepRef,
    pub(super) layer: StoredLayer,
    pub(super) unique_bytes: u64,
    pub(super) evicted: bool,
}

impl Row {
    pub(super) fn is_of(&self, project: &str, step: &str) -> bool {
        (project.is_empty() || self.project == project) && (step.is_empty() || self.step.step == step)
    }

    pub(super) fn to_wire(&self) -> v1::Layer {
        let layer = self.layer.clone();
        v1::Layer {
            project: self.project.clone(),
            step: Some(self.step.clone()),
            environment: layer.environment,
            os: layer.os,
            action: layer.action,
            size_bytes: layer.size_bytes,
            unique_bytes: self.unique_bytes,
            evicted: self.evicted,
            created: timestamp(layer.created_ms),
            last_hit: timestamp(layer.last_hit_ms),
            counts: Some(layer.counts.unwrap_or_default()),
            user: layer.user,
        }
    }
}

/// The step results of records that were not pruned, most recently used first.
pub(super) fn rows(records: &[(String, StepLayers)]) -> Vec<Row> {
    let mut rows = Vec::new();
    for (key, record) in records {
        let live = record.layers.iter().filter(|layer| layer.pruned_ms == 0);
        rows.extend(live.map(|layer| Row {
            key: key.clone(),
            project: record.project.clone(),
            step: record.step.clone().unwrap_or_default(),
            layer: layer.clone(),
            unique_bytes: 0,
            evicted: false,
        }));
    }
    rows.sort_by_key(|row| std::cmp::Reverse(record::last_use_ms(&row.layer)));
    rows
}

/// A blob that step results name.
struct Named {
    bytes: u64,
    /// The one step result, or [`SHARED`].
    layer: usize,
    /// Whether only step results that are to be pruned name it.
    goes: bool,
}

impl Layers {
    /// The step results of an instance, most recently used first. Sizes after deduplication take all of the instance's
    /// step results into account, even if only some are requested.
    pub async fn list(&self, instance: &str, project: &str, step: &str) -> Result<Vec<v1::Layer>, Error> {
        self.settle().await;
        let mut rows = rows(&self.shared.list(instance).await?);
        self.measure(instance, &mut rows, |_| false).await?;
        Ok(rows.iter().filter(|row| row.is_of(project, step)).map(Row::to_wire).collect())
    }

    /// Fills in the bytes that only each step result names, and whether it is evicted. Returns the bytes that are named
    /// only by rows for which `goes` holds.
    pub(super) async fn measure(
        &self,
        instance: &str,
        rows: &mut [Row],
        goes: impl Fn(&Row) -> bool,
    ) -> Result<u64, Error> {
        let stores = &self.shared.stores;
        let actions: Vec<String> = rows.iter().map(|row| row.layer.action.clone()).collect();
        let mut read = stream::iter(actions.into_iter().enumerate())
            .map(|(index, action)| async move {
                let Ok(action) = action.parse::<Digest>() else { return Ok((index, None)) };
                let Some(result) = stores.actions.get(instance, &action).await? else { return Ok((index, None)) };
                Ok::<_, Error>((index, outputs::blobs(&*stores.blobs, action.function, &result).await?))
            })
            .buffer_unordered(CONCURRENCY);
        let mut named: HashMap<u64, Named> = HashMap::new();
        while let Some(found) = read.next().await {
            let (index, blobs) = found?;
            let Some(row) = rows.get_mut(index) else { continue };
            row.evicted = blobs.is_none();
            let goes = goes(row);
            for (blob, bytes) in blobs.unwrap_or_default() {
                let first = Named { bytes, layer: index, goes };
                named.entry(blob).and_modify(|one| (one.layer, one.goes) = (SHARED, one.goes && goes)).or_insert(first);
            }
        }
        for one in named.values() {
            // No row has the number of what several name.
            if let Some(row) = rows.get_mut(one.layer) {
                row.unique_bytes = row.unique_bytes.saturating_add(one.bytes);
            }
        }
        Ok(named.values().filter(|one| one.goes).map(|one| one.bytes).sum())
    }

    /// How often steps hit, by step and by user.
    pub async fn stats(&self, instance: &str, project: &str, step: &str) -> Result<v1::LayerStatsResponse, Error> {
        self.settle().await;
        let records = self.shared.list(instance).await?;
        let mut steps: BTreeMap<(String, String), v1::LayerCounts> = BTreeMap::new();
        let mut users: BTreeMap<String, v1::LayerCounts> = BTreeMap::new();
        let mut total = v1::LayerCounts::default();
        for (_, record) in records.iter().filter(|(_, record)| is_of(record, project, step)) {
            let name = record.step.as_ref().map(|step| step.step.clone()).unwrap_or_default();
            let of_step = steps.entry((record.project.clone(), name)).or_default();
            for (user, counts) in &record.users {
                record::add(of_step, counts);
                record::add(users.entry(user.clone()).or_default(), counts);
                record::add(&mut total, counts);
            }
        }
        let steps =
            steps.into_iter().map(|((project, step), counts)| v1::StepStats { project, step, counts: Some(counts) });
        let users = users.into_iter().map(|(user, counts)| v1::UserStats { user, counts: Some(counts) });
        Ok(v1::LayerStatsResponse { steps: steps.collect(), users: users.collect(), total: Some(total) })
    }
}
