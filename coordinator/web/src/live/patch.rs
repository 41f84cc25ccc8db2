//! One change of a page, as the script in it understands it.

use std::sync::Arc;

use axum::response::sse::Event;
use maud::Markup;
use serde::{Serialize, Serializer};

use crate::markup::words;

/// A change of a page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind")]
pub(crate) enum Patch {
    /// In place of the element with this id.
    Replace { id: String, html: String },
    /// At the end of an element, unless there is one with this id already.
    Append { into: String, id: String, html: String },
    /// The classes of an element.
    Class { id: String, class: String },
    /// Lines of output, from this number on, at the end of a log.
    Lines {
        id: String,
        from: u64,
        #[serde(serialize_with = "rows")]
        html: Arc<[String]>,
    },
    /// Nothing else will change.
    End,
}

fn rows<S: Serializer>(rows: &[String], serializer: S) -> Result<S::Ok, S::Error> {
    rows.serialize(serializer)
}

impl Patch {
    pub(crate) fn replace(id: impl Into<String>, markup: Markup) -> Self {
        Self::Replace { id: id.into(), html: markup.into_string() }
    }

    pub(crate) fn append(into: impl Into<String>, id: impl Into<String>, markup: Markup) -> Self {
        Self::Append { into: into.into(), id: id.into(), html: markup.into_string() }
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
