//! The actions that invocations ask the farm for, while they tell of themselves.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_journal::Stream;
use kiln_proto::v1::RemoteAction;
use parking_lot::Mutex;
use prost::Message;

/// Actions of an invocation that are kept.
pub(crate) const KEPT: usize = 5_000;
/// Longest text, in bytes.
const MAX_TEXT: usize = 512;

#[derive(Debug)]
struct Asks {
    publisher: String,
    actions: Stream,
    kept: usize,
}

/// Invocations whose events arrive. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asking(Arc<Mutex<HashMap<String, Asks>>>);

impl Asking {
    pub(crate) fn begin(&self, id: &str, publisher: &str, actions: Stream, kept: usize) {
        let asks = Asks { publisher: publisher.to_owned(), actions, kept };
        self.0.lock().entry(id.to_owned()).or_insert(asks);
    }

    pub(crate) fn end(&self, id: &str) {
        self.0.lock().remove(id);
    }

    pub(crate) fn add(&self, id: &str, caller: &str, mut action: RemoteAction) {
        let mut all = self.0.lock();
        let Some(asks) = all.get_mut(id).filter(|asks| asks.publisher == caller && asks.kept < KEPT) else { return };
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
        asks.kept += 1;
        asks.actions.append(move |_| action.encode_to_vec().into());
    }
}

fn cut(text: &mut String) {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    text.truncate(end);
}
