//! One change of a page, as the script in it understands it.

use std::sync::{Arc, OnceLock};

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

    /// Lines of the output of the step at this place.
    pub(crate) fn lines(place: usize, from: u64, html: Arc<[String]>) -> Self {
        Self::Lines { id: format!("log{}", place + 1), from, html }
    }

    pub(crate) fn append(into: impl Into<String>, id: impl Into<String>, markup: Markup) -> Self {
        Self::Append { into: into.into(), id: id.into(), html: markup.into_string() }
    }
}

impl Patch {
    /// Whether a page that has the one needs not the other: times that pages keep up to date themselves do not count.
    fn is_as(&self, other: &Self) -> bool {
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

/// Patches as they are sent: serialised once, however many pages get them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Written(Arc<str>);

impl Written {
    /// These patches.
    pub(crate) fn of(patches: &[Patch]) -> Self {
        let text = serde_json::to_string(patches).unwrap_or_default();
        // Without brackets: others are beside them in a message.
        Self(text.trim_start_matches('[').strip_suffix(']').unwrap_or_default().into())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A patch that several looks and several pages share: rendered once, and serialised once if a page needs it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Drawn(Arc<(Patch, OnceLock<Written>)>);

impl From<Patch> for Drawn {
    fn from(patch: Patch) -> Self {
        Self(Arc::new((patch, OnceLock::new())))
    }
}

impl Drawn {
    pub(crate) fn patch(&self) -> &Patch {
        &self.0.0
    }

    /// As it is sent.
    pub(crate) fn written(&self) -> &Written {
        self.0.1.get_or_init(|| Written::of(std::slice::from_ref(self.patch())))
    }

    /// Whether both are the same rendering, and not only alike.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Whether a page that has the one needs not the other.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        self.is_same(other) || self.patch().is_as(other.patch())
    }
}

/// The event that carries these changes, with the server's clock in milliseconds since 1970.
pub(crate) fn message<'a>(all: impl IntoIterator<Item = &'a Written>) -> Event {
    let patches: Vec<&str> = all.into_iter().map(|written| &*written.0).filter(|text| !text.is_empty()).collect();
    Event::default().data(format!("{{\"now\":{},\"patches\":[{}]}}", words::now(), patches.join(",")))
}

/// The event that carries these changes.
pub(crate) fn event(patches: &[Patch]) -> Event {
    message(&[Written::of(patches)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_before_is_sent_as_if_it_were_written_at_once() {
        let patch = |id: &str| Patch::Class { id: id.to_owned(), class: "[\"]".to_owned() };
        let lines = Patch::Lines { id: "log1".to_owned(), from: 3, html: vec!["<li>".to_owned()].into() };
        let (one, two) = (Written::of(&[patch("a"), patch("]")]), Written::of(&[lines]));
        let text = format!("[{},{}]", one.0, two.0);
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(read.as_array().unwrap().len(), 3, "{text}");
        assert_eq!((&read[1]["class"], &read[2]["html"][0]), (&"[\"]".into(), &"<li>".into()));
        assert!(Written::of(&[]).is_empty());
    }

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
