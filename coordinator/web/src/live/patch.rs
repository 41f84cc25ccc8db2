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

impl Patch {
    /// Whether a page that has the one needs not the other: times that pages keep up to date themselves do not count.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Replace { id, html }, Self::Replace { id: other_id, html: other_html }) => {
                id == other_id && steady(html).eq(steady(other_html))
            }
            _ => self == other,
        }
    }
}

/// The pieces of markup between the words of its times.
fn steady(html: &str) -> impl Iterator<Item = &str> {
    let mut rest = html;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let time = [rest.find("<time "), rest.find(" data-since=\"")].into_iter().flatten().min();
        let begin = time.and_then(|at| Some(at + rest[at..].find('>')? + 1)).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(begin);
        rest = &after[after.find('<').unwrap_or(after.len())..];
        Some(piece)
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_time_that_the_page_itself_changes_is_no_change() {
        let patch = |html: &str| Patch::Replace { id: "x".to_owned(), html: html.to_owned() };
        let now = patch("<p><time datetime=\"1\">just now</time> <b data-since=\"7\">3 s</b> a</p>");
        assert!(now.is_as(&patch("<p><time datetime=\"1\">1 min ago</time> <b data-since=\"7\">4 s</b> a</p>")));
        for other in [
            "<p><time datetime=\"2\">just now</time> <b data-since=\"7\">3 s</b> a</p>",
            "<p><time datetime=\"1\">just now</time> <b data-since=\"7\">3 s</b> b</p>",
            "<p><time datetime=\"1\">just now</time> <b>3 s</b> a</p>",
            "",
        ] {
            assert!(!now.is_as(&patch(other)), "{other}");
        }
    }
}
