//! What an invocation prints, read on from where the last look ended.
//!
//! Invariant: a line is read, split and rendered once, however many pages show it, and memory is bounded.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use futures::TryStreamExt;
use kiln_proto::v1::InvocationLogRequest;

use super::{Guest, details};
use crate::answer::Failure;
use crate::live::{Drawn, Patch};
use crate::log::{Line, Splitter};

/// Lines at the end of the output that are kept.
const LINES: usize = 2_000;
/// The id of the list that they are in.
pub(super) const LIST: &str = "printed";

/// Rows, with the number of the first.
pub(super) type Piece = (u64, Arc<[String]>);

/// The end of what was printed.
#[derive(Debug, Default)]
pub(super) struct Tail {
    /// Where the next part begins.
    position: u64,
    splitter: Splitter,
    /// One for each look that found any lines.
    pieces: VecDeque<(Piece, Drawn)>,
    /// How many lines there were.
    count: u64,
}

impl Tail {
    /// Reads what was printed since the last time; at the end, also a line that has no end.
    pub(super) async fn read(&mut self, guest: &Guest, id: &str, is_end: bool) -> Result<(), Failure> {
        let request = InvocationLogRequest { id: id.to_owned(), from: self.position };
        let mut parts = guest.client.invocations().log(request).await?.into_inner();
        // Taken in when it is complete: whoever stops in between reads the same again.
        let (mut data, mut next) = (Vec::new(), self.position);
        while let Some(part) = parts.try_next().await? {
            data.extend(part.data);
            next = part.next;
        }
        self.position = next;
        self.take(&data, is_end);
        Ok(())
    }

    fn take(&mut self, data: &[u8], is_end: bool) {
        let mut lines = Vec::new();
        self.splitter.push(false, data, 0, &mut lines);
        if is_end {
            self.splitter.end(&mut lines);
        }
        if lines.is_empty() {
            return;
        }
        let skipped = lines.len().saturating_sub(LINES);
        let first = self.count + skipped as u64 + 1;
        let row = |(number, line): (u64, &Line)| line.row(number, "").into_string();
        let html: Arc<[String]> = (first..).zip(&lines[skipped..]).map(row).collect();
        let drawn = Patch::Lines { id: LIST.to_owned(), from: first, html: html.clone() }.into();
        self.pieces.push_back(((first, html), drawn));
        self.count += lines.len() as u64;
        // Those after the first are enough.
        while self.pieces.get(1).is_some_and(|((from, _), _)| from + LINES as u64 <= self.count + 1) {
            self.pieces.pop_front();
        }
    }

    /// The pieces that there are.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        self.pieces.iter().map(|(piece, _)| piece.clone()).collect()
    }

    /// As a page adds them.
    pub(super) fn drawn(&self) -> impl Iterator<Item = Drawn> + '_ {
        self.pieces.iter().map(|(_, drawn)| drawn.clone())
    }
}

/// What an open page shows.
#[derive(Debug)]
pub(super) struct Page {
    /// The number of the line after its last.
    next: u64,
    /// All but the output, by the ids of their elements.
    shown: HashMap<String, Drawn>,
}

impl Page {
    /// A page whose last line is before the one with this number.
    pub(super) fn showing(next: u64) -> Self {
        Self { next, shown: HashMap::new() }
    }

    /// What a page lacks of all that there is.
    pub(super) fn lacks(&mut self, all: &[Drawn]) -> Vec<Drawn> {
        let mut fresh = Vec::new();
        for drawn in all {
            match drawn.patch() {
                Patch::Lines { from, html, .. } if *from > self.next => {
                    // It is so far behind that what is between is not kept any more.
                    let pieces = [(*from, html.clone())];
                    fresh.push(Patch::replace(details::OUTPUT, details::output(&pieces, true)).into());
                    self.next = from + html.len() as u64;
                }
                Patch::Lines { id, from, html } => {
                    let known = usize::try_from(self.next - from).unwrap_or(usize::MAX).min(html.len());
                    if known < html.len() {
                        self.next = from + html.len() as u64;
                        let rest = || {
                            let (id, from) = (id.clone(), from + known as u64);
                            Patch::Lines { id, from, html: html[known..].into() }.into()
                        };
                        fresh.push(if known == 0 { drawn.clone() } else { rest() });
                    }
                }
                Patch::Replace { id, .. } if self.shown.get(id).is_some_and(|shown| shown.is_as(drawn)) => {}
                Patch::Replace { id, .. } => {
                    self.shown.insert(id.clone(), drawn.clone());
                    fresh.push(drawn.clone());
                }
                _ => fresh.push(drawn.clone()),
            }
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(all: &[Drawn]) -> Vec<(u64, usize)> {
        let lines = all.iter().filter_map(|drawn| match drawn.patch() {
            Patch::Lines { from, html, .. } => Some((*from, html.len())),
            _ => None,
        });
        lines.collect()
    }

    #[test]
    fn a_page_gets_the_lines_that_it_lacks_and_no_others() {
        let (mut tail, mut page) = (Tail::default(), Page::showing(2));
        tail.take(b"one\ntwo\nthr", false);
        let all: Vec<Drawn> = tail.drawn().collect();
        assert_eq!(numbers(&page.lacks(&all)), [(2, 1)]);
        assert!(page.lacks(&all).is_empty());
        tail.take(b"ee\nfour", false);
        tail.take(b"", true);
        let all: Vec<Drawn> = tail.drawn().collect();
        assert_eq!(numbers(&all), [(1, 2), (3, 1), (4, 1)]);
        assert_eq!(numbers(&page.lacks(&all)), [(3, 1), (4, 1)]);
        assert!(format!("{all:?}").contains("three"), "{all:?}");
    }

    #[test]
    fn a_page_gets_only_the_sections_that_have_changed() {
        let section = |id: &str, text: &str| Drawn::from(Patch::Replace { id: id.to_owned(), html: text.to_owned() });
        let (first, second, changed) = (section("a", "1"), section("b", "2"), section("b", "3"));
        let mut page = Page::showing(1);
        assert_eq!(page.lacks(&[first.clone(), second]).len(), 2);
        let fresh = page.lacks(&[first.clone(), changed.clone()]);
        assert!(matches!(&fresh[..], [only] if only.is_same(&changed)), "{fresh:?}");
        assert!(page.lacks(&[first, changed]).is_empty());
    }

    #[test]
    fn however_much_is_printed_the_end_of_it_is_kept() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.take("a line\n".repeat(number).as_bytes(), false);
        }
        assert_eq!(tail.count, 4_950);
        let kept: usize = tail.pieces.iter().map(|((_, rows), _)| rows.len()).sum();
        assert!((LINES..LINES + 100).contains(&kept), "{kept}");
        // A page that is behind gets all that is kept in place of what it has.
        let all: Vec<Drawn> = tail.drawn().collect();
        let fresh = Page::showing(1).lacks(&all);
        assert!(matches!(fresh[0].patch(), Patch::Replace { id, .. } if id == details::OUTPUT), "{fresh:?}");
        assert_eq!(numbers(&fresh).last().map(|(from, count)| from + *count as u64), Some(4_951));
        tail.take("a line\n".repeat(9_000).as_bytes(), false);
        assert_eq!(tail.pieces().iter().map(|(from, rows)| (*from, rows.len())).collect::<Vec<_>>(), [(11_951, 2_000)]);
    }
}
