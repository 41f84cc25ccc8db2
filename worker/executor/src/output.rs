//! Streams a command's output to those who follow it.

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::{Chunk, Stream};

/// Maximum bytes per read of a command's output.
const CHUNK_BYTES: usize = 64 * 1024;

/// Forwards a stream until it ends. If nobody receives it any more, drains it, so that the command does not block.
pub async fn follow(source: Option<impl AsyncReadExt + Unpin>, stream: Stream, output: mpsc::Sender<Chunk>) {
    let Some(mut source) = source else { return };
    let mut buffer = bytes::BytesMut::with_capacity(CHUNK_BYTES);
    loop {
        buffer.reserve(CHUNK_BYTES);
        match source.read_buf(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                let _ = output.send(Chunk { stream, data: buffer.split().freeze() }).await;
            }
        }
    }
}
