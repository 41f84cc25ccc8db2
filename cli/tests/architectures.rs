//! Builds for several platforms: each on a worker that matches it, native or, if allowed, emulated.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use kiln_harness::arm64::{self, Host};
use kiln_harness::bases::{arm64_tar, layout_of};
use kiln_harness::{Built, Farm, Ran, cannot_run, example, project, until};

const BOTH: [&str; 2] = ["--platform", "linux/amd64,linux/arm64"];

/// `c-make`'s program as a single-file artifact.
const REVERSE: &str = "name = \"reverse\"\n[steps.compile]\nrun = \"make\"\noutputs = [\"reverse\"]\n\
                       [artifacts.reverse]\nfrom = \"compile\"\nfiles = [\"reverse\"]\nkind = \"binary\"\n";

fn target<'a>(targets: &'a [serde_json::Value], platform: &str) -> &'a serde_json::Value {
    let found = targets.iter().find(|target| target["platform"] == platform);
    found.unwrap_or_else(|| panic!("expected an end of {platform} among {targets:?}"))
}

fn reverse() -> tempfile::TempDir {
    let dir = example("c-make");
    std::fs::write(dir.path().join("kiln.toml"), REVERSE).unwrap();
    dir
}

#[test]
fn each_platform_is_built_on_a_native_worker_though_an_emulated_one_is_allowed() {
    let root = match arm64::root() {
        Ok(root) => root,
        Err(missing) => return cannot_run(&missing),
    };
    let farm = Farm::start(&["native"]);
    farm.start_worker_with("emulated", &["--root", root.to_str().unwrap()]);
    farm.wait_for_worker("emulated");
    let _host = match Host::join(&farm, "armhost") {
        Ok(host) => host,
        Err(missing) => return cannot_run(&missing),
    };
    let workers = farm.workers();
    let machine = |name: &str| {
        let worker = workers.iter().find(|worker| worker["worker"] == name).unwrap();
        (worker["environment"]["isa"].clone(), worker["environment"]["emulated"].clone())
    };
    assert_eq!(machine("armhost"), ("arm-a64".into(), false.into()), "expected the worker to detect its machine");
    assert_eq!(machine("emulated"), ("arm-a64".into(), true.into()));

    let dir = reverse();
    let built = farm.build(dir.path(), &[&BOTH[..], &["--allow-emulation"]].concat()).well();
    for (platform, worker) in [("linux/amd64", "native"), ("linux/arm64", "armhost")] {
        let steps = built.of_type("step_finished");
        let step = steps.iter().find(|step| step["platform"] == platform).unwrap();
        assert_eq!((&step["worker"], &step["emulated"]), (&worker.into(), &false.into()), "{platform}");
        let artifacts = built.of_type("artifact");
        let artifact = artifacts.iter().find(|artifact| artifact["platform"] == platform).unwrap();
        let path = dir.path().join(artifact["path"].as_str().unwrap());
        assert_eq!(arm64::machine(&path), platform);
        assert_eq!(arm64::says(&path, &["kiln"]), "nlik\n");
    }
}

#[test]
fn an_emulated_worker_is_used_only_where_that_is_allowed_and_the_result_says_so() {
    let root = match arm64::root() {
        Ok(root) => root,
        Err(missing) => return cannot_run(&missing),
    };
    let farm = Farm::start(&["native"]);
    farm.start_worker_with("emulated", &["--root", root.to_str().unwrap()]);
    farm.wait_for_worker("emulated");
    let dir = reverse();

    let refused = farm.build(dir.path(), &BOTH);
    assert_eq!(refused.0.code, 3, "expected the farm to be at fault");
    let targets = refused.of_type("target_finished");
    assert_eq!(target(&targets, "linux/amd64")["status"], "success");
    let words = target(&targets, "linux/arm64")["message"].as_str().unwrap().to_owned();
    for part in ["`native` is x86-64", "`emulated` is emulated", "--allow-emulation"] {
        assert!(words.contains(part), "expected {part} in: {words}");
    }

    let built = farm.build(dir.path(), &[&BOTH[..], &["--allow-emulation"]].concat()).well();
    assert_eq!(target(&built.of_type("target_finished"), "linux/arm64")["emulated"], true);
    let artifacts = built.of_type("artifact");
    for (platform, emulated) in [("linux/amd64", false), ("linux/arm64", true)] {
        let artifact = artifacts.iter().find(|artifact| artifact["platform"] == platform).unwrap();
        assert_eq!(artifact["emulated"], emulated, "{platform}");
        let path = dir.path().join(artifact["path"].as_str().unwrap());
        assert_eq!(arm64::says(&path, &["kiln"]), "nlik\n");
        let provenance = std::fs::read(path.with_file_name("reverse.provenance.json")).unwrap();
        let provenance: serde_json::Value = serde_json::from_slice(&provenance).unwrap();
        let environment = &provenance["predicate"]["buildDefinition"]["internalParameters"]["environment"];
        assert_eq!(environment["emulated"], emulated, "{platform}: {environment}");
    }

    // A step that fails on one of them is the project's fault; the other is still delivered.
    let config = REVERSE.replace("run = \"make\"", "run = \"[ $(uname -m) = x86_64 ]; make\"");
    std::fs::write(dir.path().join("kiln.toml"), config).unwrap();
    std::fs::remove_dir_all(dir.path().join("kiln-out")).unwrap();
    let half = farm.build(dir.path(), &[&BOTH[..], &["--allow-emulation"]].concat());
    assert_eq!(half.0.code, 1, "{}", half.0.err);
    let targets = half.of_type("target_finished");
    assert_eq!(target(&targets, "linux/amd64")["status"], "success");
    assert_eq!(target(&targets, "linux/arm64")["status"], "failed");
    assert!(half.message().contains("linux-arm64") && half.message().contains("`compile`"), "{}", half.message());
    assert_eq!(arm64::machine(&dir.path().join("kiln-out/linux-amd64/reverse")), "linux/amd64");
}

/// The `kiln.toml` of the guide's chapter that has this text.
fn of_the_guide(text: &str) -> String {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let mut blocks = guide.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    blocks.find(|block| block.contains(text)).unwrap_or_else(|| panic!("no block with `{text}`")).to_owned()
}

#[test]
fn a_step_that_names_a_platform_runs_there_for_every_target_and_is_told_which() {
    let farm = Farm::start(&["native"]);
    let source = "#include <stdio.h>\nint main(void) { puts(\"hello\"); }\n";
    let once =
        "[steps.header]\nplatform = \"linux/amd64\"\nrun = \"od -An -N8 -tx8 /dev/urandom > id\"\noutputs = [\"id\"]\n";
    let config = format!("name = \"hello\"\n{once}{}", of_the_guide("KILN_TARGET_PLATFORM"));
    let dir = project(&[("kiln.toml", &config), ("hello.c", source)]);
    let plan = Ran::from(farm.command(&["plan", dir.path().to_str().unwrap()]));
    assert!(plan.out.contains("runs on  linux/amd64, for every target"), "{plan:?}");
    // No worker of the second target's platform is needed, and the program is one for it.
    let built = farm.build(dir.path(), &[]).well();
    let ended = built.of_type("step_finished");
    assert!(ended.len() == 4 && ended.iter().all(|step| step["worker"] == "native"), "{ended:?}");
    // It is told of under what it is for.
    assert!(
        ["linux/amd64", "linux/arm64"].iter().all(|platform| ended.iter().any(|step| step["platform"] == *platform))
    );
    // What does not ask for the target's platform is one action.
    let actions = |step: &str| {
        let ended = built.of_type("step_finished").into_iter().filter(|event| event["step"] == step);
        ended.map(|event| event["action"].to_string()).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!((actions("header"), actions("compile")), (1, 2));
    let artifacts = built.of_type("artifact");
    assert_eq!(artifacts.len(), 2);
    for artifact in &artifacts {
        let path = dir.path().join(artifact["path"].as_str().unwrap());
        assert_eq!(arm64::machine(&path), artifact["platform"].as_str().unwrap());
        assert_eq!(artifact["emulated"], false);
        let provenance = std::fs::read(path.with_file_name("hello.provenance.json")).unwrap();
        let provenance: serde_json::Value = serde_json::from_slice(&provenance).unwrap();
        let facts = &provenance["predicate"]["buildDefinition"]["internalParameters"];
        let is_native = artifact["platform"] == "linux/amd64";
        let machine = if is_native { &facts["environment"] } else { &facts["otherEnvironments"]["linux/amd64"] };
        assert_eq!(machine["isa"], "x86-64", "expected the machine that compiled it: {facts}");
    }
    // A program of the wrong kind is refused, as ever.
    std::fs::write(dir.path().join("kiln.toml"), config.replace("CC=aarch64-linux-gnu-gcc", "CC=gcc")).unwrap();
    let wrong = farm.build(dir.path(), &[]);
    assert_eq!(wrong.0.code, 1, "{}", wrong.0.err);
    assert!(wrong.message().contains("arm64") && wrong.message().contains("hello"), "{}", wrong.message());
    // A step that does not name one needs a worker of the target's, and the build says so before anything has run.
    let tested = format!("{config}\n[steps.check]\nneeds = [\"compile\"]\nrun = \"./hello\"\n");
    let dir = project(&[("kiln.toml", &tested), ("hello.c", source)]);
    let half = farm.build(dir.path(), &[]);
    assert_eq!(half.0.code, 3, "{}", half.0.err);
    assert!(half.message().contains("`native` is x86-64"), "{}", half.message());
    assert!(half.of_type("step_started").iter().all(|step| step["target"] == "amd64"), "{:?}", half.events());
}

#[test]
fn a_platform_that_nobody_has_does_not_hide_the_others_result() {
    let farm = Farm::shared();
    let dir = project(&[("kiln.toml", REVERSE)]);
    kiln_harness::copy(example("c-make").path(), dir.path());
    let built = farm.build(dir.path(), &BOTH);
    assert_eq!(built.0.code, 3);
    let words = built.message();
    for part in ["linux-arm64", "`one` is x86-64", "`two` is x86-64", "succeeded: `linux-amd64`"] {
        assert!(words.contains(part), "expected {part} in: {words}");
    }
    assert_eq!(arm64::says(&dir.path().join("kiln-out/linux-amd64/reverse"), &["ab"]), "ba\n");

    let dir = project(&[(
        "kiln.toml",
        "[targets.old]\nos = \"debian:1\"\ncpu = \"x86-64-v4\"\nlibc = \"musl\"\nlabels = { gpu = \"none\" }\n[steps.a]\nrun = \"true\"\n",
    )]);
    let built = farm.build(dir.path(), &[]);
    assert_eq!(built.0.code, 3);
    for part in ["debian:1", "instead of musl", "is missing required label gpu=none"] {
        assert!(built.message().contains(part), "expected {part} in: {}", built.message());
    }
}

#[test]
fn what_is_no_platform_or_level_is_refused_with_what_was_meant() {
    let dir = project(&[("kiln.toml", "[targets.a]\ncpu = \"x86-64-v9\"\n[steps.a]\nrun = \"true\"\n")]);
    let farm = Farm::shared();
    let ran = farm.kiln(&["build", "--platform", "aarch64", dir.path().to_str().unwrap()]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("did you mean `linux/arm64`?"), "{}", ran.err);
    let Built(Ran { code, err, .. }) = farm.build(dir.path(), &[]);
    assert_eq!(code, 2);
    assert!(err.contains("x86-64-v9") && err.contains("`x86-64-v4`"), "{err}");
}

#[test]
fn a_worker_refuses_a_root_that_is_none_in_words() {
    let farm = Farm::shared();
    let empty = tempfile::tempdir().unwrap();
    let state = tempfile::tempdir().unwrap();
    let mut command: Command = farm.command(&["worker", "--coordinator", &farm.url, "--name", "none", "--state-dir"]);
    command.arg(state.path()).arg("--root").arg(empty.path());
    let ran = Ran::from(command);
    assert_ne!(ran.code, 0);
    let place = empty.path().display().to_string();
    assert!(
        ran.err.contains(&place) && ran.err.contains("/bin/sh"),
        "expected the root and what is missing in it: {}",
        ran.err
    );
    until("the worker to disappear", || farm.workers().iter().all(|worker| worker["worker"] != "none").then_some(()));
}

#[test]
fn a_gate_inside_an_image_runs_on_a_worker_of_its_platform() {
    let root = match arm64::root() {
        Ok(root) => root,
        Err(missing) => return cannot_run(&missing),
    };
    let farm = Farm::start(&["native"]);
    farm.start_worker_with("arm64", &["--root", root.to_str().unwrap()]);
    farm.wait_for_worker("arm64");
    // The base has programs for arm64 alone, and names its user.
    let config = "name = \"inside\"\nversion = \"1\"\n[artifacts.inside]\ndockerfile = \"Dockerfile\"\n\
                  contexts = { base = \"oci-layout://base\" }\n\
                  [gates.within]\ninside = true\nrun = '''read a < /data; test \"$a $KIND\" = \"right arm\"; echo \"as $(cat /data)\"'''\n";
    let dir = project(&[
        ("kiln.toml", config),
        ("Dockerfile", "FROM base\nCOPY --chmod=644 data /data\nENV KIND=arm\nUSER app\n"),
        ("data", "right\n"),
    ]);
    let tar = arm64_tar(root);
    layout_of(&[tar.path()], "arm64", &dir.path().join("base"));
    let build = || farm.build(dir.path(), &["--platform", "linux/arm64", "--allow-emulation"]);
    let built = build().well();
    let gates = built.of_type("gate_finished");
    assert_eq!(gates.iter().map(|gate| gate["result"].as_str().unwrap()).collect::<Vec<_>>(), ["passed"]);
    let steps = built.of_type("step_finished");
    let step = steps.iter().find(|step| step["step"] == "gate:within").unwrap();
    assert_eq!((&step["worker"], &step["platform"]), (&"arm64".into(), &"linux/arm64".into()));
    assert!(built.log().contains("as right"), "{}", built.log());
    // It decides.
    std::fs::write(dir.path().join("data"), "wrong\n").unwrap();
    let failed = build();
    assert_eq!(failed.0.code, 1, "{:?}", failed.0);
    assert!(
        failed.message().contains("gate `within` of artifact `inside`: failed with exit code 1"),
        "{}",
        failed.message()
    );
}
