//! Why a run found no result.

use kiln_proto::v1;
use kiln_proto::v1::step_finished::Cache;
use kiln_proto::v1::step_run::Reason;

use crate::time::ago;

/// The reason, for users.
pub(crate) fn words(explanation: &v1::Explanation, run: &v1::StepRun) -> String {
    if run.cache() == Cache::Hit {
        return "there is nothing to explain".to_owned();
    }
    let since = ago(run.reason_at_ms);
    let reason = match run.reason() {
        Reason::First => return "it has no earlier success on record".to_owned(),
        Reason::Changed => String::new(),
        Reason::Evicted => "its cached result, or a blob of it, was evicted or expired".to_owned(),
        Reason::Pruned => format!("its cached result was pruned {since} (`kiln cache prune`)"),
        Reason::NotCached => "it is never cached (`cache = false`)".to_owned(),
        Reason::NoCache => "the build ignored the cache (`--no-cache`)".to_owned(),
        Reason::FailedBefore => format!("the same action failed {since}, and failures are not cached"),
        Reason::RunAgain => "it had to run again: cached outputs of it were missing".to_owned(),
        Reason::Unspecified => "the reason is unknown".to_owned(),
    };
    let base = run.base.clone().unwrap_or_default();
    if base.action.is_empty() || base.action == run.action {
        return reason;
    }
    let then = ago(base.at_ms);
    let compared = match (explanation.forgotten, explanation.differences.is_empty()) {
        (true, _) => format!("its action differs from the one {then}, but the record of that one was evicted"),
        (false, true) => format!("its action differs from the one {then}, but nothing that is recorded differs"),
        (false, false) => format!("changed since its last hit or success, {then}:"),
    };
    if reason.is_empty() { compared } else { format!("{reason}; {compared}") }
}

/// The same in one word, for scripts.
pub(crate) fn word(reason: Reason) -> Option<&'static str> {
    Some(match reason {
        Reason::Unspecified => return None,
        Reason::First => "first",
        Reason::Changed => "changed",
        Reason::Evicted => "evicted",
        Reason::Pruned => "pruned",
        Reason::NotCached => "not_cached",
        Reason::NoCache => "no_cache",
        Reason::FailedBefore => "failed_before",
        Reason::RunAgain => "run_again",
    })
}
