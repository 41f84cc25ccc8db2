//! Messages about a waiting target.

use std::time::{Duration, SystemTime};

use kiln_proto::clock;
use kiln_proto::v1;
use serde_json::{Value, json};

use super::Board;
use kiln_terminal as terminal;

/// The line about what a target is waiting for; `None` if it no longer waits.
pub(super) fn waiting_words(board: &Board, waiting: &v1::Waiting) -> Option<String> {
    if waiting.what.is_empty() {
        return None;
    }
    let mut who = waiting.step.clone();
    if board.targets.len() > 1 {
        who = format!("{who} {}", board.target_label(&waiting.platform, &waiting.target)).trim().to_owned();
    }
    let who = if who.is_empty() { String::new() } else { format!("{who} | ") };
    let left = waiting.gives_up.and_then(|at| clock::read_timestamp(&at)).map(|at| {
        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
        // In whole seconds, so that equal waits produce equal lines.
        format!(" (gives up in {})", terminal::duration(Duration::from_secs(left.as_secs_f64().round() as u64)))
    });
    Some(format!("{who}waiting for {}{}", waiting.what, left.unwrap_or_default()))
}

/// The same for programs; `what` is empty if it no longer waits.
pub(super) fn object(waiting: &v1::Waiting) -> Value {
    json!({
        "type": "waiting",
        "step": waiting.step,
        "platform": waiting.platform,
        "target": waiting.target,
        "what": waiting.what,
        "ahead": waiting.ahead,
        "gives_up": waiting.gives_up.map(|at| clock::rfc3339(&at)),
    })
}
