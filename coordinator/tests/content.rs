//! `ContentAddressableStorage` and `Capabilities` over a real connection: the behaviours that REAPI specifies, one test
//! each.

#![allow(clippy::unwrap_used)]

mod support;

use futures::StreamExt;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi::{self, compressor::Value as Compressor};
use support::{BLAKE3, Farm, SHA256, code, noise};
use tonic::Code;

fn update(digest: reapi::Digest, data: Vec<u8>, compressor: Compressor) -> reapi::batch_update_blobs_request::Request {
    let (digest, compressor) = (Some(digest), compressor as i32);
    reapi::batch_update_blobs_request::Request { digest, data, compressor }
}

/// The status codes of a batch's blobs.
async fn batch_update(
    farm: &Farm,
    function: DigestFunction,
    requests: Vec<reapi::batch_update_blobs_request::Request>,
) -> Result<Vec<Code>, tonic::Status> {
    let digest_function = function.to_wire();
    let request = reapi::BatchUpdateBlobsRequest { instance_name: "a/b".into(), requests, digest_function };
    let response = farm.cas.clone().batch_update_blobs(request).await?.into_inner();
    Ok(response.responses.into_iter().map(|one| one.status.unwrap().code.into()).collect())
}

async fn batch_read(
    farm: &Farm,
    function: DigestFunction,
    digests: Vec<reapi::Digest>,
    compressors: Vec<i32>,
) -> Result<Vec<reapi::batch_read_blobs_response::Response>, tonic::Status> {
    let request = reapi::BatchReadBlobsRequest {
        instance_name: String::new(),
        digests,
        acceptable_compressors: compressors,
        digest_function: function.to_wire(),
    };
    Ok(farm.cas.clone().batch_read_blobs(request).await?.into_inner().responses)
}

async fn find_missing(
    farm: &Farm,
    function: i32,
    digests: Vec<reapi::Digest>,
) -> Result<Vec<reapi::Digest>, tonic::Status> {
    let request = reapi::FindMissingBlobsRequest {
        instance_name: String::new(),
        blob_digests: digests,
        digest_function: function,
    };
    Ok(farm.cas.clone().find_missing_blobs(request).await?.into_inner().missing_blob_digests)
}

#[tokio::test]
async fn the_empty_blob_is_always_there() {
    let farm = Farm::start().await;
    for function in [SHA256, BLAKE3] {
        let empty = Digest::empty(function);
        assert_eq!(find_missing(&farm, function.to_wire(), vec![empty.to_wire()]).await.unwrap(), vec![]);
        let read = batch_read(&farm, function, vec![empty.to_wire()], vec![]).await.unwrap();
        assert_eq!((read[0].status.clone().unwrap().code, read[0].data.len()), (0, 0));
        assert_eq!(farm.read(&format!("blobs/{empty}"), 0, 0).await.unwrap(), b"");
        let zstd = farm.read(&format!("compressed-blobs/zstd/{empty}"), 0, 0).await.unwrap();
        assert_eq!(zstd::decode_all(zstd.as_slice()).unwrap(), b"");
        assert_eq!(code(farm.read(&format!("blobs/{empty}"), 1, 0).await), Code::OutOfRange);
        let put = update(empty.to_wire(), vec![], Compressor::Identity);
        assert_eq!(batch_update(&farm, function, vec![put]).await.unwrap(), [Code::Ok]);
        assert_eq!(farm.write_status(&format!("uploads/u/blobs/{empty}")).await, (0, true));
    }
    let nothing = Digest { size: 0, ..SHA256.digest(b"x") };
    assert_eq!(find_missing(&farm, 0, vec![nothing.to_wire()]).await.unwrap(), vec![nothing.to_wire()]);
}

#[tokio::test]
async fn find_missing_names_exactly_what_is_absent() {
    let farm = Farm::start().await;
    let (here, gone) = (farm.put(SHA256, b"here").await.to_wire(), SHA256.digest(b"gone").to_wire());
    let asked = vec![gone.clone(), here.clone()];
    assert_eq!(find_missing(&farm, SHA256.to_wire(), asked.clone()).await.unwrap(), vec![gone.clone()]);
    assert_eq!(find_missing(&farm, BLAKE3.to_wire(), asked.clone()).await.unwrap(), asked);
}

#[tokio::test]
async fn find_missing_extends_the_life_of_what_it_finds() {
    let farm = Farm::with(3_000, std::sync::Arc::new(kiln_coordinator::services::NoLogs)).await;
    let mut blobs = Vec::new();
    for seed in 0..3 {
        blobs.push(farm.put(SHA256, &noise(seed, 1_000)).await);
    }
    assert_eq!(find_missing(&farm, 0, vec![blobs[0].to_wire()]).await.unwrap(), vec![]);
    farm.put(SHA256, &noise(3, 1_000)).await;
    assert_eq!(farm.stores.blobs.find_missing(&blobs).await.unwrap(), vec![blobs[1]]);
    assert_eq!(farm.stores.blobs.bytes(), 3_000);
}

#[tokio::test]
async fn a_right_hash_with_a_wrong_size_is_refused() {
    let farm = Farm::start().await;
    let digest = farm.put(SHA256, b"four").await;
    for wrong in [Digest { size: 3, ..digest }, Digest { size: 5, ..digest }] {
        assert_eq!(find_missing(&farm, 0, vec![wrong.to_wire()]).await.unwrap(), vec![wrong.to_wire()]);
        let put = update(wrong.to_wire(), b"four".to_vec(), Compressor::Identity);
        assert_eq!(batch_update(&farm, SHA256, vec![put]).await.unwrap(), [Code::InvalidArgument]);
        assert_eq!(code(farm.read(&format!("blobs/{wrong}"), 0, 0).await), Code::NotFound);
        let name = format!("uploads/u/blobs/{wrong}");
        assert_eq!(code(farm.write(vec![support::piece(&name, 0, b"four", true)]).await), Code::InvalidArgument);
        assert!(!farm.has(&wrong).await);
    }
}

#[tokio::test]
async fn hashes_are_lower_case_hex() {
    let farm = Farm::start().await;
    let digest = farm.put(SHA256, b"some blob").await.to_wire();
    for hash in [digest.hash.to_uppercase(), digest.hash[1..].to_owned(), "../etc/passwd".into(), String::new()] {
        let bad = reapi::Digest { hash, ..digest.clone() };
        assert_eq!(code(find_missing(&farm, 0, vec![bad.clone()]).await), Code::InvalidArgument);
        let put = update(bad.clone(), b"some blob".to_vec(), Compressor::Identity);
        assert_eq!(batch_update(&farm, SHA256, vec![put]).await.unwrap(), [Code::InvalidArgument]);
        assert_eq!(code(farm.read(&format!("blobs/{}/9", bad.hash), 0, 0).await), Code::InvalidArgument);
    }
    let negative = reapi::Digest { size_bytes: -1, ..digest };
    assert_eq!(code(find_missing(&farm, 0, vec![negative]).await), Code::InvalidArgument);
}

#[tokio::test]
async fn an_unset_function_with_64_digits_is_sha256_and_an_unserved_one_is_refused() {
    let farm = Farm::start().await;
    let digest = farm.put(SHA256, b"blob").await.to_wire();
    assert_eq!(find_missing(&farm, 0, vec![digest.clone()]).await.unwrap(), vec![]);
    let sha512 = reapi::digest_function::Value::Sha512 as i32;
    assert_eq!(code(find_missing(&farm, sha512, vec![digest]).await), Code::InvalidArgument);
}

#[tokio::test]
async fn a_batch_has_a_status_for_each_blob() {
    let farm = Farm::start().await;
    for function in [SHA256, BLAKE3] {
        let (good, bad) = (function.digest(b"good"), function.digest(b"bad"));
        let requests = vec![
            update(good.to_wire(), b"good".to_vec(), Compressor::Identity),
            update(bad.to_wire(), b"dab".to_vec(), Compressor::Identity),
        ];
        let codes = batch_update(&farm, function, requests).await.unwrap();
        assert_eq!(codes, [Code::Ok, Code::InvalidArgument]);
        assert!(!farm.has(&bad).await);
        let read = batch_read(&farm, function, vec![bad.to_wire(), good.to_wire()], vec![]).await.unwrap();
        let codes: Vec<i32> = read.iter().map(|one| one.status.as_ref().unwrap().code).collect();
        assert_eq!(codes, [Code::NotFound as i32, 0]);
        assert_eq!(read[1].data, b"good");
        assert_eq!(read[1].digest, Some(good.to_wire()));
    }
}

#[tokio::test]
async fn a_batch_beyond_the_advertised_total_is_an_invalid_argument() {
    let farm = Farm::start().await;
    let advertised = capabilities(&farm).await.cache_capabilities.unwrap().max_batch_total_size_bytes as usize;
    let (half, rest) = (noise(1, advertised / 2), noise(2, advertised - advertised / 2 + 1));
    let put = |data: &[u8]| update(SHA256.digest(data).to_wire(), data.to_vec(), Compressor::Identity);
    let codes = batch_update(&farm, SHA256, vec![put(&half), put(&rest[1..])]).await.unwrap();
    assert_eq!(codes, [Code::Ok, Code::Ok], "expected a batch of exactly the advertised size to be served");
    assert_eq!(code(batch_update(&farm, SHA256, vec![put(&half), put(&rest)]).await), Code::InvalidArgument);
    let (half, rest) = (farm.put(SHA256, &half).await.to_wire(), farm.put(SHA256, &rest).await.to_wire());
    assert_eq!(code(batch_read(&farm, SHA256, vec![half, rest], vec![]).await), Code::InvalidArgument);
}

#[tokio::test]
async fn batches_speak_zstd_where_the_client_does() {
    let farm = Farm::start().await;
    let data = b"compressible ".repeat(1_000);
    let digest = SHA256.digest(&data);
    let put = update(digest.to_wire(), zstd::encode_all(data.as_slice(), 3).unwrap(), Compressor::Zstd);
    assert_eq!(batch_update(&farm, SHA256, vec![put]).await.unwrap(), [Code::Ok]);
    let plain = batch_read(&farm, SHA256, vec![digest.to_wire()], vec![]).await.unwrap();
    assert_eq!((plain[0].compressor, &plain[0].data), (Compressor::Identity as i32, &data));
    let zstd = batch_read(&farm, SHA256, vec![digest.to_wire()], vec![Compressor::Zstd as i32]).await.unwrap();
    assert_eq!(zstd[0].compressor, Compressor::Zstd as i32);
    assert_eq!(zstd::decode_all(zstd[0].data.as_slice()).unwrap(), data);
}

#[tokio::test]
async fn every_advertised_compressor_and_identity_work_for_blobs_of_every_size() {
    let farm = Farm::start().await;
    let zstd = Compressor::Zstd as i32;
    assert_eq!(capabilities(&farm).await.cache_capabilities.unwrap().supported_compressors, [zstd]);
    for size in [0, 1, 255, 256, 4096, 1 << 20, 3_000_000] {
        for data in [noise(size as u64, size), vec![7; size]] {
            let digest = SHA256.digest(&data);
            let encoded = zstd::encode_all(data.as_slice(), 1).unwrap();
            let name = format!("uploads/u/compressed-blobs/zstd/{digest}");
            farm.write(support::pieces(&name, &encoded, 64 * 1024)).await.unwrap();
            assert_eq!(farm.read(&format!("blobs/{digest}"), 0, 0).await.unwrap(), data, "{size}");
            let read = farm.read(&format!("compressed-blobs/zstd/{digest}"), 0, 0).await.unwrap();
            assert_eq!(zstd::decode_all(read.as_slice()).unwrap(), data, "{size}");
            let batch = batch_read(&farm, SHA256, vec![digest.to_wire()], vec![zstd]).await.unwrap().remove(0);
            let plain = match batch.compressor == zstd {
                true => zstd::decode_all(batch.data.as_slice()).unwrap(),
                false => batch.data,
            };
            assert_eq!(plain, data, "{size}");
        }
    }
}

#[tokio::test]
async fn bad_compressed_blobs_are_refused_one_by_one() {
    let farm = Farm::start().await;
    let data = vec![0_u8; 100_000];
    let digest = SHA256.digest(&data);
    let bomb = zstd::encode_all([0_u8; 200_000].as_slice(), 3).unwrap();
    let huge = Digest { size: u64::MAX / 4, ..digest };
    let requests = vec![
        update(digest.to_wire(), bomb.clone(), Compressor::Zstd),
        update(digest.to_wire(), b"no zstd".to_vec(), Compressor::Zstd),
        update(huge.to_wire(), bomb, Compressor::Zstd),
        update(digest.to_wire(), data, Compressor::Brotli),
    ];
    assert_eq!(batch_update(&farm, SHA256, requests).await.unwrap(), [Code::InvalidArgument; 4]);
    assert!(!farm.has(&digest).await);
}

/// A root over `count` directories, each with one subdirectory; the digests of the root and of the first child.
async fn forest(farm: &Farm, count: usize) -> (Digest, Digest) {
    let mut root = reapi::Directory::default();
    for at in 0..count {
        let link = reapi::SymlinkNode { name: format!("l{at}"), target: "t".into(), ..Default::default() };
        let leaf = farm.put_message(&reapi::Directory { symlinks: vec![link], ..Default::default() }).await;
        let node = reapi::DirectoryNode { name: "leaf".into(), digest: Some(leaf.to_wire()) };
        let child = farm.put_message(&reapi::Directory { directories: vec![node], ..Default::default() }).await;
        root.directories.push(reapi::DirectoryNode { name: format!("c{at}"), digest: Some(child.to_wire()) });
    }
    let first = Digest::required(SHA256, root.directories[0].digest.as_ref()).unwrap();
    (farm.put_message(&root).await, first)
}

async fn get_tree(
    farm: &Farm,
    root: &Digest,
    size: i32,
    token: &str,
) -> Result<Vec<reapi::GetTreeResponse>, tonic::Status> {
    let request = reapi::GetTreeRequest {
        root_digest: Some(root.to_wire()),
        page_size: size,
        page_token: token.to_owned(),
        ..Default::default()
    };
    let pages: Vec<_> = farm.cas.clone().get_tree(request).await?.into_inner().collect().await;
    pages.into_iter().collect()
}

fn directories(pages: &[reapi::GetTreeResponse]) -> Vec<reapi::Directory> {
    pages.iter().flat_map(|page| page.directories.clone()).collect()
}

#[tokio::test]
async fn get_tree_of_a_missing_root_is_not_found() {
    let farm = Farm::start().await;
    assert_eq!(code(get_tree(&farm, &SHA256.digest(b"no root"), 0, "").await), Code::NotFound);
    assert_eq!(code(get_tree(&farm, &SHA256.digest(b"no root"), -1, "").await), Code::InvalidArgument);
    assert_eq!(code(get_tree(&farm, &SHA256.digest(b"no root"), 0, "no token").await), Code::InvalidArgument);
}

#[tokio::test]
async fn get_tree_gives_each_directory_once() {
    let farm = Farm::start().await;
    let (root, _) = forest(&farm, 7).await;
    let all = directories(&get_tree(&farm, &root, 0, "").await.unwrap());
    assert_eq!(all.len(), 15);
    assert_eq!(SHA256.digest_message(&all[0]), root, "expected the root first");
    let again = reapi::DirectoryNode { name: "again".into(), digest: Some(root.to_wire()) };
    let twice = reapi::DirectoryNode { name: "twice".into(), digest: Some(root.to_wire()) };
    let above = farm.put_message(&reapi::Directory { directories: vec![again, twice], ..Default::default() }).await;
    assert_eq!(directories(&get_tree(&farm, &above, 0, "").await.unwrap()).len(), 16);
}

#[tokio::test]
async fn get_tree_of_a_tree_with_a_missing_part_gives_the_rest() {
    let farm = Farm::start().await;
    let (root, first) = forest(&farm, 3).await;
    farm.lose(&first);
    assert_eq!(directories(&get_tree(&farm, &root, 0, "").await.unwrap()).len(), 5);
}

#[tokio::test]
async fn page_tokens_of_get_tree_resume() {
    let farm = Farm::start().await;
    let (root, _) = forest(&farm, 7).await;
    let all = directories(&get_tree(&farm, &root, 0, "").await.unwrap());
    let pages = get_tree(&farm, &root, 4, "").await.unwrap();
    assert_eq!(pages.iter().map(|page| page.directories.len()).collect::<Vec<_>>(), [4, 4, 4, 3]);
    assert_eq!(directories(&pages), all);
    assert_eq!(pages.last().unwrap().next_page_token, "");
    for (at, page) in pages.iter().enumerate().take(3) {
        let rest = get_tree(&farm, &root, 4, &page.next_page_token).await.unwrap();
        assert_eq!(directories(&rest), all[(at + 1) * 4..]);
    }
}

async fn capabilities(farm: &Farm) -> reapi::ServerCapabilities {
    let request = reapi::GetCapabilitiesRequest { instance_name: "any/instance".into() };
    farm.capabilities.clone().get_capabilities(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn only_what_is_served_is_advertised() {
    let farm = Farm::start().await;
    let all = capabilities(&farm).await;
    let cache = all.cache_capabilities.unwrap();
    assert_eq!(cache.digest_functions, [SHA256.to_wire(), BLAKE3.to_wire()]);
    assert_eq!(cache.supported_compressors, [Compressor::Zstd as i32]);
    assert_eq!(cache.supported_batch_update_compressors, [Compressor::Zstd as i32]);
    assert!(cache.action_cache_update_capabilities.unwrap().update_enabled);
    assert!(cache.split_blob_support && cache.splice_blob_support && cache.rep_max_cdc_params.is_none());
    assert_eq!(cache.max_cas_blob_size_bytes, 0);
    let (low, high) = (all.low_api_version.unwrap(), all.high_api_version.unwrap());
    assert_eq!((low.major, low.minor, high.major, high.minor), (2, 0, 2, 13));
}

#[tokio::test]
async fn the_old_digest_function_field_is_set_and_among_the_new() {
    let farm = Farm::start().await;
    let execution = capabilities(&farm).await.execution_capabilities.unwrap();
    assert_eq!(execution.digest_function, SHA256.to_wire());
    assert_eq!(execution.digest_functions, [SHA256.to_wire(), BLAKE3.to_wire()]);
    assert!(execution.exec_enabled);
}

#[tokio::test]
async fn the_transfer_client_moves_blobs_of_all_sizes_both_ways() {
    use kiln_proto::transfer::{Blob, Client};
    let farm = Farm::start().await;
    for function in [SHA256, BLAKE3] {
        let client = Client::new(farm.channel.clone(), "team/one", function);
        let blobs: Vec<Vec<u8>> = [0, 1, 100_000, 1 << 20, 3_500_000].map(|size| noise(size as u64, size)).to_vec();
        let named: Vec<_> =
            blobs.iter().map(|data| (function.digest(data), Blob::Bytes(data.clone().into()))).collect();
        let digests: Vec<Digest> = named.iter().map(|(digest, _)| *digest).collect();
        assert_eq!(client.upload(named.clone()).await.unwrap().blobs, 4);
        let again = client.upload(named).await.unwrap();
        assert_eq!((again.blobs, again.reused_bytes), (0, blobs.iter().map(|data| data.len() as u64).sum()));
        let back = client.get_many(&digests).await.unwrap();
        for (digest, data) in digests.iter().zip(&blobs) {
            assert_eq!(&back[digest], data);
        }
    }
}
