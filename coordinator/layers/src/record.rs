//! Updates a step's record after another run. Pure: time is a parameter.

use kiln_proto::v1::step_finished::Cache;
use kiln_proto::v1::step_run::Reason;
use kiln_proto::v1::{LayerCounts, LayerPoint, SplitCalls, StepLayers, StepRun, StoredLayer};

/// Results of one step on one target that are kept: branches built in alternation each have one.
const LAYERS: usize = 16;
/// Runs without a result that are remembered.
pub(super) const MISSED: usize = 12;
/// Pruned results that are remembered.
const PRUNED: usize = 64;
/// Users that are counted individually; the rest are counted together.
const USERS: usize = 64;
/// The name for users beyond [`USERS`].
const OTHERS: &str = "others";

/// The facts about a run that the record needs.
#[derive(Debug, Clone, Default)]
pub(super) struct Run {
    pub(super) build: String,
    pub(super) user: String,
    pub(super) action: String,
    pub(super) cache: Cache,
    pub(super) ok: bool,
    pub(super) no_cache: bool,
    pub(super) cacheable: bool,
    pub(super) again: bool,
    pub(super) environment: String,
    pub(super) os: String,
    pub(super) at_ms: i64,
    pub(super) size_bytes: u64,
    pub(super) ingredients: String,
    pub(super) calls: Option<SplitCalls>,
}

/// Adds a run to this coordinator's part of the record. `all` is the merged record before it.
pub(super) fn apply(record: &mut StepLayers, all: &StepLayers, run: &Run) {
    let (reason, reason_at_ms) = reason(all, run);
    let base = all.good.clone();
    count(user(record, &run.user), run);
    if run.ok && run.cacheable {
        use_layer(record, all, run);
    }
    if run.ok {
        record.good =
            Some(LayerPoint { action: run.action.clone(), ingredients: run.ingredients.clone(), at_ms: run.at_ms });
    }
    let last = StepRun {
        build: run.build.clone(),
        user: run.user.clone(),
        action: run.action.clone(),
        cache: run.cache as i32,
        ok: run.ok,
        at_ms: run.at_ms,
        reason: reason as i32,
        reason_at_ms,
        ingredients: run.ingredients.clone(),
        base,
        calls: run.calls.clone(),
    };
    if run.cache != Cache::Hit {
        record.missed.push(StepRun { calls: None, ..last.clone() });
        let over = record.missed.len().saturating_sub(MISSED);
        record.missed.drain(..over);
    }
    record.last = Some(last);
}

/// Why a run was not a hit, and since when.
fn reason(record: &StepLayers, run: &Run) -> (Reason, i64) {
    if run.cache == Cache::Hit {
        return (Reason::Unspecified, 0);
    }
    if run.no_cache {
        return (Reason::NoCache, 0);
    }
    if !run.cacheable {
        return (Reason::NotCached, 0);
    }
    if run.again {
        return (Reason::RunAgain, 0);
    }
    if let Some(layer) = record.layers.iter().find(|layer| layer.action == run.action) {
        return match layer.pruned_ms {
            0 => (Reason::Evicted, 0),
            at => (Reason::Pruned, at),
        };
    }
    match (&record.last, &record.good) {
        (Some(last), _) if last.action == run.action && !last.ok => (Reason::FailedBefore, last.at_ms),
        (_, None) => (Reason::First, 0),
        (_, Some(good)) if good.action != run.action => (Reason::Changed, 0),
        _ => (Reason::Evicted, 0),
    }
}

fn use_layer(record: &mut StepLayers, all: &StepLayers, run: &Run) {
    let mut layer = take_layer(record, all, &run.action);
    if layer.created_ms == 0 || run.cache == Cache::Miss {
        layer.created_ms = run.at_ms;
        layer.user.clone_from(&run.user);
    }
    layer.action.clone_from(&run.action);
    layer.environment.clone_from(&run.environment);
    layer.os.clone_from(&run.os);
    layer.ingredients.clone_from(&run.ingredients);
    layer.size_bytes = run.size_bytes;
    layer.pruned_ms = 0;
    if run.cache == Cache::Hit {
        layer.last_hit_ms = run.at_ms;
    }
    count(layer.counts.get_or_insert_default(), run);
    record.layers.push(layer);
    bound(record);
}

/// Marks a result as pruned in this coordinator's part of the record.
pub(super) fn prune(record: &mut StepLayers, all: &StepLayers, action: &str, at_ms: i64) {
    let mut layer = take_layer(record, all, action);
    action.clone_into(&mut layer.action);
    layer.pruned_ms = at_ms;
    record.layers.push(layer);
    bound(record);
}

/// Removes a result from this coordinator's part and returns it; if only others have it, returns theirs without its
/// counts.
fn take_layer(record: &mut StepLayers, all: &StepLayers, action: &str) -> StoredLayer {
    if let Some(index) = record.layers.iter().position(|layer| layer.action == action) {
        return record.layers.remove(index);
    }
    let known = all.layers.iter().find(|layer| layer.action == action).cloned();
    StoredLayer { counts: None, ..known.unwrap_or_default() }
}

/// Drops the oldest entries beyond the limits.
fn bound(record: &mut StepLayers) {
    for (pruned, most) in [(false, LAYERS), (true, PRUNED)] {
        let mut over =
            record.layers.iter().filter(|layer| (layer.pruned_ms > 0) == pruned).count().saturating_sub(most);
        record.layers.retain(|layer| {
            let goes = over > 0 && (layer.pruned_ms > 0) == pruned;
            over = over.saturating_sub(usize::from(goes));
            !goes
        });
    }
}

fn user<'a>(record: &'a mut StepLayers, user: &str) -> &'a mut LayerCounts {
    let known = record.users.contains_key(user) || record.users.len() < USERS;
    record.users.entry(if known { user } else { OTHERS }.to_owned()).or_default()
}

fn count(counts: &mut LayerCounts, run: &Run) {
    match run.cache {
        Cache::Hit => {
            counts.hits = counts.hits.saturating_add(1);
            counts.saved_bytes = counts.saved_bytes.saturating_add(run.size_bytes);
        }
        Cache::Miss => counts.misses = counts.misses.saturating_add(1),
        Cache::Merged => counts.merged = counts.merged.saturating_add(1),
    }
}

/// Adds `counts` to `sum`.
pub(super) fn add(sum: &mut LayerCounts, counts: &LayerCounts) {
    sum.hits = sum.hits.saturating_add(counts.hits);
    sum.misses = sum.misses.saturating_add(counts.misses);
    sum.merged = sum.merged.saturating_add(counts.merged);
    sum.saved_bytes = sum.saved_bytes.saturating_add(counts.saved_bytes);
}

/// When a result was last used, or made.
pub(super) fn last_use_ms(layer: &StoredLayer) -> i64 {
    layer.last_hit_ms.max(layer.created_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(action: &str, cache: Cache, at_ms: i64) -> Run {
        Run {
            user: "ann".into(),
            action: action.into(),
            cache,
            ok: true,
            cacheable: true,
            at_ms,
            size_bytes: 10,
            ingredients: format!("of {action}"),
            ..Default::default()
        }
    }

    /// As on a coordinator that shares its records with no other.
    fn apply_alone(record: &mut StepLayers, run: &Run) {
        let all = record.clone();
        apply(record, &all, run);
    }

    fn after(runs: &[Run]) -> StepLayers {
        let mut record = StepLayers::default();
        runs.iter().for_each(|run| apply_alone(&mut record, run));
        record
    }

    fn reason_of(runs: &[Run]) -> Reason {
        after(runs).last.unwrap().reason()
    }

    #[test]
    fn each_reason_of_a_miss_is_told_from_the_others() {
        use Cache::{Hit, Miss};
        let failed = Run { ok: false, ..run("a", Miss, 1) };
        assert_eq!(reason_of(&[run("a", Miss, 1)]), Reason::First);
        assert_eq!(reason_of(&[run("a", Miss, 1), run("a", Hit, 2)]), Reason::Unspecified);
        assert_eq!(reason_of(&[run("a", Miss, 1), run("b", Miss, 2)]), Reason::Changed);
        assert_eq!(reason_of(&[run("a", Miss, 1), run("b", Miss, 2), run("a", Miss, 3)]), Reason::Evicted);
        assert_eq!(reason_of(&[failed.clone(), run("a", Miss, 2)]), Reason::FailedBefore);
        assert_eq!(reason_of(&[failed, run("b", Miss, 2)]), Reason::First);
        let no_cache = Run { no_cache: true, ..run("a", Miss, 2) };
        assert_eq!(reason_of(&[run("a", Miss, 1), no_cache]), Reason::NoCache);
        let not_cached = Run { cacheable: false, ..run("a", Miss, 2) };
        assert_eq!(reason_of(&[not_cached.clone(), not_cached]), Reason::NotCached);
        let again = Run { again: true, ..run("a", Miss, 2) };
        assert_eq!(reason_of(&[run("a", Hit, 1), again]), Reason::RunAgain);
        let mut record = after(&[run("a", Miss, 1)]);
        record.layers[0].pruned_ms = 5;
        apply_alone(&mut record, &run("a", Miss, 9));
        let last = record.last.unwrap();
        assert_eq!((last.reason(), last.reason_at_ms, record.layers[0].pruned_ms), (Reason::Pruned, 5, 0));
    }

    #[test]
    fn a_miss_is_compared_with_the_last_success_and_not_with_a_failure() {
        let failed = Run { ok: false, ..run("b", Cache::Miss, 2) };
        let record = after(&[run("a", Cache::Miss, 1), failed, run("c", Cache::Miss, 3)]);
        assert_eq!(record.last.unwrap().base.unwrap().ingredients, "of a");
        assert_eq!(record.good.unwrap().ingredients, "of c");
    }

    #[test]
    fn counts_add_up_and_what_is_not_cached_is_no_layer() {
        let other = Run { user: "bob".into(), ..run("a", Cache::Hit, 3) };
        let not_cached = Run { cacheable: false, ..run("z", Cache::Miss, 4) };
        let record = after(&[run("a", Cache::Miss, 1), run("a", Cache::Hit, 2), other, not_cached]);
        assert_eq!(record.layers.len(), 1);
        let counts = record.layers[0].counts.unwrap();
        assert_eq!((counts.hits, counts.misses, counts.saved_bytes), (2, 1, 20));
        assert_eq!((record.users["ann"].misses, record.users["bob"].saved_bytes), (2, 10));
        assert_eq!((record.layers[0].created_ms, record.layers[0].last_hit_ms), (1, 3));
    }

    #[test]
    fn what_another_coordinator_did_explains_a_miss_and_is_counted_once() {
        let theirs = after(&[run("a", Cache::Miss, 1)]);
        let mut own = StepLayers::default();
        apply(&mut own, &theirs, &Run { user: "bob".into(), ..run("a", Cache::Hit, 2) });
        let layer = &own.layers[0];
        assert_eq!((layer.created_ms, layer.user.as_str(), layer.last_hit_ms), (1, "ann", 2));
        assert_eq!(layer.counts.map(|counts| (counts.hits, counts.misses)), Some((1, 0)));
        apply(&mut own, &theirs, &run("b", Cache::Miss, 3));
        let last = own.last.unwrap();
        assert_eq!((last.reason(), last.base.unwrap().ingredients.as_str()), (Reason::Changed, "of a"));
    }

    #[test]
    fn the_last_runs_without_a_result_are_remembered() {
        let runs: Vec<Run> = (0..30)
            .map(|at| {
                let cache = if at % 2 == 0 { Cache::Hit } else { Cache::Miss };
                Run { build: format!("{at}"), calls: Some(SplitCalls::default()), ..run("a", cache, at) }
            })
            .collect();
        let record = after(&runs);
        let builds: Vec<&str> = record.missed.iter().map(|run| run.build.as_str()).collect();
        assert_eq!(builds, ["7", "9", "11", "13", "15", "17", "19", "21", "23", "25", "27", "29"]);
        assert!(record.missed.iter().all(|run| run.calls.is_none()) && record.last.unwrap().calls.is_some());
    }

    #[test]
    fn layers_and_users_are_bounded() {
        let runs: Vec<Run> = (0..200)
            .map(|index| Run { user: format!("user {index}"), ..run(&format!("{index}"), Cache::Miss, index) })
            .collect();
        let record = after(&runs);
        assert_eq!(record.layers.len(), LAYERS);
        assert_eq!(record.layers.last().unwrap().action, "199");
        assert_eq!(record.users.len(), USERS + 1);
        assert_eq!(record.users[OTHERS].misses, 200 - USERS as u64);
    }
}
