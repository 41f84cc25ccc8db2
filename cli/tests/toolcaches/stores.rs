//! Entries are results and blobs like all others: shared by Redis, those of gRPC for Bazel, and refused when there is no room.

use kiln_harness::redis::Redis;
use kiln_harness::{cannot_run, kept};
use kiln_proto::channel::{self, Access};
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi;
use kiln_proto::reapi::action_cache_client::ActionCacheClient;
use kiln_proto::transfer::{Blob, Client};
use prost::Message;
use reqwest::Method;

use crate::world::World;

const KEY: &str = "00112233445566778899aabbccddeeff";

/// Asks as the writer; returns the status and the body.
async fn ask(world: &World, method: Method, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
    let request = reqwest::Client::new().request(method, format!("{}/{path}", world.root));
    let answer = request.bearer_auth(world.token("writer")).body(body).send().await.unwrap();
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}

/// Bytes that cannot be made smaller.
fn noise(length: usize) -> Vec<u8> {
    (0..length as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_is_answered_as_each_tool_goes_on_with() {
    let world = World::with(&["--store-size", "1MiB"]);
    let long = "ab".repeat(32);
    for (path, status) in [
        (format!("ccache/{KEY}"), 507),
        (format!("gradle/{KEY}"), 413),
        ("nx/v1/cache/1".to_owned(), 403),
        (format!("turbo/v8/artifacts/{KEY}"), 507),
        (format!("go/{long}"), 507),
        ("sccache/a/b".to_owned(), 507),
        (format!("bazel/cas/{}", DigestFunction::Sha256.digest(&noise(3 << 20)).hex()), 507),
    ] {
        assert_eq!(ask(&world, Method::PUT, &path, noise(3 << 20)).await.0, status, "{path}");
        assert_eq!(ask(&world, Method::GET, &path, Vec::new()).await.0, 404, "{path}");
    }
    // What fits is stored.
    assert_eq!(ask(&world, Method::PUT, &format!("ccache/{KEY}"), noise(1000)).await.0, 200);
    assert_eq!(ask(&world, Method::GET, &format!("ccache/{KEY}"), Vec::new()).await, (200, noise(1000)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_entry_comes_back_as_it_was_with_what_was_kept_with_it() {
    let world = World::start();
    let path = format!("turbo/v8/artifacts/{KEY}");
    let put = reqwest::Client::new().put(format!("{}/{path}?slug=team", world.root)).bearer_auth(world.token("writer"));
    let put = put.header("x-artifact-duration", "1200").header("x-artifact-tag", "c2lnbmVk").body(noise(20 << 20));
    assert_eq!(put.send().await.unwrap().status(), 202);
    let get = reqwest::Client::new().get(format!("{}/{path}?slug=team", world.root)).bearer_auth(world.token("reader"));
    let answer = get.send().await.unwrap();
    let header = |name: &str| answer.headers()[name].to_str().unwrap().to_owned();
    assert_eq!((header("x-artifact-duration"), header("x-artifact-tag")), ("1200".into(), "c2lnbmVk".into()));
    assert_eq!(answer.bytes().await.unwrap(), noise(20 << 20));
    let list = serde_json::json!({ "hashes": [KEY, "none"] }).to_string().into_bytes();
    let (status, body) = ask(&world, Method::POST, "turbo/v8/artifacts", list).await;
    let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, &body[KEY]["taskDurationMs"], &body["none"]), (200, &1200.into(), &serde_json::Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_grpc_stored_is_found_by_http_and_the_other_way() {
    let world = World::start();
    let file = world.farm.dir.path().join("writer.token");
    std::fs::write(&file, world.token("writer")).unwrap();
    let access = Access { token_file: Some(file), ..Access::default() };
    let channel = channel::connect(&world.farm.url, &access).await.unwrap();
    let (blobs, mut actions) =
        (Client::new(channel.clone(), "", DigestFunction::Sha256), ActionCacheClient::new(channel));
    let blob = |data: &[u8]| (DigestFunction::Sha256.digest(data), Blob::Bytes(data.to_vec().into()));
    let command = reapi::Command { arguments: vec!["true".into()], ..Default::default() }.encode_to_vec();
    let action = |salt: &[u8]| {
        let digest = DigestFunction::Sha256.digest(&command).to_wire();
        reapi::Action { command_digest: Some(digest), salt: salt.to_vec(), ..Default::default() }.encode_to_vec()
    };
    let result = reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path: "out".into(),
            digest: Some(DigestFunction::Sha256.digest(b"output").to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let hash = |data: &[u8]| DigestFunction::Sha256.digest(data).hex();

    let by_grpc = action(b"grpc");
    blobs.upload(vec![blob(&command), blob(&by_grpc), blob(b"output")]).await.unwrap();
    let update = reapi::UpdateActionResultRequest {
        action_digest: Some(DigestFunction::Sha256.digest(&by_grpc).to_wire()),
        action_result: Some(result.clone()),
        ..Default::default()
    };
    actions.update_action_result(update).await.unwrap();
    let (status, body) = ask(&world, Method::GET, &format!("bazel/ac/{}", hash(&by_grpc)), Vec::new()).await;
    assert_eq!(status, 200);
    assert_eq!(reapi::ActionResult::decode(&*body).unwrap().output_files, result.output_files);
    // The sizes of what it names are known from it.
    let output = ask(&world, Method::GET, &format!("bazel/cas/{}", hash(b"output")), Vec::new()).await;
    assert_eq!(output, (200, b"output".to_vec()));

    let by_http = action(b"http");
    for data in [&command[..], &by_http, b"output"] {
        assert_eq!(ask(&world, Method::PUT, &format!("bazel/cas/{}", hash(data)), data.to_vec()).await.0, 200);
    }
    let put = ask(&world, Method::PUT, &format!("bazel/ac/{}", hash(&by_http)), result.encode_to_vec()).await;
    assert_eq!(put.0, 200);
    let get = reapi::GetActionResultRequest {
        action_digest: Some(DigestFunction::Sha256.digest(&by_http).to_wire()),
        ..Default::default()
    };
    let found = actions.get_action_result(get).await.unwrap().into_inner();
    assert_eq!(found.output_files, result.output_files);
    // A result whose blobs are not there is none.
    let nothing = DigestFunction::Sha256.digest(b"never stored").to_wire();
    let mut broken = result.clone();
    broken.output_files[0].digest = Some(nothing);
    let key = "cd".repeat(32);
    assert_eq!(ask(&world, Method::PUT, &format!("bazel/ac/{key}"), broken.encode_to_vec()).await.0, 200);
    assert_eq!(ask(&world, Method::GET, &format!("bazel/ac/{key}"), Vec::new()).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn coordinators_that_share_a_redis_share_entries() {
    if !kiln_harness::redis::is_installed() {
        return cannot_run("`redis-server` is not installed");
    }
    let redis = Redis::start();
    let key = kept().join("toolcaches.key");
    let more = ["--redis", &redis.url(), "--farm-key", key.to_str().unwrap()];
    let (one, two) = (World::with(&more), World::with(&more));
    let path = format!("ccache/{KEY}");
    assert_eq!(ask(&one, Method::PUT, &path, noise(10_000)).await.0, 200);
    assert_eq!(ask(&two, Method::GET, &path, Vec::new()).await, (200, noise(10_000)));
}
