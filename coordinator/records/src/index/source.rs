//! The ids of the builds that have any of several terms, newest first, in pages.

use std::collections::BTreeSet;

use kiln_journal::{Journal, Range};

use super::{Error, INDEX, PAGE};

/// Ids of builds, newest first.
#[derive(Debug)]
pub(super) struct Ids {
    /// They end with the end of a term.
    terms: Vec<String>,
    /// Only ids below this one; empty: all.
    below: String,
    ahead: Option<Vec<String>>,
    is_done: bool,
}

impl Ids {
    pub(super) fn of(terms: Vec<String>, below: &str) -> Self {
        Self { terms, below: below.to_owned(), ahead: None, is_done: false }
    }

    /// The next ids; empty at the end.
    pub(super) async fn next(&mut self, journal: &Journal) -> Result<Vec<String>, Error> {
        if let Some(page) = self.ahead.take() {
            return Ok(page);
        }
        if self.is_done {
            return Ok(Vec::new());
        }
        let mut found = BTreeSet::new();
        // Below this id a term may have more than was read.
        let mut whole_to = String::new();
        let mut is_done = true;
        for term in &self.terms {
            let after = (!self.below.is_empty()).then(|| format!("{term}{}", self.below));
            let range = Range { after, backwards: true, limit: Some(PAGE), ..Range::prefix(term.clone()) };
            let page = journal.list(INDEX, range).await?;
            let ids = page.iter().filter_map(|(key, _)| key.strip_prefix(term.as_str()));
            if page.len() == PAGE {
                is_done = false;
                let last = ids.clone().next_back().unwrap_or_default();
                whole_to = whole_to.max(last.to_owned());
            }
            found.extend(ids.map(str::to_owned));
        }
        let page: Vec<String> = found.into_iter().rev().take_while(|id| *id >= whole_to).collect();
        self.is_done = is_done;
        if let Some(last) = page.last() {
            self.below.clone_from(last);
        }
        Ok(page)
    }

    /// Reads the first page, and says how far back it reaches; empty if that is all.
    pub(super) async fn look(&mut self, journal: &Journal) -> Result<String, Error> {
        let page = self.next(journal).await?;
        let reaches = if self.is_done { String::new() } else { page.last().cloned().unwrap_or_default() };
        self.ahead = Some(page);
        Ok(reaches)
    }

    /// The last id that was read, if there may be more.
    pub(super) fn last(&self) -> Option<String> {
        (!self.is_done).then(|| self.below.clone())
    }
}
