//! Reports a pull's progress in the step's log.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bollard::models::CreateImageInfo;
use kiln_images::name::ImageName;
use tokio::sync::mpsc;

use kiln_executor::{Chunk, Stream};

/// Interval between progress reports.
const TELL_EVERY: Duration = Duration::from_secs(2);

/// Reports the progress of one pull.
pub(super) struct Progress<'a> {
    name: &'a ImageName,
    tell: &'a mpsc::Sender<Chunk>,
    layers: HashMap<String, (i64, i64)>,
    began: Instant,
    told: Instant,
}

impl<'a> Progress<'a> {
    pub(super) fn new(name: &'a ImageName, tell: &'a mpsc::Sender<Chunk>) -> Self {
        Self { name, tell, layers: HashMap::new(), began: Instant::now(), told: Instant::now() }
    }

    async fn say(&self, text: String) {
        let data = format!("kiln: {text}\n").into();
        let _ = self.tell.send(Chunk { stream: Stream::Stderr, data }).await;
    }

    /// Handles an event from the engine.
    pub(super) async fn saw(&mut self, info: &CreateImageInfo) {
        if let (Some(layer), Some(detail), Some("Downloading")) =
            (&info.id, &info.progress_detail, info.status.as_deref())
        {
            let bytes = (detail.current.unwrap_or(0), detail.total.unwrap_or(0));
            self.layers.insert(layer.clone(), bytes);
        }
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let sum = |of: fn(&(i64, i64)) -> i64| self.layers.values().map(of).sum::<i64>() >> 20;
            self.say(format!("pulling `{}`: {} of {} MiB", self.name, sum(|bytes| bytes.0), sum(|bytes| bytes.1)))
                .await;
        }
    }

    /// Reports that the image was pulled.
    pub(super) async fn done(&self) {
        self.say(format!("pulled `{}` in {:.1} s", self.name, self.began.elapsed().as_secs_f64())).await;
    }
}
