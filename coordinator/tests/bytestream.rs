//! `ByteStream` over a real connection: the behaviours that REAPI specifies, one test each, and random uploads against
//! a model.

#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt, stream};
use kiln_coordinator::services::ReadLogs;
use kiln_proto::bytestream::WriteRequest;
use proptest::prelude::*;
use support::{BLAKE3, Farm, SHA256, code, noise, piece, pieces};
use tonic::Code;

#[tokio::test]
async fn blobs_of_every_size_come_back_as_they_went() {
    let farm = Farm::start().await;
    for size in [1, 1_000, 300_000, 1 << 20, (1 << 20) + 1, 5_000_000] {
        for function in [SHA256, BLAKE3] {
            let data = noise(size as u64, size);
            let digest = function.digest(&data);
            let name = format!("uploads/u/blobs/{digest}");
            assert_eq!(farm.write(pieces(&name, &data, 64 * 1024)).await.unwrap(), size as i64);
            assert_eq!(farm.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
        }
    }
}

#[tokio::test]
async fn instance_names_may_be_empty_or_have_several_segments_and_trailing_metadata_is_ignored() {
    let farm = Farm::start().await;
    for (at, instance) in ["", "main/", "a/b/c/"].iter().enumerate() {
        let data = noise(at as u64, 100);
        let digest = SHA256.digest(&data);
        let name = format!("{instance}uploads/u/blobs/{digest}/src/main.rs");
        assert_eq!(farm.write(pieces(&name, &data, 100)).await.unwrap(), 100);
        assert_eq!(farm.read(&format!("{instance}blobs/{digest}"), 0, 0).await.unwrap(), data);
    }
    assert_eq!(code(farm.read("no/such/thing", 0, 0).await), Code::InvalidArgument);
    assert_eq!(code(farm.write(vec![piece("no/such/thing", 0, b"", true)]).await), Code::InvalidArgument);
}

#[tokio::test]
async fn the_digest_function_stands_in_the_name_for_blake3_only() {
    let farm = Farm::start().await;
    let digest = farm.put(BLAKE3, b"blob").await;
    assert_eq!(farm.read(&format!("blobs/blake3/{}/4", digest.hex()), 0, 0).await.unwrap(), b"blob");
    assert_eq!(code(farm.read(&format!("blobs/{}/4", digest.hex()), 0, 0).await), Code::NotFound);
    assert_eq!(code(farm.read(&format!("blobs/gitsha1/{}/4", digest.hex()), 0, 0).await), Code::InvalidArgument);
}

#[tokio::test]
async fn writing_a_blob_that_exists_ends_at_once_with_its_full_size_or_minus_one() {
    let farm = Farm::start().await;
    let data = noise(1, 3_000_000);
    let digest = farm.put(SHA256, &data).await;
    for (name, size) in [("blobs", 3_000_000), ("compressed-blobs/zstd", -1)] {
        let name = format!("uploads/u/{name}/{digest}");
        // The stream never ends by itself: only the farm can end the call.
        let endless = stream::iter([piece(&name, 0, &data[..10], false)]).chain(stream::pending());
        let response = farm.bytes.clone().write(endless).await.unwrap();
        assert_eq!(response.into_inner().committed_size, size);
    }
}

#[tokio::test]
async fn a_wrong_digest_is_an_invalid_argument_and_nothing_is_stored() {
    let farm = Farm::start().await;
    let data = noise(1, 2_000_000);
    let digest = SHA256.digest(&data);
    let name = format!("uploads/u/blobs/{digest}");
    let mut wrong = data.clone();
    wrong[1_999_999] ^= 1;
    assert_eq!(code(farm.write(pieces(&name, &wrong, 500_000)).await), Code::InvalidArgument);
    assert!(!farm.has(&digest).await);
    assert_eq!(farm.stores.blobs.bytes(), 0);
    assert_eq!(std::fs::read_dir(farm.dir.path().join("blobs/tmp")).unwrap().count(), 0);
    let longer = [data.as_slice(), b"x"].concat();
    assert_eq!(code(farm.write(pieces(&name, &longer, 500_000)).await), Code::InvalidArgument);
    assert_eq!(code(farm.write(vec![piece(&name, 0, &data[..5], true)]).await), Code::InvalidArgument);
    assert!(!farm.has(&digest).await);
    assert_eq!(
        farm.write(pieces(&name, &data, 500_000)).await.unwrap(),
        2_000_000,
        "expected a retry under the same name to succeed"
    );
}

#[tokio::test]
async fn a_completed_compressed_write_answers_with_the_compressed_byte_count() {
    let farm = Farm::start().await;
    for (seed, data) in [noise(1, 3_000_000), b"again ".repeat(500_000)].into_iter().enumerate() {
        let digest = SHA256.digest(&data);
        let encoded = zstd::encode_all(data.as_slice(), 3).unwrap();
        let name = format!("uploads/u{seed}/compressed-blobs/zstd/{digest}");
        assert_eq!(farm.write(pieces(&name, &encoded, 100_000)).await.unwrap(), encoded.len() as i64);
        assert_eq!(farm.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
    }
}

#[tokio::test]
async fn bad_compressed_writes_are_invalid_arguments_and_store_nothing() {
    let farm = Farm::start().await;
    let digest = SHA256.digest(&[0; 1_000]);
    let name = format!("uploads/u/compressed-blobs/zstd/{digest}");
    let longer = zstd::encode_all([0_u8; 100_000_000].as_slice(), 1).unwrap();
    assert_eq!(code(farm.write(pieces(&name, &longer, 1 << 20)).await), Code::InvalidArgument);
    assert_eq!(code(farm.write(pieces(&name, b"this is no zstd frame", 100)).await), Code::InvalidArgument);
    let other = zstd::encode_all([1_u8; 1_000].as_slice(), 1).unwrap();
    assert_eq!(code(farm.write(pieces(&name, &other, 100)).await), Code::InvalidArgument);
    let lz5 = format!("uploads/u/compressed-blobs/lz5/{digest}");
    assert_eq!(code(farm.write(pieces(&lz5, &other, 100)).await), Code::InvalidArgument);
    assert!(!farm.has(&digest).await);
}

#[tokio::test]
async fn a_wrong_write_offset_or_data_after_finish_is_an_error() {
    let farm = Farm::start().await;
    let data = noise(1, 1_000);
    let digest = SHA256.digest(&data);
    let name = |upload: &str| format!("uploads/{upload}/blobs/{digest}");
    let first = name("first");
    assert_eq!(code(farm.write(vec![piece(&first, 5, &data[5..], true)]).await), Code::InvalidArgument);
    let gap = vec![piece(&first, 0, &data[..10], false), piece(&first, 20, &data[20..], true)];
    assert_eq!(code(farm.write(gap).await), Code::InvalidArgument);
    let negative = WriteRequest { write_offset: -1, ..piece(&name("neg"), 0, &data, true) };
    assert_eq!(code(farm.write(vec![negative]).await), Code::OutOfRange);
    let after = name("after");
    let late = vec![piece(&after, 0, &data[..500], true), piece(&after, 500, &data[500..], true)];
    assert_eq!(code(farm.write(late).await), Code::InvalidArgument);
    assert!(!farm.has(&digest).await);
}

#[tokio::test]
async fn a_broken_upload_goes_on_where_it_was_committed() {
    let farm = Farm::start().await;
    let data = noise(1, 3_000_000);
    let digest = SHA256.digest(&data);
    let name = format!("uploads/u/blobs/{digest}");
    assert_eq!(farm.write_status(&name).await, (0, false), "expected an unknown upload to be empty and incomplete");
    break_after(&farm, &name, pieces(&name, &data[..1_000_000], 100_000), 1_000_000).await;
    let mut rest = pieces(&name, &data[1_000_000..], 100_000);
    rest.iter_mut().for_each(|message| message.write_offset += 1_000_000);
    assert_eq!(farm.write(rest).await.unwrap(), 3_000_000);
    assert_eq!(farm.write_status(&name).await, (3_000_000, true));
    assert_eq!(farm.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
}

#[tokio::test]
async fn a_broken_upload_may_begin_again_and_its_status_never_goes_down() {
    let farm = Farm::start().await;
    let data = noise(1, 2_000_000);
    let digest = SHA256.digest(&data);
    let name = format!("uploads/u/blobs/{digest}");
    break_after(&farm, &name, pieces(&name, &data[..1_500_000], 100_000), 1_500_000).await;
    break_after(&farm, &name, pieces(&name, &data[..500_000], 100_000), 1_500_000).await;
    assert_eq!(farm.write(pieces(&name, &data, 100_000)).await.unwrap(), 2_000_000);
    assert_eq!(farm.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
}

#[tokio::test]
async fn a_compressed_write_goes_on_at_an_uncompressed_offset() {
    let farm = Farm::start().await;
    let data = noise(1, 3_000_000);
    let digest = SHA256.digest(&data);
    let name = format!("uploads/u/compressed-blobs/zstd/{digest}");
    let encoded = zstd::encode_all(data.as_slice(), 1).unwrap();
    let (messages, endless) = tokio::sync::mpsc::channel(1);
    let mut client = farm.bytes.clone();
    let call = tokio::spawn(async move { client.write(tokio_stream::wrappers::ReceiverStream::new(endless)).await });
    for message in pieces(&name, &encoded[..2_000_000], 100_000) {
        messages.send(WriteRequest { finish_write: false, ..message }).await.unwrap();
    }
    let mut decoded = Vec::new();
    let cut = std::io::Read::read_to_end(&mut zstd::Decoder::new(&encoded[..2_000_000]).unwrap(), &mut decoded);
    assert_eq!(cut.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    let committed = until_status(&farm, &name, |committed| committed >= decoded.len() as i64).await as usize;
    assert_eq!(committed, decoded.len());
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    let rest = zstd::encode_all(&data[committed..], 1).unwrap();
    let mut messages = pieces(&name, &rest, 100_000);
    messages.iter_mut().for_each(|message| message.write_offset += committed as i64);
    assert_eq!(farm.write(messages).await.unwrap(), -1);
    assert_eq!(farm.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
}

/// Sends messages and disconnects without finishing, once the farm has committed the expected size.
async fn break_after(farm: &Farm, name: &str, messages: Vec<WriteRequest>, committed: i64) {
    let messages: Vec<_> =
        messages.into_iter().map(|message| WriteRequest { finish_write: false, ..message }).collect();
    let (seen, all_sent) = tokio::sync::oneshot::channel::<()>();
    let mut seen = Some(seen);
    let count = messages.len();
    let requests = stream::iter(messages.into_iter().enumerate())
        .map(move |(at, message)| {
            if at + 1 == count {
                drop(seen.take());
            }
            message
        })
        .chain(stream::pending());
    let mut client = farm.bytes.clone();
    let call = tokio::spawn(async move { client.write(requests).await });
    assert!(all_sent.await.is_err());
    assert_eq!(until_status(farm, name, |now| now >= committed).await, committed);
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
}

/// Polls until the committed size is as expected.
async fn until_status(farm: &Farm, name: &str, wanted: impl Fn(i64) -> bool) -> i64 {
    loop {
        let (committed, _) = farm.write_status(name).await;
        if wanted(committed) {
            return committed;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn the_newest_stream_takes_an_upload_over() {
    let farm = Farm::start().await;
    let data = noise(1, 1_000_000);
    let digest = SHA256.digest(&data);
    let name = format!("uploads/u/blobs/{digest}");
    let (messages, receiver) = tokio::sync::mpsc::channel(1);
    let mut client = farm.bytes.clone();
    let old = tokio::spawn(async move { client.write(tokio_stream::wrappers::ReceiverStream::new(receiver)).await });
    messages.send(piece(&name, 0, &data[..400_000], false)).await.unwrap();
    until_status(&farm, &name, |committed| committed == 400_000).await;
    let (more, receiver) = tokio::sync::mpsc::channel(1);
    let mut client = farm.bytes.clone();
    let new = tokio::spawn(async move { client.write(tokio_stream::wrappers::ReceiverStream::new(receiver)).await });
    more.send(piece(&name, 400_000, &data[400_000..500_000], false)).await.unwrap();
    until_status(&farm, &name, |committed| committed == 500_000).await;
    messages.send(piece(&name, 400_000, &data[400_000..], true)).await.unwrap();
    assert_eq!(code(old.await.unwrap()), Code::Aborted);
    more.send(piece(&name, 500_000, &data[500_000..], true)).await.unwrap();
    drop(more);
    assert_eq!(new.await.unwrap().unwrap().into_inner().committed_size, 1_000_000);
}

#[tokio::test]
async fn concurrent_writers_of_one_blob_all_succeed() {
    let farm = Farm::start().await;
    let data = noise(1, 2_000_000);
    let digest = SHA256.digest(&data);
    let names: Vec<String> = (0..8).map(|at| format!("uploads/u{at}/blobs/{digest}")).collect();
    let writes = names.iter().map(|name| farm.write(pieces(name, &data, 50_000)));
    assert_eq!(futures::future::try_join_all(writes).await.unwrap(), [2_000_000; 8]);
    assert_eq!(farm.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
    assert_eq!(farm.stores.blobs.bytes(), 2_000_000);
}

#[tokio::test]
async fn reads_take_offsets_and_limits_and_refuse_wrong_ones() {
    let farm = Farm::start().await;
    let data = noise(1, 3_000_000);
    let digest = farm.put(SHA256, &data).await;
    let name = format!("blobs/{digest}");
    for (offset, limit) in [(0, 10), (10, 0), (1_500_000, 1_400_000), (2_999_999, 10), (3_000_000, 0), (0, 9_000_000)] {
        let end = if limit == 0 { data.len() } else { (offset + limit).min(data.len()) };
        let read = farm.read(&name, offset as i64, limit as i64).await.unwrap();
        assert_eq!(read, data[offset..end], "{offset} {limit}");
    }
    assert_eq!(code(farm.read(&name, -1, 0).await), Code::OutOfRange);
    assert_eq!(code(farm.read(&name, 3_000_001, 0).await), Code::OutOfRange);
    assert_eq!(code(farm.read(&name, 0, -1).await), Code::InvalidArgument);
    assert_eq!(code(farm.read(&format!("blobs/{}", SHA256.digest(b"none")), 0, 0).await), Code::NotFound);
}

#[tokio::test]
async fn a_compressed_read_counts_its_offset_in_uncompressed_bytes_and_takes_no_limit() {
    let farm = Farm::start().await;
    let data = [noise(1, 1_500_000), vec![0; 1_500_000]].concat();
    let digest = farm.put(SHA256, &data).await;
    let name = format!("compressed-blobs/zstd/{digest}");
    for offset in [0, 1, 1_499_999, 2_999_999, 3_000_000] {
        let read = farm.read(&name, offset as i64, 0).await.unwrap();
        assert_eq!(zstd::decode_all(read.as_slice()).unwrap(), data[offset..], "{offset}");
    }
    assert_eq!(code(farm.read(&name, 0, 1).await), Code::InvalidArgument);
    assert_eq!(code(farm.read(&name, 3_000_001, 0).await), Code::OutOfRange);
    assert_eq!(code(farm.read(&format!("compressed-blobs/brotli/{digest}"), 0, 0).await), Code::InvalidArgument);
}

struct OneLog;

impl ReadLogs for OneLog {
    fn open(&self, name: &str) -> Option<BoxStream<'static, Bytes>> {
        let pieces = [Bytes::from_static(b"hello "), Bytes::from_static(b"world")];
        (name == "main/logs/lease-1/stdout").then(|| stream::iter(pieces).boxed())
    }
}

#[tokio::test]
async fn the_output_of_a_running_action_is_read_live() {
    let farm = Farm::with(1 << 20, Arc::new(OneLog)).await;
    assert_eq!(farm.read("main/logs/lease-1/stdout", 0, 0).await.unwrap(), b"hello world");
    assert_eq!(farm.read("main/logs/lease-1/stdout", 8, 0).await.unwrap(), b"rld");
    assert_eq!(code(farm.read("main/logs/lease-1/stderr", 0, 0).await), Code::NotFound);
}

/// What a client does with one upload.
#[derive(Debug, Clone)]
enum Step {
    /// Sends this many bytes from the committed offset, and half-closes without finishing.
    Pause(usize),
    /// Sends everything again from the beginning, up to this many bytes, and half-closes.
    Again(usize),
    /// Begins at an offset other than the committed one.
    WrongOffset(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (1..400_000_usize).prop_map(Step::Pause),
        1 => (1..400_000_usize).prop_map(Step::Again),
        1 => (1..400_000_usize).prop_map(Step::WrongOffset),
    ];
    prop::collection::vec(step, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// The model: how many bytes are committed.
    #[test]
    fn uploads_that_pause_and_resume_at_random_end_whole(
        steps in steps(), size in 1..1_000_000_usize, cut in 1_000..200_000_usize, blake: bool
    ) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let farm = Farm::start().await;
            let data = noise(size as u64, size);
            let digest = if blake { BLAKE3 } else { SHA256 }.digest(&data);
            let name = format!("i/uploads/u/blobs/{digest}");
            let mut committed = 0;
            let send = async |from: usize, to: usize, finish: bool| {
                let mut messages = pieces(&name, &data[from..to], cut);
                messages.iter_mut().for_each(|message| message.write_offset += from as i64);
                messages.iter_mut().for_each(|message| message.finish_write &= finish);
                if messages.is_empty() {
                    messages.push(piece(&name, from, b"", finish));
                }
                farm.write(messages).await
            };
            for step in steps {
                match step {
                    Step::Pause(bytes) if committed < size => {
                        // One short of the end: a stream that covers it all completes the upload.
                        let to = (committed + bytes).min(size - 1).max(committed);
                        assert_eq!(send(committed, to, false).await.unwrap(), to as i64);
                        committed = to;
                    }
                    Step::Again(bytes) => {
                        let to = bytes.min(size - 1);
                        assert_eq!(send(0, to, false).await.unwrap(), to as i64);
                        committed = committed.max(to);
                    }
                    Step::WrongOffset(offset) if offset != committed => {
                        let wrong = vec![piece(&name, offset, b"x", false)];
                        assert_eq!(code(farm.write(wrong).await), Code::InvalidArgument);
                    }
                    Step::Pause(_) | Step::WrongOffset(_) => {}
                }
                assert_eq!(farm.write_status(&name).await, (committed as i64, false));
            }
            assert_eq!(send(committed, size, true).await.unwrap(), size as i64);
            assert_eq!(farm.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data);
            assert_eq!(farm.stores.blobs.bytes(), size as u64);
        });
    }
}
