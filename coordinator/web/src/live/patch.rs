//! One change of a page, as the script in it understands it.

use axum::response::sse::Event;
use maud::Markup;
use serde::Serialize;

use crate::markup::words;

/// A change of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub(crate) enum Patch {
    /// In place of the element with this id.
    Replace { id: String, html: String },
}

impl Patch {
    pub(crate) fn replace(id: impl Into<String>, markup: Markup) -> Self {
        Self::Replace { id: id.into(), html: markup.into_string() }
    }
}

/// What is sent at once.
#[derive(Debug, Serialize)]
struct Message<'a> {
    /// The server's clock, in milliseconds since 1970.
    now: i64,
    patches: &'a [Patch],
}

/// The event that carries these changes.
pub(crate) fn event(patches: &[Patch]) -> Event {
    let message = serde_json::to_string(&Message { now: words::now(), patches }).unwrap_or_default();
    Event::default().data(message)
}
