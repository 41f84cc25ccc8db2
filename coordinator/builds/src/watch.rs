//! Follows the events of a build from any offset to its end.

use kiln_proto::v1::{self, event};
use tokio::sync::{mpsc, watch};
use tonic::Status;

use super::{Builds, unread};

/// Maximum clients that follow builds at once.
pub(super) const MAX_WATCHES: usize = 20_000;
/// Events buffered for one client: they are read from the disk and need no queue.
const WATCHED_AHEAD: usize = 8;

type Sender = mpsc::Sender<Result<v1::Event, Status>>;

/// Whether a request asks for an event: it may leave out the output of steps.
fn is_wanted(event: &v1::Event, request: &v1::WatchRequest) -> bool {
    let Some(event::Event::Log(log)) = &event.event else { return true };
    !request.without_logs && (request.logs_of.is_none() || request.logs_of == log.step)
}

impl Builds {
    /// The events of a build from an offset on, ending after `BuildFinished`.
    pub async fn watch(&self, id: &str, offset: u64) -> Result<mpsc::Receiver<Result<v1::Event, Status>>, Status> {
        let request = v1::WatchRequest { build: id.to_owned(), offset, ..v1::WatchRequest::default() };
        self.watch_some(request).await
    }

    /// The events that a request asks for, as [`watch`](Self::watch).
    pub async fn watch_some(
        &self,
        request: v1::WatchRequest,
    ) -> Result<mpsc::Receiver<Result<v1::Event, Status>>, Status> {
        let place = self.shared.watches.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{MAX_WATCHES} clients are watching builds, which is the farm's limit"))
        })?;
        let id = self.get(&request.build).await?.id;
        let changed = self.shared.active.lock().get(&id).map(|active| active.events.changed());
        let (sender, receiver) = mpsc::channel(WATCHED_AHEAD);
        let builds = self.clone();
        tokio::spawn(async move {
            let _place = place;
            if let Err(status) = builds.send_events(&id, &request, changed, &sender).await {
                let _ = sender.send(Err(status)).await;
            }
        });
        Ok(receiver)
    }

    /// Ends after the last event, or when the receiver is gone.
    async fn send_events(
        &self,
        id: &str,
        request: &v1::WatchRequest,
        mut changed: Option<watch::Receiver<u64>>,
        sender: &Sender,
    ) -> Result<(), Status> {
        let mut offset = request.offset;
        loop {
            if let Some(changed) = &mut changed {
                changed.mark_unchanged();
            }
            // Checked before reading: a build that has ended writes no more events.
            let running = self.shared.active.lock().contains_key(id);
            let events = self.shared.records.events(id, offset).await.map_err(unread)?;
            let none = events.is_empty();
            for event in events {
                offset = event.offset + 1;
                let last = matches!(event.event, Some(event::Event::BuildFinished(_)));
                if !is_wanted(&event, request) {
                    continue;
                }
                if sender.send(Ok(event)).await.is_err() || last {
                    return Ok(());
                }
            }
            match &mut changed {
                Some(changed) if none && running && !request.until_now => tokio::select! {
                    changed = changed.changed() => if changed.is_err() { return Ok(()) },
                    () = sender.closed() => return Ok(()),
                },
                _ if none => return Ok(()),
                _ => {}
            }
        }
    }
}
