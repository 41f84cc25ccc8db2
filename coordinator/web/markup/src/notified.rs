//! The calls of webhooks about a build's end: which were accepted, which wait, which are not made any more, and why.

use kiln_proto::v1::Notification;
use kiln_proto::v1::notification::State;
use maud::{Markup, html};

use crate::words;

/// A section with all of them; nothing if there are none.
pub fn section(calls: &[Notification]) -> Markup {
    if calls.is_empty() {
        return Markup::default();
    }
    html! {
        section #notified aria-labelledby="notified-title" {
            h2 #notified-title { "Notifications" }
            div .scroll {
                table {
                    thead { tr { th { "State" } th { "Hook" } th { "Called" } th { "Told" } th { "Attempts" } th { "Last attempt" } } }
                    tbody { @for call in calls { (row(call)) } }
                }
            }
        }
    }
}

fn row(call: &Notification) -> Markup {
    let (class, state) = match (call.state(), call.attempts) {
        (State::Delivered, _) => ("succeeded", "accepted"),
        (State::GivenUp, _) => ("failed", "given up"),
        (State::Pending, 0) => ("running", "to be called"),
        (State::Pending, _) => ("running", "to be called again"),
    };
    html! {
        tr {
            td { span class={ "badge " (class) } { (state) } }
            td { @if call.hook.is_empty() { span .dim { "the project's" } } @else { (call.hook) } }
            td title=(call.id) { code { (call.to) } }
            td { (call.event.strip_prefix("build.").unwrap_or(&call.event)) }
            td .number { (call.attempts) }
            td {
                @if let Some(tried) = &call.tried { (words::ago(tried)) }
                @if !call.reason.is_empty() { " " span .words { (words::quoted(&call.reason)) } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_state_has_its_word_and_a_receivers_words_are_no_markup() {
        let call = |state: State, attempts: u32, reason: &str| Notification {
            to: "https://chat.example".into(),
            event: "build.failed".into(),
            state: state.into(),
            attempts,
            reason: reason.into(),
            ..Notification::default()
        };
        let shown = section(&[
            call(State::Delivered, 1, ""),
            call(State::Pending, 0, ""),
            call(State::Pending, 3, "answered `503` <b>"),
            call(State::GivenUp, 1, "answered `410`"),
        ])
        .into_string();
        for words in [
            ">accepted<",
            ">to be called<",
            ">to be called again<",
            ">given up<",
            "answered <code>503</code> &lt;b&gt;",
        ] {
            assert!(shown.contains(words), "expected `{words}` in {shown}");
        }
        assert_eq!(shown.matches("the project's").count(), 4);
        assert_eq!(section(&[]).into_string(), "");
    }
}
