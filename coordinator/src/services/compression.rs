//! zstd on the wire (RFC 8878), in pieces: no output piece is larger than a message may be.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tonic::Status;
use zstd::stream::raw::{Decoder, Encoder, InBuffer, Operation, OutBuffer};

use kiln_store::{BlobStream, disk::CHUNK_BYTES};

/// Compression level for sending: speed matters more than size on a farm's network.
const LEVEL: i32 = 1;

/// Runs CPU-bound work outside the runtime's threads.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Status> {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => Ok(value),
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => Err(Status::unavailable("the farm is shutting down; try again")),
    }
}

fn bad_zstd(error: &io::Error) -> Status {
    Status::invalid_argument(format!("invalid zstd data: {error}"))
}

/// Decodes one stream of zstd frames.
pub(super) struct Decompressor {
    decoder: Decoder<'static>,
    input: Bytes,
    /// Whether the last call filled its output, so that more may be buffered.
    full: bool,
}

impl Decompressor {
    pub(super) fn new() -> Result<Self, Status> {
        let decoder = Decoder::new().map_err(|error| Status::internal(error.to_string()))?;
        Ok(Self { decoder, input: Bytes::new(), full: false })
    }

    /// Sets the decoder's next input; the previous one must be used up.
    pub(super) fn feed(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty());
        self.input = input;
    }

    /// The next piece of output; `None` if more input is needed. CPU-bound: run it outside the runtime's threads.
    pub(super) fn step(&mut self) -> Result<Option<Bytes>, Status> {
        let mut output = Vec::new();
        while !self.input.is_empty() || self.full {
            if output.capacity() == 0 {
                output.reserve_exact(CHUNK_BYTES);
            }
            let mut from = InBuffer::around(&self.input);
            let at = output.len();
            let run = self.decoder.run(&mut from, &mut OutBuffer::around_pos(&mut output, at));
            run.map_err(|error| bad_zstd(&error))?;
            let used = from.pos();
            let _ = self.input.split_to(used);
            self.full = output.len() == output.capacity();
            if self.full {
                break;
            }
        }
        Ok((!output.is_empty()).then(|| output.into()))
    }
}

/// Decodes a small blob of a known size. Never produces more than `size` bytes.
pub(super) fn decompress(data: &[u8], size: usize) -> Result<Vec<u8>, Status> {
    let mut decoder = zstd::stream::read::Decoder::with_buffer(data).map_err(|error| bad_zstd(&error))?;
    let mut output = Vec::with_capacity(size);
    let limit = size as u64 + 1;
    io::Read::read_to_end(&mut io::Read::take(&mut decoder, limit), &mut output).map_err(|error| bad_zstd(&error))?;
    Ok(output)
}

/// Encodes a small blob.
pub(super) fn compress(data: &[u8]) -> Result<Vec<u8>, Status> {
    zstd::bulk::compress(data, LEVEL).map_err(|error| Status::internal(error.to_string()))
}

/// Encodes a blob as one frame.
pub(super) fn compressed(blob: BlobStream) -> Result<impl Stream<Item = Result<Bytes, Status>>, Status> {
    let encoder = Encoder::new(LEVEL).map_err(|error| Status::internal(error.to_string()))?;
    Ok(stream::unfold(Some((encoder, blob)), |state| async {
        let (mut encoder, mut blob) = state?;
        loop {
            let input = match blob.next().await {
                Some(Ok(data)) => Some(data),
                Some(Err(error)) => return Some((Err(error.into()), None)),
                None => None,
            };
            let last = input.is_none();
            let encoded = blocking(move || {
                let output = encode(&mut encoder, input);
                (encoder, output)
            });
            match encoded.await {
                Err(status) => return Some((Err(status), None)),
                Ok((_, Err(error))) => return Some((Err(Status::internal(error.to_string())), None)),
                Ok((_, Ok(output))) if last => return Some((Ok(output), None)),
                Ok((back, Ok(output))) if output.is_empty() => encoder = back,
                Ok((back, Ok(output))) => return Some((Ok(output), Some((back, blob)))),
            }
        }
    }))
}

/// Encodes a piece, or ends the frame. Incompressible pieces grow only slightly, so the output stays small.
fn encode(encoder: &mut Encoder<'static>, input: Option<Bytes>) -> io::Result<Bytes> {
    let mut output = Vec::new();
    let Some(input) = input else {
        loop {
            output.reserve(64 * 1024);
            let at = output.len();
            if encoder.finish(&mut OutBuffer::around_pos(&mut output, at), true)? == 0 {
                return Ok(output.into());
            }
        }
    };
    let mut from = InBuffer::around(&input);
    while from.pos() < input.len() {
        output.reserve(64 * 1024);
        let at = output.len();
        encoder.run(&mut from, &mut OutBuffer::around_pos(&mut output, at))?;
    }
    Ok(output.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode_in_pieces(encoded: &[u8], piece: usize) -> Vec<u8> {
        let mut decoder = Decompressor::new().unwrap();
        let mut output = Vec::new();
        for piece in encoded.chunks(piece) {
            decoder.feed(Bytes::copy_from_slice(piece));
            while let Some(data) = decoder.step().unwrap() {
                assert!(data.len() <= CHUNK_BYTES);
                output.extend_from_slice(&data);
            }
        }
        output
    }

    proptest! {
        #[test]
        fn any_cut_and_several_frames_decode_to_the_same_bytes(
            frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2_000), 0..4), piece in 1..500_usize
        ) {
            let encoded: Vec<u8> = frames.iter().flat_map(|frame| compress(frame).unwrap()).collect();
            prop_assert_eq!(decode_in_pieces(&encoded, piece), frames.concat());
        }
    }

    #[test]
    fn a_small_frame_of_a_large_blob_comes_in_pieces() {
        let blob = vec![7_u8; 5 * CHUNK_BYTES + 3];
        assert_eq!(decode_in_pieces(&compress(&blob).unwrap(), usize::MAX), blob);
    }

    #[test]
    fn a_batch_blob_never_grows_past_its_size() {
        let encoded = compress(&vec![0; 1_000_000]).unwrap();
        assert_eq!(decompress(&encoded, 10).unwrap().len(), 11);
        assert!(decompress(b"no zstd at all", 10).is_err());
    }
}
