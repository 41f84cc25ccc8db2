//! Parts of pages that are looked at again and again as long as a page shows them: the list of builds, the farm.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::{Stream, StreamExt};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_stream::wrappers::WatchStream;

use super::patch::{Drawn, message};
use crate::answer::Failure;

/// How often one looks.
const EVERY: Duration = Duration::from_secs(1);
/// Maximum number of different parts that are shown at once.
const MOST: usize = 2_000;

/// Whose part it is, and which: pages of one tenant that show the same share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Subject {
    pub(crate) tenant: String,
    pub(crate) what: String,
}

/// A part as it is.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) drawn: Vec<Drawn>,
}

impl Part {
    /// Whether pages that show this one lack nothing of the other.
    fn is_as(&self, other: &[Drawn]) -> bool {
        self.drawn.len() == other.len() && self.drawn.iter().zip(other).all(|(one, other)| one.is_as(other))
    }

    /// The part as it is now: of what has stayed as it was, the rendering that pages have already.
    fn next(&self, mut drawn: Vec<Drawn>) -> Arc<Self> {
        for (new, old) in drawn.iter_mut().zip(&self.drawn) {
            if old.is_as(new) {
                *new = old.clone();
            }
        }
        Arc::new(Self { drawn })
    }
}

type Shown = watch::Receiver<Arc<Part>>;

/// All parts that pages show. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feeds(Arc<Mutex<HashMap<Subject, Shown>>>);

impl Feeds {
    /// A part as it is now and as it changes. The first page to show it brings the way to look.
    pub(crate) async fn follow<F, L>(&self, subject: Subject, look: L) -> Result<Shown, Failure>
    where
        F: Future<Output = Result<Vec<Drawn>, Failure>> + Send,
        L: Fn() -> F + Send + 'static,
    {
        if let Some(shown) = self.open(&subject)? {
            return Ok(shown);
        }
        let (sender, receiver) = watch::channel(Arc::new(Part { drawn: look().await? }));
        self.0.lock().insert(subject.clone(), receiver.clone());
        let feeds = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = repeat(&sender, look) => {}
                // The map has one receiver itself.
                () = unseen(&sender) => {}
            }
            feeds.0.lock().remove(&subject);
        });
        Ok(receiver)
    }

    fn open(&self, subject: &Subject) -> Result<Option<Shown>, Failure> {
        let feeds = self.0.lock();
        let known = feeds.get(subject).filter(|shown| shown.has_changed().is_ok()).cloned();
        if known.is_none() && feeds.len() >= MOST {
            return Err(Failure::new(
                axum::http::StatusCode::TOO_MANY_REQUESTS,
                "Too many different pages are being followed; this one shows how it was.",
            ));
        }
        Ok(known)
    }
}

/// Looks until it fails, as when whoever looked first has lost their access: pages that are still open ask again as themselves.
async fn repeat<F, L>(sender: &watch::Sender<Arc<Part>>, look: L)
where
    F: Future<Output = Result<Vec<Drawn>, Failure>> + Send,
    L: Fn() -> F,
{
    loop {
        tokio::time::sleep(EVERY).await;
        let Ok(drawn) = look().await else { return };
        sender.send_if_modified(|shown| {
            let is_new = !shown.is_as(&drawn);
            if is_new {
                *shown = shown.next(drawn);
            }
            is_new
        });
    }
}

/// Completes when only the map holds a receiver.
async fn unseen(sender: &watch::Sender<Arc<Part>>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if sender.receiver_count() <= 1 {
            return;
        }
    }
}

/// The stream of what changes, until `end`.
pub(crate) fn stream(shown: Shown, end: impl Future<Output = ()> + Send + 'static) -> Response {
    let events =
        WatchStream::new(shown).map(|part| Ok::<_, Infallible>(message(part.drawn.iter().map(Drawn::written))));
    answer(events, end)
}

/// A stream of events as an answer, until `end`.
pub(crate) fn answer(
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
    end: impl Future<Output = ()> + Send + 'static,
) -> Response {
    let events = events.take_until(Box::pin(end));
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(20))).into_response()
}
