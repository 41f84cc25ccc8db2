//! Whether this worker offers Docker: from the engine's first response, and whenever it responds.
//!
//! Invariant: a worker whose engine is unavailable tells the farm, and gets no more actions that it could only hand
//! back.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{Config, Docker, Error, Mode};

/// How often to check that the engine responds.
const EVERY: Duration = Duration::from_secs(2);

/// A description of Docker on this worker, or the reason why it is not offered.
pub type Offered = Result<String, String>;

/// Docker on this worker, which may be unavailable at times.
#[derive(Debug)]
pub struct Offer {
    config: Option<Config>,
    docker: OnceLock<Docker>,
    offered: watch::Sender<Offered>,
}

impl Offer {
    /// Looks for an engine.
    ///
    /// # Errors
    /// If there is none although it is required.
    pub async fn open(mode: Mode, config: Config) -> Result<Arc<Self>, Error> {
        let mut offer = Self { config: None, docker: OnceLock::new(), offered: watch::Sender::new(Ok(String::new())) };
        match mode {
            Mode::Off => drop(offer.offered.send_replace(Err("the worker was started with `--docker off`".to_owned()))),
            Mode::Required => offer.hold(Docker::open(config).await?),
            Mode::Auto => {
                offer.config = Some(config);
                offer.find().await;
            }
        }
        Ok(Arc::new(offer))
    }

    /// What is offered now, and each change of it.
    pub fn offered(&self) -> watch::Receiver<Offered> {
        self.offered.subscribe()
    }

    /// Docker, if an engine has ever responded; it may be unavailable now.
    pub fn docker(&self) -> Option<&Docker> {
        self.docker.get()
    }

    fn hold(&self, docker: Docker) {
        self.say(Ok(docker.describe()));
        let _ = self.docker.set(docker);
    }

    async fn find(&self) {
        let Some(config) = &self.config else { return };
        match Docker::open(config.clone()).await {
            Ok(docker) => self.hold(docker),
            Err(error) => self.say(Err(error.to_string())),
        }
    }

    /// Checks whether the engine responds.
    pub async fn look(&self) {
        match self.docker.get() {
            None => self.find().await,
            Some(docker) if docker.answers().await => self.say(Ok(docker.describe())),
            Some(_) => self.say(Err("its Docker Engine does not answer".to_owned())),
        }
    }

    fn say(&self, now: Offered) {
        self.offered.send_if_modified(|before| {
            let is_other = *before != now;
            *before = now;
            is_other
        });
    }

    /// Checks the engine repeatedly until `stop` is cancelled.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        if self.config.is_none() && self.docker.get().is_none() {
            return;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = stop.cancelled() => return,
            }
            self.look().await;
        }
    }
}
