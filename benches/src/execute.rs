//! Execute: latency of sequential actions, and throughput of many concurrent distinct ones.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kiln_proto::channel::Channel;
use kiln_proto::digest::Digest;
use kiln_proto::property;
use kiln_proto::transfer::Client;

use crate::actions::{self, FUNCTION, Recipe};
use crate::report::{Figure, Latencies};

/// The measurements of a run.
#[derive(Debug)]
pub struct Ran {
    /// Of each action, from Execute to its result.
    pub latencies: Latencies,
    /// Actions per second.
    pub per_second: f64,
}

/// Like [`run`], as figures.
///
/// # Errors
/// If an action fails.
pub async fn noop(
    channel: &Channel,
    image: Option<&str>,
    count: u32,
    concurrency: usize,
) -> anyhow::Result<Vec<Figure>> {
    let ran = run(channel, image, count, concurrency).await?;
    let place = if image.is_some() { " in a container" } else { "" };
    let name = format!("/bin/true{place}, {concurrency} at once");
    let mut figures = ran.latencies.figures(&name);
    figures.push(Figure::new(format!("{name}, throughput"), ran.per_second, "actions/s"));
    Ok(figures)
}

/// Runs `count` distinct actions of `/bin/true`, `concurrency` at a time: on the worker's system, or in a container of
/// this image.
///
/// # Errors
/// If an action fails.
pub async fn run(channel: &Channel, image: Option<&str>, count: u32, concurrency: usize) -> anyhow::Result<Ran> {
    let salt: u64 = rand::random();
    // The empty directory is the empty blob, which every endpoint has.
    let platform = image.map(|image| (property::CONTAINER_IMAGE.to_owned(), image.to_owned()));
    let recipe = Recipe::noop(Digest::empty(FUNCTION), platform.into_iter().collect());
    let mut blobs = Vec::new();
    let mut digests = Vec::new();
    for index in 0..count {
        let (digest, uploads) = recipe.action(&format!("{salt}-{index}"));
        blobs.extend(uploads);
        digests.push(digest);
    }
    Client::new(channel.clone(), "", FUNCTION).upload(blobs).await?;

    let began = Instant::now();
    let took: Vec<Duration> = stream::iter(digests)
        .map(|digest| timed(channel.clone(), digest))
        .buffer_unordered(concurrency)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .collect::<anyhow::Result<_>>()?;
    let wall = began.elapsed();
    let mut latencies = Latencies::default();
    took.into_iter().for_each(|took| latencies.record(took));
    Ok(Ran { latencies, per_second: f64::from(count) / wall.as_secs_f64() })
}

async fn timed(channel: Channel, action: Digest) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let response = actions::execute(channel, "", &action).await?;
    let took = began.elapsed();
    actions::fresh(response)?;
    Ok(took)
}
