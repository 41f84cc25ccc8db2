//! Resolves an image name to a digest, in the form of an action: so the request is placed, retried and cancelled like
//! any other, and it uses the credentials of a worker that will also pull.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_images::name::ImageName;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::images::For;
use kiln_executor::samples::Samples;
use kiln_executor::scratch::Scratch;
use kiln_executor::{Chunk, Error, Executor, Exit, Finished, Job, OutputTree, Stream};

/// Resolves image names.
#[derive(Debug)]
pub struct Resolver {
    pub(super) shared: Arc<Shared>,
}

fn arguments(job: &Job) -> Result<(ImageName, String), Error> {
    let [name, platform] = job.arguments.as_slice() else {
        return Err(Error::Action(
            "expected an image name and a platform such as `linux/amd64` as arguments".to_owned(),
        ));
    };
    let name = name.parse().map_err(|error: kiln_images::reference::Invalid| Error::Action(error.to_string()))?;
    let architecture = platform.strip_prefix("linux/");
    let unknown = || Error::Action(format!("invalid platform `{platform}`; expected for example `linux/amd64`"));
    Ok((name, architecture.ok_or_else(unknown)?.to_owned()))
}

#[async_trait::async_trait]
impl Executor for Resolver {
    async fn run(&self, job: Job, output: mpsc::Sender<Chunk>, cancel: CancellationToken) -> Result<Finished, Error> {
        let began = Instant::now();
        let (name, architecture) = arguments(&job)?;
        // It produces no files.
        let nothing =
            Scratch::new(&self.shared.jobs).map_err(|error| Error::Worker(format!("cannot prepare a job: {error}")))?;
        let resolving = self.shared.images.resolve(&name, &architecture, For::job(&job));
        let exit = tokio::select! {
            resolved = resolving => {
                let resolved = resolved?;
                let _ = output.send(Chunk { stream: Stream::Stdout, data: resolved.name.to_string().into() }).await;
                if let Some(note) = resolved.note {
                    let _ = output.send(Chunk { stream: Stream::Stderr, data: note.into() }).await;
                }
                Exit::Code(0)
            }
            () = kiln_executor::ending::after(job.timeout) => Exit::TimedOut,
            () = cancel.cancelled() => Exit::Cancelled,
        };
        Ok(Finished {
            exit,
            wall: began.elapsed(),
            user_cpu: Duration::ZERO,
            system_cpu: Duration::ZERO,
            peak_memory_bytes: 0,
            samples: Samples::default(),
            accesses: None,
            conditions: Default::default(),
            tree: OutputTree::new(nothing.path().to_owned(), nothing),
        })
    }
}
