//! What verifications of an artifact found: whether its steps made the same again, and what differs.

use kiln_proto::v1::{FileDifference, Reproduced, Reproducibility};
use maud::{Markup, html};

use crate::{encoded, words};

fn word(outcome: Reproduced) -> (&'static str, &'static str) {
    match outcome {
        Reproduced::Same => ("succeeded", "reproduced"),
        Reproduced::Different => ("failed", "different"),
        Reproduced::NotRun | Reproduced::Unspecified => ("running", "not verified"),
    }
}

/// What the latest verification found, in a word; nothing if there was none.
pub fn badge(found: &[Reproducibility]) -> Markup {
    let Some(latest) = found.first() else { return Markup::default() };
    let (class, word) = word(latest.outcome());
    html! { span class={ "badge " (class) } { (word) } }
}

/// A section with all verifications, the latest first; nothing if there are none.
pub fn section(found: &[Reproducibility]) -> Markup {
    if found.is_empty() {
        return Markup::default();
    }
    html! {
        section #reproduced aria-labelledby="reproduced-title" {
            h2 #reproduced-title { "Reproducibility" }
            div .scroll { table {
                thead { tr { th { "Outcome" } th { "What ran again" } th { "Build" } th { "When" } } }
                tbody { @for one in found { (row(one)) } }
            } }
            @if let Some(latest) = found.first() { (differences(latest)) }
        }
    }
}

fn row(one: &Reproducibility) -> Markup {
    let (class, word) = word(one.outcome());
    html! {
        tr {
            td { span class={ "badge " (class) } { (word) } }
            td {
                @if one.rebuilt {
                    "everything, from its sources"
                    @if !one.artifact.is_empty() { ": " a href={ "/artifacts/" (encoded(&one.artifact)) } { (one.artifact) } }
                } @else {
                    (one.compared) @if one.sampled > 0 { " of " (one.sampled) } " steps"
                    @if one.different > 0 { ", " (one.different) " made something else" }
                }
            }
            td { a href={ "/builds/" (encoded(&one.build)) } { (words::short(&one.build, 13)) } }
            td { @if let Some(at) = &one.at { (words::ago(at)) } }
        }
    }
}

fn differences(latest: &Reproducibility) -> Markup {
    let steps = latest.steps.iter().flat_map(|step| {
        let name = step.step.as_ref().map(|step| step.step.as_str()).unwrap_or_default();
        step.differences.iter().map(move |one| (name, one))
    });
    let all: Vec<(&str, &FileDifference)> = steps.chain(latest.differences.iter().map(|one| ("", one))).collect();
    html! {
        @if !all.is_empty() {
            div .scroll { table {
                thead { tr { th { "Step" } th { "File" } th { "What differs" } } }
                tbody { @for (step, one) in all {
                    tr { td { (step) } td { code { (one.path) } } td { span .words { (words::quoted(&one.words)) } } }
                } }
            } }
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_proto::v1::{ReproducedStep, StepRef};

    use super::*;

    #[test]
    fn each_verification_has_a_row_and_the_latest_its_differences() {
        let difference =
            FileDifference { path: "a<b".into(), words: "line 1: time stamp `1`".into(), ..Default::default() };
        let step = StepRef { step: "compile".into(), ..StepRef::default() };
        let steps = vec![ReproducedStep { step: Some(step), differences: vec![difference], ..Default::default() }];
        let outcome = Reproduced::Different.into();
        let latest = Reproducibility { outcome, steps, compared: 3, different: 1, ..Default::default() };
        let first = Reproducibility { outcome: Reproduced::Same.into(), rebuilt: true, ..Default::default() };
        let shown = section(&[latest.clone(), first]).into_string();
        for words in [
            ">different<",
            "3 steps, 1 made something else",
            ">reproduced<",
            "from its sources",
            "a&lt;b",
            "<code>1</code>",
        ] {
            assert!(shown.contains(words), "expected `{words}` in {shown}");
        }
        assert!(badge(&[latest]).into_string().contains("different"));
        assert_eq!(section(&[]).into_string() + &badge(&[]).into_string(), "");
    }
}
