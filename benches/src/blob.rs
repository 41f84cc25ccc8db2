//! Uploads and downloads large blobs over ByteStream, in constant memory.

use std::io::Write;
use std::time::Instant;

use kiln_proto::channel::Channel;
use kiln_proto::digest::DigestFunction;
use kiln_proto::transfer::{Blob, Client};
use rand::{RngCore, SeedableRng};

use crate::report::Figure;

/// Uploads `mib` MiB of random bytes and downloads them.
pub async fn round_trip(channel: &Channel, mib: u64) -> anyhow::Result<Vec<Figure>> {
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

    let began = Instant::now();
    client.upload(vec![(digest, Blob::File(path))]).await?;
    let up = began.elapsed();
    let began = Instant::now();
    client.download(&digest, &dir.path().join("down")).await?;
    let down = began.elapsed();
    let rate = |took: std::time::Duration| mib as f64 / took.as_secs_f64();
    Ok(vec![
        Figure::new(format!("blob of {mib} MiB, up"), rate(up), "MiB/s").wanted("at least 400"),
        Figure::new(format!("blob of {mib} MiB, down"), rate(down), "MiB/s").wanted("at least 400"),
    ])
}
