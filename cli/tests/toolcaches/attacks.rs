//! What must be refused, and must change nothing.

use std::io::{Read, Write};
use std::net::TcpStream;

use kiln_harness::until;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use kiln_proto::reapi::action_cache_client::ActionCacheClient;

use crate::world::World;

const KEY: &str = "00112233445566778899aabbccddeeff";

/// Sends bytes as they are, and returns the answer's status.
fn raw(world: &World, head: &str, body: &[u8]) -> (u16, String) {
    let mut stream = connect(world);
    stream.write_all(head.replace("{token}", world.token("writer")).as_bytes()).unwrap();
    let _ = stream.write_all(body);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    (answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0), answer)
}

fn connect(world: &World) -> TcpStream {
    let address = world.root.strip_prefix("http://").unwrap().split('/').next().unwrap().to_owned();
    TcpStream::connect(address).unwrap()
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!(
        "{method} /cache/{path} HTTP/1.1\r\nhost: farm\r\nconnection: close\r\nauthorization: Bearer {{token}}\r\n{more}\r\n"
    )
}

fn get(world: &World, path: &str) -> u16 {
    raw(world, &head("GET", path, ""), b"").0
}

#[test]
fn half_a_body_and_one_that_is_too_large_store_nothing() {
    let world = World::with(&["--cache-entry-limit", "1MiB"]);
    let path = format!("ccache/{KEY}");
    {
        let mut stream = connect(&world);
        let head = head("PUT", &path, "content-length: 100\r\n").replace("{token}", world.token("writer"));
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(&[7; 50]).unwrap();
    }
    let cut = head("PUT", &path, "transfer-encoding: chunked\r\n");
    {
        let mut stream = connect(&world);
        stream.write_all(cut.replace("{token}", world.token("writer")).as_bytes()).unwrap();
        stream.write_all(b"5\r\nhello\r\n").unwrap();
    }
    // Announced, and found out.
    let announced = head("PUT", &path, "content-length: 2000000\r\n");
    assert_eq!(raw(&world, &announced, &vec![7; 2_000_000]).0, 413);
    let waits = head("PUT", &path, "content-length: 2000000\r\nexpect: 100-continue\r\n");
    assert_eq!(raw(&world, &waits, b"").0, 413, "expected nothing to be waited for");
    let mut body = format!("{:x}\r\n", 2_000_000).into_bytes();
    body.extend(vec![7; 2_000_000]);
    body.extend(b"\r\n0\r\n\r\n");
    assert_eq!(raw(&world, &cut, &body).0, 413);
    assert_eq!(get(&world, &path), 404);
    // The largest that is allowed.
    let most = head("PUT", &path, "content-length: 1048576\r\n");
    assert_eq!(raw(&world, &most, &vec![7; 1 << 20]).0, 200);
    assert_eq!(get(&world, &path), 200);
    let uploads = world.farm.dir.path().join("coordinator/cache-uploads");
    until("no upload to be left", || (std::fs::read_dir(&uploads).unwrap().count() == 0).then_some(()));
}

#[test]
fn a_body_that_is_another_than_its_name_says_is_refused() {
    let world = World::start();
    let digest = DigestFunction::Sha256.digest(b"what was meant");
    let path = format!("bazel/cas/{}", digest.hex());
    let lies = head("PUT", &path, "content-length: 14\r\n");
    assert_eq!(raw(&world, &lies, b"what was sent!").0, 400);
    let lies = head("PUT", &path, "transfer-encoding: chunked\r\n");
    assert_eq!(raw(&world, &lies, b"e\r\nwhat was sent!\r\n0\r\n\r\n").0, 400);
    assert_eq!(get(&world, &path), 404);
    let result = head("PUT", &format!("bazel/ac/{}", digest.hex()), "content-length: 3\r\n");
    assert_eq!(raw(&world, &result, b"\xff\xff\xff").0, 400);
    assert_eq!(get(&world, &format!("bazel/ac/{}", digest.hex())), 404);
}

#[test]
fn no_key_leads_elsewhere() {
    let world = World::start();
    let long = format!("ccache/{}", "a".repeat(10_000));
    let endless = format!("sccache/{}", "a".repeat(70_000));
    for path in [
        "ccache/../go/x",
        "ccache/%2e%2e",
        "sccache/a/../../b",
        "sccache/a/%2e%2e/b",
        "sccache/a%2f..%2fb",
        "sccache/a%00b",
        "gradle/ABCDEF",
        "go/00",
        "unknown/00",
        "scope/a",
        &long,
        &endless,
    ] {
        let (status, answer) = raw(&world, &head("PUT", path, "content-length: 1\r\n"), b"x");
        assert!(matches!(status, 400 | 404 | 414 | 431), "expected `{path:.60}` to be refused: {answer:.200}");
    }
    let (status, _) = raw(&world, &head("PATCH", &format!("ccache/{KEY}"), "content-length: 1\r\n"), b"x");
    assert_eq!(status, 405);
}

#[test]
fn nobody_without_a_token_gets_further_than_the_door() {
    let world = World::start();
    let path = format!("ccache/{KEY}");
    let basic = |user: &str| {
        use base64::Engine;
        base64::engine::general_purpose::STANDARD.encode(user)
    };
    let with = |authorization: &str| {
        format!("GET /cache/{path} HTTP/1.1\r\nhost: farm\r\nconnection: close\r\n{authorization}\r\n")
    };
    for authorization in [
        String::new(),
        "authorization: Bearer kiln_wrong\r\n".to_owned(),
        format!("authorization: Basic {}\r\n", basic("ci:kiln_wrong")),
        "authorization: Basic ?\r\n".to_owned(),
        "authorization: Digest x\r\n".to_owned(),
    ] {
        let (status, answer) = raw(&world, &with(&authorization), b"");
        assert!(status == 401 && answer.contains("www-authenticate: Basic"), "{authorization}: {answer}");
    }
    let right = format!("authorization: Basic {}\r\n", basic(&format!("anyone:{}", world.token("reader"))));
    assert_eq!(raw(&world, &with(&right), b"").0, 404);
    // A large body of somebody unknown is not read to its end.
    let head =
        format!("PUT /cache/{path} HTTP/1.1\r\nhost: farm\r\nconnection: close\r\ncontent-length: 900000000\r\n\r\n");
    assert!(matches!(raw(&world, &head, &vec![7; 8 << 20]).0, 401 | 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn over_grpc_nobody_writes_what_tools_read_nor_leaves_a_scope() {
    let world = World::start();
    let entry = DigestFunction::Sha256.digest(["kiln.cache/1", "ccache", "", "", KEY].join("\0").as_bytes());
    let access = |name: &str| {
        let file = world.farm.dir.path().join(format!("{name}.token"));
        std::fs::write(&file, world.token(name)).unwrap();
        kiln_proto::channel::Access { token_file: Some(file), ..Default::default() }
    };
    let put = async |name: &str, digest: Digest| {
        let channel = kiln_proto::channel::connect(&world.farm.url, &access(name)).await.unwrap();
        let request = reapi::UpdateActionResultRequest {
            action_digest: Some(digest.to_wire()),
            action_result: Some(reapi::ActionResult { stdout_raw: b"x".to_vec(), ..Default::default() }),
            ..Default::default()
        };
        ActionCacheClient::new(channel).update_action_result(request).await.map(drop)
    };
    // The digest that an entry of ccache has: no action can have it, because no blob has its size.
    let refused = put("writer", Digest { size: i64::MAX as u64, ..entry }).await.unwrap_err();
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition, "{refused}");
    let confined = put("branch", entry).await.unwrap_err();
    assert!(confined.message().contains("is confined to a scope"), "{confined}");
}
