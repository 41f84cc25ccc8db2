//! Prunes step results that were not used recently.
//!
//! Invariant: a result is removed from the action cache only if no remaining step result has the same action, so
//! pruning one project never makes another one miss.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use kiln_proto::digest::Digest;
use kiln_proto::v1::{self, StepLayers, StoredLayer};

use super::list::{Row, rows};
use super::record::{self, last_use_ms};
use super::{Error, Layers, is_of, now_ms};

/// How long a pruned step result is remembered, so that a miss can be explained: 30 days.
const REMEMBERED_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// Which step results are pruned.
#[derive(Debug, Clone)]
pub struct Prune {
    /// Empty for every project.
    pub project: String,
    /// Empty for every step.
    pub step: String,
    /// Last used, or made, at least this long ago.
    pub older_than: Duration,
    /// Only report what would be pruned.
    pub dry_run: bool,
}

impl Layers {
    /// Prunes step results and returns them.
    pub async fn prune(&self, instance: &str, prune: &Prune) -> Result<v1::PruneLayersResponse, Error> {
        self.settle().await;
        let _writing = self.shared.writing.lock().await;
        if let Some(why) = self.shared.records.hindrance().filter(|_| !prune.dry_run) {
            return Err(Error::Hindered(why));
        }
        let known = self.shared.records.list(instance).await?;
        let records: Vec<(String, StepLayers)> = known.iter().map(|(key, known)| (key.clone(), known.all())).collect();
        let now = now_ms();
        let bound = now.saturating_sub(i64::try_from(prune.older_than.as_millis()).unwrap_or(i64::MAX));
        let mut rows = rows(&records);
        let is_old = |row: &Row| row.is_of(&prune.project, &prune.step) && last_use_ms(&row.layer) <= bound;
        let stay: HashSet<String> =
            rows.iter().filter(|row| !is_old(row)).map(|row| row.layer.action.clone()).collect();
        let goes = |row: &Row| is_old(row) && !stay.contains(&row.layer.action);
        let freeable_bytes = self.measure(instance, &mut rows, goes).await?;
        let shared = rows.iter().filter(|row| is_old(row) && !goes(row)).count() as u32;
        let gone: Vec<Row> = rows.into_iter().filter(goes).collect();
        let mut freed_bytes = 0;
        if !prune.dry_run {
            let stores = &self.shared.stores;
            let mut blobs = HashSet::new();
            for action in gone.iter().filter_map(|row| row.layer.action.parse::<Digest>().ok()) {
                if let Some(result) = stores.actions.get(instance, &action).await? {
                    blobs.extend(stores.collector.named_by(&action, &result).await?);
                }
                stores.actions.remove(instance, &action).await?;
            }
            let of_step =
                known.into_iter().zip(&records).filter(|(_, (_, all))| is_of(all, &prune.project, &prune.step));
            let (forgotten, changed) =
                write_down(of_step.map(|((key, known), (_, all))| (key, known.own, all)), &gone, now);
            self.shared.records.remove(instance, &forgotten).await?;
            self.shared.records.put(instance, changed).await?;
            freed_bytes = stores.collector.free(blobs.into_iter().collect()).await?.bytes;
        }
        let layers = gone.iter().map(Row::to_wire).collect();
        Ok(v1::PruneLayersResponse { layers, freeable_bytes, freed_bytes, shared })
    }
}

/// What pruning does to records, each given with its key, this coordinator's part and the merged record. Returns the
/// keys of those not worth keeping any more, and the parts that changed.
fn write_down<'a>(
    records: impl Iterator<Item = (String, StepLayers, &'a StepLayers)>,
    gone: &[Row],
    now: i64,
) -> (Vec<String>, Vec<(String, StepLayers)>) {
    let mut actions: HashMap<&str, Vec<&str>> = HashMap::new();
    gone.iter().for_each(|row| actions.entry(&row.key).or_default().push(&row.layer.action));
    let is_remembered =
        |layer: &StoredLayer| layer.pruned_ms == 0 || now.saturating_sub(layer.pruned_ms) < REMEMBERED_MS;
    let (mut forgotten, mut changed) = (Vec::new(), Vec::new());
    for (key, own, all) in records {
        let last_ms = all.last.as_ref().map_or(0, |last| last.at_ms);
        if !all.layers.iter().any(is_remembered) && now.saturating_sub(last_ms) >= REMEMBERED_MS {
            forgotten.push(key);
            continue;
        }
        let mut after = own.clone();
        after.layers.retain(is_remembered);
        for action in actions.get(key.as_str()).into_iter().flatten() {
            record::prune(&mut after, all, action, now);
        }
        if after != own {
            after.project.clone_from(&all.project);
            after.step.clone_from(&all.step);
            changed.push((key, after));
        }
    }
    (forgotten, changed)
}
