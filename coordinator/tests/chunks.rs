//! Blobs described by their chunks, over a real connection.

#![allow(clippy::unwrap_used)]

mod support;

use kiln_proto::chunking;
use kiln_proto::digest::Digest;
use kiln_proto::reapi::{self, chunking_function};
use kiln_proto::transfer::{Blob, Client};
use support::{BLAKE3, Farm, SHA256, code, noise};
use tonic::{Code, Status};

const MIB: usize = 1 << 20;

async fn split(farm: &Farm, blob: &Digest, function: chunking_function::Value) -> Result<Vec<Digest>, Status> {
    let request = reapi::SplitBlobRequest {
        blob_digest: Some(blob.to_wire()),
        digest_function: blob.function.to_wire(),
        chunking_function: function as i32,
        ..Default::default()
    };
    let answer = farm.cas.clone().split_blob(request).await?.into_inner();
    Ok(answer.chunk_digests.iter().map(|wire| Digest::from_wire(blob.function, wire).unwrap()).collect())
}

async fn splice(farm: &Farm, blob: &Digest, chunks: &[Digest]) -> Result<(), Status> {
    let request = reapi::SpliceBlobRequest {
        blob_digest: Some(blob.to_wire()),
        chunk_digests: chunks.iter().map(Digest::to_wire).collect(),
        digest_function: blob.function.to_wire(),
        ..Default::default()
    };
    let answer = farm.cas.clone().splice_blob(request).await?.into_inner();
    assert_eq!(answer.blob_digest, Some(blob.to_wire()));
    Ok(())
}

async fn put(farm: &Farm, function: kiln_proto::digest::DigestFunction, data: &[u8]) -> Digest {
    let digest = function.digest(data);
    let mut writer = farm.stores.blobs.write(&digest).await.unwrap();
    writer.write(bytes::Bytes::copy_from_slice(data)).await.unwrap();
    writer.commit().await.unwrap();
    digest
}

const ANY: chunking_function::Value = chunking_function::Value::Unknown;
const FAST_CDC: chunking_function::Value = chunking_function::Value::FastCdc2020;

#[tokio::test(flavor = "multi_thread")]
async fn split_blob_gives_chunks_that_are_the_blob_and_can_be_read() {
    let farm = Farm::start().await;
    for function in [SHA256, BLAKE3] {
        let data = noise(1, 9 * MIB);
        let blob = put(&farm, function, &data).await;
        let chunks = split(&farm, &blob, FAST_CDC).await.unwrap();
        assert!(chunks.len() > 4, "expected many chunks, found {}", chunks.len());
        assert!(chunks.iter().all(|chunk| chunk.size <= chunking::MAX_BYTES));
        let bytes = farm.stores.blobs.bytes();
        assert!(farm.stores.blobs.find_missing(&chunks).await.unwrap().is_empty(), "expected the chunks to be found");
        let mut whole = Vec::new();
        for chunk in farm.stores.blobs.get_many(&chunks).await {
            whole.extend_from_slice(&chunk.unwrap());
        }
        assert_eq!(whole, data);
        assert_eq!(farm.stores.blobs.bytes(), bytes, "expected chunks to take no additional space");
        assert_eq!(split(&farm, &blob, ANY).await.unwrap(), chunks, "expected the unknown function to be accepted");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn split_blob_is_not_found_where_the_blob_or_a_chunk_is_absent() {
    let farm = Farm::start().await;
    let absent = SHA256.digest(&noise(1, 9 * MIB));
    assert_eq!(code(split(&farm, &absent, ANY).await), Code::NotFound);
    let data = noise(2, 9 * MIB);
    let blob = put(&farm, SHA256, &data).await;
    let chunks = split(&farm, &blob, ANY).await.unwrap();
    farm.lose(&blob);
    let _ = farm.stores.blobs.get(&blob).await;
    assert_eq!(
        farm.stores.blobs.find_missing(&chunks).await.unwrap(),
        chunks,
        "expected them to be removed with the blob"
    );
    assert_eq!(code(split(&farm, &blob, ANY).await), Code::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_the_maximum_is_not_chunked() {
    let farm = Farm::start().await;
    for size in [1, 2 * MIB] {
        let blob = put(&farm, SHA256, &noise(3, size)).await;
        assert_eq!(split(&farm, &blob, FAST_CDC).await.unwrap(), [blob]);
    }
    let blob = put(&farm, SHA256, &noise(3, 2 * MIB + 1)).await;
    assert!(split(&farm, &blob, FAST_CDC).await.unwrap().len() > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn splice_blob_verifies_the_digest() {
    let farm = Farm::start().await;
    let parts: Vec<Vec<u8>> = (0..4).map(|seed| noise(seed, 300_000)).collect();
    let mut chunks = Vec::new();
    for part in &parts {
        chunks.push(put(&farm, SHA256, part).await);
    }
    let blob = SHA256.digest(&parts.concat());
    let mut wrong = chunks.clone();
    wrong.swap(0, 1);
    assert_eq!(code(splice(&farm, &blob, &wrong).await), Code::InvalidArgument);
    assert_eq!(code(splice(&farm, &blob, &chunks[..3]).await), Code::InvalidArgument);
    assert!(!farm.stores.blobs.find_missing(&[blob]).await.unwrap().is_empty(), "expected nothing to be stored");
    splice(&farm, &blob, &chunks).await.unwrap();
    assert_eq!(farm.stores.blobs.get(&blob).await.unwrap(), parts.concat());
    assert_eq!(code(splice(&farm, &blob, &chunks).await), Code::AlreadyExists);
}

#[tokio::test(flavor = "multi_thread")]
async fn splice_blob_is_not_found_where_a_chunk_is_absent() {
    let farm = Farm::start().await;
    let (here, absent) = (noise(1, 1000), noise(2, 1000));
    let chunks = [put(&farm, SHA256, &here).await, SHA256.digest(&absent)];
    let status = splice(&farm, &SHA256.digest(&[here, absent].concat()), &chunks).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains(&chunks[1].hex()), "expected the chunk to be named: {}", status.message());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_version_is_spliced_from_the_old_ones_chunks() {
    let farm = Farm::start().await;
    let before = noise(1, 12 * MIB);
    let old = put(&farm, SHA256, &before).await;
    split(&farm, &old, FAST_CDC).await.unwrap();
    let mut after = before.clone();
    after.insert(6 * MIB, 7);
    let mut cut = chunking::Chunker::new();
    cut.push(&after);
    let mut chunks = Vec::new();
    let mut sent = 0;
    while let Some(chunk) = cut.next_last() {
        let digest = SHA256.digest(&chunk);
        if !farm.stores.blobs.find_missing(&[digest]).await.unwrap().is_empty() {
            sent += chunk.len();
            farm.stores.blobs.put(&digest, chunk).await.unwrap();
        }
        chunks.push(digest);
    }
    assert!(sent <= 3 * MIB, "expected a few chunks to be sent, found {sent} bytes");
    let new = SHA256.digest(&after);
    splice(&farm, &new, &chunks).await.unwrap();
    assert_eq!(farm.stores.blobs.get(&new).await.unwrap(), after);
}

#[tokio::test(flavor = "multi_thread")]
async fn fast_cdc_is_advertised_with_its_parameters() {
    let farm = Farm::start().await;
    let answer = farm.capabilities.clone().get_capabilities(reapi::GetCapabilitiesRequest::default()).await.unwrap();
    let cache = answer.into_inner().cache_capabilities.unwrap();
    assert!(cache.split_blob_support && cache.splice_blob_support);
    let parameters = cache.fast_cdc_2020_params.unwrap();
    assert_eq!((parameters.avg_chunk_size_bytes, parameters.seed), (512 * 1024, 0));
}

/// About 40 MB, and the same with a few bytes inserted at two places.
fn versions() -> (Vec<u8>, Vec<u8>) {
    let before = noise(11, 40 * MIB);
    let mut after = before.clone();
    after.splice(9 * MIB..9 * MIB, *b"a few more bytes");
    after[31 * MIB] ^= 1;
    (before, after)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_sends_of_a_large_file_that_changed_a_little_only_what_changed() {
    let farm = Farm::start().await;
    let (before, after) = versions();
    for function in [SHA256, BLAKE3] {
        let client = Client::new(farm.channel.clone(), "", function);
        let first = function.digest(&before);
        let moved = client.upload(vec![(first, Blob::Bytes(before.clone().into()))]).await.unwrap();
        assert_eq!(moved.bytes, first.size, "expected a blob without a similar one to be sent whole");
        // The client makes the farm split what it sent; a request for the same blob waits for that.
        split(&farm, &first, FAST_CDC).await.unwrap();

        let path = farm.dir.path().join("after");
        std::fs::write(&path, &after).unwrap();
        let second = function.digest(&after);
        let moved = client.upload(vec![(second, Blob::File(path))]).await.unwrap();
        assert!(moved.bytes < 10 * MIB as u64, "expected a few chunks to be sent, found {} bytes", moved.bytes);
        assert_eq!(moved.bytes + moved.reused_bytes, second.size);
        assert_eq!(client.get(&second).await.unwrap(), after);

        // A blob that was assembled from chunks can be reused, too.
        let mut third = after.clone();
        third[20 * MIB] ^= 1;
        let digest = function.digest(&third);
        let moved = client.upload(vec![(digest, Blob::Bytes(third.clone().into()))]).await.unwrap();
        assert!(moved.bytes < 5 * MIB as u64, "expected a chunk or two to be sent, found {} bytes", moved.bytes);
        assert_eq!(client.get(&digest).await.unwrap(), third);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_fetches_of_a_large_file_only_what_a_file_like_it_lacks() {
    let farm = Farm::start().await;
    let (before, after) = versions();
    let client = Client::new(farm.channel.clone(), "", SHA256);
    let digest = put(&farm, SHA256, &after).await;
    let (base, to) = (farm.dir.path().join("before"), farm.dir.path().join("to"));
    std::fs::write(&base, &before).unwrap();
    let unlike = farm.dir.path().join("unlike");
    std::fs::write(&unlike, noise(12, 40 * MIB)).unwrap();

    let fetched = client.download_over(&digest, &to, &[unlike.clone(), base.clone()]).await.unwrap();
    assert!(fetched < 10 * MIB as u64, "expected a few chunks to be fetched, found {fetched} bytes");
    assert!(std::fs::read(&to).unwrap() == after, "expected the file to be the requested one");

    for bases in [vec![unlike], vec![farm.dir.path().join("absent")], vec![]] {
        assert_eq!(
            client.download_over(&digest, &to, &bases).await.unwrap(),
            digest.size,
            "expected it to be fetched whole"
        );
        assert!(std::fs::read(&to).unwrap() == after);
    }
    let absent = SHA256.digest(&before);
    assert!(client.download_over(&absent, &to, &[base]).await.is_err(), "expected an absent blob to be an error");
    assert!(!to.exists(), "expected no file for an absent blob");
}
