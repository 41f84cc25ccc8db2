//! Parsing of `kiln.toml`, and the messages for an invalid one.

use super::{Base, Project, parse};
use crate::plan::{ArtifactKind, Ending, Platform};
use insta::assert_snapshot;

const SHOP: &str = r#"
name = "shop"
version = "1.4.2"

[targets.prod]
platform = "linux/arm64"
os = "debian:12"
glibc = "2.36"

[steps.deps]
inputs = ["Cargo.toml", "Cargo.lock"]
run = "cargo fetch --locked"
outputs = [".cargo-home"]
env = { CARGO_HOME = ".cargo-home", JOBS = 2 }
network = true

[steps.compile]
needs = "deps"
run = "cargo build"
outputs = ["target/release/shop"]
cpus = 0.5
memory = "2GiB"
timeout = "20m"

[steps.test]
needs = ["compile"]
run = "./run-tests --shard $KILN_SHARD/$KILN_SHARDS"
shards = 4

[artifacts.shop]
from = "compile"
files = ["target/release/shop", { path = "doc", dest = "." }]
kind = "archive"
"#;

fn read(text: &str) -> Project {
    parse(text.as_bytes(), Platform::Amd64, Base::default()).unwrap()
}

fn error(text: &str) -> String {
    parse(text.as_bytes(), Platform::Amd64, Base::default()).unwrap_err().to_string()
}

#[test]
fn every_key_reaches_the_project() {
    let shop = read(SHOP);
    assert_eq!((shop.name.as_deref(), shop.version.as_deref()), (Some("shop"), Some("1.4.2")));
    assert_eq!((shop.targets[0].platform, shop.targets[0].glibc), (Platform::Arm64, Some((2, 36))));
    assert_eq!(shop.steps.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["deps", "compile", "test"]);
    let [deps, compile, test] = &shop.steps[..] else { panic!() };
    assert!(deps.network && deps.env["JOBS"] == "2");
    assert_eq!((compile.milli_cpus, compile.memory_bytes), (500, 2 << 30));
    assert_eq!(compile.timeout.unwrap().as_secs(), 1200);
    assert_eq!((compile.needs.as_slice(), test.shards), (&["deps".to_owned()][..], 4));
    assert_eq!(shop.artifacts[0].kind, ArtifactKind::Archive);
    assert_eq!(shop.artifacts[0].files[1].dest.as_deref(), Some("."));
}

#[test]
fn a_webhook_of_the_project_holds_no_secret_and_has_defaults() {
    let notify = read("[notify]\nurl = \"https://ci.example/hook?x=1\"").notify.unwrap();
    assert_eq!((notify.events.as_slice(), notify.branches.len()), (&[Ending::Failed, Ending::Fixed][..], 0));
    assert!(notify.key.is_none() && !notify.uncommitted);
    let all = "events = \"finished\"\nbranches = [\"main\", \"release/*\"]\nkey = \"ci\"\nuncommitted = true";
    let notify = read(&format!("[notify]\nurl = \"https://ci.example\"\n{all}")).notify.unwrap();
    assert_eq!((notify.events, notify.branches.len()), (vec![Ending::Finished], 2));
    assert!(notify.key.as_deref() == Some("ci") && notify.uncommitted);
    assert_snapshot!(error("[notify]\nurl = \"https://me:secret@ci.example/\""), @"`kiln.toml` line 2: `url` is `https://me:secret@ci.example/`: expected an `https://` URL without spaces, user and password");
    for url in ["ftp://ci.example", "https://", "https://a b", "https:\\\\ci.example", "https://x\\@y", "ci.example"] {
        assert!(error(&format!("[notify]\nurl = '{url}'")).contains("expected an `https://` URL"), "{url}");
    }
    assert_snapshot!(error("[notify]\nevents = []"), @"`kiln.toml` line 1: `[notify]` has no `url`: add one");
    assert_snapshot!(error("[notify]\nurl = \"https://a.example\"\nevents = [\"broken\"]"), @"`kiln.toml` line 3: `events` is `broken`: expected `finished`, `failed` or `fixed`");
    assert_snapshot!(error("[notify]\nurl = \"https://a.example\"\nsecret = \"x\""), @"`kiln.toml` line 3: unknown key `secret` in `[notify]`: expected one of `url`, `events`, `branches`, `key`, `uncommitted`");
}

#[test]
fn a_target_without_a_platform_is_for_the_host() {
    assert_eq!(read("[targets.here]\nos = \"debian:12\"").targets[0].platform, Platform::Amd64);
}

#[test]
fn an_unknown_key_names_its_line_and_the_nearest() {
    assert_snapshot!(error("name = \"a\"\n\n[steps.compile]\nrun = \"x\"\nouputs = []"), @"`kiln.toml` line 5: unknown key `ouputs` in `[steps.compile]`: did you mean `outputs`?");
    assert_snapshot!(error("nmae = \"a\""), @"`kiln.toml` line 1: unknown key `nmae` in the top level: did you mean `name`?");
    assert_snapshot!(error("[artifacts.a]\nfrom = \"b\"\nfiles = [\"c\"]\nbanana = 1"), @"`kiln.toml` line 4: unknown key `banana` in `[artifacts.a]`: expected one of `from`, `files`, `kind`, `check_elf`, `bundle_libraries`");
    assert_snapshot!(error("[step.a]\nrun = \"x\""), @"`kiln.toml` line 1: unknown key `step` in the top level: did you mean `steps`?");
}

#[test]
fn a_wrong_type_names_its_line_and_both_types() {
    assert_snapshot!(error("name = 1"), @"`kiln.toml` line 1: `name` must be a string, found an integer");
    assert_snapshot!(error("[steps.a]\nrun = [\"x\"]"), @"`kiln.toml` line 2: `run` must be a string, found a list");
    assert_snapshot!(error("[steps.a]\nrun = \"x\"\n\noutputs = [1]"), @"`kiln.toml` line 4: `outputs` must be a list of strings, found a list with something else in it");
    assert_snapshot!(error("[steps]\na = \"x\""), @"`kiln.toml` line 2: `steps.a` must be a table, found a string");
    assert_snapshot!(error("steps = 1"), @"`kiln.toml` line 1: `steps` must be a table of tables, found an integer");
    assert_snapshot!(error("[steps.a]\nrun = \"x\"\nnetwork = \"yes\""), @"`kiln.toml` line 3: `network` must be `true` or `false`, found a string");
    assert_snapshot!(error("[artifacts.a]\nfrom = \"b\"\nfiles = [{ paht = \"x\" }]"), @r#"`kiln.toml` line 3: `files` must be a list of paths, each a string or `{ path = "..", dest = ".." }`, found a list with something else in it"#);
}

#[test]
fn a_value_out_of_range_says_what_would_do() {
    assert_snapshot!(error("[targets.a]\nplatform = \"windows/amd64\""), @"`kiln.toml` line 2: `platform` is `windows/amd64`: expected a platform: `linux/amd64` or `linux/arm64`");
    assert_snapshot!(error("[targets.a]\nglibc = \"new\""), @"`kiln.toml` line 2: `glibc` is `new`: expected a version such as `2.36`");
    assert_snapshot!(error("[steps.a]\nrun = \"x\"\nmemory = \"2gigs\""), @"`kiln.toml` line 3: `memory` is `2gigs`: expected `\"auto\"`, or a size such as `512MiB` or `2GiB`, more than zero");
    assert_snapshot!(error("[steps.a]\nrun = \"x\"\ntimeout = \"soon\""), @"`kiln.toml` line 3: `timeout` is `soon`: expected a duration such as `90s`, `20m` or `2h`, more than zero");
    assert_snapshot!(error("[steps.a]\nrun = \"x\"\nshards = 0"), @"`kiln.toml` line 3: `shards` is `0`: expected `\"auto\"`, or a count from 1 to 10000");
    assert_snapshot!(error("[steps.a]\nrun = \"x\"\nshards = 100000"), @"`kiln.toml` line 3: `shards` is `100000`: expected `\"auto\"`, or a count from 1 to 10000");
    assert_snapshot!(error("[steps.a]\nrun = \"x\"\nshards = \"many\""), @"`kiln.toml` line 3: `shards` must be an integer or `\"auto\"`, found a string");
    assert_snapshot!(error("[steps.a]\nrun = \"x\"\nretries = 11"), @"`kiln.toml` line 3: `retries` is `11`: expected a count from 0 to 10");
    assert_snapshot!(error("[steps.a]\nrun = \"x\"\ncpus = -1"), @"`kiln.toml` line 3: `cpus` is `-1`: expected a number of processors from 0.001 to 1000");
    assert_snapshot!(error("[artifacts.a]\nfrom = \"b\"\nfiles = [\"c\"]\nkind = \"tarball\""), @"`kiln.toml` line 4: `kind` is `tarball`: expected `binary`, `archive` or `image`");
    assert_snapshot!(error("[steps.a]\nrun = \" \""), @"`kiln.toml` line 2: `run` is ` `: expected a command");
    assert_snapshot!(error("name = \"my shop\""), @"`kiln.toml` line 1: `name` is `my shop`: expected a name without spaces");
}

#[test]
fn what_is_missing_is_named() {
    assert_snapshot!(error("[steps.a]\nrunn = \"x\""), @"`kiln.toml` line 2: unknown key `runn` in `[steps.a]`: did you mean `run`?");
    assert_snapshot!(error("[steps.a]\noutputs = []"), @"`kiln.toml` line 1: `[steps.a]` has no `run`: add one");
    assert_snapshot!(error("\n[artifacts.a]\nfiles = [\"x\"]"), @"`kiln.toml` line 2: `[artifacts.a]` has no `from`: add one");
    assert_snapshot!(error("[artifacts.a]\nfrom = \"x\""), @"`kiln.toml` line 1: `[artifacts.a]` has no `files`: add one");
}

#[test]
fn a_text_that_is_no_toml_names_its_line() {
    assert_snapshot!(error("name = \"a\"\n[steps"), @"`kiln.toml` line 2: unclosed table, expected `]`");
    assert_snapshot!(error("a = 1\na = 2"), @"`kiln.toml` line 2: duplicate key `a`: each name is used once");
    assert_snapshot!(parse(b"name = \"\xff\"", Platform::Amd64, Base::default()).unwrap_err().to_string(), @"`kiln.toml` is not valid UTF-8");
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text: String, cut in 0..SHOP.len()) {
        let _ = parse(text.as_bytes(), Platform::Amd64, Base::default());
        let _ = parse(&SHOP.as_bytes()[..cut], Platform::Amd64, Base::default());
    }
}

const IMAGE: &str = r#"
[steps.deps]
run = "x"
outputs = [".venv"]
[steps.app]
needs = ["deps"]
run = "x"
outputs = ["app"]
[artifacts.service]
kind = "image"
from = ["deps", "app"]
files = [".venv", { path = "app", dest = "/usr/lib/app" }]
base = "python:3.11-slim"
entrypoint = ["/srv/.venv/bin/python"]
cmd = "main.py"
env = { PORT = 8080 }
user = "1000:1000"
workdir = "/srv/"
labels = { team = "shop" }
ports = [8080, "53/udp"]
owner = "1000"
compression = "zstd"
"#;

#[test]
fn an_image_has_all_that_a_container_needs_and_prints_as_it_was_read() {
    let project = read(IMAGE);
    let ArtifactKind::Image(image) = &project.artifacts[0].kind else { panic!("expected an image") };
    assert_eq!(image.base, crate::plan::Base::Reference("python:3.11-slim".into()));
    assert_eq!(image.cmd.as_deref(), Some(&["main.py".to_owned()][..]));
    assert_eq!((image.workdir.as_deref(), image.owner), (Some("/srv"), (1000, 1000)));
    assert_eq!(image.ports, ["8080/tcp", "53/udp"]);
    let source = crate::plan::MemorySource::from_iter([("kiln.toml", IMAGE)]);
    let options = crate::plan::Options::new(Platform::Amd64);
    let plan = crate::plan::plan(&source, &options).unwrap();
    assert_eq!(read(&crate::plan::to_kiln_toml(&plan)).artifacts, project.artifacts);
}

#[test]
fn what_is_wrong_with_an_image_is_said() {
    let image = |keys: &str| error(&format!("[artifacts.a]\nkind = \"image\"\nfrom = \"s\"\nfiles = \"f\"\n{keys}"));
    assert_snapshot!(image(""), @"`kiln.toml` line 1: `[artifacts.a]` has no `base`: add one");
    assert_snapshot!(image("base = \"scratch\"\nworkdir = \"srv\""), @"`kiln.toml` line 6: `workdir` is `srv`: expected an absolute path in the image, such as `/srv/app`");
    assert_snapshot!(image("base = \"scratch\"\nports = [\"http\"]"), @"`kiln.toml` line 6: `ports` is `http`: expected ports such as `8080` or `53/udp`");
    assert_snapshot!(image("base = \"scratch\"\nowner = \"www-data\""), @"`kiln.toml` line 6: `owner` is `www-data`: expected numeric user and group ids, such as `1000:1000`");
    assert_snapshot!(image("base = \"scratch\"\nentrypont = \"x\""), @"`kiln.toml` line 6: unknown key `entrypont` in `[artifacts.a]`: did you mean `entrypoint`?");
    assert_snapshot!(error("[artifacts.a]\nfrom = \"s\"\nfiles = \"f\"\ncmd = \"x\""), @r#"`kiln.toml` line 4: unknown key `cmd` in `[artifacts.a]`: it is for an artifact of `kind = "image"`"#);
}
