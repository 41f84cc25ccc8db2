//! Merges the parts that coordinators keep of a step's record into one record. Pure.
//!
//! Invariant: the order of the parts does not matter, and a single part merges to itself, so coordinators that see the
//! same parts show the same record.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use kiln_proto::v1::{StepLayers, StepRun, StoredLayer};

use super::record::{MISSED, add, last_use_ms};

/// Merges the parts of one step's record.
pub(super) fn merge<'a>(parts: impl IntoIterator<Item = &'a StepLayers>) -> StepLayers {
    let mut merged = StepLayers::default();
    let mut layers: BTreeMap<&str, StoredLayer> = BTreeMap::new();
    let mut count = 0_usize;
    for part in parts {
        count = count.saturating_add(1);
        for (user, counts) in &part.users {
            add(merged.users.entry(user.clone()).or_default(), counts);
        }
        for layer in &part.layers {
            match layers.entry(&layer.action) {
                Entry::Vacant(free) => drop(free.insert(layer.clone())),
                Entry::Occupied(mut known) => merge_layer(known.get_mut(), layer),
            }
        }
        newest(&mut merged.good, &part.good, |point| (point.at_ms, point.action.clone()));
        newest(&mut merged.last, &part.last, |run| (run.at_ms, run.build.clone(), run.action.clone()));
        if merged.step.is_none() {
            merged.step.clone_from(&part.step);
            merged.project.clone_from(&part.project);
        }
        merged.missed.extend(part.missed.iter().cloned());
        if count == 1 {
            merged.layers.clone_from(&part.layers);
        }
    }
    if count > 1 {
        merged.missed.sort_by(|one, other| place(one).cmp(&place(other)));
        let over = merged.missed.len().saturating_sub(MISSED);
        merged.missed.drain(..over);
        merged.layers = layers.into_values().map(settle).collect();
        merged.layers.sort_by_key(|layer| last_use_ms(layer).max(layer.pruned_ms));
    }
    merged
}

/// Where a run is among others.
fn place(run: &StepRun) -> (i64, &str, &str) {
    (run.at_ms, &run.build, &run.action)
}

/// When anything in a record last changed, in milliseconds since the epoch.
pub(super) fn newest_ms(record: &StepLayers) -> i64 {
    let layers = record.layers.iter().map(|layer| last_use_ms(layer).max(layer.pruned_ms));
    layers.chain(record.last.iter().map(|last| last.at_ms)).max().unwrap_or_default()
}

fn newest<T: Clone, K: Ord>(known: &mut Option<T>, other: &Option<T>, place: impl Fn(&T) -> K) {
    if other.as_ref().map(&place) > known.as_ref().map(&place) {
        known.clone_from(other);
    }
}

fn merge_layer(known: &mut StoredLayer, other: &StoredLayer) {
    let mut counts = known.counts.unwrap_or_default();
    add(&mut counts, &other.counts.unwrap_or_default());
    let last_hit_ms = known.last_hit_ms.max(other.last_hit_ms);
    let pruned_ms = known.pruned_ms.max(other.pruned_ms);
    // The description of the result comes from whoever made it last.
    let made = |layer: &StoredLayer| (layer.created_ms, layer.user.clone(), layer.ingredients.clone());
    if made(other) > made(known) {
        known.clone_from(other);
    }
    known.counts = Some(counts);
    (known.last_hit_ms, known.pruned_ms) = (last_hit_ms, pruned_ms);
}

/// A result that was used after it was pruned is cached again.
fn settle(mut layer: StoredLayer) -> StoredLayer {
    if last_use_ms(&layer) > layer.pruned_ms {
        layer.pruned_ms = 0;
    }
    layer
}

#[cfg(test)]
mod tests {
    use kiln_proto::v1::{LayerCounts, LayerPoint};

    use super::*;

    fn counts(hits: u64, misses: u64) -> LayerCounts {
        LayerCounts { hits, misses, ..LayerCounts::default() }
    }

    fn layer(action: &str, created_ms: i64, last_hit_ms: i64, pruned_ms: i64) -> StoredLayer {
        let user = format!("maker {created_ms}");
        let counts = Some(counts(1, 2));
        StoredLayer { action: action.into(), created_ms, last_hit_ms, pruned_ms, user, counts, ..Default::default() }
    }

    fn part(layers: &[StoredLayer], at_ms: i64, user: &str) -> StepLayers {
        StepLayers {
            project: "p".into(),
            layers: layers.to_vec(),
            last: Some(StepRun { at_ms, build: format!("{at_ms}"), ..Default::default() }),
            missed: vec![StepRun { at_ms, build: format!("{at_ms}"), ..Default::default() }],
            good: Some(LayerPoint { at_ms, ..Default::default() }),
            users: [(user.to_owned(), counts(1, 1))].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_part_alone_is_its_own_merge() {
        let one = part(&[layer("b", 3, 0, 3), layer("a", 1, 2, 0)], 5, "ann");
        assert_eq!(merge([&one]), one);
    }

    #[test]
    fn parts_add_up_whatever_their_order() {
        let one = part(&[layer("a", 1, 5, 0), layer("b", 2, 0, 0)], 5, "ann");
        let two = part(&[layer("a", 3, 4, 0)], 9, "ann");
        let three = part(&[], 7, "bob");
        let merged = merge([&one, &two, &three]);
        assert_eq!(merged, merge([&three, &two, &one]));
        let a = merged.layers.iter().find(|layer| layer.action == "a").unwrap();
        assert_eq!((a.created_ms, a.last_hit_ms, a.user.as_str(), a.counts), (3, 5, "maker 3", Some(counts(2, 4))));
        assert_eq!((merged.last.unwrap().at_ms, merged.good.unwrap().at_ms), (9, 9));
        assert_eq!(merged.missed.iter().map(|run| run.at_ms).collect::<Vec<_>>(), [5, 7, 9]);
        assert_eq!((merged.users["ann"], merged.users["bob"]), (counts(2, 2), counts(1, 1)));
    }

    #[test]
    fn what_one_coordinator_pruned_is_pruned_until_another_uses_it_again() {
        let mark = |at| part(&[StoredLayer { counts: None, ..layer("a", 1, 0, at) }], 1, "ann");
        let used = part(&[layer("a", 1, 5, 0)], 5, "ann");
        assert_eq!(merge([&mark(6), &used]).layers[0].pruned_ms, 6);
        assert_eq!(merge([&mark(4), &used]).layers[0].pruned_ms, 0);
    }
}
