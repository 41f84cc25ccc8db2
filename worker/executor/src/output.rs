//! A command's output on its way to whoever follows it.

use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;

use super::{Chunk, Stream};

/// Bytes read from a command's output at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Sends a stream's bytes on until it ends. Where nobody listens any more it is drained, so that the command is not stuck.
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
