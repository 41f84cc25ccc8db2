//! Forgets layers that were not used lately.
//!
//! Invariant: a result leaves the action cache only where no layer that stays has the same action, so that pruning one project
//! never makes another one miss.

use std::collections::HashSet;
use std::time::Duration;

use kiln_proto::digest::Digest;
use kiln_proto::v1;

use super::list::{Row, rows};
use super::record::last_use_ms;
use super::{Error, Layers, is_of, now_ms};

/// How long it is remembered that a layer was pruned, so that a miss can be explained: 30 days.
const REMEMBERED_MS: i64 = 30 * 24 * 60 * 60 * 1000;

/// Which layers go.
#[derive(Debug, Clone)]
pub struct Prune {
    /// Empty: of every project.
    pub project: String,
    /// Empty: of every step.
    pub step: String,
    /// Last used, or made, at least so long ago.
    pub older_than: Duration,
    /// Only say what would go.
    pub dry_run: bool,
}

impl Layers {
    /// Forgets layers, and says which.
    pub async fn prune(&self, instance: &str, prune: &Prune) -> Result<v1::PruneLayersResponse, Error> {
        self.settle().await;
        let _writing = self.shared.writing.lock().await;
        let records = self.shared.records.list(instance).await?;
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
        if !prune.dry_run {
            for row in &gone {
                if let Ok(action) = row.layer.action.parse::<Digest>() {
                    self.shared.stores.actions.remove(instance, &action).await?;
                }
            }
            let gone: HashSet<(&str, &str)> =
                gone.iter().map(|row| (row.key.as_str(), row.layer.action.as_str())).collect();
            for (key, mut record) in
                records.into_iter().filter(|(_, record)| is_of(record, &prune.project, &prune.step))
            {
                let before = record.clone();
                record.layers.retain(|layer| layer.pruned_ms == 0 || now - layer.pruned_ms < REMEMBERED_MS);
                for layer in &mut record.layers {
                    if gone.contains(&(key.as_str(), layer.action.as_str())) {
                        layer.pruned_ms = now;
                    }
                }
                let last_ms = record.last.as_ref().map_or(0, |last| last.at_ms);
                if record.layers.is_empty() && now - last_ms >= REMEMBERED_MS {
                    self.shared.records.remove(instance, &key).await?;
                } else if record != before {
                    self.shared.records.put(instance, &key, &record).await?;
                }
            }
        }
        Ok(v1::PruneLayersResponse { layers: gone.iter().map(Row::to_wire).collect(), freeable_bytes, shared })
    }
}
