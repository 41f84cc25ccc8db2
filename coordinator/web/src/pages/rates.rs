//! How much of what builds asked for was known, over time: by the builds themselves, so that nothing has to be counted anew.

use kiln_proto::v1::{Build, ListRequest};
use maud::{Markup, html};
use serde::Serialize;

use super::Guest;
use crate::answer::Failure;
use crate::markup::drawing::{Drawing, Span};
use crate::markup::words;

/// Builds that are looked at, the newest.
const BUILDS: u32 = 500;
/// Maximum number of spans.
const SPANS: i64 = 30;
const HOUR: i64 = 3_600_000;
/// How long a span may be.
const LENGTHS: [i64; 6] = [HOUR, 4 * HOUR, 24 * HOUR, 7 * 24 * HOUR, 28 * 24 * HOUR, 364 * 24 * HOUR];

/// A span of time with the steps of the builds that began in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Rate {
    /// Milliseconds since 1970.
    pub(crate) from_ms: i64,
    pub(crate) until_ms: i64,
    pub(crate) builds: u64,
    pub(crate) steps: u64,
    pub(crate) hits: u64,
}

/// The rates of the newest builds, the oldest span first.
pub(crate) async fn of(guest: &Guest) -> Result<Vec<Rate>, Failure> {
    let request = ListRequest { limit: BUILDS, brief: true, ..ListRequest::default() };
    Ok(rates(&guest.client.builds().list(request).await?.into_inner().builds, words::now()))
}

fn rates(builds: &[Build], now: i64) -> Vec<Rate> {
    let counted: Vec<(i64, u64, u64)> = builds
        .iter()
        .filter_map(|build| {
            let (started, counts) = (words::milliseconds(build.started.as_ref()?), build.counts?);
            (counts.ended > 0 && started <= now).then_some((started, counts.ended.into(), counts.hits.into()))
        })
        .collect();
    let Some(first) = counted.iter().map(|(started, _, _)| *started).min() else { return Vec::new() };
    let length = LENGTHS
        .into_iter()
        .find(|length| (now - first) / length < SPANS - 1)
        .unwrap_or((now - first) / (SPANS - 1) + 1);
    // Whole hours and days.
    let begin = first.div_euclid(length) * length;
    let number = ((now - begin) / length + 1).clamp(1, SPANS + 1);
    let mut all: Vec<Rate> = (0..number)
        .map(|at| Rate { from_ms: begin + at * length, until_ms: begin + (at + 1) * length, ..Rate::default() })
        .collect();
    for (started, steps, hits) in counted {
        let at = usize::try_from((started - begin) / length).unwrap_or(0);
        if let Some(rate) = all.get_mut(at) {
            rate.builds += 1;
            rate.steps += steps;
            rate.hits += hits.min(steps);
        }
    }
    all
}

/// As a drawing; nothing if there are too few.
pub(super) fn drawn(rates: &[Rate]) -> Markup {
    let (steps, hits) = rates.iter().fold((0, 0), |(steps, hits), rate| (steps + rate.steps, hits + rate.hits));
    let (Some(first), Some(last)) = (rates.first(), rates.last()) else { return html! {} };
    let builds: u64 = rates.iter().map(|rate| rate.builds).sum();
    let percent = |rate: &Rate| words::percent(rate.hits, rate.steps);
    let span = |rate: &Rate| Span {
        begin: u64::try_from(rate.from_ms - first.from_ms).unwrap_or(0),
        end: u64::try_from(rate.until_ms - first.from_ms).unwrap_or(0),
        value: percent(rate),
        title: format!(
            "{}: {}% of {} in {}",
            words::minute(rate.from_ms),
            percent(rate),
            words::count(rate.steps, "step", "steps"),
            words::count(rate.builds, "build", "builds")
        ),
    };
    let drawing = Drawing {
        id: "hit-rate",
        title: "Hit rate",
        summary: format!(
            "{}% of {} in the last {}",
            words::percent(hits, steps),
            words::count(steps, "step", "steps"),
            words::count(builds, "build", "builds")
        ),
        spans: rates.iter().map(span).collect(),
        top: 100,
        top_words: "100%".to_owned(),
        edges: [words::minute(first.from_ms), words::minute(last.until_ms)],
        limit: None,
    };
    html! { div .drawings { (drawing.draw()) } }
}

#[cfg(test)]
mod tests {
    use kiln_proto::protobuf::Timestamp;
    use kiln_proto::v1::StepCounts;

    use super::*;

    fn build(hours_ago: i64, ended: u32, hits: u32) -> Build {
        let started = Some(Timestamp { seconds: (1_000 - hours_ago) * 3600, nanos: 0 });
        Build { started, counts: Some(StepCounts { steps: 9, ended, hits, failed: 0 }), ..Build::default() }
    }

    #[test]
    fn builds_are_counted_in_the_span_in_which_they_began() {
        let now = 1_000 * HOUR + 1;
        let all = rates(&[build(0, 4, 3), build(0, 2, 0), build(3, 5, 5), build(2, 0, 0)], now);
        let counted: Vec<(u64, u64, u64)> = all.iter().map(|rate| (rate.builds, rate.steps, rate.hits)).collect();
        assert_eq!(counted, [(1, 5, 5), (0, 0, 0), (0, 0, 0), (2, 6, 3)]);
        assert_eq!((all[0].from_ms, all[3].until_ms), (997 * HOUR, 1_001 * HOUR));
        assert!(drawn(&all).into_string().contains("72% of 11 steps in the last 3 builds"));
        assert_eq!((rates(&[], now), drawn(&[]).into_string()), (Vec::new(), String::new()));
    }

    #[test]
    fn any_age_gives_few_spans() {
        for age in [1, 40, 900, 20_000, 300_000, 3_000_000] {
            let all = rates(&[build(0, 1, 1), build(age, 1, 0)], 1_000 * HOUR);
            assert!(all.len() <= SPANS as usize + 1 && all.len() >= 2, "{age} hours: {}", all.len());
            assert_eq!(all.iter().map(|rate| rate.builds).sum::<u64>(), 2, "{age} hours");
        }
    }
}
