//! Where the time of an invocation went: the timing profile that Bazel uploads, as a waterfall.

use kiln_profile::{Profile, Span};
use kiln_proto::v1::{Invocation, InvocationStatus};
use maud::{Markup, html};

use crate::markup::words;
use crate::pages::Guest;
use crate::profiles::Profiles;

/// Parts of the critical path, and actions beside it, that are shown.
const PATH: usize = 40;
const ACTIONS: usize = 60;

/// The section about time; empty while the invocation runs, and without a profile.
pub(super) async fn section(profiles: &Profiles, guest: &Guest, invocation: &Invocation) -> Markup {
    let is_running = invocation.status() == InvocationStatus::InvocationRunning;
    let known = if is_running { None } else { profiles.of(&guest.client, &guest.identity.tenant, invocation).await };
    html! {
        div #timing {
            @match known.as_deref() {
                Some(Ok(profile)) => (waterfall(profile)),
                Some(Err(words)) => section aria-labelledby="timing-title" {
                    h2 #timing-title { "Time" }
                    p .dim { "The timing profile cannot be shown: " (words) }
                },
                None => {},
            }
        }
    }
}

fn waterfall(profile: &Profile) -> Markup {
    let rows = rows(profile);
    let beside = profile.actions.saturating_sub(rows.iter().filter(|row| !row.is_path).count() as u64);
    html! {
        section aria-labelledby="timing-title" {
            div .heading {
                h2 #timing-title { "Time" }
                ul .legend { li .queue { "phase" } li .run { "critical path" } li .inputs { "other action" } }
            }
            @if profile.is_cut { p .notice.odd { "The timing profile breaks off, or is larger than what is read; this is its beginning." } }
            ol .steps.rows.waterfall {
                @for phase in &profile.phases { (drawn(profile, phase, "phase", "queue")) }
                @for row in &rows {
                    (drawn(profile, &row.span, if row.is_path { "critical path" } else { "action" }, if row.is_path { "run" } else { "inputs" }))
                }
            }
            p .dim {
                (words::count(profile.actions, "action", "actions")) ", " (words::duration(milliseconds(profile.actions_took))) " together"
                @if beside > 0 && rows.len() < profile.actions as usize { "; the longest and the critical path are shown" }
            }
        }
    }
}

struct Row {
    span: Span,
    is_path: bool,
}

/// The longest parts of the critical path and the longest actions beside it, as they began.
fn rows(profile: &Profile) -> Vec<Row> {
    let longest = |spans: &[Span], most: usize, is_path: bool| {
        let mut spans: Vec<Span> = spans.iter().filter(|span| span.is_critical == is_path).cloned().collect();
        spans.sort_by_key(|span| std::cmp::Reverse(span.took));
        spans.truncate(most);
        spans.into_iter().map(move |span| Row { span, is_path })
    };
    let mut rows: Vec<Row> =
        longest(&profile.critical, PATH, true).chain(longest(&profile.longest, ACTIONS, false)).collect();
    // What the critical path has no target for, the action has.
    for row in rows.iter_mut().filter(|row| row.is_path) {
        if let Some(same) = profile.longest.iter().find(|span| span.name == row.span.name) {
            (row.span.target, row.span.mnemonic) = (same.target.clone(), same.mnemonic.clone());
        }
    }
    rows.sort_by(|one, other| one.span.cmp(&other.span));
    rows
}

fn drawn(profile: &Profile, span: &Span, kind: &str, class: &str) -> Markup {
    let total = milliseconds(profile.end - profile.begin).max(1);
    // Short ones would not be seen.
    let width = milliseconds(span.took).max(total / 400).max(1);
    let x = milliseconds(span.at - profile.begin).min(total.saturating_sub(width));
    html! {
        li {
            span .name title=(span.name) { (span.name) @if !span.target.is_empty() { span .dim { " " (span.target) } } }
            span .dim { (if span.mnemonic.is_empty() { kind } else { &span.mnemonic }) }
            svg .bar viewBox={ "0 0 " (total) " 10" } preserveAspectRatio="none" aria-hidden="true" {
                rect class=(class) x=(x) y="0" width=(width) height="10" {}
            }
            span .took { (words::duration(milliseconds(span.took))) }
        }
    }
}

fn milliseconds(micros: i64) -> u64 {
    u64::try_from(micros / 1000).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_profile_says_is_text_and_the_critical_path_is_drawn_once() {
        let span = |name: &str, at, took, is_critical| Span {
            at,
            took,
            name: name.to_owned(),
            target: String::new(),
            mnemonic: String::new(),
            is_critical,
        };
        let evil = "<script>window.attacked = true</script>";
        let profile = Profile {
            phases: vec![span("Launch", -1_000, 1_000, false)],
            critical: vec![span(evil, 0, 5_000_000, true)],
            longest: vec![span(evil, 0, 4_900_000, true), span("side", 10, 20, false)],
            actions: 2,
            begin: -1_000,
            end: 5_000_000,
            ..Profile::default()
        };
        let text = waterfall(&profile).into_string();
        assert!(!text.contains("<script") && text.contains("&lt;script&gt;"), "{text}");
        assert_eq!(text.matches("<rect").count(), 3, "{text}");
        assert!(!text.contains("style="), "{text}");
    }

    #[test]
    fn a_waterfall_is_bounded() {
        let spans = |is_critical| {
            let span = |at| Span {
                at,
                took: at,
                name: format!("a{at}"),
                target: String::new(),
                mnemonic: String::new(),
                is_critical,
            };
            (0..200).map(span).collect::<Vec<_>>()
        };
        let profile =
            Profile { critical: spans(true), longest: spans(false), actions: 9_000, end: 400, ..Profile::default() };
        assert_eq!(rows(&profile).len(), PATH + ACTIONS);
        assert!(waterfall(&profile).into_string().contains("the longest and the critical path"));
    }
}
