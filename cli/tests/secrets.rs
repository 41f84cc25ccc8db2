//! Secrets of steps, on farms of real processes: the step gets them, and no file, log, record or response contains
//! them.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_harness::redis::Redis;
use kiln_harness::{Built, Farm, Ran, Running, cannot_run, find, project, until};
use kiln_proto::digest::DigestFunction;

/// A value that no other test or run uses.
fn value() -> String {
    format!("tok-{}", uuid::Uuid::new_v4().simple())
}

/// A project whose one step asks for `NPM_TOKEN`.
fn asking(run: &str, more: &str) -> tempfile::TempDir {
    let config = format!(
        "name = \"shop\"\nversion = \"1\"\n[steps.publish]\nrun = '''\n{run}\necho done > out\n'''\noutputs = [\"out\"]\n\
         secrets = [\"NPM_TOKEN\"]\n{more}\n[artifacts.shop]\nfrom = \"publish\"\nfiles = [\"out\"]\nkind = \"archive\"\n"
    );
    project(&[("kiln.toml", &config), ("salt", &uuid::Uuid::new_v4().to_string())])
}

fn command(farm: &Farm, dir: &Path, value: &str, more: &[&str]) -> Command {
    let mut command = farm.build_command(dir, more);
    command.env("NPM_TOKEN", value).env("KILN_SECRETS", "NPM_TOKEN");
    command
}

fn build(farm: &Farm, dir: &Path, value: &str, more: &[&str]) -> Built {
    Built(Ran::from(command(farm, dir, value, more)))
}

/// Files below `dir` that contain one of these texts.
fn holding(dir: &Path, texts: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut stack = vec![dir.to_owned()];
    while let Some(at) = stack.pop() {
        for entry in std::fs::read_dir(&at).into_iter().flatten().flatten() {
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() {
                stack.push(entry.path());
            } else if kind.is_file() {
                let content = std::fs::read(entry.path()).unwrap_or_default();
                let holds = |text: &&str| content.windows(text.len()).any(|window| window == text.as_bytes());
                if texts.iter().any(holds) {
                    found.push(entry.path());
                }
            }
        }
    }
    found
}

/// All values in a Redis, unpacked (`coordinator/src/store/redis/value.rs`).
fn stored(redis: &Redis) -> Vec<u8> {
    // Through its standard input, because keys contain NULs.
    let ask = |words: &[&str]| {
        let quote = |word: &&str| word.bytes().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        let line = words.iter().map(|word| format!("\"{}\" ", quote(word))).collect::<String>();
        let mut client = Command::new("redis-cli")
            .args(["-p", &redis.port.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        client.stdin.take().unwrap().write_all(format!("{line}\n").as_bytes()).unwrap();
        let output = client.wait_with_output().unwrap();
        assert!(output.status.success(), "redis-cli {words:?}: {output:?}");
        output.stdout
    };
    let mut all = Vec::new();
    let mut keep = |value: Vec<u8>| match value.split_first() {
        Some((1, frame)) => {
            let decoder = zstd::stream::read::Decoder::with_buffer(frame).unwrap();
            decoder.single_frame().read_to_end(&mut all).unwrap();
        }
        _ => all.extend(value),
    };
    for key in redis.keys("*") {
        match ask(&["TYPE", &key]).trim_ascii() {
            b"string" => keep(ask(&["GET", &key])),
            b"hash" => {
                let fields = String::from_utf8(ask(&["HKEYS", &key])).unwrap();
                fields.lines().for_each(|field| keep(ask(&["HGET", &key, field])));
            }
            _ => keep(ask(&["ZRANGE", &key, "0", "-1"])),
        }
    }
    all
}

#[test]
fn a_step_has_its_secret_and_nothing_that_is_kept_or_shown_does() {
    if !kiln_harness::redis::is_installed() {
        return cannot_run("redis-server is not installed");
    }
    let redis = Redis::start();
    let farm = Farm::with_redis(Some(&redis.url()), &["one"]);
    let value = value();
    let hash = DigestFunction::Sha256.digest(value.as_bytes()).hex();
    let run = format!(
        "test \"$(printf %s \"$NPM_TOKEN\" | sha256sum | cut -c1-64)\" = {hash}\n\
         echo begins\n\
         while [ ! -e /tmp/never ] && [ $((i=i+1)) -lt 15 ]; do sleep 0.1; done\n\
         echo \"plain $NPM_TOKEN.\"\n\
         printf 'pieces '; left=$NPM_TOKEN; while [ -n \"$left\" ]; do printf %s \"${{left%\"${{left#?}}\"}}\"; left=${{left#?}}; sleep 0.01; done; echo .\n\
         printf %s \"$NPM_TOKEN\" | base64 -w0; echo .\n\
         printf 'user:%s' \"$NPM_TOKEN\" | base64 -w0; echo .\n\
         echo \"error $NPM_TOKEN.\" >&2"
    );
    let dir = asking(&run, "");
    let (alone, joined) = (STANDARD.encode(&value), STANDARD.encode(format!("user:{value}")));
    let coded = [&alone[..24], &joined[8..32]];
    let rests = ["\n***.\n", "\ndXNlcjp***.\n"];
    let texts = [value.as_str(), coded[0], coded[1]];

    let mut running = Running::start(command(&farm, dir.path(), &value, &[]));
    running.until("the step's first output", |event| event["text"] == "begins\n");
    assert_eq!(holding(farm.dir.path(), &texts), Vec::<PathBuf>::new(), "while the step runs");
    let built = running.end().well();
    let log = built.log();
    for expected in ["plain ***.\n", "pieces ***.\n", "error ***.\n", rests[0], rests[1]] {
        assert!(log.contains(expected), "expected `{expected}` in {log}");
    }
    let logs = farm.kiln(&["logs", &built.id(), "publish"]);
    assert!(logs.out.contains("plain ***.\n") && logs.out.contains("pieces ***.\n"), "{logs:?}");
    let told = [
        format!("{built:?}"),
        format!("{logs:?}"),
        format!("{:?}", farm.kiln(&["builds", "--json"])),
        format!("{:?}", farm.kiln(&["artifacts", "--json"])),
        format!("{:?}", farm.kiln(&["cache", "list", "--json"])),
    ];
    for told in &told {
        assert!(texts.iter().all(|text| !told.contains(text)), "expected no part of the secret in {told}");
    }

    // The search would find it: the name is there, and so is the provenance that contains it.
    assert!(!holding(&farm.dir.path().join("coordinator"), &["kiln.secret.NPM_TOKEN"]).is_empty());
    let provenance = find(&dir.path().join("kiln-out"), "provenance.json").expect("the artifact's provenance");
    let provenance = std::fs::read_to_string(provenance).unwrap();
    assert!(provenance.contains("NPM_TOKEN"), "expected the secret's name in {provenance}");
    assert_eq!(holding(farm.dir.path(), &texts), Vec::<PathBuf>::new(), "after the build");
    assert_eq!(holding(dir.path(), &texts), Vec::<PathBuf>::new(), "in the source directory");
    let stored = String::from_utf8_lossy(&until("Redis to hold the action", || {
        let stored = stored(&redis);
        stored.windows(21).any(|window| window == b"kiln.secret.NPM_TOKEN").then_some(stored)
    }))
    .into_owned();
    assert!(texts.iter().all(|text| !stored.contains(text)), "expected no part of the secret in Redis");
}

#[test]
fn a_changed_value_is_a_hit_and_a_step_without_the_secret_is_another_action() {
    let farm = Farm::shared();
    let dir = asking("echo built", "");
    assert_eq!(build(farm, dir.path(), &value(), &[]).well().caches()["publish"], "miss");
    assert_eq!(build(farm, dir.path(), &value(), &[]).well().caches()["publish"], "hit");
    let config = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
    kiln_harness::write(
        dir.path(),
        "kiln.toml",
        &config.replace("secrets = [\"NPM_TOKEN\"]\n", "inputs = [\"salt\"]\n"),
    );
    assert_eq!(farm.build(dir.path(), &[]).well().caches()["publish"], "miss");
    // With the same inputs and the secret it is the first action again.
    kiln_harness::write(dir.path(), "kiln.toml", &config.replace("secrets =", "inputs = [\"salt\"]\nsecrets ="));
    assert_eq!(build(farm, dir.path(), &value(), &[]).well().caches()["publish"], "hit");
}

#[test]
fn a_secret_comes_from_a_file_without_the_end_of_its_line() {
    let (dir, value) = (asking("printf '%s' \"$NPM_TOKEN\" | wc -c", ""), value());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{value}\n")).unwrap();
    let named = format!("NPM_TOKEN={}", file.path().display());
    let built = Farm::shared().build(dir.path(), &["--secret", &named]).well();
    assert_eq!(built.log().trim(), value.len().to_string());
}

#[test]
fn a_secret_that_is_missing_or_none_is_refused_in_words_before_anything_runs() {
    let farm = Farm::start(&[]);
    let dir = asking("true", "");
    let refused = |ran: Ran, words: &[&str]| {
        assert_eq!(ran.code, 2, "{ran:?}");
        assert!(words.iter().all(|word| ran.err.contains(word)), "expected {words:?} in {}", ran.err);
    };
    refused(farm.build(dir.path(), &[]).0, &["`publish`", "`NPM_TOKEN`", "--secret NPM_TOKEN=FILE"]);
    refused(build(&farm, dir.path(), "abc", &[]).0, &["`NPM_TOKEN`", "at least 4"]);
    refused(farm.build(dir.path(), &["--secret", "NPM_TOKEN=/no/such/file"]).0, &["`/no/such/file`"]);
    refused(build(&farm, dir.path(), "value-a", &["--secret", "OTHER=/dev/null"]).0, &["no step", "`OTHER`"]);
    let mistaken = build(&farm, dir.path(), "value-a", &["--secret", "value-b"]).0;
    refused(mistaken, &["NAME=FILE"]);
    assert_eq!(farm.kiln(&["builds", "--json"]).out.trim(), "[]", "expected nothing to be submitted");
}

#[test]
fn a_checkout_takes_no_variable_that_its_user_did_not_let_it_have() {
    let farm = Farm::start(&["one"]);
    let config = tempfile::tempdir().unwrap();
    let theft = |name: &str| {
        let dir = asking("true", "");
        let text = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
        kiln_harness::write(dir.path(), "kiln.toml", &text.replace("NPM_TOKEN", name));
        dir
    };
    let silent = |dir: &Path, name: &str| {
        let mut command = farm.build_command(dir, &[]);
        command.env(name, value()).env("XDG_CONFIG_HOME", config.path());
        Ran::from(command)
    };
    for name in ["AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "NPM_TOKEN", "SSH_AUTH_SOCK"] {
        let ran = silent(theft(name).path(), name);
        assert!(ran.code == 2 && ran.err.contains(&format!("`--secret {name}`")), "{name}: {ran:?}");
    }
    assert_eq!(farm.kiln(&["builds", "--json"]).out.trim(), "[]", "expected nothing to be submitted");

    // Asked once, on a terminal; remembered only for this project and this variable.
    let dir = theft("GITHUB_TOKEN");
    let on_terminal = |answer: &str| {
        let line = format!("{} build {} --farm {}", env!("CARGO_BIN_EXE_kiln"), dir.path().display(), farm.url);
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        command.env("GITHUB_TOKEN", value()).env("XDG_CONFIG_HOME", config.path()).env_remove("KILN_FARM");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(answer.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (code, words) = on_terminal("n\n");
    assert!(code == Some(2) && words.contains("asks for your variable `GITHUB_TOKEN`"), "{code:?}: {words}");
    assert_eq!(silent(dir.path(), "GITHUB_TOKEN").code, 2, "expected a `no` not to be remembered as a `yes`");
    let (code, words) = on_terminal("y\n");
    assert!(code == Some(0), "{code:?}: {words}");
    assert_eq!(silent(dir.path(), "GITHUB_TOKEN").code, 0, "expected the answer to be remembered");
    assert_eq!(silent(theft("GITHUB_TOKEN").path(), "GITHUB_TOKEN").code, 2, "expected a question for another project");
    let file = config.path().join("kiln/secrets.toml");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(file).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_secret_is_not_sent_where_others_can_read_it() {
    let dir = asking("true", "");
    for url in ["http://192.0.2.1:8980", "192.0.2.1:8980", "grpc://farm.invalid:8980"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .args(["build", "--farm", url])
            .current_dir(dir.path())
            .env("NPM_TOKEN", value())
            .env("KILN_SECRETS", "NPM_TOKEN")
            .stdin(Stdio::null());
        let ran = Ran::from(command);
        assert!(ran.code == 2 && ran.err.contains("plain HTTP") && ran.err.contains("https://"), "{url}: {ran:?}");
    }
}

#[test]
fn two_callers_with_secrets_do_not_share_a_run() {
    let farm = Farm::shared();
    let dir = asking("echo begins; sleep 1.5; echo \"is $NPM_TOKEN\"", "");
    let mut first = Running::start(command(farm, dir.path(), &value(), &[]));
    first.started("publish");
    let second = build(farm, dir.path(), &value(), &["--output", "other-out"]).well();
    let first = first.end().well();
    assert_eq!([&first.caches()["publish"], &second.caches()["publish"]], ["miss", "miss"]);
}

#[test]
fn a_coordinator_that_was_started_anew_is_given_the_secrets_again() {
    let farm = Farm::start(&["only"]);
    let value = value();
    let dir = asking(
        "test -n \"$NPM_TOKEN\"; echo \"has $NPM_TOKEN\"",
        "needs = [\"first\"]\n[steps.first]\nrun = 'echo begins; sleep 3'",
    );
    let mut running = Running::start(command(&farm, dir.path(), &value, &[]));
    running.until("the first step's output", |event| event["text"] == "begins\n");
    farm.restart_coordinator();
    let built = running.end().well();
    assert!(built.log().contains("has ***\n"), "{}", built.log());
    assert_eq!(built.of_type("build_started").last().unwrap()["resumed"], true);
    assert_eq!(holding(farm.dir.path(), &[&value]), Vec::<PathBuf>::new());
}

#[test]
fn neither_the_farms_processes_nor_a_step_leave_their_memory_in_a_file() {
    let farm = Farm::start(&["only"]);
    let data = farm.dir.path().join("coordinator").display().to_string();
    let coordinator = until("the coordinator's process", || {
        std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path()).find(|process| {
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            line.contains(&data) && line.split('\0').any(|argument| argument == "coordinator")
        })
    });
    let limit = |limits: &str| {
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap_or_default();
        line.split_whitespace().skip(4).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let of_step = farm.build(project(&[("kiln.toml", "[steps.a]\nrun = 'cat /proc/self/limits'")]).path(), &[]).well();
    for limits in [std::fs::read_to_string(coordinator.join("limits")).unwrap(), of_step.log()] {
        let limit = limit(&limits);
        assert!(limit == ["1", "1"] || limit == ["0", "0"], "expected no core files, found a limit of {limit:?}");
    }
}
