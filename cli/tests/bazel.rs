//! Bazel as users install it (Debian's packages), on a farm of processes: C++ and genrules are built and tested, with
//! and without downloading outputs, and again from an emptied output base with hits only.

#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_harness::{BAZEL, Farm, Ran, cannot_run, until, write};
use kiln_proto::v1::invocations_client::InvocationsClient;
use kiln_proto::v1::{self, Invocation, InvocationResult, InvocationStatus};

const RULES_CC: &str = "/usr/share/bazel/rules/cc";
const SKYLIB: &str = "/usr/share/bazel/tools/skylib";
const PLATFORMS: &str = "/usr/share/bazel/platforms";

const BUILD: &str = r#"
load("@rules_cc//cc:defs.bzl", "cc_binary", "cc_library", "cc_test")
load("@bazel_skylib//rules:write_file.bzl", "write_file")

write_file(name = "motto", out = "motto.txt", content = ["one farm"])
genrule(name = "number", outs = ["number.h"], cmd = "echo '#define NUMBER 41' > $@")
genrule(name = "sums", srcs = [":motto", "greet.cc"], outs = ["sums.txt"], cmd = "cat $(SRCS) | sha256sum > $@")
cc_library(name = "greet", srcs = ["greet.cc", ":number"], hdrs = ["greet.h"])
cc_binary(name = "hello", srcs = ["main.cc"], deps = [":greet"])
cc_test(name = "greet_test", size = "small", srcs = ["greet_test.cc"], deps = [":greet"])
genrule(name = "broken", outs = ["never"], cmd = "echo these are its last words >&2; exit 7", tags = ["manual"])
"#;

const SOURCES: [(&str, &str); 4] = [
    ("greet.h", "#pragma once\n#include <string>\nstd::string greet(const std::string& who);\nint number();\n"),
    (
        "greet.cc",
        "#include \"greet.h\"\n#include \"number.h\"\n\
         std::string greet(const std::string& who) { return \"hello \" + who; }\nint number() { return NUMBER + 1; }\n",
    ),
    (
        "main.cc",
        "#include <iostream>\n#include \"greet.h\"\n\
         int main() { std::cout << greet(\"farm\") << ' ' << number() << std::endl; }\n",
    ),
    (
        "greet_test.cc",
        "#include \"greet.h\"\nint main() { return number() == 42 && greet(\"x\") == \"hello x\" ? 0 : 1; }\n",
    ),
];

/// Settings in a repository that were written for other farms.
const FOREIGN: [&str; 6] = [
    "--remote_default_exec_properties=OSFamily=Linux",
    "--remote_default_exec_properties=Arch=amd64",
    "--remote_default_exec_properties=Pool=default",
    "--remote_default_exec_properties=dockerNetwork=off",
    "--remote_default_exec_properties=cpu_count=64",
    "--remote_default_exec_properties=cache-silo-key=v2",
];

/// A workspace next to everything that Bazel would load from the network, with its own server.
struct Bazel {
    dir: tempfile::TempDir,
}

impl Drop for Bazel {
    fn drop(&mut self) {
        let _ = self.command("shutdown").output();
    }
}

impl Bazel {
    fn new() -> Self {
        let bazel = Self { dir: tempfile::tempdir().unwrap() };
        let repository =
            |name: &str, path: &Path| format!("local_repository(name = \"{name}\", path = \"{}\")\n", path.display());
        let at = |name: &str| bazel.dir.path().join(name);
        rules_cc(&at("rules_cc"));
        // Bazel loads these for every C++ build, but C++ needs nothing from them.
        let names = ["binary", "import", "library", "package_configuration", "plugin", "proto_library", "runtime"];
        let java = names.iter().chain(&["test", "toolchain"]).map(|name| format!("java_{name} = native.java_{name}\n"));
        write(&at("rules_java"), "WORKSPACE", "");
        write(&at("rules_java"), "java/BUILD", "");
        write(&at("rules_java"), "java/defs.bzl", &java.collect::<String>());
        let coverage = "filegroup(name = \"coverage_report_generator\", visibility = [\"//visibility:public\"])\n";
        write(&at("coverage"), "WORKSPACE", "");
        write(&at("coverage"), "BUILD", coverage);
        let workspace = [
            repository("rules_cc", &at("rules_cc")),
            repository("rules_java", &at("rules_java")),
            repository("remote_coverage_tools", &at("coverage")),
            repository("bazel_skylib", Path::new(SKYLIB)),
            repository("platforms", Path::new(PLATFORMS)),
        ];
        write(&bazel.workspace(), "WORKSPACE", &workspace.concat());
        write(&bazel.workspace(), "BUILD", BUILD);
        SOURCES.iter().for_each(|(path, text)| write(&bazel.workspace(), path, text));
        bazel
    }

    fn workspace(&self) -> PathBuf {
        self.dir.path().join("workspace")
    }

    fn output(&self, name: &str) -> PathBuf {
        self.workspace().join("bazel-bin").join(name)
    }

    fn command(&self, verb: &str) -> Command {
        let mut root = std::ffi::OsString::from("--output_user_root=");
        root.push(self.dir.path().join("output"));
        let mut command = Command::new("bazel");
        command.current_dir(self.workspace()).env("HOME", self.dir.path()).env("USER", "tester").arg(root);
        command.args(BAZEL).arg(verb);
        command
    }

    fn run(&self, farm: &Farm, verb: &str, arguments: &[&str]) -> Built {
        let mut command = self.command(verb);
        command.arg(format!("--remote_executor={}", farm.url.replace("http://", "grpc://")));
        // What cannot run on the farm fails instead of running here.
        command.args(["--spawn_strategy=remote", "--color=no", "--curses=no"]).args(arguments);
        Built(Ran::from(command))
    }

    /// Removes everything that was built here.
    fn empty(&self) {
        let ran = Ran::from({
            let mut command = self.command("clean");
            command.arg("--expunge");
            command
        });
        assert_eq!(ran.code, 0, "expected `bazel clean --expunge` to succeed: {}", ran.err);
    }
}

/// A run of Bazel.
struct Built(Ran);

impl Built {
    #[track_caller]
    fn well(self) -> Self {
        assert_eq!(self.0.code, 0, "expected Bazel to succeed, found\n{}\n{}", self.0.out, self.0.err);
        self
    }

    /// Processes by where they ran, from Bazel's summary: `20 processes: 11 internal, 9 remote.`
    fn processes(&self, kind: &str) -> u32 {
        let line =
            self.0.err.lines().rev().find_map(|line| line.split_once("processes: ").or(line.split_once("process: ")));
        let (_, kinds) = line.unwrap_or_else(|| panic!("expected a line of processes in\n{}", self.0.err));
        let counts = kinds.trim_end_matches('.').split(", ").filter_map(|part| part.split_once(' '));
        counts.filter(|(_, found)| *found == kind).map(|(count, _)| count.parse::<u32>().unwrap()).sum()
    }

    fn remote(&self) -> (u32, u32) {
        (self.processes("remote"), self.processes("remote cache hit"))
    }
}

/// Debian's rules for C++ are newer than its Bazel: a copy of them replaces what the older one lacks.
fn rules_cc(to: &Path) {
    kiln_harness::copy(Path::new(RULES_CC), to);
    for name in ["cc_flags_supplier.bzl", "compiler_flag.bzl"] {
        let path = to.join("cc/private/rules_impl").join(name);
        let text = std::fs::read_to_string(&path).unwrap();
        let text = text.replace(", \"use_cpp_toolchain\")", ")");
        let text = text.replace("use_cpp_toolchain()", "[\"@bazel_tools//tools/cpp:toolchain_type\"]");
        std::fs::write(&path, text).unwrap();
    }
}

/// Whether there is a Bazel with what the tests build.
fn is_installed() -> bool {
    let there = Command::new("bazel").arg("--version").current_dir("/").output().is_ok_and(|ran| ran.status.success());
    let is = there && [RULES_CC, SKYLIB, PLATFORMS].iter().all(|path| Path::new(path).exists());
    if !is {
        cannot_run("Bazel of bazel-bootstrap with bazel-rules-cc, bazel-skylib and bazel-platforms");
    }
    is
}

#[test]
fn bazel_builds_and_tests_on_the_farm_and_from_an_emptied_output_base_everything_is_a_hit() {
    if !is_installed() {
        return;
    }
    let (farm, bazel) = (Farm::start(&["one", "two"]), Bazel::new());
    let instance = "--remote_instance_name=a/b";

    // With downloads. No target names a platform property: the actions run on whatever workers there are.
    let first = bazel.run(&farm, "test", &["//...", instance]).well();
    let (actions, hits) = first.remote();
    assert!(actions >= 9 && hits == 0, "expected nine actions or more on the farm and no hit:\n{}", first.0.err);
    assert!(first.0.out.contains("PASSED"), "expected the test to pass on the farm: {}", first.0.out);
    assert_eq!(kiln_harness::output(bazel.output("hello"), &[], bazel.dir.path()), "hello farm 42\n");
    assert_eq!(std::fs::read_to_string(bazel.output("sums.txt")).unwrap().len(), 64 + "  -\n".len());

    // Again from an empty output base.
    bazel.empty();
    let again = bazel.run(&farm, "test", &["//...", instance]).well();
    assert_eq!(again.remote(), (0, actions), "expected each of {actions} actions to be a hit:\n{}", again.0.err);
    assert!(again.0.out.contains("(cached) PASSED"), "expected the test's result to be a hit: {}", again.0.out);
    assert_eq!(kiln_harness::output(bazel.output("hello"), &[], bazel.dir.path()), "hello farm 42\n");

    // Without downloads: intermediate and final outputs stay on the farm.
    bazel.empty();
    let minimal = bazel.run(&farm, "test", &["//...", instance, "--remote_download_minimal"]).well();
    assert_eq!(minimal.remote(), (0, actions), "expected each of {actions} actions to be a hit:\n{}", minimal.0.err);
    assert!(!bazel.output("hello").exists(), "expected no output to be downloaded");

    // Another instance shares nothing with this one, settings for other farms are accepted, and after a source changes,
    // only what depends on it is rebuilt.
    bazel.empty();
    let other = ["//...", "--remote_instance_name=other", "--remote_download_minimal"];
    let other = bazel.run(&farm, "test", &[&other[..], &FOREIGN].concat());
    assert_eq!(other.well().remote(), (actions, 0), "expected another instance to have no result");
    write(&bazel.workspace(), "main.cc", &SOURCES[2].1.replace("farm", "kiln"));
    let toplevel = ["//:hello", "--remote_instance_name=other", "--remote_download_toplevel"];
    let toplevel = [&toplevel[..], &FOREIGN].concat();
    let changed = bazel.run(&farm, "build", &toplevel).well();
    assert_eq!(changed.processes("remote"), 2, "expected to compile and to link:\n{}", changed.0.err);
    assert_eq!(kiln_harness::output(bazel.output("hello"), &[], bazel.dir.path()), "hello kiln 42\n");

    // Failures are explained.
    let broken = bazel.run(&farm, "build", &["//:broken", instance]);
    assert!(broken.0.code != 0 && broken.0.err.contains("these are its last words"), "{}", broken.0.err);
    let unknown = bazel.run(&farm, "build", &["//:number", instance, "--remote_default_exec_properties=gpu=1"]);
    assert!(unknown.0.err.contains("unknown platform property `gpu`"), "expected a refusal by name: {}", unknown.0.err);
    let nowhere = ["//:number", instance, "--remote_default_exec_properties=kiln.label.gpu=yes"];
    let nowhere = bazel.run(&farm, "build", &nowhere);
    assert!(nowhere.0.err.contains("no worker of the farm can run this"), "expected reasons: {}", nowhere.0.err);
}

/// What a farm was told of an invocation, and what it printed; none if it was told nothing yet.
fn try_told(farm: &Farm, id: &str) -> Option<(Invocation, String)> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let channel = kiln_proto::channel::connect(&farm.url, &kiln_proto::channel::Access::default()).await.unwrap();
        let mut client = InvocationsClient::new(channel);
        let invocation = client.get(v1::GetInvocationRequest { id: id.into() }).await.ok()?.into_inner();
        let asked = v1::InvocationLogRequest { id: id.into(), from: 0 };
        let mut parts = client.log(asked).await.unwrap().into_inner();
        let mut log = Vec::new();
        while let Some(part) = parts.message().await.unwrap() {
            log.extend(part.data);
        }
        Some((invocation, String::from_utf8(log).unwrap()))
    })
}

/// A page of the farm, which everyone on this machine may see.
fn page(farm: &Farm, path: &str) -> String {
    let log = farm.log("coordinator");
    let line = log.lines().rev().find(|line| line.contains("serving the web pages")).unwrap();
    let at = line.split("127.0.0.1:").nth(1).unwrap();
    let port: String = at.chars().take_while(char::is_ascii_digit).collect();
    let (status, page) = kiln_harness::http::get(&format!("127.0.0.1:{port}"), path);
    assert_eq!(status, 200, "{page}");
    page
}

/// The actions that an invocation asked the farm for.
fn asked(farm: &Farm, id: &str) -> Vec<v1::RemoteAction> {
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let channel = kiln_proto::channel::connect(&farm.url, &kiln_proto::channel::Access::default()).await.unwrap();
        let request = v1::InvocationActionsRequest { id: id.into(), from: 0 };
        InvocationsClient::new(channel).actions(request).await.unwrap().into_inner().actions
    })
}

#[track_caller]
fn told(farm: &Farm, id: &str) -> (Invocation, String) {
    try_told(farm, id).unwrap_or_else(|| panic!("expected the farm to know the invocation {id}"))
}

#[test]
fn what_bazel_tells_of_an_invocation_is_kept_with_its_failed_and_flaky_tests() {
    if !is_installed() {
        return;
    }
    let (farm, bazel) = (Farm::with(&["--web-listen", "127.0.0.1:0"], &["one"]), Bazel::new());
    let mark = bazel.dir.path().join("has-run");
    let tests = format!(
        "sh_test(name = \"wrong\", size = \"small\", srcs = [\"wrong.sh\"])\n\
         sh_test(name = \"sometimes\", size = \"small\", srcs = [\"sometimes.sh\"], flaky = True, tags = [\"local\"])\n{BUILD}"
    );
    write(&bazel.workspace(), "BUILD", &tests);
    let sometimes = format!("#!/bin/sh\nif [ -e {0} ]; then exit 0; fi\ntouch {0}\nexit 1\n", mark.display());
    for (name, text) in [("wrong.sh", "#!/bin/sh\necho it is wrong\nexit 3\n"), ("sometimes.sh", sometimes.as_str())] {
        write(&bazel.workspace(), name, text);
        let path = bazel.workspace().join(name);
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let backend = format!("--bes_backend={}", farm.url.replace("http://", "grpc://"));
    let publish = |id: &str, more: &[&str]| {
        let invocation = format!("--invocation_id={id}");
        let own =
            [backend.as_str(), &invocation, "--bes_results_url=https://farm.example/invocations/", "--bes_timeout=60s"];
        [&own[..], more].concat().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    let run = |verb: &str, arguments: Vec<String>| {
        bazel.run(&farm, verb, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };

    // A test that fails, one that is flaky, one that passes.
    let id = "6dd0dd6c-0000-4000-8000-00000000000a";
    let secret =
        ["//...", "--test_env=TOKEN=hunter2", "--strategy=TestRunner=remote,local", "--build_metadata=TEAM=farm"];
    let ran = run("test", publish(id, &secret));
    assert!(ran.0.err.contains(&format!("https://farm.example/invocations/{id}")), "{}", ran.0.err);
    let (invocation, log) = told(&farm, id);
    assert_eq!(
        (invocation.status(), invocation.exit_name.as_str()),
        (InvocationStatus::InvocationFailed, "TESTS_FAILED"),
        "{log}"
    );
    assert_eq!((invocation.command.as_str(), &invocation.patterns[..]), ("test", &["//...".to_owned()][..]));
    assert_eq!(invocation.metadata["TEAM"], "farm");
    assert!(invocation.options.contains(&"--test_env=TOKEN=…".to_owned()), "{:?}", invocation.options);
    let counts = invocation.counts.unwrap();
    assert_eq!((counts.passed_tests, counts.failed_tests, counts.flaky_tests), (1, 1, 1), "{log}");
    let result = |label: &str| invocation.targets.iter().find(|target| target.label == label).unwrap().result();
    assert_eq!(result("//:hello"), InvocationResult::InvocationPassed);
    assert_eq!(result("//:wrong"), InvocationResult::InvocationBroken);
    assert_eq!(result("//:sometimes"), InvocationResult::InvocationFlaky);
    let attempts = |label: &str| invocation.tests.iter().filter(|test| test.label == label).count();
    assert_eq!((attempts("//:sometimes"), attempts("//:wrong"), attempts("//:greet_test")), (2, 1, 1));
    let metrics = invocation.metrics.unwrap();
    assert!(metrics.actions > 9 && metrics.wall_ms > 0, "{metrics:?}");
    assert!(log.contains("//:wrong") && !log.contains("hunter2"), "{log}");

    // What the failed test printed is on the page, though Bazel only says where its log is.
    let wrong = invocation.tests.iter().find(|test| test.label == "//:wrong").unwrap();
    let file = wrong.files.iter().find(|file| file.name == "test.log").unwrap();
    assert!(file.uri.starts_with("bytestream://") && file.content.is_empty(), "{file:?}");
    let shown = page(&farm, &format!("/invocations/{id}"));
    let (tests, _) = shown.split_once("id=\"tests\"").unwrap().1.split_once("</section>").unwrap();
    assert_eq!(tests.matches("it is wrong").count(), 1, "{tests}");

    // Its timing profile, which Bazel has uploaded to the farm, is drawn.
    assert!(invocation.files.iter().any(|file| file.uri.starts_with("bytestream://")), "{:?}", invocation.files);
    let page = page(&farm, &format!("/invocations/{id}"));
    for expected in ["class=\"steps rows waterfall\"", "Launch Blaze", "critical path", "Compiling greet.cc", "<rect"] {
        assert!(page.contains(expected), "expected `{expected}` on the page: {page}");
    }

    // What it asked the farm for, and what became of that.
    let actions = asked(&farm, id);
    let is_object = |action: &&v1::RemoteAction| action.output.contains("greet") && action.output.ends_with("o");
    let compiled = actions.iter().find(is_object).unwrap_or_else(|| panic!("expected a compiled file in {actions:?}"));
    assert!(!compiled.is_hit && compiled.worker == "one" && compiled.run_ms > 0, "{compiled:?}");
    let failed: Vec<_> = actions.iter().filter(|action| action.exit_code != 0).collect();
    assert_eq!(failed.iter().map(|action| action.exit_code).collect::<Vec<_>>(), [3], "{failed:?}");
    assert!(page.contains("Actions on the farm") && page.contains("it is wrong"), "{page}");
    let number = actions.iter().position(|action| action.exit_code == 3).unwrap() + 1;
    let of_action = self::page(&farm, &format!("/invocations/{id}/actions/{number}"));
    for expected in ["it is wrong", "./wrong", "test-setup.sh", "Queue", ">one<", "TOKEN"] {
        assert!(of_action.contains(expected), "expected `{expected}` on the action's page: {of_action}");
    }
    assert!(!of_action.contains("hunter2"), "expected no values of variables: {of_action}");
    let id = "6dd0dd6c-0000-4000-8000-00000000000e";
    assert_eq!(Ran::from(bazel.command("clean")).code, 0);
    run("build", publish(id, &["//:number"])).well();
    // They are recorded while the answer is on its way.
    let again = until("the action to be recorded", || Some(asked(&farm, id)).filter(|actions| !actions.is_empty()));
    assert!(again.len() == 1 && again[0].is_hit && again[0].output.ends_with("number.h"), "{again:?}");

    // An action that fails, and a target that there is not.
    let id = "6dd0dd6c-0000-4000-8000-00000000000b";
    run("build", publish(id, &["//:broken"]));
    let (invocation, log) = told(&farm, id);
    assert_eq!(invocation.exit_name, "BUILD_FAILURE", "{log}");
    let [action] = &invocation.failed_actions[..] else { panic!("{:?}", invocation.failed_actions) };
    assert_eq!((action.label.as_str(), action.mnemonic.as_str()), ("//:broken", "Genrule"));
    assert_ne!(action.exit_code, 0);
    assert!(log.contains("these are its last words"), "{log}");
    let uris: Vec<_> = [&action.stdout, &action.stderr].into_iter().flatten().map(|file| file.uri.clone()).collect();
    assert!(uris.iter().any(|uri| uri.starts_with("bytestream://")), "expected Bazel to say where it is: {uris:?}");
    let page = self::page(&farm, &format!("/invocations/{id}"));
    let error = page.split("id=\"error\"").nth(1).unwrap().split("</section>").next().unwrap();
    assert!(error.contains("these are its last words"), "expected its output where it says why it failed: {error}");
    let id = "6dd0dd6c-0000-4000-8000-00000000000c";
    run("build", publish(id, &["//:nowhere"]));
    let (invocation, _) = told(&farm, id);
    assert_eq!(invocation.status(), InvocationStatus::InvocationFailed);
    assert!(invocation.failure.contains("nowhere"), "{invocation:?}");

    // A coordinator that is restarted in the middle of the events costs nothing.
    let id = "6dd0dd6c-0000-4000-8000-00000000000d";
    write(&bazel.workspace(), "wrong.sh", "#!/bin/sh\nsleep 2\n");
    let arguments = publish(id, &["//:wrong"]);
    let built = std::thread::scope(|scope| {
        let running = scope.spawn(|| run("test", arguments));
        kiln_harness::until("events of Bazel", || {
            let (invocation, _) = try_told(&farm, id)?;
            (invocation.status() == InvocationStatus::InvocationRunning && !invocation.targets.is_empty()).then_some(())
        });
        farm.restart_coordinator();
        running.join().unwrap()
    });
    built.well();
    assert_eq!(told(&farm, id).0.status(), InvocationStatus::InvocationSucceeded);
}

/// A server that has one file, and what it was asked. It is gone with its listener.
fn file_server(
    content: &'static str,
) -> (u16, std::sync::Arc<std::sync::Mutex<Vec<String>>>, std::sync::mpsc::Sender<()>) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = std::sync::Arc::<std::sync::Mutex<Vec<String>>>::default();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let noted = asked.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            if stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Disconnected) {
                return;
            }
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            noted.lock().unwrap().push(String::from_utf8(head).unwrap());
            let length = content.len();
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{content}")
                .unwrap();
        }
    });
    (port, asked, stop)
}

#[test]
fn bazel_fetches_what_it_downloads_through_the_farm_and_once() {
    if !is_installed() {
        return;
    }
    let (port, asked, stop) = file_server("a source archive\n");
    let address = format!("127.0.0.1:{port}");
    let (farm, bazel) = (Farm::with(&["--allow-download", &address], &["one"]), Bazel::new());
    let workspace = std::fs::read_to_string(bazel.workspace().join("WORKSPACE")).unwrap();
    let sha256 = kiln_proto::digest::DigestFunction::Sha256.digest(b"a source archive\n").hex();
    let file = format!(
        "load(\"@bazel_tools//tools/build_defs/repo:http.bzl\", \"http_file\")\n\
         http_file(name = \"archive\", urls = [\"http://{address}/archive.tar\"], sha256 = \"{sha256}\")\n"
    );
    write(&bazel.workspace(), "WORKSPACE", &(workspace + &file));
    let rule =
        "genrule(name = \"use\", srcs = [\"@archive//file\"], outs = [\"use.txt\"], cmd = \"tr a-z A-Z < $< > $@\")\n";
    write(&bazel.workspace(), "BUILD", rule);
    let downloader = format!("--experimental_remote_downloader={}", farm.url.replace("http://", "grpc://"));
    bazel.run(&farm, "build", &["//:use", &downloader]).well();
    assert_eq!(std::fs::read_to_string(bazel.output("use.txt")).unwrap(), "A SOURCE ARCHIVE\n");
    let heads = asked.lock().unwrap().clone();
    assert_eq!(heads.len(), 1);
    assert!(heads[0].contains("user-agent: kiln/"), "expected the farm to have asked: {}", heads[0]);

    // Another machine, to which the server is gone.
    drop(stop);
    let other = Bazel::new();
    for name in ["WORKSPACE", "BUILD"] {
        let text = std::fs::read_to_string(bazel.workspace().join(name)).unwrap();
        let own = |path: &Path| path.display().to_string();
        write(&other.workspace(), name, &text.replace(&own(bazel.dir.path()), &own(other.dir.path())));
    }
    other.run(&farm, "build", &["//:use", &downloader]).well();
    assert_eq!(std::fs::read_to_string(other.output("use.txt")).unwrap(), "A SOURCE ARCHIVE\n");
    assert_eq!(asked.lock().unwrap().len(), 1);
}
