//! Uploads and downloads large blobs over ByteStream, in constant memory.

use std::io::Write;
use std::time::{Duration, Instant};

use kiln_proto::channel::Channel;
use kiln_proto::digest::DigestFunction;
use kiln_proto::transfer::{Blob, Client};
use rand::{RngCore, SeedableRng};

use crate::process::Process;
use crate::report::Figure;

/// Uploads `mib` MiB of random bytes and downloads them. If the server's process is known, its CPU time is a figure, too.
pub async fn round_trip(channel: &Channel, mib: u64, server: Option<Process>) -> anyhow::Result<Vec<Figure>> {
    let cpu = || server.and_then(|server| server.cpu());
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("up");
    let mut file = std::fs::File::create(&path)?;
    let mut random = rand::rngs::SmallRng::from_os_rng();
    let mut hasher = DigestFunction::Sha256.hasher();
    let mut chunk = vec![0; 1 << 20];
    for _ in 0..mib {
        random.fill_bytes(&mut chunk);
        hasher.update(&chunk);
        file.write_all(&chunk)?;
    }
    drop(file);
    let digest = hasher.finish();
    let client = Client::new(channel.clone(), "", DigestFunction::Sha256);

    let (began, before) = (Instant::now(), cpu());
    client.upload(vec![(digest, Blob::File(path))]).await?;
    let (up, between) = (began.elapsed(), cpu());
    let began = Instant::now();
    client.download(&digest, &dir.path().join("down")).await?;
    let (down, after) = (began.elapsed(), cpu());
    let rate = |took: Duration| mib as f64 / took.as_secs_f64();
    let mut figures = vec![
        Figure::new(format!("blob of {mib} MiB, up"), rate(up), "MiB/s").wanted("at least 400"),
        Figure::new(format!("blob of {mib} MiB, down"), rate(down), "MiB/s").wanted("at least 400"),
    ];
    for (way, from, to) in [("up", before, between), ("down", between, after)] {
        if let Some(took) = from.zip(to).map(|(from, to)| to.saturating_sub(from)).filter(|took| !took.is_zero()) {
            let name = format!("blob of {mib} MiB, {way}, per CPU second of the coordinator");
            figures.push(Figure::new(name, rate(took), "MiB"));
        }
    }
    Ok(figures)
}
