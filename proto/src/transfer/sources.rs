//! Which coordinators are asked for a blob, and in which order.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_telemetry::trace::traced;
use tonic::Code;
use tonic::service::interceptor::InterceptedService;

use super::{Cas, Client, Error, Streams, cas, streams};
use crate::channel::Channel;
use crate::digest::Digest;

/// A coordinator that is asked for blobs.
#[derive(Debug, Clone)]
pub(super) struct Source {
    pub(super) cas: Cas,
    pub(super) streams: Streams,
    channel: Channel,
    is_paced: bool,
}

/// Coordinators whose content for a blob was wrong. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Wrong(Arc<Mutex<Vec<Source>>>);

impl Wrong {
    fn has(&self, channel: &Channel) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().any(|source| source.channel.is_one_of_several() && source.channel.is(channel))
    }

    /// Adds the first of those that the content came from which is not known to be wrong: content of several may be wrong by any of
    /// them, and each gets its turn.
    pub(super) fn add(&self, by: &[Source]) {
        if let Some(source) = by.iter().find(|source| !self.has(&source.channel)) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push(source.clone());
        }
    }
}

/// The coordinators that are still to be asked, and what the others answered.
#[derive(Debug)]
pub(super) struct Sources {
    client: Client,
    left: VecDeque<Source>,
    /// One that was only slow, which is asked again, with patience, once all others have failed.
    slow: Option<Channel>,
    worst: Option<Error>,
}

impl Client {
    fn source(&self, channel: Channel, is_paced: bool) -> Source {
        let called = if is_paced { channel.paced() } else { channel.clone() };
        let leased = traced(InterceptedService::new(called, self.lease.clone()));
        Source { cas: cas(leased.clone()), streams: streams(leased), channel, is_paced }
    }

    /// The coordinators to be asked for a blob, last those that were wrong about it.
    pub(super) fn sources(&self, digest: &Digest, wrong: &Wrong) -> Sources {
        let [a, b, c, d, ..] = digest.hash;
        let first = self.is_spread.then(|| u32::from_be_bytes([a, b, c, d]) as usize);
        let mut each = self.bare.each(first);
        each.sort_by_key(|channel| wrong.has(channel));
        let left = each.into_iter().map(|channel| match channel.is_one_of_several() {
            true => self.source(channel, true),
            false => Source { cas: self.cas.clone(), streams: self.streams.clone(), channel, is_paced: false },
        });
        Sources { client: self.clone(), left: left.collect(), slow: None, worst: None }
    }

    /// How many coordinators there are to be asked.
    pub(super) fn source_count(&self) -> usize {
        self.bare.each(None).len()
    }

    /// The first right answer of a coordinator.
    pub(super) async fn ask<T, F>(&self, digest: &Digest, question: impl Fn(Source) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut sources = self.sources(digest, &Wrong::default());
        loop {
            let source = sources.next()?;
            match question(source.clone()).await {
                Ok(answer) => {
                    source.channel.worked();
                    return Ok(answer);
                }
                Err(error) => sources.failed(&source, error)?,
            }
        }
    }
}

impl Source {
    /// Whether both are the same coordinator.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.channel.is(&other.channel)
    }

    /// It answered as it should.
    pub(super) fn worked(&self) {
        self.channel.worked();
    }

    /// What it sent is not what was asked for.
    pub(super) fn was_wrong(&self) {
        tracing::warn!(url = self.channel.url(), "a coordinator sent other content than was asked for");
        self.channel.failed();
    }
}

impl Sources {
    /// The next one to be asked.
    ///
    /// # Errors
    /// Why none of them has an answer.
    pub(super) fn next(&mut self) -> Result<Source, Error> {
        if let Some(source) = self.left.pop_front() {
            return Ok(source);
        }
        if let Some(slow) = self.slow.take() {
            return Ok(self.client.source(slow, false));
        }
        Err(self
            .worst
            .take()
            .unwrap_or_else(|| tonic::Status::unavailable("no coordinator is left to be asked").into()))
    }

    /// Whether there are others.
    pub(super) fn has_next(&self) -> bool {
        !self.left.is_empty() || self.slow.is_some()
    }

    /// Notes that a source has no right answer.
    ///
    /// # Errors
    /// If the others would answer the same.
    pub(super) fn failed(&mut self, source: &Source, error: Error) -> Result<(), Error> {
        if !may_differ_elsewhere(&error) {
            return Err(error);
        }
        let is_slow = is_slow(&error);
        if matches!(error, Error::Corrupt { .. }) {
            source.was_wrong();
        } else if !matches!(error, Error::Missing { .. }) {
            source.channel.failed();
        }
        if is_slow && source.is_paced {
            self.slow.get_or_insert_with(|| source.channel.clone());
        }
        // One that is away may have what the others lack.
        if self.worst.as_ref().is_none_or(|worst| rank(&error) > rank(worst)) {
            self.worst = Some(error);
        }
        Ok(())
    }
}

fn is_slow(error: &Error) -> bool {
    matches!(error, Error::Status(status) if status.code() == Code::DeadlineExceeded)
}

fn may_differ_elsewhere(error: &Error) -> bool {
    match error {
        Error::Missing { .. } | Error::Corrupt { .. } => true,
        // One that does not know a lease or a token yet is no reason not to ask the others.
        Error::Status(status) => status.code() != Code::InvalidArgument,
        Error::Changed { .. } | Error::File { .. } | Error::Message { .. } => false,
    }
}

/// Which of several coordinators' errors is the caller's: the one that a retry may make good.
fn rank(error: &Error) -> u8 {
    match error {
        Error::Missing { .. } => 0,
        Error::Corrupt { .. } => 1,
        _ if error.is_connection() => 3,
        _ => 2,
    }
}
