//! Reads the output of a step.

use kiln_proto::v1::{self, event};

use super::stored::{Indexes, Stored};
use super::{Line, Splitter};
use crate::answer::Failure;
use crate::blobs::Space;
use crate::calls::Client;
use kiln_web_model::Step;

/// Matches of one search.
pub(crate) const MAX_FOUND: usize = 500;

/// Which output is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Which {
    /// Both, in their order, as they were logged.
    #[default]
    Both,
    /// The whole of one, as it is stored.
    Stdout,
    Stderr,
}

impl Which {
    pub(crate) fn parse(text: &str) -> Self {
        match text {
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            _ => Self::Both,
        }
    }
}

/// The output of a step.
#[derive(Debug)]
pub(crate) enum Log {
    /// As it was logged: some megabytes at most.
    Logged(Vec<Line>),
    /// A blob of any size.
    Stored(Box<Stored>),
}

impl Log {
    /// The output of a step of a build. If nothing was logged, as of a hit, it is what the store has.
    pub(crate) async fn of(
        client: &Client,
        build: &v1::Build,
        step: &Step,
        which: Which,
        indexes: &Indexes,
    ) -> Result<Self, Failure> {
        let done = step.finished.as_ref();
        let digest = match which {
            Which::Stdout => done.and_then(|done| done.stdout_digest.as_ref()),
            Which::Stderr => done.and_then(|done| done.stderr_digest.as_ref()),
            Which::Both => {
                let lines = logged(client, &build.id, step).await?;
                let whole = done.and_then(|done| done.stdout_digest.as_ref().or(done.stderr_digest.as_ref()));
                match whole.filter(|_| lines.is_empty()) {
                    Some(digest) => Some(digest),
                    None => return Ok(Self::Logged(lines)),
                }
            }
        };
        match digest {
            Some(digest) => Ok(Self::Stored(Box::new(indexes.open(client, &Space::of(build), digest).await?))),
            None => Ok(Self::Logged(Vec::new())),
        }
    }

    /// How many lines it has.
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Logged(lines) => lines.len() as u64,
            Self::Stored(stored) => stored.len(),
        }
    }

    /// Lines from a number on, counted from 1.
    pub(crate) async fn lines(&self, from: u64, count: usize) -> Result<Vec<Line>, Failure> {
        match self {
            Self::Logged(lines) => {
                let from = usize::try_from(from.saturating_sub(1)).unwrap_or(usize::MAX).min(lines.len());
                Ok(lines[from..].iter().take(count).cloned().collect())
            }
            Self::Stored(stored) => stored.lines(from, count).await,
        }
    }

    /// The numbers of the lines that contain a text, whatever its case, and the lines; [`MAX_FOUND`] at most.
    pub(crate) async fn search(&self, text: &str) -> Result<Vec<(u64, Line)>, Failure> {
        let text = text.to_lowercase();
        let mut found = Vec::new();
        let mut from = 1;
        while from <= self.len() && found.len() < MAX_FOUND {
            let lines = self.lines(from, 5_000).await?;
            if lines.is_empty() {
                break;
            }
            for (number, line) in (from..).zip(&lines) {
                if found.len() < MAX_FOUND && line.plain().to_lowercase().contains(&text) {
                    found.push((number, line.clone()));
                }
            }
            from += lines.len() as u64;
        }
        Ok(found)
    }
}

/// What was logged of a step, up to now.
async fn logged(client: &Client, build: &str, step: &Step) -> Result<Vec<Line>, Failure> {
    let Some(from) = step.from else { return Ok(Vec::new()) };
    let request = v1::WatchRequest {
        build: build.to_owned(),
        offset: from,
        logs_of: Some(step.at.clone()),
        until_now: true,
        ..v1::WatchRequest::default()
    };
    let mut events = client.builds().watch(request).await?.into_inner();
    let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
    while let Some(event) = events.message().await? {
        if let Some(event::Event::Log(log)) = &event.event {
            splitter.push(log.stream == "stderr", &log.data, log.skipped_bytes, &mut lines);
        }
        if step.finished.is_some() && event.offset >= step.revision {
            break;
        }
    }
    if step.finished.is_some() {
        splitter.end(&mut lines);
    }
    Ok(lines)
}
