//! What `kiln cache explain` says of a step's compiler calls: which missed and why, and which were not split.

use kiln_proto::v1;
use kiln_proto::v1::call_miss::Why;
use kiln_terminal::{Table, fixed, flexible};
use serde_json::{Value, json};

/// A paragraph; empty if there were no calls.
pub(crate) fn words(calls: &v1::SplitCalls) -> String {
    let refused: u64 = calls.refused.values().sum();
    let compiled = calls.compiled.saturating_add(calls.elsewhere);
    let all = calls.hits.saturating_add(compiled).saturating_add(refused);
    if all == 0 {
        return String::new();
    }
    let mut out =
        format!("  compiler calls: {all}, of which {} cached, {compiled} compiled, {refused} not split\n", calls.hits);
    if !calls.missed.is_empty() {
        let columns = [fixed("  compiled"), flexible("why"), flexible("file")];
        let rows = calls
            .missed
            .iter()
            .map(|missed| vec![format!("  {}", missed.source), why(missed.why()).to_owned(), missed.path.clone()]);
        out.push_str(&Table::new(&columns).with(rows).for_stdout());
        let more = compiled.saturating_sub(calls.missed.len() as u64);
        if more > 0 {
            out.push_str(&format!("  and {more} more\n"));
        }
    }
    if !calls.refused.is_empty() {
        let columns = [fixed("  not split"), fixed("calls"), flexible("such as")];
        let mut reasons: Vec<(&String, &u64)> = calls.refused.iter().collect();
        reasons.sort_by_key(|(reason, count)| (std::cmp::Reverse(**count), (*reason).clone()));
        let rows = reasons.into_iter().map(|(reason, count)| {
            let example = calls.examples.get(reason).cloned().unwrap_or_else(|| meaning(reason).to_owned());
            vec![format!("  {}", reason.replace('_', " ")), count.to_string(), example]
        });
        out.push_str(&Table::new(&columns).with(rows).for_stdout());
    }
    out
}

/// Why a call was compiled.
fn why(why: Why) -> &'static str {
    match why {
        Why::First => "never compiled before",
        Why::Changed => "changed",
        Why::Missing => "is gone",
        Why::Appeared => "is new",
        Why::Listing => "has other files",
        Why::Gone => "its result was evicted",
        Why::Unspecified => "unknown",
    }
}

/// Reasons that are not in a call's own words: what the worker found out while it answered.
fn meaning(reason: &str) -> &'static str {
    match reason {
        "barred" => "its cached result was found to be wrong",
        "changed_meanwhile" => "a file changed while the call ran",
        "clock" => "`SOURCE_DATE_EPOCH` is not set",
        "differs" => "it would have seen other files than in the step",
        "does_not_pay" => "splitting took longer than it saved",
        "failed" => "the compiler failed, and ran again in the step",
        "mounted" => "it reads what is mounted in the step",
        "outside" => "source, output or working directory is not in the step's inputs",
        "own_compiler" => "the compiler is the step's own",
        "reads_tmp" => "it reads files in `/tmp`",
        "too_large" => "it printed too much or has too many inputs",
        "unforeseen_output" => "it wrote a file that its arguments do not name",
        "unrecorded" => "what it read could not be recorded",
        _ => "",
    }
}

/// The same for scripts.
pub(crate) fn object(calls: &v1::SplitCalls) -> Value {
    let missed = calls.missed.iter().map(|missed| {
        let path = (!missed.path.is_empty()).then_some(&missed.path);
        json!({ "source": missed.source, "why": missed.why().as_str_name().to_lowercase(), "path": path })
    });
    let sorted = |map: &std::collections::HashMap<String, u64>| {
        map.iter().map(|(name, count)| (name.clone(), *count)).collect::<std::collections::BTreeMap<_, _>>()
    };
    json!({
        "hits": calls.hits,
        "compiled": calls.compiled,
        "elsewhere": calls.elsewhere,
        "missed": missed.collect::<Vec<_>>(),
        "refused": sorted(&calls.refused),
        "examples": calls.examples.iter().collect::<std::collections::BTreeMap<_, _>>(),
        "verified": sorted(&calls.verified),
    })
}
