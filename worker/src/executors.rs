//! A worker's executors: the sandbox, and Docker if available.

use std::sync::Arc;

use kiln_docker::Offer;
use kiln_executor::{Chunk, Error, Executor, Finished, Job, Place};
use kiln_sandbox::Sandbox;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use zeroize::Zeroizing;

/// A worker's executors, one for each kind of job.
#[derive(Debug)]
pub struct Executors {
    sandbox: Sandbox,
    docker: Arc<Offer>,
}

impl Executors {
    /// Without Docker, jobs that need it are refused.
    pub fn new(sandbox: Sandbox, docker: Arc<Offer>) -> Self {
        Self { sandbox, docker }
    }

    async fn in_docker(
        &self,
        job: Job,
        output: mpsc::Sender<Chunk>,
        cancel: CancellationToken,
    ) -> Result<Finished, Error> {
        let Some(docker) = self.docker.docker() else {
            return Err(Error::Worker("this worker has no Docker".to_owned()));
        };
        let finished = match job.place {
            Place::ImageResolver => docker.resolver().run(job, output, cancel).await,
            _ => docker.run(job, output, cancel).await,
        };
        if matches!(finished, Err(Error::Worker(_))) {
            // If the engine is gone, the next job must not come here.
            self.docker.look().await;
        }
        finished
    }
}

#[async_trait::async_trait]
impl Executor for Executors {
    async fn run(&self, job: Job, output: mpsc::Sender<Chunk>, cancel: CancellationToken) -> Result<Finished, Error> {
        match job.place {
            Place::Machine | Place::Root(_) => Executor::run(&self.sandbox, job, output, cancel).await,
            Place::Image(..) | Place::ImageResolver if job.session.is_some() => Err(Error::Action(
                "the step ran in a container of a Docker Engine, where no shell can be opened: build it with `--executor sandbox`, or \
                 use `docker run` with its image"
                    .to_owned(),
            )),
            Place::Image(..) | Place::ImageResolver => self.in_docker(job, output, cancel).await,
        }
    }

    fn hidden(&self) -> &[Zeroizing<String>] {
        self.sandbox.hidden()
    }

    fn has_own_networks(&self) -> bool {
        self.sandbox.has_own_networks()
    }
}
