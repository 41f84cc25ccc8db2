//! An engine that waits for another one that is away for a moment.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::time::Instant;

use crate::engine::{Engine, Entry, Error, Range, Space, Write};

/// How long after a failure the next attempt is made.
const PAUSE: Duration = Duration::from_millis(200);

/// Does again what fails because the engine below is away, for a while. That is harmless: what was committed may be committed once more.
/// Where commits were lost, the caller is told at once: it has those that come first.
#[derive(Debug)]
pub struct Patient {
    engine: Arc<dyn Engine>,
    patience: Duration,
}

impl Patient {
    /// Waits so long for this engine.
    pub fn over(engine: Arc<dyn Engine>, patience: Duration) -> Self {
        Self { engine, patience }
    }

    async fn with<T, F: Future<Output = Result<T, Error>>>(&self, work: impl Fn() -> F) -> Result<T, Error> {
        let began = Instant::now();
        loop {
            match work().await {
                Err(Error::Away { lost: false, .. }) if began.elapsed() < self.patience => {
                    tokio::time::sleep(PAUSE).await
                }
                done => return done,
            }
        }
    }
}

#[async_trait]
impl Engine for Patient {
    async fn commit(&self, batches: Vec<Arc<Vec<Write>>>, sync: bool) -> Result<(), Error> {
        self.with(|| self.engine.commit(batches.clone(), sync)).await
    }

    async fn read(&self, stream: &str, from: u64, bytes: usize) -> Result<Vec<Entry>, Error> {
        self.with(|| self.engine.read(stream, from, bytes)).await
    }

    async fn end(&self, stream: &str) -> Result<u64, Error> {
        self.with(|| self.engine.end(stream)).await
    }

    async fn get(&self, space: Space, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, Error> {
        self.with(|| self.engine.get(space, keys.clone())).await
    }

    async fn list(&self, space: Space, range: Range) -> Result<Vec<(String, Bytes)>, Error> {
        self.with(|| self.engine.list(space, range.clone())).await
    }

    async fn count(&self, space: Space) -> Result<u64, Error> {
        self.with(|| self.engine.count(space)).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    /// Away for the first calls.
    #[derive(Debug)]
    struct Away(AtomicUsize, bool);

    impl Away {
        fn answer<T>(&self, answer: T) -> Result<T, Error> {
            let left = self.0.load(Ordering::SeqCst);
            self.0.store(left.saturating_sub(1), Ordering::SeqCst);
            let source = Arc::new(std::io::Error::other("gone"));
            if left > 0 { Err(Error::Away { journal: "here".into(), lost: self.1, source }) } else { Ok(answer) }
        }
    }

    #[async_trait]
    impl Engine for Away {
        async fn commit(&self, _: Vec<Arc<Vec<Write>>>, _: bool) -> Result<(), Error> {
            self.answer(())
        }

        async fn read(&self, _: &str, _: u64, _: usize) -> Result<Vec<Entry>, Error> {
            self.answer(Vec::new())
        }

        async fn end(&self, _: &str) -> Result<u64, Error> {
            Err(Error::Fenced { journal: "here".into() })
        }

        async fn get(&self, _: Space, keys: Vec<String>) -> Result<Vec<Option<Bytes>>, Error> {
            self.answer(vec![None; keys.len()])
        }

        async fn list(&self, _: Space, _: Range) -> Result<Vec<(String, Bytes)>, Error> {
            self.answer(Vec::new())
        }

        async fn count(&self, _: Space) -> Result<u64, Error> {
            self.answer(7)
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_away_for_a_moment_is_waited_for_and_nothing_else_is() {
        let away = |times| Patient::over(Arc::new(Away(AtomicUsize::new(times), false)), Duration::from_secs(1));
        assert_eq!(away(3).count("builds").await.unwrap(), 7);
        assert!(away(3).commit(vec![Arc::default()], true).await.is_ok());
        assert!(matches!(away(100).count("builds").await, Err(Error::Away { .. })));
        let began = Instant::now();
        assert!(matches!(away(100).end("build").await, Err(Error::Fenced { .. })));
        // Doing it again alone would leave out what came before it.
        let lost = Patient::over(Arc::new(Away(AtomicUsize::new(1), true)), Duration::from_secs(1));
        assert!(matches!(lost.commit(Vec::new(), true).await, Err(Error::Away { lost: true, .. })));
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
