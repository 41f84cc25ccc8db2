//! The actions that an invocation asked this farm for: a list on its page, and a page of each.

use axum::extract::{Path, State};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi::{self, Action, Command};
use kiln_proto::resource_name::{Compression, ReadName};
use kiln_proto::v1::{InvocationActionsRequest, InvocationActionsResponse, RemoteAction};
use maud::{Markup, html};
use prost::Message;

use super::printed;
use crate::answer::Failure;
use crate::blobs::part;
use crate::markup::{Section, encoded, words};
use crate::outputs::Ends;
use crate::pages::Guest;
use crate::site::Site;

/// Actions that are listed, and failed ones whose output is shown at once.
const ROWS: usize = 200;
const FAILED: usize = 10;
/// Largest message of an action, in bytes.
const MAX_MESSAGE: u64 = 4 << 20;
/// Arguments, and names of variables, that are shown.
const WORDS: usize = 2_000;

/// The actions of an invocation, read on from where the last look ended.
#[derive(Debug, Default)]
pub(super) struct Known {
    actions: Vec<RemoteAction>,
    /// Where the next ones begin.
    next: u64,
    /// There were more than the farm keeps.
    is_cut: bool,
}

impl Known {
    /// Reads those that have ended since the last time.
    pub(super) async fn read(&mut self, guest: &Guest, id: &str) -> Result<(), Failure> {
        let request = InvocationActionsRequest { id: id.to_owned(), from: self.next };
        let InvocationActionsResponse { actions, is_cut, next } =
            guest.client.invocations().actions(request).await?.into_inner();
        self.actions.extend(actions);
        (self.is_cut, self.next) = (is_cut, next);
        Ok(())
    }

    /// What says whether there are others than at another time.
    pub(super) fn state(&self) -> (u64, bool) {
        (self.next, self.is_cut)
    }
}

fn has_failed(action: &RemoteAction) -> bool {
    action.exit_code != 0 || !action.failure.is_empty()
}

/// What to call an action: what the tool says of it, or what it makes.
fn name(action: &RemoteAction) -> &str {
    let hash = action.action.as_ref().map(|digest| words::short(&digest.hash, 16)).unwrap_or_default();
    let names = [&action.target, &action.output, &action.mnemonic];
    names.into_iter().find(|name| !name.is_empty()).map_or(hash, String::as_str)
}

/// How it went, as a class and in words.
fn outcome(action: &RemoteAction) -> (&'static str, &'static str) {
    match action {
        action if has_failed(action) => ("failed", "failed"),
        action if action.is_hit => ("hit", "hit"),
        _ => ("ran", "ran"),
    }
}

/// The section about actions: those that failed first, then the longest.
pub(super) async fn section(ends: &Ends, guest: &Guest, id: &str, known: &Known) -> Markup {
    let Known { actions, is_cut, .. } = known;
    let mut order: Vec<(usize, &RemoteAction)> = actions.iter().enumerate().collect();
    order.sort_by_key(|(number, action)| (!has_failed(action), std::cmp::Reverse(action.run_ms), *number));
    let mut shown = Vec::new();
    for (place, (number, action)) in order.iter().take(ROWS).enumerate() {
        shown.push(row(id, *number, action));
        if place < FAILED && has_failed(action) {
            let output = output(ends, guest, action).await;
            shown.push(html! { li .told { (output) } });
        }
    }
    let hits = actions.iter().filter(|action| action.is_hit).count() as u64;
    html! {
        div #actions {
            @if !actions.is_empty() {
                section aria-labelledby="actions-title" {
                    h2 #actions-title { "Actions on the farm" }
                    p .dim {
                        (words::count(actions.len() as u64, "action", "actions")) ", " (words::count(hits, "cache hit", "cache hits"))
                        @if *is_cut { "; there were more than the farm keeps" }
                    }
                    ol .steps.rows { @for row in shown { (row) } }
                    @if actions.len() > ROWS { p .dim { "and " (words::grouped((actions.len() - ROWS) as u64)) " more" } }
                }
            }
        }
    }
}

fn row(id: &str, number: usize, action: &RemoteAction) -> Markup {
    let (class, word) = outcome(action);
    html! {
        li class=(class) {
            a .name href={ "/invocations/" (encoded(id)) "/actions/" (number + 1) } {
                (name(action)) @if name(action) != action.mnemonic { span .dim { " " (action.mnemonic) } }
            }
            span .outcome { (word) }
            span .dim {
                (action.worker)
                @if action.queued_ms > 0 { " after " (words::duration(action.queued_ms)) " in the queue" }
            }
            span .took { @if !action.is_hit { (words::duration(action.run_ms)) } }
        }
    }
}

/// What it printed, with what it failed of.
async fn output(ends: &Ends, guest: &Guest, action: &RemoteAction) -> Markup {
    let mut texts = Vec::new();
    for digest in [&action.stderr, &action.stdout].into_iter().flatten() {
        if let Some(name) = resource(action, digest)
            && let Some(end) = ends.of(&guest.client, &guest.identity.tenant, &name).await
        {
            texts.push(printed(&end));
        }
    }
    html! {
        @if !action.failure.is_empty() { p .words { (action.failure) } }
        @for text in texts { (text) }
    }
}

/// The name of a blob of an action.
fn resource(action: &RemoteAction, digest: &reapi::Digest) -> Option<ReadName> {
    let function = DigestFunction::from_wire(action.digest_function).ok()?;
    let digest = Digest::from_wire(function, digest).ok()?;
    (digest.size > 0).then(|| ReadName {
        instance: action.instance.clone(),
        digest,
        compression: Compression::Identity,
    })
}

/// The page of an action.
pub(crate) async fn page(
    State(site): State<Site>,
    guest: Guest,
    Path((id, number)): Path<(String, usize)>,
) -> Result<Markup, Failure> {
    let mut known = Known::default();
    known.read(&guest, &id).await?;
    let absent = || Failure::not_found("The invocation has no such action.");
    let action = number.checked_sub(1).and_then(|number| known.actions.get(number)).ok_or_else(absent)?;
    let (class, word) = outcome(action);
    let (command, output) = (command(&guest, action).await, output(&site.ends, &guest, action).await);
    let content = html! {
        nav .crumbs aria-label="Where you are" {
            a href={ "/invocations/" (encoded(&id)) } { "Invocation " (words::short(&id, 8)) }
            span .dim { "/" }
            h1 { (name(action)) }
            span class={ "badge " (class) } { (word) }
        }
        (facts(action))
        div .first { (output) }
        section aria-labelledby="command-title" {
            h2 #command-title { "Command" }
            @match &command {
                Some(command) => (shown(command)),
                None => p .dim { "The store no longer has it." },
            }
        }
    };
    Ok(guest.page(name(action), Section::Invocations, None, content))
}

fn facts(action: &RemoteAction) -> Markup {
    html! {
        dl .facts {
            @if !action.mnemonic.is_empty() { div { dt { "Kind" } dd { (action.mnemonic) } } }
            @if !action.target.is_empty() { div { dt { "Target" } dd { (action.target) } } }
            @if !action.output.is_empty() { div { dt { "Output" } dd { (action.output) } } }
            @if !action.worker.is_empty() { div { dt { "Worker" } dd { (action.worker) } } }
            @if !action.is_hit {
                div { dt { "Queue" } dd { (words::duration(action.queued_ms)) } }
                div { dt { "Took" } dd { (words::duration(action.run_ms)) } }
                div { dt { "Exit code" } dd { (action.exit_code) } }
            }
            @if let Some(ended) = &action.ended { div { dt { "Ended" } dd { (words::ago(ended)) } } }
            @if let Some(digest) = &action.action { div { dt { "Key" } dd { code { (digest.hash) "/" (digest.size_bytes) } } } }
        }
    }
}

/// Its command, if the store still has it.
async fn command(guest: &Guest, action: &RemoteAction) -> Option<Command> {
    let of: Action = message(guest, action, action.action.as_ref()?).await?;
    message(guest, action, of.command_digest.as_ref()?).await
}

async fn message<M: Message + Default>(guest: &Guest, action: &RemoteAction, digest: &reapi::Digest) -> Option<M> {
    let name = resource(action, digest).filter(|name| name.digest.size <= MAX_MESSAGE)?;
    M::decode(part(&guest.client, &name, 0, MAX_MESSAGE).await.ok()?.as_slice()).ok()
}

fn shown(command: &Command) -> Markup {
    html! {
        pre .code { @for argument in command.arguments.iter().take(WORDS) { (argument) "\n" } }
        @if command.arguments.len() > WORDS { p .dim { "and " (words::grouped((command.arguments.len() - WORDS) as u64)) " more arguments" } }
        // Of an option such as `--test_env` the value is not shown either: it can be secret.
        @if !command.environment_variables.is_empty() {
            details #environment {
                summary { "Names of " (words::count(command.environment_variables.len() as u64, "variable", "variables")) }
                ul { @for one in command.environment_variables.iter().take(WORDS) { li { code { (one.name) } } } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_called_by_what_is_known_of_it() {
        let digest = Some(reapi::Digest { hash: "0123456789abcdef0123".to_owned(), size_bytes: 1 });
        let bare = RemoteAction { action: digest, ..RemoteAction::default() };
        let output =
            RemoteAction { output: "bazel-out/a.o".to_owned(), mnemonic: "CppCompile".to_owned(), ..bare.clone() };
        let target = RemoteAction { target: "//a".to_owned(), ..output.clone() };
        assert_eq!([name(&bare), name(&output), name(&target)], ["0123456789abcdef", "bazel-out/a.o", "//a"]);
        let failed = RemoteAction { failure: "no worker".to_owned(), is_hit: true, ..bare.clone() };
        assert_eq!([outcome(&bare).1, outcome(&failed).1], ["ran", "failed"]);
    }

    #[test]
    fn only_blobs_that_a_store_could_have_are_read() {
        let digest = |hash: &str, size_bytes| reapi::Digest { hash: hash.to_owned(), size_bytes };
        let action = RemoteAction { instance: "a/b".to_owned(), ..RemoteAction::default() };
        let hash = "0".repeat(64);
        assert_eq!(resource(&action, &digest(&hash, 7)).unwrap().to_string(), format!("a/b/blobs/{hash}/7"));
        for wrong in [digest(&hash, 0), digest(&hash, -1), digest("../x", 7), digest("", 7)] {
            assert!(resource(&action, &wrong).is_none(), "{wrong:?}");
        }
    }
}
