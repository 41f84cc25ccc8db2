//! Where a difference is, and the differences that have been found so far.

use super::{Difference, Kind, Limits, Runs};

/// Most characters of a difference's words.
const MAX_WORDS: usize = 600;

/// A part of a file: which member of which archive, or which section.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The name of the innermost file, which says what it may be.
    pub(super) name: String,
    within: Vec<String>,
}

impl Place {
    pub(super) fn file(path: &str) -> Self {
        Self { name: path.to_owned(), within: Vec::new() }
    }

    /// A member of the archive that this is.
    pub(super) fn member(&self, name: &str) -> Self {
        let mut within = self.within.clone();
        within.push(format!("member `{}`", shown(name)));
        Self { name: name.to_owned(), within }
    }

    /// What is packed in this.
    pub(super) fn unpacked(&self) -> Self {
        let name = match self.name.rsplit_once('.') {
            Some((stem, "tgz" | "tbz" | "txz" | "tzst")) => format!("{stem}.tar"),
            Some((stem, _)) => stem.to_owned(),
            None => self.name.clone(),
        };
        Self { name, within: self.within.clone() }
    }

    /// A named part of this, such as a section.
    pub(super) fn part(&self, words: String) -> Self {
        let mut within = self.within.clone();
        within.push(words);
        Self { name: String::new(), within }
    }

    /// How many archives it is in.
    pub(super) fn depth(&self) -> usize {
        self.within.len()
    }
}

/// What has been found.
#[derive(Debug)]
pub(super) struct Found<'a> {
    path: &'a str,
    pub(super) runs: Runs<'a>,
    pub(super) limits: Limits,
    /// Bytes that may still be unpacked of each run.
    unpacked: u64,
    all: Vec<Difference>,
}

impl<'a> Found<'a> {
    pub(super) fn new(path: &'a str, runs: Runs<'a>, limits: Limits) -> Self {
        Self { path, runs, limits, unpacked: limits.unpacked, all: Vec::new() }
    }

    /// Adds a difference, unless there are enough.
    pub(super) fn add(&mut self, place: &Place, kind: Kind, words: impl AsRef<str>) {
        if self.is_full() {
            return;
        }
        let mut whole = place.within.clone();
        whole.push(words.as_ref().to_owned());
        let words: String = whole.join(": ").chars().take(MAX_WORDS).collect();
        let one = Difference { path: self.path.to_owned(), kind, words };
        if !self.all.contains(&one) {
            self.all.push(one);
        }
    }

    /// Whether no further difference is told of.
    pub(super) fn is_full(&self) -> bool {
        self.all.len() >= self.limits.differences
    }

    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many bytes may still be unpacked.
    pub(super) fn room(&self) -> u64 {
        self.unpacked
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.unpacked = self.unpacked.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// What names its cause first; what is only its consequence last.
    pub(super) fn into_differences(mut self) -> Vec<Difference> {
        self.all.sort_by_key(|one| matches!(one.kind, Kind::BuildId | Kind::Content));
        self.all
    }
}

/// A text as it is shown: without control characters, and not too long.
pub(super) fn shown(text: &str) -> String {
    const MOST: usize = 120;
    let clean = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut short: String = text.chars().take(MOST).map(clean).collect();
    if text.chars().nth(MOST).is_some() {
        short.push('…');
    }
    short
}
