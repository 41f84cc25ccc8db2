//! How long an answer may keep its reader waiting.
//!
//! Only the time in which the reader waits counts, so a reader that is slow itself costs its sender nothing. Bytes earn
//! time: an answer that keeps coming is never cut off, and one that trickles is, about as soon as one that stops.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::time::{Instant, Sleep};
use tonic::Status;
use tonic::body::Body;

/// The longest silence.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes that earn a second.
const RATE: u64 = 8 * 1024;

/// What a reader is told about a sender that is too slow.
pub(super) fn too_slow() -> Status {
    Status::deadline_exceeded("the coordinator keeps its answer waiting")
}

/// An answer's body that fails when it keeps its reader waiting.
pub(super) struct Paced {
    body: Body,
    left: Duration,
    /// Since when the reader waits.
    since: Option<Instant>,
    alarm: Pin<Box<Sleep>>,
}

impl Paced {
    pub(super) fn new(body: Body) -> Self {
        Self { body, left: PATIENCE, since: None, alarm: Box::pin(tokio::time::sleep(PATIENCE)) }
    }
}

/// What is left of the patience after waiting, and then receiving bytes.
fn after(left: Duration, waited: Duration, bytes: u64) -> Duration {
    let earned = Duration::from_millis(bytes.saturating_mul(1000) / RATE);
    left.saturating_sub(waited).saturating_add(earned).min(PATIENCE)
}

impl http_body::Body for Paced {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            let waited = this.since.take().map_or(Duration::ZERO, |since| since.elapsed());
            let bytes = match &frame {
                Some(Ok(frame)) => frame.data_ref().map_or(0, |data| data.len() as u64),
                _ => 0,
            };
            this.left = after(this.left, waited, bytes);
            return Poll::Ready(frame);
        }
        if this.since.is_none() {
            let now = Instant::now();
            this.since = Some(now);
            this.alarm.as_mut().reset(now.checked_add(this.left).unwrap_or(now));
        }
        match this.alarm.as_mut().poll(context) {
            Poll::Ready(()) => Poll::Ready(Some(Err(too_slow()))),
            Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    /// Reads to the end an answer of pieces that come after a pause each; the bytes, or the error's code.
    async fn read(pause: Duration, pieces: usize, bytes: usize) -> Result<usize, tonic::Code> {
        let pieces = stream::iter(0..pieces).then(move |_| async move {
            tokio::time::sleep(pause).await;
            Ok::<_, Status>(Frame::data(Bytes::from(vec![0; bytes])))
        });
        let body = Paced::new(Body::new(StreamBody::new(pieces)));
        body.collect().await.map(|whole| whole.to_bytes().len()).map_err(|status| status.code())
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_keeps_coming_may_take_any_time() {
        assert_eq!(read(Duration::from_secs(5), 1000, 64 * 1024).await, Ok(1000 * 64 * 1024));
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_stops_or_trickles_is_cut_off_soon() {
        for (pause, bytes) in [(Duration::from_secs(3600), 1 << 20), (Duration::from_secs(1), 1)] {
            let began = Instant::now();
            assert_eq!(read(pause, 10_000, bytes).await, Err(tonic::Code::DeadlineExceeded));
            assert!(began.elapsed() <= 2 * PATIENCE, "{:?}", began.elapsed());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_pauses_costs_its_sender_nothing() {
        let pieces = stream::iter((0..10).map(|_| Ok::<_, Status>(Frame::data(Bytes::from_static(b"x")))));
        let mut body = Paced::new(Body::new(StreamBody::new(pieces)));
        while let Some(frame) = body.frame().await {
            assert!(frame.is_ok());
            tokio::time::sleep(PATIENCE).await;
        }
    }
}
