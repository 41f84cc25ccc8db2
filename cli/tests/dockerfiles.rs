//! Dockerfiles on a farm of real processes: what is built, what runs again, and what is refused.

#![allow(clippy::unwrap_used)]

#[path = "dockerfiles/network.rs"]
mod network;

use std::collections::BTreeSet;
use std::path::Path;

use kiln_harness::bases::busybox_layout;
use kiln_harness::engine::Engine;
use kiln_harness::private_registry::PrivateRegistry;
use kiln_harness::redis::Redis;
use kiln_harness::registry::Registry;
use kiln_harness::{Built, Farm, Ran, output, project, write};

/// A project whose Dockerfile is built on busybox; `None` if there is no busybox.
fn on_busybox(dockerfile: &str, files: &[(&str, &str)]) -> Option<tempfile::TempDir> {
    let config = "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontexts = { base = \"oci-layout://base\" }\n\
                  args = { GREETING = \"hello\" }\n";
    let dir = project(&[("kiln.toml", config), ("Dockerfile", dockerfile), (".dockerignore", "base\n")]);
    for (path, text) in files {
        write(dir.path(), path, text);
    }
    std::fs::create_dir(dir.path().join("base")).unwrap();
    busybox_layout(&dir.path().join("base"))?;
    Some(dir)
}

const STAGES: &str = "\
FROM base AS build
ARG GREETING
WORKDIR /src
COPY main.txt .
RUN tr a-z A-Z < main.txt > out && echo \"$GREETING\" >> out && test \"$(id -u)\" = 0
RUN <<EOF
set -e
mkdir -p /opt/x
mkfifo /opt/x/pipe
ln /src/out /opt/x/linked
ln /src/out /opt/x/again
chown -R app /opt/x
chmod 4755 /bin/busybox
EOF
FROM base
COPY --from=build --chown=app:app /src/out /app/out
COPY --from=build /opt/x /opt/x
USER app
RUN --network=none --mount=type=bind,from=build,source=/src,target=/mnt cat /mnt/main.txt > /tmp/who; id -un >> /tmp/who
ENV NAME=value
CMD [\"cat\", \"/app/out\", \"/tmp/who\"]
";

#[test]
fn stages_run_as_root_of_their_own_and_docker_runs_the_image() {
    let Some(dir) = on_busybox(STAGES, &[("main.txt", "abc\n")]) else { return };
    let Some(docker) = Engine::bare() else { return };
    let farm = Farm::shared();
    let mut command = farm.build_command(dir.path(), &["--load"]);
    command.env("DOCKER_HOST", &docker.host);
    let built = Built(Ran::from(command)).well();
    assert_eq!(built.caches().len(), 3, "one step for each RUN: {:?}", built.caches());
    let run = |arguments: &[&str]| docker.ok(&[&["run", "--rm", "--network", "none", "app:1"], arguments].concat());
    assert_eq!(run(&[]), "ABC\nhello\nabc\napp");
    assert_eq!(run(&["stat", "-c", "%U:%G %a %h", "/app/out"]), "app:app 644 1");
    assert_eq!(run(&["stat", "-c", "%U %h %F", "/opt/x/linked", "/opt/x/pipe"]), "app 2 regular file\napp 1 fifo");
    assert_eq!(run(&["stat", "-c", "%a", "/bin/busybox"]), "755", "the other stage's change stays there");
    run(&["sh", "-c", "test ! -e /mnt && test ! -e /src"]);
    let again = farm.build(dir.path(), &[]).well();
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
    assert_eq!(again.finished()["bytes_uploaded"], 0);
    assert_eq!(built.of_type("artifact")[0]["digest"], again.of_type("artifact")[0]["digest"]);
}

#[test]
fn only_what_a_change_reaches_runs_again() {
    let text = "FROM base\nCOPY main.txt /in\nRUN wc -c < /in > /count && rm /in\nRUN cat /count > /twice\n";
    let Some(dir) = on_busybox(text, &[("main.txt", "one"), ("notes.txt", "1")]) else { return };
    let farm = Farm::shared();
    let cached = |built: &Built| -> Vec<String> { built.caches().into_values().collect() };
    let first = farm.build(dir.path(), &[]).well();
    assert_eq!(cached(&first), ["miss", "miss"]);
    write(dir.path(), "notes.txt", "2");
    assert_eq!(cached(&farm.build(dir.path(), &[]).well()), ["hit", "hit"], "nothing copies the notes");
    write(dir.path(), "main.txt", "two");
    let edited = farm.build(dir.path(), &[]).well();
    assert_eq!(cached(&edited), ["miss", "hit"], "the first command left the same files as before");
    write(dir.path(), "main.txt", "three");
    assert_eq!(cached(&farm.build(dir.path(), &[]).well()), ["miss", "miss"]);
}

#[test]
fn an_image_that_was_built_before_is_taken_only_with_the_results_of_its_steps() {
    let text = "FROM base AS one\nRUN head -c 8 /dev/urandom > /drawn\nFROM base\nCOPY main.txt /in\nCOPY --from=one /drawn /drawn\n\
                RUN --mount=type=bind,from=one,target=/one cmp /one/drawn /drawn && wc -c < /in > /count\n";
    let Some(dir) = on_busybox(text, &[("main.txt", "one")]) else { return };
    let farm = Farm::start(&["only"]);
    let told = |more: &[&str]| {
        let built = farm.build(dir.path(), more).well();
        let digest = built.of_type("artifact")[0]["digest"].clone();
        (built.caches().into_values().collect::<Vec<_>>(), digest)
    };
    let first = told(&[]);
    assert_eq!(first.0, ["miss", "miss"]);
    for _ in 0..2 {
        assert_eq!(told(&[]), (vec!["hit".to_owned(), "hit".to_owned()], first.1.clone()));
    }
    farm.restart_coordinator();
    assert_eq!(told(&[]), (vec!["hit".to_owned(), "hit".to_owned()], first.1.clone()));
    // Another draw gives another image, which replaces the one that was remembered.
    let again = told(&["--no-cache"]);
    assert_eq!(again.0, ["miss", "miss"]);
    assert_ne!(again.1, first.1);
    assert_eq!(told(&[]), (vec!["hit".to_owned(), "hit".to_owned()], again.1.clone()));
    // Whoever drops the steps' results wants them to run.
    let pruned = farm.kiln(&["cache", "prune", "--older-than", "0s"]);
    assert_eq!(pruned.code, 0, "{}", pruned.err);
    let third = told(&[]);
    assert_eq!(third.0, ["miss", "miss"]);
    assert_ne!(third.1, again.1);
    // A file that is copied, an argument and the text itself: each decides.
    write(dir.path(), "main.txt", "three");
    assert_ne!(told(&[]).1, third.1);
    write(dir.path(), "main.txt", "one");
    assert_eq!(told(&[]).1, third.1);
    write(dir.path(), "Dockerfile", &format!("{text}LABEL a=b\n"));
    assert_ne!(told(&[]).1, third.1);
}

#[test]
fn a_dockerfile_sees_the_disk_and_a_step_sees_git() {
    let config = "version = \"1\"\n[steps.list]\nrun = \"find . -type f | sort > list\"\noutputs = [\"list\"]\n\
                  [artifacts.list]\nfrom = [\"list\"]\nfiles = [\"list\"]\n[artifacts.app]\ndockerfile = \"Dockerfile\"\n";
    let files = [
        ("kiln.toml", config),
        ("Dockerfile", "FROM scratch\nCOPY . /x/\n"),
        (".gitignore", "made\n"),
        ("made/a", "1"),
    ];
    let dir = project(&files);
    write(dir.path(), ".dockerignore", "Dockerfile\n.git\n");
    output("git", &["init", "-q", "."], dir.path());
    std::os::unix::fs::symlink("/etc", dir.path().join("made/link")).unwrap();
    let farm = Farm::shared();
    farm.build(dir.path(), &[]).well();
    let list = std::fs::read_to_string(kiln_harness::find(&dir.path().join("kiln-out"), "list").unwrap()).unwrap();
    assert!(list.contains("./Dockerfile") && !list.contains("made") && !list.contains("contexts"), "{list}");
    let image = kiln_harness::find(&dir.path().join("kiln-out"), "index.json").unwrap();
    let names = names_in(image.parent().unwrap());
    assert!(["x/kiln.toml", "x/made/a", "x/made/link"].iter().all(|name| names.contains(*name)), "{names:?}");
    assert!(!["x/Dockerfile", "x/kiln-out"].iter().any(|name| names.contains(*name)), "{names:?}");
    // What Kiln wrote is no part of the context, so nothing changed.
    let digest = |built: &Built| built.of_type("artifact").iter().map(|one| one["digest"].clone()).collect::<Vec<_>>();
    assert_eq!(digest(&farm.build(dir.path(), &[]).well()), digest(&farm.build(dir.path(), &[]).well()));
}

#[test]
fn a_context_that_is_a_link_out_of_the_project_is_not_read() {
    let outside = project(&[("secret", "s3cr3t")]);
    let config = "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontext = \"out\"\n";
    let dir = project(&[("kiln.toml", config), ("Dockerfile", "FROM scratch\nCOPY . /x/\n")]);
    std::os::unix::fs::symlink(outside.path(), dir.path().join("out")).unwrap();
    let built = Farm::shared().build(dir.path(), &[]);
    let message = built.finished()["message"].as_str().unwrap().to_owned();
    assert!(message.contains("the context `out` is not a directory of the project"), "{message}");
}

/// The names in all layers of an image's layout.
fn names_in(layout: &Path) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for blob in std::fs::read_dir(layout.join("blobs/sha256")).unwrap().map(|blob| blob.unwrap().path()) {
        let listed = std::process::Command::new("tar").arg("tzf").arg(&blob).output().unwrap();
        names.extend(String::from_utf8_lossy(&listed.stdout).lines().map(|name| name.trim_end_matches('/').to_owned()));
    }
    names
}

#[test]
fn stages_run_on_all_workers_and_are_hits_through_another_coordinator() {
    let stages: String = (1..=6).map(|n| format!("FROM base AS s{n}\nRUN sleep 2; echo {n} > /made-{n}\n")).collect();
    let copies: String = (1..=6).map(|n| format!("COPY --from=s{n} /made-{n} /\n")).collect();
    let Some(dir) = on_busybox(&format!("{stages}FROM base\n{copies}"), &[]) else { return };
    let redis = Redis::start();
    let (one, other) = std::thread::scope(|scope| {
        let one = scope.spawn(|| Farm::with_redis(Some(&redis.url()), &["a", "b", "c"]));
        let other = Farm::with_redis(Some(&redis.url()), &["d"]);
        (one.join().unwrap(), other)
    });
    let first = one.build(dir.path(), &[]).well();
    let workers: BTreeSet<String> =
        first.of_type("step_finished").iter().map(|step| step["worker"].as_str().unwrap().to_owned()).collect();
    assert_eq!(workers, ["a", "b", "c"].map(str::to_owned).into());
    let again = other.build(dir.path(), &[]).well();
    assert_eq!(again.caches().len(), 6);
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
    assert_eq!(first.of_type("artifact")[0]["digest"], again.of_type("artifact")[0]["digest"]);
}

#[test]
fn what_is_wrong_names_the_line_and_the_fix() {
    let farm = Farm::shared();
    for (text, code, words) in [
        (
            "FROM base\nCOPY missing /x\n",
            1,
            "`Dockerfile` line 2: [1/2] COPY missing /x: `/missing` does not exist; `/` has",
        ),
        ("FROM base\nRUN echo before >&2; exit 7\n", 1, "failed with exit code 7"),
        ("FROM base\nRUM true\n", 1, "RUN"),
        ("FROM base\nRUN --mount=type=secret,id=token,required=true true\n", 1, "secret `token`"),
        ("FROM base AS a\nCOPY --from=b / /\nFROM base AS b\nFROM a\n", 1, "`b`"),
        ("FROM base\nUSER nobody-knows\nRUN true\n", 1, "nobody-knows"),
    ] {
        let Some(dir) = on_busybox(text, &[]) else { return };
        let built = farm.build(dir.path(), &[]);
        assert_eq!(built.0.code, code, "{text}: {}{}", built.message(), built.0.err);
        assert!(built.message().contains(words), "{text}: expected `{words}` in: {}", built.message());
    }
}

#[test]
fn an_image_that_is_only_copied_together_waits_for_no_worker_and_a_wrong_base_is_shown_where_it_is_named() {
    let (Some(registry), Some(private)) = (Registry::start(), PrivateRegistry::start()) else { return };
    let farm = Farm::with(&["--allow-registry", "127.0.0.0/8"], &[]);
    let at = &registry.name;
    let copied = project(&[("Dockerfile", "FROM scratch\nCOPY a /a\n"), ("a", "1")]);
    let to = format!("{at}/team/app:1");
    let both = ["--platform", "linux/arm64", "--platform", "linux/amd64", "--push", &to];
    let built = farm.build(copied.path(), &both).well();
    assert!(built.of_type("artifact").iter().any(|one| one["platform"] == "linux/arm64"), "{:?}", built.0);

    let flag = |name: &str| format!("--from={name}");
    let (none, mount) = (format!("{at}/none:1"), format!("--mount=type=bind,from={at}/none:1,target=/x"));
    let app = format!("{at}/team/app:1");
    let (locked, gone) = (format!("{}/x:1", private.host), "127.0.0.1:1/x:1".to_owned());
    for (text, place, words, code) in [
        (format!("FROM {none}\n"), (1, &none), "there is no image", 1),
        (format!("FROM scratch AS a\nCOPY --from={none} /a /b\n"), (2, &flag(&none)), "there is no image", 1),
        (format!("FROM scratch\nRUN {mount} true\n"), (2, &mount), "there is no image", 1),
        (format!("FROM --platform=linux/s390x {app}\n"), (1, &app), "`linux/arm64`", 1),
        (format!("FROM {locked}\n"), (1, &locked), "requires credentials", 3),
        (format!("FROM {gone}\n"), (1, &gone), "cannot reach the registry", 3),
    ] {
        let dir = project(&[("Dockerfile", &text)]);
        let built = farm.build(dir.path(), &[]);
        let message = built.message();
        let (line, name) = place;
        assert!(message.contains(&format!("Dockerfile:{line}: ")) && message.contains(words), "{text}: {message}");
        let carets: Vec<&str> = message.lines().collect();
        let underlined = carets.windows(2).find_map(|pair| {
            let start = pair[1].find('^').filter(|_| pair[1].trim_start().starts_with('|'))?;
            pair[0].get(start..start + pair[1].matches('^').count())
        });
        assert_eq!(underlined, Some(name.as_str()), "{message}");
        assert_eq!(built.0.code, code, "{text}: {message}");
    }
}

#[test]
fn a_project_with_only_a_dockerfile_is_built_by_it() {
    let dir = project(&[("Dockerfile", "FROM scratch\nCOPY a.txt /a/\n"), ("a.txt", "a\n"), ("b.txt", "b\n")]);
    let farm = Farm::shared();
    let plan = Ran::from({
        let mut command = farm.command(&["plan"]);
        command.current_dir(dir.path());
        command
    });
    assert!(plan.out.contains("image of `Dockerfile`"), "{}", plan.out);
    let built = farm.build(dir.path(), &[]).well();
    let artifact = built.of_type("artifact")[0].clone();
    let layers = kiln_harness::find(&dir.path().join("kiln-out"), "index.json").unwrap();
    let layout = layers.parent().unwrap();
    let listed = layer_paths(layout);
    assert_eq!(listed, ["./", "a/", "a/a.txt"], "{artifact}");
    // What `kiln init` writes builds the same.
    let mut command = farm.command(&["init"]);
    command.current_dir(dir.path());
    let init = Ran::from(command);
    assert_eq!(init.code, 0, "{}", init.err);
    let again = farm.build(dir.path(), &[]).well();
    assert_eq!(artifact["digest"], again.of_type("artifact")[0]["digest"]);
}

#[test]
fn options_choose_the_file_the_stage_and_the_arguments() {
    let text = "ARG FROM=scratch\nFROM scratch AS one\nCOPY a.txt /one\nFROM scratch AS two\nARG NAME=x\nWORKDIR /$NAME\n\
                COPY --from=assets b.txt .\nFROM scratch\n";
    let files = [("deploy/Dockerfile", text), ("a.txt", "a"), ("sub/b.txt", "b"), ("Makefile", "all:\n\ttrue\n")];
    let dir = project(&files);
    let farm = Farm::shared();
    let options =
        ["--file", "deploy/Dockerfile", "--stage", "two", "--build-arg", "NAME=y", "--build-context", "assets=./sub"];
    let built = farm.build(dir.path(), &options).well();
    let id = built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    let found = kiln_harness::find(&dir.path().join("kiln-out"), "index.json").unwrap();
    let config =
        output("skopeo", &["inspect", "--config", &format!("oci:{}", found.parent().unwrap().display())], dir.path());
    assert!(config.contains("\"WorkingDir\": \"/y\""), "{id}: {config}");
    let absent = farm.build(dir.path(), &["--file", "Dockerfile"]);
    assert!(absent.0.code != 0 && absent.0.err.contains("no file `Dockerfile`"), "{absent:?}");
}

#[test]
fn a_secret_is_mounted_masked_and_in_no_layer() {
    let text = "FROM base\nRUN --mount=type=secret,id=TOKEN cat /run/secrets/TOKEN && wc -c < /run/secrets/TOKEN > /length\n\
                RUN --mount=type=secret,id=OTHER test ! -e /run/secrets/OTHER\n";
    let Some(dir) = on_busybox(text, &[]) else { return };
    let config = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
    write(dir.path(), "kiln.toml", &format!("{config}secrets = [\"TOKEN\"]\n"));
    let farm = Farm::shared();
    let missing = farm.build(dir.path(), &[]);
    assert!(missing.0.code != 0 && missing.0.err.contains("`TOKEN`"), "{missing:?}");
    let value = "s3cr3t-of-this-test";
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), value).unwrap();
    let given = format!("TOKEN={}", secret.path().display());
    let built = farm.build(dir.path(), &["--secret", &given]).well();
    assert!(!built.0.out.contains(value) && built.log().contains("***"), "expected a masked value: {}", built.log());
    let found = std::process::Command::new("grep").args(["-ra", value, "."]).current_dir(dir.path()).output().unwrap();
    assert!(found.stdout.is_empty(), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn a_cache_mount_goes_with_its_project_to_every_worker_and_survives_the_coordinator() {
    let text = |run: &str| format!("FROM base\nRUN --mount=type=cache,id=tools,target=/root/.cache {run}\n");
    let Some(dir) = on_busybox(&text("echo 1 > /root/.cache/made && touch -d @1000000000 /root/.cache/made"), &[])
    else {
        return;
    };
    let farm = Farm::start(&["one"]);
    let mounts = |more: &[&str]| -> serde_json::Value {
        let ran = farm.kiln(&[&["cache", "list", "--mounts", "--json"], more].concat());
        serde_json::from_str(&ran.out).unwrap_or_else(|_| panic!("{ran:?}"))
    };
    assert_eq!(mounts(&[]), serde_json::json!([]));
    farm.build(dir.path(), &[]).well();
    let listed = mounts(&[]);
    let project = listed[0]["project"].as_str().unwrap().to_owned();
    assert_eq!((&listed[0]["id"], &listed[0]["last_writer"]), (&"tools".into(), &"one".into()), "{listed}");
    assert!(
        listed[0]["size_bytes"].as_u64().unwrap() >= 2 && listed[0]["platform"].as_str().unwrap().starts_with("linux/")
    );
    assert_eq!(mounts(&["--project", &project]), listed);
    assert_eq!(mounts(&["--project", "another"]), serde_json::json!([]));
    // A worker that never ran anything, and another coordinator.
    farm.stop_worker("one");
    farm.restart_coordinator();
    farm.start_worker("two");
    farm.wait_for_worker("two");
    let look = "test \"$(cat /root/.cache/made) $(stat -c %Y /root/.cache/made)\" = '1 1000000000' && echo 2 > /root/.cache/more";
    write(dir.path(), "Dockerfile", &text(look));
    farm.build(dir.path(), &[]).well();
    assert_eq!(mounts(&[])[0]["last_writer"], "two");
    // What it has is no part of the key; a step that fails, or that is another project's, leaves it alone.
    let again = farm.build(dir.path(), &[]).well();
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
    write(dir.path(), "Dockerfile", &text("rm -r /root/.cache/made; exit 7"));
    assert_eq!(farm.build(dir.path(), &[]).0.code, 1);
    let Some(other) = on_busybox(&text("test ! -e /root/.cache/made && echo 3 > /root/.cache/made"), &[]) else {
        return;
    };
    let config = std::fs::read_to_string(other.path().join("kiln.toml")).unwrap();
    write(other.path(), "kiln.toml", &format!("name = \"another\"\n{config}"));
    farm.build(other.path(), &[]).well();
    write(dir.path(), "Dockerfile", &text("cat /root/.cache/made /root/.cache/more > /both && grep -q 1 /both"));
    farm.build(dir.path(), &[]).well();
    assert_eq!(mounts(&[]).as_array().unwrap().len(), 2);
    let pruned = farm.kiln(&["cache", "prune", "--mounts", "--older-than", "0s", "--project", "another"]);
    assert!(pruned.code == 0 && pruned.err.contains("dropped 1 cache mount"), "{pruned:?}");
    let left = mounts(&[]);
    assert_eq!((left.as_array().unwrap().len(), &left[0]["project"]), (1, &project.as_str().into()), "{left}");
}

#[test]
fn a_secret_with_key_is_a_part_of_the_key_and_another_one_is_not() {
    let text =
        |key: &str| format!("FROM base\nRUN --mount=type=secret,id=TOKEN{key} wc -c < /run/secrets/TOKEN > /length\n");
    let Some(dir) = on_busybox(&text(""), &[]) else { return };
    let config = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
    write(dir.path(), "kiln.toml", &format!("{config}secrets = [\"TOKEN\"]\n"));
    let farm = Farm::shared();
    let build = |value: &str| {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), value).unwrap();
        let given = format!("TOKEN={}", secret.path().display());
        farm.build(dir.path(), &["--secret", &given]).well().caches().into_values().collect::<Vec<_>>()
    };
    assert_eq!((build("a-secret-of-one"), build("a-secret-of-another")), (vec!["miss".into()], vec!["hit".into()]));
    write(dir.path(), "Dockerfile", &text(",key"));
    assert_eq!(build("a-secret-of-one"), ["miss"]);
    assert_eq!(build("a-secret-of-another"), ["miss"]);
    assert_eq!(build("a-secret-of-one"), ["hit"]);
}

/// Serves this text over HTTP to everyone who asks; returns its address.
fn serve(text: &'static str) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let _ = write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len());
        }
    });
    format!("http://{address}")
}

#[test]
fn a_url_is_downloaded_by_a_worker_and_verified() {
    let url = serve("from afar\n");
    // The machine's loopback, where this test serves, is closed to steps otherwise.
    let farm = Farm::start(&[]);
    farm.start_worker_with("one", &["--network-isolation", "off"]);
    farm.wait_for_worker("one");
    let sum = kiln_proto::digest::DigestFunction::Sha256.digest(b"from afar\n").hex();
    let text = |sum: &str| {
        format!("FROM scratch\nADD --checksum=sha256:{sum} {url}/file.txt /opt/\nADD {url}/file.txt /named\n")
    };
    let dir = project(&[("Dockerfile", &text(&sum))]);
    let built = farm.build(dir.path(), &[]).well();
    let found = kiln_harness::find(&dir.path().join("kiln-out"), "index.json").unwrap();
    let provenance = kiln_harness::find(&dir.path().join("kiln-out"), "provenance.json").unwrap();
    assert!(std::fs::read_to_string(provenance).unwrap().contains("/file.txt"), "what ran is in the provenance");
    assert!(found.exists());
    let again = farm.build(dir.path(), &[]).well();
    let caches: Vec<String> = again.caches().into_values().collect();
    assert!(caches.contains(&"hit".to_owned()) && caches.contains(&"miss".to_owned()), "{caches:?}");
    assert_eq!(built.of_type("artifact")[0]["digest"], again.of_type("artifact")[0]["digest"]);
    write(dir.path(), "Dockerfile", &text(&sum.replace(['0', '1', '2'], "f")));
    let wrong = farm.build(dir.path(), &[]);
    assert_eq!(wrong.0.code, 1, "another checksum is the project's fault: {wrong:?}");
}

/// The paths in the only layer of a layout's only image.
fn layer_paths(layout: &Path) -> Vec<String> {
    let json = |path: &Path| -> serde_json::Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let blob = |digest: &serde_json::Value| layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let manifest = json(&blob(&json(&layout.join("index.json"))["manifests"][0]["digest"]));
    let layer = blob(&manifest["layers"][0]["digest"]);
    let listed = output("tar", &["-tzf", layer.to_str().unwrap()], layout);
    listed.lines().map(str::to_owned).collect()
}
