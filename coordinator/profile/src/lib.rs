//! What a timing profile of Bazel says: its phases, the critical path, the actions that took longest.
//!
//! Invariant: what is kept is bounded, whatever the file has; a file that breaks off says what it says up to there.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

mod bounded;
mod event;

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::io::{BufReader, Read};

use bounded::Bounded;
use event::Event;
use flate2::read::MultiGzDecoder;
use serde::de::{DeserializeSeed, Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Phases, parts of the critical path, and actions that are kept.
const PHASES: usize = 24;
const PATH: usize = 200;
const LONGEST: usize = 100;

/// A file that is no profile.
#[derive(Debug, thiserror::Error)]
#[error("not a timing profile of Bazel: {0}")]
pub struct Error(String);

/// Something that took time. Times are microseconds since the invocation began.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// When it began.
    pub at: i64,
    /// How long it took; not negative.
    pub took: i64,
    /// What it was: `Compiling greet.cc`.
    pub name: String,
    /// Its target, if the profile says it.
    pub target: String,
    /// The kind of action, if the profile says it: `CppCompile`.
    pub mnemonic: String,
    /// It is part of the critical path.
    pub is_critical: bool,
}

/// What a profile says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Profile {
    /// The phases, as they began.
    pub phases: Vec<Span>,
    /// The actions that determined how long it took, as they began; the longest ones, if there are many.
    pub critical: Vec<Span>,
    /// The actions that took longest, as they began.
    pub longest: Vec<Span>,
    /// How many actions there were, and how long they took together.
    pub actions: u64,
    /// Time of all actions together.
    pub actions_took: i64,
    /// When the first began and the last one ended.
    pub begin: i64,
    /// See `begin`.
    pub end: i64,
    /// The file breaks off, or is too large.
    pub is_cut: bool,
}

/// Reads a profile, compressed with gzip or not.
///
/// # Errors
/// If nothing in it is what a profile has.
pub fn read(data: &[u8]) -> Result<Profile, Error> {
    let plain: Box<dyn Read + '_> =
        if data.starts_with(&[0x1f, 0x8b]) { Box::new(MultiGzDecoder::new(data)) } else { Box::new(data) };
    let mut collector = Collector::default();
    let mut json = serde_json::Deserializer::from_reader(BufReader::with_capacity(64 << 10, Bounded::new(plain)));
    let ended = json.deserialize_map(Whole(&mut collector)).and_then(|()| json.end());
    if let Err(error) = &ended
        && collector.is_empty()
    {
        return Err(Error(error.to_string()));
    }
    Ok(collector.finish(ended.is_err()))
}

/// Keeps what matters of the events.
#[derive(Debug, Default)]
struct Collector {
    phases: Vec<Span>,
    critical: Longest<PATH>,
    actions: Longest<LONGEST>,
    count: u64,
    took: i64,
}

/// The longest spans.
#[derive(Debug, Default)]
struct Longest<const MOST: usize>(BTreeSet<(i64, Reverse<Span>)>);

impl<const MOST: usize> Longest<MOST> {
    fn add(&mut self, span: Span) {
        self.0.insert((span.took, Reverse(span)));
        if self.0.len() > MOST {
            self.0.pop_first();
        }
    }

    /// As they began.
    fn sorted(self) -> Vec<Span> {
        let mut spans: Vec<Span> = self.0.into_iter().map(|(_, Reverse(span))| span).collect();
        spans.sort();
        spans
    }
}

impl Collector {
    fn is_empty(&self) -> bool {
        self.phases.is_empty() && self.critical.0.is_empty() && self.count == 0
    }

    fn take(&mut self, event: Event) {
        let Event { category, name, phase, at, took, target, mnemonic } = event;
        let span = Span { at, took, name, target, mnemonic, is_critical: false };
        match category.as_str() {
            "build phase marker" if self.phases.len() < PHASES => self.phases.push(span),
            "critical path component" if phase == "X" => {
                // `action 'Compiling greet.cc'`.
                let name = span.name.strip_prefix("action '").and_then(|name| name.strip_suffix('\''));
                let name = name.unwrap_or(&span.name).to_owned();
                self.critical.add(Span { name, is_critical: true, ..span });
            }
            "action processing" if phase == "X" => {
                self.count = self.count.saturating_add(1);
                self.took = self.took.saturating_add(span.took);
                self.actions.add(span);
            }
            _ => {}
        }
    }

    fn finish(self, is_cut: bool) -> Profile {
        let (critical, mut longest) = (self.critical.sorted(), self.actions.sorted());
        let names: BTreeSet<&str> = critical.iter().map(|span| span.name.as_str()).collect();
        for span in &mut longest {
            span.is_critical = names.contains(span.name.as_str());
        }
        let mut phases = self.phases;
        phases.sort();
        let all = || phases.iter().chain(&critical).chain(&longest);
        let begin = all().map(|span| span.at).min().unwrap_or(0);
        let end = all().map(|span| span.at.saturating_add(span.took)).max().unwrap_or(0);
        // A phase lasts until the next one.
        let next: Vec<i64> = phases.iter().skip(1).map(|phase| phase.at).chain([end]).collect();
        for (phase, next) in phases.iter_mut().zip(next) {
            phase.took = phase.took.max(next.saturating_sub(phase.at));
        }
        Profile { phases, critical, longest, actions: self.count, actions_took: self.took, begin, end, is_cut }
    }
}

/// The file: an object with the events among others, or their list.
struct Whole<'a>(&'a mut Collector);

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object with `traceEvents`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        while let Some(key) = all.next_key::<String>()? {
            if key == "traceEvents" {
                all.next_value_seed(Events(self.0))?;
            } else {
                all.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

struct Events<'a>(&'a mut Collector);

impl<'de> DeserializeSeed<'de> for Events<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Events<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut all: A) -> Result<(), A::Error> {
        while let Some(event) = all.next_element::<Event>()? {
            self.0.take(event);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
