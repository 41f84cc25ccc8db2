//! Steps in the file systems of images, without Docker: what they see, what their results depend on, and packages.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use kiln_harness::bases::busybox_layout;
use kiln_harness::engine::Engine;
use kiln_harness::registry::Registry;
use kiln_harness::remote::{caller_of, code, shell};
use kiln_harness::{Built, Farm, Ran, find, output, project, unpack, write};
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi;
use tonic::Code;

/// A package manager that only writes down what it was asked for.
const MANAGER: &str = "#!/bin/sh\ntest \"$1 $2 $3\" = 'add --no-cache --' || exit 9\nshift 3\n\
                       for name in \"$@\"; do mkdir -p /usr/share/\"$name\"; echo \"$name\" > /usr/share/\"$name\"/name; done\n";

/// A project with an image of busybox in its directory `base`, which has that package manager and says so in its environment. `None` if
/// there is no busybox.
fn with_base(config: &str) -> Option<tempfile::TempDir> {
    let base = project(&[
        (
            "Dockerfile",
            "FROM base\nCOPY --chmod=755 apk /bin/apk\nRUN touch -d @1000000000 /made\nENV FROM_IMAGE=yes\n",
        ),
        (
            "kiln.toml",
            "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontexts = { base = \"oci-layout://base\" }\n",
        ),
        ("apk", MANAGER),
    ]);
    std::fs::create_dir(base.path().join("base")).unwrap();
    busybox_layout(&base.path().join("base"))?;
    Farm::shared().build(base.path(), &[]).well();
    let dir = project(&[("kiln.toml", config), ("in", "given\n")]);
    put_base(base.path(), dir.path());
    Some(dir)
}

fn put_base(from: &Path, to: &Path) {
    let index = find(&from.join("kiln-out"), "index.json").unwrap();
    let _ = std::fs::remove_dir_all(to.join("base"));
    kiln_harness::copy(index.parent().unwrap(), &to.join("base"));
}

fn of_step(built: &Built, step: &str) -> String {
    built.caches().get(step).cloned().unwrap_or_else(|| panic!("no step `{step}` in {:?}", built.caches()))
}

#[test]
fn a_step_sees_its_images_files_and_its_inputs_and_its_result_is_keyed_by_their_content() {
    let config = |run: &str| {
        format!(
            "name = \"p\"\nversion = \"1\"\n[steps.work]\nimage = \"./base\"\ninputs = [\"in\"]\nrun = '''{run}'''\noutputs = [\"out\"]\n\
             [artifacts.p]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"archive\"\n"
        )
    };
    let run = "set -e; test \"$(id -u):$(id -g)\" = 1000:1000; test \"$PWD\" = /build; test \"$FROM_IMAGE\" = yes\n\
               test ! -e /usr/bin/env; test \"$(stat -c %Y /made)\" = 1000000000; test ! -w /etc/passwd; test ! -w /bin\n\
               test -w \"$HOME\"; test \"$HOME\" = /tmp/home; touch /tmp/x; ls /sys/class/net | grep -qx lo; test \"$(ls /sys/class/net | wc -l)\" = 1\n\
               mkdir -p out/deep; cat in > out/deep/file; ln -s deep/file out/link; chmod 700 out/deep/file; echo more >> in";
    let Some(dir) = with_base(&config(run)) else { return };
    let farm = Farm::shared();
    let first = farm.build(dir.path(), &["--executor", "sandbox"]).well();
    assert_eq!(of_step(&first, "work"), "miss");
    let unpacked = unpack(dir.path());
    assert_eq!(output("stat", &["-c", "%a %N", "out/deep/file", "out/link"], unpacked.path()).lines().count(), 2);
    assert_eq!(of_step(&farm.build(dir.path(), &[]).well(), "work"), "hit");
    // The same files in another image, which has one more variable less and other layers: nothing runs again.
    let again = project(&[
        (
            "Dockerfile",
            "FROM base\nRUN touch -d @1000000000 /made\nCOPY --chmod=755 apk /bin/apk\nENV FROM_IMAGE=yes\nLABEL a=b\n",
        ),
        (
            "kiln.toml",
            "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontexts = { base = \"oci-layout://base\" }\n",
        ),
        ("apk", MANAGER),
    ]);
    std::fs::create_dir(again.path().join("base")).unwrap();
    busybox_layout(&again.path().join("base")).unwrap();
    farm.build(again.path(), &[]).well();
    put_base(again.path(), dir.path());
    assert_eq!(of_step(&farm.build(dir.path(), &[]).well(), "work"), "hit", "an image with equal files is the same");
    write(dir.path(), "in", "other\n");
    assert_eq!(of_step(&farm.build(dir.path(), &[]).well(), "work"), "miss");
}

#[test]
fn a_targets_image_is_where_all_its_steps_run_and_packages_are_added_to_it() {
    let config = "name = \"p\"\nversion = \"1\"\n[targets.prod]\nimage = \"./base\"\n\
                  [steps.plain]\ninputs = [\"in\"]\nrun = 'test ! -e /usr/share/jq && cat in > plain'\noutputs = [\"plain\"]\n\
                  [steps.work]\nneeds = [\"plain\"]\ninputs = [\"in\"]\npackages = [\"jq\", \"libonig-dev\"]\n\
                  run = 'cat plain /usr/share/jq/name /usr/share/libonig-dev/name > out; test ! -w /usr/share/jq/name'\noutputs = [\"out\"]\n\
                  [artifacts.p]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"image\"\nbase = \"./base\"\nruntime_packages = [\"tini\"]\n";
    let Some(dir) = with_base(config) else { return };
    let farm = Farm::shared();
    let built = farm.build(dir.path(), &[]).well();
    assert_eq!(of_step(&built, "packages of work"), "miss");
    let index = find(&dir.path().join("kiln-out"), "index.json").unwrap();
    let layout = format!("oci:{}", index.parent().unwrap().display());
    let to = format!("dir:{}", dir.path().join("copied").display());
    output("skopeo", &["copy", "--quiet", &layout, &to], dir.path());
    let config = output("skopeo", &["inspect", "--config", &layout], dir.path());
    assert!(config.contains("kiln: install tini"), "{config}");
    let mut listed = String::new();
    for entry in std::fs::read_dir(dir.path().join("copied")).unwrap() {
        let path = entry.unwrap().path().display().to_string();
        let list = std::process::Command::new("tar").args(["-tzf", &path]).output().unwrap();
        listed.push_str(&String::from_utf8_lossy(&list.stdout));
    }
    assert!(listed.contains("usr/share/tini/name\n") && listed.contains("out\n"), "{listed}");
    assert!(!listed.contains("usr/share/jq"), "what a step needs is not part of the image: {listed}");
    let again = farm.build(dir.path(), &[]).well();
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
}

#[test]
fn what_cannot_run_in_an_image_says_why_and_what_to_do() {
    let step = |image: &str, more: &str| {
        format!(
            "name = \"p\"\nversion = \"1\"\n[steps.work]\n{image}\ninputs = [\"in\"]\nrun = 'true > out'\noutputs = [\"out\"]\n{more}\n[artifacts.p]\nfrom = \"work\"\nfiles = [\"out\"]\n"
        )
    };
    let farm = Farm::shared();
    for (image, more, arguments, words) in [
        ("image = \"./base\"", "packages = [\"-y\"]", &[][..], "names of packages"),
        ("", "packages = [\"jq\"]", &[], "set `image` of the step or of the target"),
        ("image = \"./none\"", "", &[], "there is no `none`"),
        ("image = \"docker-daemon:shop:1\"", "", &["--executor", "sandbox"], "push it to a registry"),
        ("image = \"./base\"", "user = \"x\"", &[], "user"),
    ] {
        let Some(dir) = with_base(&step(image, more)) else { return };
        let built = farm.build(dir.path(), arguments);
        let said = format!("{}{}", built.0.out, built.0.err);
        assert!(built.0.code != 0 && said.contains(words), "expected `{words}` ({}): {said}", built.0.code);
    }
}

#[test]
fn a_project_without_configuration_becomes_an_image_that_runs() {
    let Some(based) = with_base("") else { return };
    let Some(docker) = Engine::bare() else { return };
    let dir = project(&[
        (
            "Makefile",
            "hello: hello.c\n\t$(CC) -static -o $@ $<\ninstall: hello\n\tinstall -D hello $(DESTDIR)/usr/bin/hello\n",
        ),
        (
            "hello.c",
            "#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"hello from %d\\n\", getuid()); return 0; }\n",
        ),
    ]);
    kiln_harness::copy(&based.path().join("base"), &dir.path().join("base"));
    let farm = Farm::shared();
    let plan = Ran::from({
        let mut command = farm.command(&["plan", "--image=./base"]);
        command.current_dir(dir.path());
        command
    });
    for line in ["  base     ./base", "  command  the program that the build makes", "  user     1000:1000"] {
        assert!(plan.out.contains(line), "expected `{line}` in: {}", plan.out);
    }
    let mut command = farm.build_command(dir.path(), &["--image=./base", "--load"]);
    command.env("DOCKER_HOST", &docker.host);
    let built = Built(Ran::from(command)).well();
    let images = docker.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
    let image = images.lines().next().unwrap_or_else(|| panic!("no image was loaded: {built:?}"));
    assert_eq!(docker.ok(&["run", "--rm", "--network", "none", image]), "hello from 1000");
    // What `kiln init` writes builds the same.
    let mut command = farm.command(&["init", "--image=./base"]);
    command.current_dir(dir.path());
    let init = Ran::from(command);
    assert_eq!(init.code, 0, "{}", init.err);
    let written = std::fs::read_to_string(dir.path().join("kiln.toml")).unwrap();
    assert!(written.contains("kind = \"image\"") && written.contains("start = true"), "{written}");
    let again = farm.build(dir.path(), &[]).well();
    assert_eq!(built.of_type("artifact")[0]["digest"], again.of_type("artifact")[0]["digest"]);
}

#[test]
fn a_detected_project_runs_in_the_farms_toolchain_and_the_plan_names_it() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[toolchains]\ngo = \"127.0.0.1:1/any/go\"\n\"go 1.20\" = \"127.0.0.1:1/old/go\"\n")
        .unwrap();
    let farm =
        Farm::with(&["--toolchains", file.path().to_str().unwrap(), "--allow-registry", "127.0.0.1:1"], &["one"]);
    let dir =
        project(&[("go.mod", "module example.org/p\n\ngo 1.19\n"), ("main.go", "package main\nfunc main() {}\n")]);
    let mut command = farm.command(&["plan"]);
    command.current_dir(dir.path());
    let plan = Ran::from(command);
    assert!(plan.out.contains("the steps run in `127.0.0.1:1/old/go`, the farm's toolchain for `go"), "{plan:?}");
    assert!(plan.out.contains("  image    127.0.0.1:1/old/go"), "{}", plan.out);
    let built = farm.build(dir.path(), &["--executor", "sandbox"]);
    assert!(built.0.code != 0 && built.message().contains("127.0.0.1:1/old/go"), "{built:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_property_container_image_runs_an_action_in_that_images_file_system() {
    let set_up = || {
        let dir = with_base("")?;
        let registry = Registry::start()?;
        let from = format!("oci:{}", dir.path().join("base").display());
        let image = format!("{}/tools/shell:1", registry.name);
        let to = format!("docker://{image}");
        output("skopeo", &["copy", "--quiet", "--dest-tls-verify=false", &from, &to], dir.path());
        let farm = Farm::with(&["--allow-registry", "127.0.0.0/8"], &["one"]);
        Some((farm, registry, image))
    };
    let Some((farm, registry, image)) = tokio::task::spawn_blocking(set_up).await.unwrap() else { return };
    let caller = caller_of(&farm.url, DigestFunction::Sha256).await;
    let in_image = |image: &str| {
        let property = reapi::platform::Property { name: "container-image".to_owned(), value: image.to_owned() };
        move |action: &mut reapi::Action| action.platform = Some(reapi::Platform { properties: vec![property] })
    };
    let script =
        "echo $FROM_IMAGE $(id -u) $PWD; test ! -e /usr/bin/env || exit 3; cat ../in; mkdir d; echo out > d/file";
    let command = reapi::Command { working_directory: "sub".to_owned(), ..shell(script, &["d", "../in"]) };
    let files = [("in", "input\n"), ("sub/other", "")];
    let action = caller.action(command, &files, in_image(&format!("docker://{image}"))).await;
    let response = caller.execute(&action).await;
    assert_eq!(code(&response), Code::Ok, "{:?}", response.status);
    let result = response.result.unwrap();
    assert_eq!(caller.text(&result.stdout_digest).await, "yes 1000 /build/sub\ninput\n");
    assert_eq!((result.exit_code, result.output_directories[0].path.as_str()), (0, "d"));
    assert_eq!(result.output_files[0].path, "../in");
    let again = caller.execute(&action).await;
    assert!(again.cached_result, "the result is kept under the action that was asked for");
    let absent = format!("docker://{}/absent:1", registry.name);
    let action = caller.action(shell("true", &[]), &[], in_image(&absent)).await;
    let refused =
        caller.start(&action, false).await.expect_err("expected no operation for an image that does not exist");
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("absent"), "{}", refused.message());
}

#[test]
fn a_step_in_an_image_has_caches_anywhere_in_it() {
    let config = "name = \"cached\"\nversion = \"1\"\n[steps.work]\nimage = \"./base\"\ninputs = [\"in\"]\n\
                  run = '''\nfor at in deep/cache ~/.c/d /var/cache/x; do echo x >> $at/lines; stat -c '%u %a' $at; done\n\
                  touch deep/own ~/.c/own; echo \"lines $(cat deep/cache/lines ~/.c/d/lines /var/cache/x/lines | wc -l).\"\ncp in out\n'''\n\
                  outputs = [\"out\"]\ncaches = { \"deep/cache\" = { key = \"a\" }, \"~/.c/d\" = { key = \"b\" }, \"/var/cache/x\" = { key = \"c\" } }\n";
    let Some(dir) = with_base(config) else { return };
    let farm = Farm::shared();
    for round in 1..=3 {
        kiln_harness::write(dir.path(), "in", &round.to_string());
        let built = farm.build(dir.path(), &["--executor", "sandbox"]).well();
        let log = built.log();
        assert!(log.contains(&format!("lines {}.", round * 3)), "{log}");
        assert_eq!(log.matches("1000 755").count(), 3, "{log}");
    }
    let unpacked: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert!(!unpacked.iter().any(|name| name == "deep"), "expected nothing of it to be an output");
}
