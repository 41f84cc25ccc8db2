//! What an invocation prints, read on from where the last look ended.
//!
//! Invariant: a line is read, split and rendered once, however many pages show it, and memory is bounded.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::TryStreamExt;
use kiln_proto::v1::InvocationLogRequest;

use super::{Guest, details};
use crate::answer::Failure;
use crate::live::Patch;
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
    pieces: VecDeque<Piece>,
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
        self.pieces.push_back((first, (first..).zip(&lines[skipped..]).map(row).collect()));
        self.count += lines.len() as u64;
        // Those after the first are enough.
        while self.pieces.get(1).is_some_and(|(from, _)| from + LINES as u64 <= self.count + 1) {
            self.pieces.pop_front();
        }
    }

    /// The pieces that there are.
    pub(super) fn pieces(&self) -> Vec<Piece> {
        self.pieces.iter().cloned().collect()
    }

    /// As a page adds them.
    pub(super) fn patches(&self) -> impl Iterator<Item = Patch> + '_ {
        self.pieces.iter().map(|(from, html)| Patch::Lines { id: LIST.to_owned(), from: *from, html: html.clone() })
    }
}

/// What an open page shows.
#[derive(Debug)]
pub(super) struct Page {
    /// The number of the line after its last.
    next: u64,
    /// All but the output.
    shown: Option<Patch>,
}

impl Page {
    /// A page whose last line is before the one with this number.
    pub(super) fn showing(next: u64) -> Self {
        Self { next, shown: None }
    }

    /// What a page lacks of all that there is.
    pub(super) fn lacks(&mut self, all: &[Patch]) -> Vec<Patch> {
        let mut fresh = Vec::new();
        for patch in all {
            match patch {
                Patch::Lines { from, html, .. } if *from > self.next => {
                    // It is so far behind that what is between is not kept any more.
                    let pieces = [(*from, html.clone())];
                    fresh.push(Patch::replace(details::OUTPUT, details::output(&pieces, true)));
                    self.next = from + html.len() as u64;
                }
                Patch::Lines { id, from, html } => {
                    let known = usize::try_from(self.next - from).unwrap_or(usize::MAX).min(html.len());
                    if known < html.len() {
                        let html: Arc<[String]> = if known == 0 { html.clone() } else { html[known..].into() };
                        let from = from + known as u64;
                        self.next = from + html.len() as u64;
                        fresh.push(Patch::Lines { id: id.clone(), from, html });
                    }
                }
                Patch::Replace { .. } if self.shown.as_ref().is_some_and(|shown| shown.is_as(patch)) => {}
                Patch::Replace { .. } => {
                    self.shown = Some(patch.clone());
                    fresh.push(patch.clone());
                }
                other => fresh.push(other.clone()),
            }
        }
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(patches: &[Patch]) -> Vec<(u64, usize)> {
        let lines = patches.iter().filter_map(|patch| match patch {
            Patch::Lines { from, html, .. } => Some((*from, html.len())),
            _ => None,
        });
        lines.collect()
    }

    #[test]
    fn a_page_gets_the_lines_that_it_lacks_and_no_others() {
        let (mut tail, mut page) = (Tail::default(), Page::showing(2));
        tail.take(b"one\ntwo\nthr", false);
        let all: Vec<Patch> = tail.patches().collect();
        assert_eq!(numbers(&page.lacks(&all)), [(2, 1)]);
        assert_eq!(page.lacks(&all), []);
        tail.take(b"ee\nfour", false);
        tail.take(b"", true);
        let all: Vec<Patch> = tail.patches().collect();
        assert_eq!(numbers(&all), [(1, 2), (3, 1), (4, 1)]);
        assert_eq!(numbers(&page.lacks(&all)), [(3, 1), (4, 1)]);
        assert!(format!("{all:?}").contains("three"), "{all:?}");
    }

    #[test]
    fn however_much_is_printed_the_end_of_it_is_kept() {
        let mut tail = Tail::default();
        for number in 0..100 {
            tail.take("a line\n".repeat(number).as_bytes(), false);
        }
        assert_eq!(tail.count, 4_950);
        let kept: usize = tail.pieces.iter().map(|(_, rows)| rows.len()).sum();
        assert!((LINES..LINES + 100).contains(&kept), "{kept}");
        // A page that is behind gets all that is kept in place of what it has.
        let all: Vec<Patch> = tail.patches().collect();
        let fresh = Page::showing(1).lacks(&all);
        assert!(matches!(&fresh[0], Patch::Replace { id, .. } if id == details::OUTPUT), "{fresh:?}");
        assert_eq!(numbers(&fresh).last().map(|(from, count)| from + *count as u64), Some(4_951));
        tail.take("a line\n".repeat(9_000).as_bytes(), false);
        assert_eq!(tail.pieces.iter().map(|(from, rows)| (*from, rows.len())).collect::<Vec<_>>(), [(11_951, 2_000)]);
    }
}
