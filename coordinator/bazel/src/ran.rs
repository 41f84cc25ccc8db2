//! The actions that invocations ask the farm for, while they tell of themselves.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_journal::Stream;
use kiln_proto::v1::RemoteAction;
use parking_lot::Mutex;
use prost::Message;

/// Actions of an invocation that are kept.
const KEPT: usize = 5_000;
/// Bytes of them.
const KEPT_BYTES: usize = 2 << 20;
/// Longest text, in bytes.
const MAX_TEXT: usize = 512;

/// Whether there may have been more than these.
pub(crate) fn is_full(actions: &[RemoteAction]) -> bool {
    actions.len() >= KEPT || actions.iter().map(Message::encoded_len).sum::<usize>() >= KEPT_BYTES
}

#[derive(Debug)]
struct Asks {
    publisher: String,
    actions: Stream,
    kept: usize,
    bytes: usize,
}

/// Invocations whose events arrive. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asking(Arc<Mutex<HashMap<String, Asks>>>);

impl Asking {
    pub(crate) fn begin(&self, id: &str, publisher: &str, actions: Stream, (kept, bytes): (usize, usize)) {
        let asks = Asks { publisher: publisher.to_owned(), actions, kept, bytes };
        self.0.lock().entry(id.to_owned()).or_insert(asks);
    }

    /// Whether there may have been more than are kept, of an invocation whose events arrive.
    pub(crate) fn is_full(&self, id: &str) -> Option<bool> {
        self.0.lock().get(id).map(|asks| asks.kept >= KEPT || asks.bytes >= KEPT_BYTES)
    }

    pub(crate) fn end(&self, id: &str) {
        self.0.lock().remove(id);
    }

    pub(crate) fn add(&self, id: &str, caller: &str, mut action: RemoteAction) {
        let mut all = self.0.lock();
        let Some(asks) =
            all.get_mut(id).filter(|asks| asks.publisher == caller && asks.kept < KEPT && asks.bytes < KEPT_BYTES)
        else {
            return;
        };
        for text in [
            &mut action.mnemonic,
            &mut action.target,
            &mut action.instance,
            &mut action.worker,
            &mut action.failure,
            &mut action.output,
        ] {
            cut(text);
        }
        let data = action.encode_to_vec();
        asks.kept = asks.kept.saturating_add(1);
        asks.bytes = asks.bytes.saturating_add(data.len());
        asks.actions.append(move |_| data.into());
    }
}

fn cut(text: &mut String) {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
}
