//! `kiln build` against a farm in memory: what it shows, sends and downloads, and its exit codes.

#![allow(clippy::unwrap_used)]

mod support;

use std::os::unix::fs::{PermissionsExt, symlink};

use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::Status;
use kiln_proto::v1::event::Event;
use kiln_proto::v1::step_finished::Cache;
use kiln_trees::tree::Entry;
use serde_json::json;
use support::{F, Farm, Running, finished, log, project, result, runs, started, step, step_on};

/// All that a build of one artifact leaves in the output directory.
const WRITTEN: [&str; 4] = [".gitignore", ".kiln-output.json", "shop", "shop.provenance.json"];

fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn json_events_have_the_promised_shapes() {
    let (farm, dir) = (Farm::start().await, project());
    let artifact = farm.artifact("shop", "linux/amd64", b"#!/bin/sh\n");
    let (id, digest) = (artifact.id.clone(), artifact.digest.clone().unwrap().hash);
    farm.script(vec![
        started(&[step("deps"), step("compile")]),
        Event::StepFinished(result(step("deps"), Cache::Hit, 0)),
        runs(step("compile")),
        log(step("compile"), b"one\ntw"),
        log(step("compile"), b"o\n\xff\n"),
        log(step("compile"), b"no end"),
        Event::StepFinished(result(step("compile"), Cache::Miss, 0)),
        Event::Artifact(artifact),
        finished(Status::Succeeded, ""),
    ]);
    let ran = farm.run(dir.path(), &["build", "--progress", "json"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let mut objects = ran.objects();
    let mut elapsed = 0;
    for object in &mut objects {
        let object = object.as_object_mut().unwrap();
        assert_eq!(object.remove("schema"), Some(json!(1)));
        let at = object.remove("at").unwrap();
        assert!(at.as_str().unwrap().ends_with('Z'), "expected a time in UTC, found {at}");
        elapsed = object.remove("elapsed_ms").map_or(elapsed, |elapsed| elapsed.as_u64().unwrap());
    }
    assert!(elapsed > 0, "expected the time since the command began");
    let on = |step: &str| json!({ "step": step, "platform": "linux/amd64", "target": "linux-amd64" });
    let with = |mut object: serde_json::Value, more: serde_json::Value| {
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    let text = |text: &str| with(on("compile"), json!({ "type": "log", "stream": "stdout", "text": text }));
    let sent: u64 = ran.objects().last().unwrap()["bytes_uploaded"].as_u64().unwrap();
    assert!(sent > 60, "the sources and directories are {sent} bytes");
    let ended = json!({ "type": "step_finished", "exit_code": 0, "ok": true, "emulated": false, "message": "", "action": null, "first_error": [], "calls": null, "tests": null });
    assert_eq!(
        objects,
        [
            json!({ "type": "build_started", "build": "b-1", "project": "shop", "version": "1.0", "steps": 2, "resumed": false }),
            with(on("deps"), with(ended.clone(), json!({ "cache": "hit", "duration_ms": 3, "worker": "" }))),
            with(on("compile"), json!({ "type": "step_started", "worker": "one", "expected_ms": null })),
            text("one\n"),
            text("two\n\u{fffd}\n"),
            text("no end"),
            with(on("compile"), with(ended, json!({ "cache": "miss", "duration_ms": 1500, "worker": "one" }))),
            json!({
                "type": "artifact", "name": "shop", "version": "1.0", "platform": "linux/amd64", "target": "linux-amd64",
                "kind": "binary", "emulated": false, "id": id, "digest": digest, "size_bytes": 10, "path": "kiln-out/shop",
            }),
            json!({
                "type": "build_finished", "build": "b-1", "status": "success", "duration_ms": 2000, "bytes_uploaded": sent,
                "bytes_reused": 0, "message": "",
            }),
        ]
    );
    let shop = dir.path().join("kiln-out/shop");
    assert_eq!(std::fs::read(&shop).unwrap(), b"#!/bin/sh\n");
    assert_eq!(shop.metadata().unwrap().permissions().mode() & 0o777, 0o755);
    assert_eq!(names(&dir.path().join("kiln-out")), WRITTEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_tree_sends_nothing_and_an_edit_sends_the_file_and_what_is_above_it() {
    let (farm, dir) = (Farm::start().await, project());
    std::fs::write(dir.path().join("large"), vec![7; 3 << 20]).unwrap();
    let mut sent = Vec::new();
    for round in 0..3 {
        if round == 2 {
            std::fs::write(dir.path().join("src/main.c"), "int main(void) { return 1; }\n").unwrap();
        }
        let before = farm.state.blobs.lock().len();
        farm.script(vec![started(&[]), finished(Status::Succeeded, "")]);
        let ran = farm.run(dir.path(), &["build", "--progress", "json"]).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        let bytes = ran.objects().last().unwrap()["bytes_uploaded"].as_u64().unwrap();
        sent.push((bytes, farm.state.blobs.lock().len() - before));
    }
    assert!(sent[0].0 > 3 << 20);
    assert_eq!(sent[1], (0, 0));
    assert!(sent[2].0 < 1000);
    assert_eq!(sent[2].1, 3, "the file, `src` and the root");
    let submitted = farm.state.submitted.lock();
    let roots: Vec<_> = submitted.iter().map(|one| one.source.clone().unwrap().root.unwrap()).collect();
    assert_eq!(roots[0], roots[1]);
    assert_ne!(roots[1], roots[2]);
    assert_ne!(submitted[0].request_id, submitted[1].request_id);
    assert_eq!(submitted[0].user, "tester");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_whose_fault_it_was() {
    let (farm, dir) = (Farm::start().await, project());
    for (status, word, code) in [
        (Status::Succeeded, "success", 0),
        (Status::Failed, "failed", 1),
        (Status::FarmFailed, "farm_failed", 3),
        (Status::Cancelled, "cancelled", 130),
    ] {
        farm.script(vec![started(&[]), finished(status, "why")]);
        let ran = farm.run(dir.path(), &["build", "--progress", "json"]).await;
        assert_eq!((ran.code, ran.objects().last().unwrap()["status"].as_str()), (code, Some(word)));
    }
    *farm.state.refuse.lock() = Some(tonic::Status::invalid_argument("`kiln.toml`, line 3: unknown key `nedes`"));
    let ran = farm.run(dir.path(), &["build"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (2, "error: `kiln.toml`, line 3: unknown key `nedes`\n"));
    *farm.state.refuse.lock() = Some(tonic::Status::resource_exhausted("the disk is full"));
    let ran = farm.run(dir.path(), &["build"]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains(&farm.url) && ran.err.contains("the disk is full"), "{}", ran.err);
    assert_eq!(farm.run(dir.path(), &["build", "--platform", "linux/mips"]).await.code, 2);
    assert_eq!(farm.run(dir.path(), &["build", "nowhere"]).await.code, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_farm_is_named() {
    let (farm, dir) = (Farm::start().await, project());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let ran = farm.run(dir.path(), &["build", "--farm", &url]).await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains(&format!("cannot reach the farm at `{url}`")), "{}", ran.err);
    let ran = farm.run(dir.path(), &["build", "--farm", "ftp://x"]).await;
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_that_no_worker_could_have_is_the_users_to_mend() {
    let (farm, dir) = (Farm::start().await, project());
    symlink("/etc/passwd", dir.path().join("src/link")).unwrap();
    let ran = farm.run(dir.path(), &["build"]).await;
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("`src/link` leaves the tree: it points to `/etc/passwd`"), "{}", ran.err);
    assert!(farm.state.submitted.lock().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_shows_its_last_lines_and_how_to_see_all() {
    let (farm, dir) = (Farm::start().await, project());
    let text: String = (1..=30).map(|line| format!("line {line}\n")).collect();
    farm.script(vec![
        started(&[step("compile"), step("test")]),
        runs(step("compile")),
        log(step("compile"), text.as_bytes()),
        Event::StepFinished(result(step("compile"), Cache::Miss, 2)),
        finished(Status::Failed, "step `compile` failed"),
    ]);
    let ran = farm.run(dir.path(), &["build", "--progress", "plain"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    insta::assert_snapshot!(ran.err.split_once("compile: failed").unwrap().1.replace(
        &(11..=29).map(|line| format!("compile | line {line}\n")).collect::<String>(), "...\n"
    ).split("build b-1: failed in").next().unwrap(), @r"
     with exit code 2
    ...
    compile | line 30
    all of its output: kiln logs b-1 compile

    step     cache   worker  time
    compile  failed  one     1.5 s
    test     -       -       -
    ");
    assert!(ran.err.ends_with("step `compile` failed\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_was_not_seen_live_is_fetched() {
    let (farm, dir) = (Farm::start().await, project());
    let mut failed = result(step("compile"), Cache::Merged, 1);
    failed.stderr_digest = Some(farm.put(b"main.c:1: error\n").to_wire());
    farm.script(vec![started(&[step("compile")]), Event::StepFinished(failed), finished(Status::Failed, "")]);
    let ran = farm.run(dir.path(), &["build"]).await;
    assert!(ran.err.contains("compile | main.c:1: error"), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_progress_is_lines_and_paths_on_stdout() {
    let (farm, dir) = (Farm::start().await, project());
    let artifacts = ["linux/amd64", "linux/arm64"].map(|platform| farm.artifact("shop", platform, platform.as_bytes()));
    let arm = step_on("compile", "linux/arm64");
    farm.script(vec![
        started(&[step("compile"), arm.clone()]),
        runs(arm.clone()),
        log(arm.clone(), b"hello\nworld"),
        Event::StepFinished(result(arm, Cache::Miss, 0)),
        Event::Artifact(artifacts[0].clone()),
        Event::Artifact(artifacts[1].clone()),
        finished(Status::Succeeded, ""),
    ]);
    let ran = farm.run(dir.path(), &["build", "--output", "out", "--platform", "linux/amd64,linux/arm64"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "out/linux-amd64/shop\nout/linux-arm64/shop\n"));
    assert!(ran.err.contains("compile linux/arm64 | hello\ncompile linux/arm64 | world\n"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(dir.path().join("out/linux-arm64/shop")).unwrap(), "linux/arm64");
    assert_eq!(farm.state.submitted.lock()[0].platforms, ["linux/amd64", "linux/arm64"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_connection_loses_and_repeats_nothing() {
    let (farm, dir) = (Farm::start().await, project());
    farm.script(vec![started(&[step("compile")]), runs(step("compile"))]);
    let mut running = Running::start(farm.kiln(dir.path(), &["build", "--progress", "json"]));
    running.until("step_started").await;
    let mut watched = farm.state.watched.subscribe();
    farm.state.cut.send_modify(|count| *count += 1);
    let last = watched.wait_for(|(count, _)| *count == 2).await.unwrap().1;
    assert_eq!(last, 2);
    farm.emit(log(step("compile"), b"after\n"));
    farm.emit(finished(Status::Succeeded, ""));
    assert_eq!(running.until("log").await["text"], "after\n");
    assert_eq!(running.until("build_finished").await["status"], "success");
    assert_eq!(running.end().await.code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_farm_that_stays_away_is_lost() {
    let (farm, dir) = (Farm::start().await, project());
    farm.script(vec![started(&[])]);
    let mut running = Running::start(farm.kiln(dir.path(), &["build", "--progress", "json", "--lost-after", "0"]));
    running.until("build_started").await;
    farm.stop();
    assert_eq!(running.until("build_finished").await["status"], "farm_failed");
    let ran = running.end().await;
    assert_eq!(ran.code, 3);
    assert!(ran.err.contains(&format!("lost the farm at `{}`", farm.url)), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_cancels_and_waits_for_the_end() {
    let (farm, dir) = (Farm::start().await, project());
    farm.script(vec![started(&[step("compile")]), runs(step("compile"))]);
    let mut running = Running::start(farm.kiln(dir.path(), &["build", "--progress", "json"]));
    running.until("step_started").await;
    running.interrupt();
    assert_eq!(running.until("build_finished").await["status"], "cancelled");
    assert_eq!(running.end().await.code, 130);
    assert_eq!(*farm.state.cancelled.borrow(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_before_the_farm_has_answered_cancels_what_it_has_begun() {
    let (farm, dir) = (Farm::start().await, project());
    farm.script(vec![started(&[step("compile")]), runs(step("compile"))]);
    farm.state.answers.send_replace(false);
    let mut asked = farm.state.asked.subscribe();
    let mut running = Running::start(farm.kiln(dir.path(), &["build", "--progress", "json"]));
    asked.wait_for(|count| *count == 1).await.unwrap();
    running.interrupt();
    while running.until("progress").await["what"] != "cancelling" {}
    farm.state.answers.send_replace(true);
    assert_eq!(running.until("build_finished").await["status"], "cancelled");
    assert_eq!(running.end().await.code, 130);
    assert_eq!(*farm.state.cancelled.borrow(), 1);

    // Nobody follows a detached build, and it is cancelled all the same.
    farm.state.answers.send_replace(false);
    let mut detached = Running::start(farm.kiln(dir.path(), &["build", "--detach", "--progress", "json"]));
    asked.wait_for(|count| *count == 2).await.unwrap();
    detached.interrupt();
    while detached.until("progress").await["what"] != "cancelling" {}
    farm.state.answers.send_replace(true);
    let ran = detached.end().await;
    assert_eq!((ran.code, *farm.state.cancelled.borrow()), (130, 2), "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_interrupt_leaves_at_once() {
    let (farm, dir) = (Farm::start().await, project());
    *farm.state.end_on_cancel.lock() = false;
    farm.script(vec![started(&[step("compile")]), runs(step("compile"))]);
    let mut running = Running::start(farm.kiln(dir.path(), &["build", "--progress", "json"]));
    running.until("step_started").await;
    let mut cancelled = farm.state.cancelled.subscribe();
    running.interrupt();
    cancelled.wait_for(|count| *count == 1).await.unwrap();
    running.interrupt();
    assert_eq!(running.end().await.code, 130);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_build_prints_its_id_and_can_be_attached_to() {
    let (farm, dir) = (Farm::start().await, project());
    let artifact = farm.artifact("shop", "linux/amd64", b"x");
    farm.script(vec![started(&[step("compile")]), runs(step("compile"))]);
    let ran = farm.run(dir.path(), &["build", "--detach"]).await;
    assert_eq!(
        (ran.code, ran.out.as_str(), ran.err.as_str()),
        (0, "b-1\n", "the build runs on the farm; follow it with `kiln attach b-1`\n")
    );

    let mut running = Running::start(farm.kiln(dir.path(), &["attach", "b-1", "--progress", "json"]));
    running.until("step_started").await;
    running.interrupt();
    let ran = running.end().await;
    assert_eq!((ran.code, *farm.state.cancelled.borrow()), (130, 0));
    assert!(ran.err.contains("`kiln attach b-1` follows it again"), "{}", ran.err);

    farm.emit(Event::Artifact(artifact));
    farm.emit(finished(Status::Succeeded, ""));
    let ran = farm.run(dir.path(), &["attach", "b-1"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, "kiln-out/shop\n"));
    assert_eq!(farm.run(dir.path(), &["attach", "b-2"]).await.code, 2);

    let ran = farm.run(dir.path(), &["build", "--detach", "--farm", ""]).await;
    assert_eq!(ran.code, 2, "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_artifact_takes_the_place_of_an_older_one_of_another_form() {
    let (farm, dir) = (Farm::start().await, project());
    let tree = farm.put_tree(vec![
        ("bin/shop", farm.file(b"run", true)),
        ("share/doc", farm.file(b"text", false)),
        ("bin/link", Entry::Symlink { target: "../share/doc".into() }),
    ]);
    for artifact in [
        farm.artifact("shop", "linux/amd64", b"one"),
        farm.artifact_of("shop", "linux/amd64", tree, tree),
        farm.artifact_of("shop", "linux/amd64", tree, tree),
        farm.artifact("shop", "linux/amd64", b"two"),
    ] {
        let single = artifact.digest != artifact.root;
        farm.script(vec![started(&[]), Event::Artifact(artifact), finished(Status::Succeeded, "")]);
        let ran = farm.run(dir.path(), &["build"]).await;
        assert_eq!(ran.code, 0, "{}", ran.err);
        let shop = dir.path().join("kiln-out/shop");
        assert_eq!(shop.is_file(), single);
        if !single {
            assert_eq!(std::fs::read_to_string(shop.join("bin/link")).unwrap(), "text");
            assert_eq!(shop.join("share/doc").metadata().unwrap().permissions().mode() & 0o777, 0o644);
        }
    }
    assert_eq!(std::fs::read_to_string(dir.path().join("kiln-out/shop")).unwrap(), "two");
    assert_eq!(names(&dir.path().join("kiln-out")), WRITTEN);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_written_outside_the_output() {
    let (farm, dir) = (Farm::start().await, project());
    let link = farm.put_tree(vec![("a/b", Entry::Symlink { target: "../../../src".into() })]);
    let node = |name: &str| kiln_proto::reapi::Directory {
        files: vec![kiln_proto::reapi::FileNode {
            name: name.into(),
            digest: Some(farm.put(b"x").to_wire()),
            ..Default::default()
        }],
        ..Default::default()
    };
    let climbing = farm.put(&prost::Message::encode_to_vec(&node("../escaped")));
    let other = farm.put_tree(vec![("f", farm.file(b"f", false))]);
    for (name, root, promised) in [
        ("shop", link, link),
        ("shop", climbing, climbing),
        ("../shop", other, other),
        ("shop", other, F.digest(b"something else")),
    ] {
        let artifact = farm.artifact_of(name, "linux/amd64", root, promised);
        farm.script(vec![started(&[]), Event::Artifact(artifact), finished(Status::Succeeded, "")]);
        let ran = farm.run(dir.path(), &["build", "--output", "deep/out"]).await;
        assert_eq!(ran.code, 3, "{ran:?}");
        assert!(ran.err.contains("is malformed"), "{}", ran.err);
        assert!(!dir.path().join("deep/shop").exists() && !dir.path().join("deep/out/shop").exists());
        assert!(!dir.path().join("deep/out/escaped").exists() && !dir.path().join("deep/escaped").exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn colours_and_escapes_of_a_step_do_not_reach_a_pipe() {
    let (farm, dir) = (Farm::start().await, project());
    farm.script(vec![
        started(&[step("compile")]),
        runs(step("compile")),
        log(step("compile"), b"\x1b[1;31merror\x1b[0m: bad\x1b[2J\x1b]0;title\x07\n"),
        Event::StepFinished(result(step("compile"), Cache::Miss, 1)),
        finished(Status::Failed, ""),
    ]);
    let ran = farm.run(dir.path(), &["build", "--progress", "plain"]).await;
    assert!(ran.err.contains("compile | error: bad\n"), "{}", ran.err);
    assert!(!ran.err.contains('\u{1b}'), "{}", ran.err);
    farm.script(vec![
        started(&[step("compile")]),
        log(step("compile"), b"\x1b[31mred\x1b[2J\n"),
        finished(Status::Failed, ""),
    ]);
    let mut forced = farm.kiln(dir.path(), &["build", "--progress", "plain"]);
    let forced = support::Ran::from(forced.env("CLICOLOR_FORCE", "1").output().await.unwrap());
    assert!(forced.err.contains("| \u{1b}[31mred\u{1b}[0m\n"), "{}", forced.err);
    assert!(!forced.err.contains("[2J"), "{}", forced.err);
    farm.script(vec![
        started(&[step("compile")]),
        log(step("compile"), b"\x1b[31mred\n"),
        finished(Status::Failed, ""),
    ]);
    let mut without = farm.kiln(dir.path(), &["build", "--progress", "plain"]);
    without.env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1");
    let without = support::Ran::from(without.output().await.unwrap());
    assert!(!without.err.contains('\u{1b}'), "expected `NO_COLOR` to hold: {}", without.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_summary_tells_the_users_time_and_a_test_hands_nothing_over() {
    let (farm, dir) = (Farm::start().await, project());
    farm.script(vec![started(&[step("test")]), finished(Status::Succeeded, "")]);
    let ran = farm.run(dir.path(), &["test"]).await;
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    assert!(!ran.err.contains("success in 2.0 s"), "expected the command's own time: {}", ran.err);
    assert!(farm.state.submitted.lock()[0].test);
    assert!(!dir.path().join("kiln-out").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_farm_gets_a_sentence() {
    let (farm, dir) = (Farm::start().await, project());
    for (answer, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\nServer: nginx/1.22.1\r\n\r\n"[..],
            "a web server (nginx/1.22.1) responds there",
        ),
        (b"\x15\x03\x03\0\x02\x02\x46", "it speaks TLS; use `https://127.0.0.1:"),
        (b"SSH-2.0-OpenSSH_9.2p1 Debian\r\n", "an SSH server responds there"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stranger = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1024]).await;
                let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
            }
        });
        for arguments in [&["builds"][..], &["build"]] {
            let ran = farm.run(dir.path(), &[arguments, &["--farm", &url]].concat()).await;
            assert_eq!(ran.code, 2, "{}", ran.err);
            let expected = format!("error: no Kiln farm at `{url}`: {words}");
            assert!(ran.err.starts_with(&expected), "expected `{expected}` in: {}", ran.err);
        }
        stranger.abort();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_lists_say_so_and_tables_fit_a_narrow_terminal() {
    let (farm, dir) = (Farm::start().await, project());
    for (arguments, words) in [(&["artifacts"][..], "no artifacts yet"), (&["workers"], "no worker has joined")] {
        let ran = farm.run(dir.path(), arguments).await;
        assert_eq!((ran.code, ran.out.as_str()), (0, ""));
        assert!(ran.err.contains(words), "{}", ran.err);
    }
    *farm.state.build.lock() = kiln_proto::v1::Build {
        id: "0190a1b2c3d4e5f60718293a4b5c6d7e".into(),
        project: "payments-gateway-service".into(),
        version: "v1.4.2-12-gabcdef0-dirty".into(),
        user: "somebody.important".into(),
        status: Status::Succeeded.into(),
        started: Some(Timestamp { seconds: 1, nanos: 0 }),
        finished: Some(Timestamp { seconds: 62, nanos: 0 }),
        ..Default::default()
    };
    let whole = farm.run(dir.path(), &["builds"]).await;
    assert!(whole.out.contains("payments-gateway-service  v1.4.2-12-gabcdef0-dirty"), "{}", whole.out);
    let mut narrow = farm.kiln(dir.path(), &["builds"]);
    let narrow = support::Ran::from(narrow.env("COLUMNS", "60").output().await.unwrap());
    assert!(narrow.out.lines().all(|line| line.chars().count() <= 60), "{}", narrow.out);
    assert!(narrow.out.contains("0190a1b2c3d4  "), "{}", narrow.out);
}

#[test]
fn the_version_names_commit_and_protocol() {
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_kiln")).arg("--version").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let protocol = format!("protocol {})", kiln_proto::protocol::PROTOCOL);
    assert!(text.starts_with("kiln ") && text.contains("(commit ") && text.trim().ends_with(&protocol), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_doctor_finds_has_the_promised_shape() {
    let (farm, dir) = (Farm::start().await, project());
    let check = |name: &str, state, fix: &str| kiln_proto::v1::Check {
        name: name.into(),
        state: kiln_proto::v1::check::State::into(state),
        found: "this".into(),
        why: "that".into(),
        fix: fix.into(),
    };
    use kiln_proto::v1::check::State;
    let checks = vec![check("kernel", State::Ok, ""), check("step networks", State::Warning, "apt-get install passt")];
    let environment = kiln_proto::v1::Environment { checks, ..Default::default() };
    let worker = kiln_proto::v1::Worker {
        worker: "one".into(),
        version: "0.0.1".into(),
        connected: true,
        environment: Some(environment),
        ..Default::default()
    };
    farm.state.workers.lock().push(worker);
    let ran = farm.run(dir.path(), &["doctor", "--worker", "one", "--json"]).await;
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let of = |name: &str, state: &str, found: &str, why: &str, fix: &str| json!({ "name": name, "state": state, "found": found, "why": why, "fix": fix });
    assert_eq!(
        ran.json(),
        json!({
            "well": true,
            "sections": [{
                "about": "worker one",
                "checks": [
                    of("connection", "ok", "version 0.0.1", "the farm's steps run on its workers", ""),
                    of("kernel", "ok", "this", "that", ""),
                    of("step networks", "warning", "this", "that", "apt-get install passt"),
                ],
            }],
        })
    );
    let ran = farm.run(dir.path(), &["doctor", "--json"]).await;
    let report = ran.json();
    let about: Vec<&str> =
        report["sections"].as_array().unwrap().iter().map(|section| section["about"].as_str().unwrap()).collect();
    assert_eq!(about, ["this machine", &format!("the farm at {}", farm.url), "the farm's workers"]);
}
