//! What all coordinators of a farm know of its members, kept in a journal of its own.
//!
//! Invariant: no page goes back. Each has a number, and a coordinator remembers on its disk the latest that it has seen. If Redis has an
//! earlier one, because it lost its last second or somebody put an old value there, the latest is used, and the next leader writes it again.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_auth::ledger::{self, Ledger};
use kiln_journal::{Engine, Space, Write};
use kiln_replicas::{Register, Shelf, Term};
use tokio::sync::Mutex;

/// The journal's name, which no tenant can have.
const JOURNAL: &str = ".members";
/// A page's name to its text.
const MEMBERS: Space = "members";

/// The farm's ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pages {
    register: Arc<dyn Register>,
    shelf: Arc<dyn Shelf>,
    /// The journal of the term in which this coordinator leads, if it does. One page at a time is written.
    journal: Arc<Mutex<Option<Arc<dyn Engine>>>>,
    /// The latest pages that this coordinator has seen.
    seen: Arc<Mutex<Seen>>,
}

/// The latest pages by name, and the directory that has them.
#[derive(Debug)]
struct Seen {
    directory: PathBuf,
    pages: HashMap<String, Page>,
    /// What was told last of a page that went back: its name, its number, and the one before.
    told: Option<(String, Option<u64>, u64)>,
}

/// A page of the ledger: TOML, with its number in the first line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Page {
    number: u64,
    text: String,
}

/// Begins the line with a page's number.
const NUMBER: &str = "# page ";

impl Page {
    /// Pages of earlier versions have no number.
    fn read(data: String) -> Self {
        let first = data.lines().next().and_then(|line| line.strip_prefix(NUMBER));
        Self { number: first.and_then(|number| number.parse().ok()).unwrap_or(0), text: data }
    }

    fn next(number: u64, text: &str) -> Self {
        // The number of the page that this one was made from.
        let text = match text.split_once('\n') {
            Some((first, rest)) if first.starts_with(NUMBER) => rest,
            _ => text,
        };
        Self { number, text: format!("{NUMBER}{number}\n{text}") }
    }
}

impl Seen {
    /// A page that was seen before; none if it never was, or what was kept of it cannot be read.
    fn page(&mut self, name: &str) -> Option<Page> {
        if let Some(page) = self.pages.get(name) {
            return Some(page.clone());
        }
        let page = Page::read(std::fs::read_to_string(self.file(name)).ok()?);
        self.pages.insert(name.to_owned(), page.clone());
        Some(page)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.toml"))
    }

    /// Takes note of a page, and answers the latest: this one, or one that was seen before.
    fn latest(&mut self, name: &str, page: Option<Page>) -> Result<Option<Page>, String> {
        let before = self.page(name);
        match (page, before) {
            (page, None) if page.is_none() => Ok(None),
            (page, Some(before)) if page.as_ref().is_none_or(|page| page.number < before.number) => {
                let found = (name.to_owned(), page.map(|page| page.number), before.number);
                if self.told.as_ref() != Some(&found) {
                    let words = "Redis has an earlier page of the farm's ledger than this coordinator has seen; the later one counts";
                    tracing::warn!(page = name, found = found.1, known = found.2, words);
                    self.told = Some(found);
                }
                Ok(Some(before))
            }
            (Some(page), before) if before.as_ref() != Some(&page) => {
                self.note(name, page.clone())?;
                Ok(Some(page))
            }
            (page, _) => Ok(page),
        }
    }

    fn note(&mut self, name: &str, page: Page) -> Result<(), String> {
        let (file, unkept) =
            (self.file(name), |error: std::io::Error| format!("cannot keep a page of the ledger: {error}"));
        std::fs::create_dir_all(&self.directory).map_err(unkept)?;
        kiln_state::replace(&file, &page.text).map_err(unkept)?;
        self.pages.insert(name.to_owned(), page);
        Ok(())
    }
}

impl Pages {
    /// `data_dir`: where this coordinator remembers the latest pages.
    pub fn new(register: Arc<dyn Register>, shelf: Arc<dyn Shelf>, data_dir: &Path) -> Self {
        let seen = Seen { directory: data_dir.join("ledger"), pages: HashMap::new(), told: None };
        Self { register, shelf, journal: Arc::default(), seen: Arc::new(Mutex::new(seen)) }
    }

    /// This coordinator leads in this term, or no more.
    pub async fn leads(&self, term: Option<&Term>) {
        *self.journal.lock().await = term.map(|term| self.register.journal(JOURNAL, term));
        if term.is_some() {
            for name in ledger::PAGES {
                if let Err(error) = self.write_again(name).await {
                    tracing::warn!(page = name, error, "cannot write the latest page of the farm's ledger again");
                }
            }
        }
    }

    /// Writes a page again of which the farm has an earlier one.
    async fn write_again(&self, name: &str) -> Result<(), String> {
        let found = self.stored(name).await?;
        let before = self.seen.lock().await.page(name);
        match before {
            Some(before) if found.is_none_or(|found| found.number < before.number) => {
                self.write(name, before.text).await
            }
            _ => Ok(()),
        }
    }

    /// A page as the journal has it.
    async fn stored(&self, name: &str) -> Result<Option<Page>, String> {
        // Reading is free to all, whatever their term.
        let journal = self.register.journal(JOURNAL, &Term { epoch: 0, nonce: String::new() });
        let found = journal.get(MEMBERS, vec![name.to_owned()]).await.map_err(|error| error.to_string())?;
        let text = found.into_iter().next().flatten().map(|text| String::from_utf8(text.to_vec()));
        let text = text.transpose().map_err(|error| format!("the farm's ledger is damaged: {error}"))?;
        Ok(text.map(Page::read))
    }
}

impl Pages {
    /// Takes over which workers joined when this coordinator was alone, if the farm knows nothing of that yet.
    ///
    /// # Errors
    /// If the ledger cannot be reached.
    pub async fn take_over(&self, data_dir: &Path) -> Result<(), String> {
        let file = data_dir.join(ledger::JOINED_FILE);
        if !file.exists() || self.read(ledger::JOINED).await?.is_some() {
            return Ok(());
        }
        let text = tokio::fs::read_to_string(&file).await.map_err(|error| format!("`{}`: {error}", file.display()))?;
        self.write(ledger::JOINED, text).await
    }
}

#[tonic::async_trait]
impl Ledger for Pages {
    async fn read(&self, name: &str) -> Result<Option<String>, String> {
        let stored = self.stored(name).await?;
        let number = stored.as_ref().map(|page| page.number);
        let latest = self.seen.lock().await.latest(name, stored)?;
        match latest {
            Some(latest) if number != Some(latest.number) => {
                let text = latest.text.clone();
                // Only whoever leads can.
                let _ = self.write(name, latest.text).await;
                Ok(Some(text))
            }
            latest => Ok(latest.map(|page| page.text)),
        }
    }

    async fn write(&self, name: &str, text: String) -> Result<(), String> {
        let journal = self.journal.lock().await;
        let journal =
            journal.as_ref().ok_or_else(|| "this coordinator does not lead the farm at the moment".to_owned())?;
        let stored = self.stored(name).await?.map_or(0, |page| page.number);
        let before = self.seen.lock().await.page(name).map_or(0, |page| page.number);
        let page = Page::next(stored.max(before).saturating_add(1), &text);
        let write = Write::Put { space: MEMBERS, key: name.to_owned(), value: Bytes::from(page.text.clone()) };
        journal.commit(vec![Arc::new(vec![write])], true).await.map_err(|error| error.to_string())?;
        self.seen.lock().await.note(name, page)
    }
}

fn text(found: Option<Bytes>) -> Option<String> {
    found.and_then(|data| String::from_utf8(data.to_vec()).ok())
}

#[tonic::async_trait]
impl kiln_auth::Shelf for Pages {
    async fn keep(&self, name: &str, text: String, life: Duration) -> Result<(), String> {
        self.shelf.keep(name, text.as_bytes(), life).await.map_err(|error| error.to_string())
    }

    async fn renew(&self, name: &str, text: String, life: Duration) -> Result<(), String> {
        self.shelf.renew(name, text.as_bytes(), life).await.map_err(|error| error.to_string())
    }

    async fn kept(&self, name: &str) -> Result<Option<String>, String> {
        self.shelf.kept(name).await.map(text).map_err(|error| error.to_string())
    }

    async fn take(&self, name: &str) -> Result<Option<String>, String> {
        self.shelf.take(name).await.map(text).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(directory: &Path) -> Seen {
        Seen { directory: directory.to_owned(), pages: HashMap::new(), told: None }
    }

    #[test]
    fn a_page_does_not_go_back_not_even_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let page = |number, text| Some(Page::next(number, text));
        let mut known = seen(directory.path());
        assert_eq!(known.latest("a", None), Ok(None));
        assert_eq!(known.latest("a", page(2, "x = 1\n")), Ok(page(2, "x = 1\n")));
        assert_eq!(known.latest("a", page(3, "x = 2\n")), Ok(page(3, "x = 2\n")));
        for earlier in [None, page(2, "x = 1\n"), Some(Page::read("x = 0\n".to_owned()))] {
            assert_eq!(known.latest("a", earlier.clone()), Ok(page(3, "x = 2\n")));
            assert_eq!(seen(directory.path()).latest("a", earlier), Ok(page(3, "x = 2\n")), "after a restart");
        }
        assert_eq!(known.latest("b", None), Ok(None), "another page");
        assert_eq!(known.latest("a", page(9, "x = 3\n")), Ok(page(9, "x = 3\n")));
    }

    #[test]
    fn a_page_has_one_number_however_often_it_is_written() {
        let once = Page::next(1, "x = 1\ny = 2\n");
        assert_eq!(Page::next(7, &once.text), Page::next(7, "x = 1\ny = 2\n"));
        assert_eq!(Page::read(once.text.clone()), once);
        assert_eq!(Page::read("# a comment\nx = 1".to_owned()).number, 0);
    }
}
