//! Artifacts of builds.

use std::path::Path;

use serde_json::Value;

use crate::{unique, work};
use kiln_harness::{Farm, cannot_run, commit, project, write};

#[test]
fn an_artifact_is_traceable_to_its_commit_and_comes_back_bit_for_bit() {
    let farm = Farm::shared();
    let config = "name = \"traced\"\n[steps.work]\nrun = \"cp in out; chmod +x out\"\noutputs = [\"out\"]\n[artifacts.traced]\nfrom = \"work\"\nfiles = [\"out\"]\nkind = \"archive\"\n";
    let dir = project(&[("kiln.toml", config), ("in", &unique()), (".gitignore", "kiln-out/\n")]);
    let head = commit(dir.path());
    let built = farm.build(dir.path(), &[]).well();
    let artifact = built.of_type("artifact").remove(0);
    let id = artifact["id"].as_str().unwrap().to_owned();
    assert!(id.starts_with("traced-") && id.contains(&head[..7]) && id.contains("linux-amd64"), "{id}");

    let listed: Vec<Value> = serde_json::from_str(&farm.kiln(&["artifacts", "traced", "--json"]).out).unwrap();
    assert!(listed.iter().any(|one| one["id"] == id.as_str() && one["commit"] == head.as_str()), "{listed:?}");
    let elsewhere = tempfile::tempdir().unwrap();
    let ran = farm.kiln(&["fetch", &id, "--output", elsewhere.path().to_str().unwrap()]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let (own, fetched) = (dir.path().join("kiln-out"), elsewhere.path());
    let archive = |dir: &Path| std::fs::read(kiln_harness::find(dir, ".tar.zst").unwrap()).unwrap();
    assert_eq!(archive(&own), archive(fetched));

    let provenance: Value =
        serde_json::from_slice(&std::fs::read(own.join("traced.provenance.json")).unwrap()).unwrap();
    assert_eq!(provenance["_type"], "https://in-toto.io/Statement/v1");
    assert_eq!(provenance["predicateType"], "https://slsa.dev/provenance/v1");
    assert!(provenance.to_string().contains(&head), "expected the commit in the provenance");
    let subject = &provenance["subject"][0]["digest"]["sha256"];
    assert_eq!(artifact["digest"].as_str().unwrap().split('/').next(), subject.as_str());

    write(dir.path(), "in", &unique());
    let dirty = farm.build(dir.path(), &[]).well().of_type("artifact").remove(0);
    assert!(dirty["id"].as_str().unwrap().contains("-dirty"), "{dirty}");
    assert_ne!(dirty["id"], id.as_str());
    assert_eq!(farm.kiln(&["fetch", "no-such-artifact"]).code, 2);
}

const HELLO: &str =
    "#include <stdio.h>\n#include <math.h>\nint main(int c, char **v) { printf(\"%f\\n\", pow(c, 0.5)); return 0; }\n";

/// Builds `main.c` with this command, as a binary for a target to which `target` adds settings.
fn build(target: &str, run: &str) -> (tempfile::TempDir, kiln_harness::Built) {
    let config = format!(
        r#"
name = "elf"
version = "1"
[targets.prod]
platform = "linux/amd64"
{target}
[steps.work]
run = """{run}"""
outputs = ["app"]
[artifacts.elf]
from = "work"
files = ["app"]
kind = "binary"
"#
    );
    let dir = project(&[("kiln.toml", &config), ("main.c", HELLO)]);
    let built = Farm::shared().build(dir.path(), &[]);
    (dir, built)
}

#[test]
fn a_binary_that_production_could_not_run_fails_the_build() {
    let (_dir, built) = build("glibc = \"2.36\"", "cc -o app main.c -lm");
    built.well();
    let (_dir, built) = build("glibc = \"2.20\"", "cc -o app main.c -lm");
    assert_eq!(built.0.code, 1);
    for words in ["GLIBC_2.", "2.20", "app"] {
        assert!(built.message().contains(words), "expected `{words}` in `{}`", built.message());
    }
    let (_dir, built) = build(
        "glibc = \"2.36\"",
        "echo 'int own(void) { return 1; }' > own.c; cc -shared -o libown.so own.c; cc -o app main.c -L. -Wl,--no-as-needed -lown -lm",
    );
    assert_eq!(built.0.code, 1);
    assert!(built.message().contains("libown.so") && built.message().contains("app"), "{}", built.message());
}

#[test]
fn a_binary_for_another_machine_fails_the_build() {
    if !Path::new("/usr/bin/aarch64-linux-gnu-gcc").exists() {
        return cannot_run("aarch64-linux-gnu-gcc, which makes a binary for another machine");
    }
    let (_dir, built) = build("", "aarch64-linux-gnu-gcc -o app main.c -lm");
    assert_eq!(built.0.code, 1);
    for words in ["`app` is for arm64", "target `prod` is linux/amd64"] {
        assert!(built.message().contains(words), "expected `{words}` in `{}`", built.message());
    }
}

#[test]
fn a_binary_that_is_a_link_out_of_the_artifact_is_the_projects_to_mend() {
    let more = "outputs = [\"app\"]\n[artifacts.app]\nfrom = \"work\"\nfiles = [\"app\"]\nkind = \"binary\"";
    for target in ["/usr/bin/env", "../env"] {
        let built = Farm::shared().build(work(&format!("ln -s {target} app"), more).path(), &[]);
        assert_eq!(built.0.code, 1, "{}", built.0.err);
        for words in ["artifact `app`", "symbolic link", target] {
            assert!(built.message().contains(words), "expected `{words}` in `{}`", built.message());
        }
    }
}

#[test]
fn an_archives_links_into_the_system_are_kept_and_those_that_climb_out_of_it_are_the_projects_to_mend() {
    let build = |run: &str| {
        let more = "outputs = [\"d\"]\n[artifacts.app]\nfrom = \"work\"\nfiles = [\"d\"]\nkind = \"archive\"";
        let dir = work(&format!("mkdir -p d/e; echo x > d/x; {run}"), more);
        let built = Farm::shared().build(dir.path(), &[]);
        (dir, built)
    };
    let (dir, built) = build("ln -s /usr/lib/none d/e/system; ln -s ../x d/e/inside");
    built.well();
    let unpacked = kiln_harness::unpack(&dir.path().join("kiln-out"));
    let target = |path: &str| std::fs::read_link(unpacked.path().join(path)).unwrap();
    assert_eq!((target("d/e/system").to_str(), target("d/e/inside").to_str()), (Some("/usr/lib/none"), Some("../x")));
    for (target, expected) in
        [("../../../y", "leads out of the archive"), ("/build/d/x", "exists only during the build")]
    {
        let (_dir, built) = build(&format!("ln -s {target} d/e/out"));
        assert_eq!(built.0.code, 1, "{}", built.0.err);
        for words in ["artifact `app`", "`d/e/out` is a symbolic link", target, expected] {
            assert!(built.message().contains(words), "expected `{words}` in `{}`", built.message());
        }
    }
    // Textually this path stays inside; the file system resolves it from where `up` leads.
    let (_dir, built) = build("mkdir -p d/p/q; ln -s ../../.. d/p/q/up; ln -s p/q/up/../../.. d/out");
    assert_eq!(built.0.code, 1, "{}", built.0.err);
    for words in ["`d/out` is a symbolic link", "leads out of the archive"] {
        assert!(built.message().contains(words), "expected `{words}` in `{}`", built.message());
    }
}

/// Builds a project and unpacks its archive.
fn unpacked(config: &str, files: &[(&str, &str)]) -> (kiln_harness::Built, tempfile::TempDir, tempfile::TempDir) {
    let dir = project(&[&[("kiln.toml", config)], files].concat());
    let built = Farm::shared().build(dir.path(), &[]).well();
    let unpacked = kiln_harness::unpack(&dir.path().join("kiln-out"));
    (built, dir, unpacked)
}

#[test]
fn modes_and_empty_directories_of_an_install_step_are_kept() {
    use std::os::unix::fs::PermissionsExt;
    let config = r#"
name = "modes"
version = "1"
[steps.make]
run = """mkdir -p out/var/spool/prog; install -d -m 700 out/etc; install -m 600 in out/etc/key; install -m 664 in out/data
install -m 4755 in out/helper"""
outputs = ["out"]
[steps.pack]
needs = ["make"]
inputs = ["kiln.toml"]
run = "cp -a out packed; echo $(stat -c %a packed/etc/key)"
outputs = ["packed"]
[artifacts.modes]
from = "pack"
files = [{ path = "packed", dest = "." }]
kind = "archive"
[artifacts.direct]
from = "make"
files = [{ path = "out", dest = "d" }]
kind = "archive"
"#;
    let dir = project(&[("kiln.toml", config), ("in", &unique())]);
    let built = Farm::shared().build(dir.path(), &[]).well();
    assert!(built.log().contains("600"), "expected the next step to see the mode: {}", built.log());
    let mode = |path: std::path::PathBuf| std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777;
    let unpacked = kiln_harness::unpack(&dir.path().join("kiln-out/modes"));
    assert_eq!(mode(unpacked.path().join("etc/key")), 0o600);
    assert!(unpacked.path().join("var/spool/prog").is_dir());
    let archive = kiln_harness::find(&dir.path().join("kiln-out/direct"), ".tar.zst").unwrap();
    let listed = kiln_harness::output("tar", &["-tvf", archive.to_str().unwrap()], dir.path());
    for (entry, path) in [
        ("drwx------", "d/etc/"),
        ("-rw-------", "d/etc/key"),
        ("-rw-r--r--", "d/data"),
        ("-rwsr-xr-x", "d/helper"),
        ("drwxr-xr-x", "d/var/spool/prog/"),
    ] {
        assert!(listed.lines().any(|line| line.starts_with(entry) && line.ends_with(path)), "{entry} {path}: {listed}");
    }
}

/// A program that calls a system library, linked without its headers.
const ZLIB: &str =
    "#include <stdio.h>\nconst char *zlibVersion(void);\nint main(void) { puts(zlibVersion()); return 0; }\n";

fn zlib(more: &str, artifact: &str) -> String {
    format!(
        "name = \"zip\"\nversion = \"1\"\n{more}\n[steps.work]\nrun = \"mkdir -p out/bin; cc main.c -l:libz.so.1 -o \
         out/bin/zip\"\noutputs = [\"out\"]\n[artifacts.zip]\nfrom = \"work\"\nfiles = [{{ path = \"out\", dest = \".\" \
         }}]\nkind = \"archive\"\n{artifact}\n"
    )
}

#[test]
fn a_library_of_the_system_is_told_of_or_refused_or_carried() {
    let (built, dir, _unpacked) = unpacked(&zlib("", ""), &[("main.c", ZLIB)]);
    let warnings = built.of_type("warning");
    let told = |words: &str| warnings.iter().any(|warning| warning["text"].as_str().unwrap().contains(words));
    assert!(told("[artifacts.zip]\n    bundle_libraries = true"), "{warnings:?}");
    assert!(told("libraries = [\"libz.so.1\"]"), "{warnings:?}");
    let mut command = Farm::shared().command(&["build", "--progress", "plain"]);
    command.current_dir(dir.path());
    let plain = kiln_harness::Ran::from(command);
    let last = plain.err.lines().last().unwrap_or_default();
    assert!(last.starts_with("run it: mkdir -p /tmp/zip && tar -xf ") && last.ends_with("/tmp/zip/bin/zip"), "{last}");

    let declared = "[targets.prod]\nplatform = \"linux/amd64\"";
    let refused = Farm::shared().build(project(&[("kiln.toml", &zlib(declared, "")), ("main.c", ZLIB)]).path(), &[]);
    assert!(refused.message().contains("`libz.so.1`") && refused.message().contains("[targets.prod]"), "{refused:?}");
    let has = format!("{declared}\nlibraries = [\"libz.so.1\"]");
    Farm::shared().build(project(&[("kiln.toml", &zlib(&has, "")), ("main.c", ZLIB)]).path(), &[]).well();

    let (_, _dir, carried) = unpacked(&zlib(declared, "bundle_libraries = true"), &[("main.c", ZLIB)]);
    assert!(carried.path().join("lib/libz.so.1").is_file());
    let program = carried.path().join("bin/zip");
    assert!(!kiln_harness::output(&program, &[], Path::new("/")).is_empty());
    let loaded = kiln_harness::output("ldd", &[program.to_str().unwrap()], Path::new("/"));
    let own = carried.path().canonicalize().unwrap();
    assert!(
        loaded.contains(&format!("libz.so.1 => {}", own.display())) || loaded.contains("/bin/../lib/libz.so.1"),
        "{loaded}"
    );
}

#[test]
fn an_output_may_lie_beside_the_working_directory() {
    let config = "name = \"beside\"\nversion = \"1\"\n[steps.work]\nworking_directory = \"a\"\nrun = \"echo x > \
                  ../b/x\"\noutputs = [\"../b/x\"]\n[artifacts.beside]\nfrom = \"work\"\nfiles = [\"b/x\"]\n";
    let dir = project(&[("kiln.toml", config), ("a/in", "")]);
    Farm::shared().build(dir.path(), &[]).well();
}

#[test]
fn what_compiles_for_the_cpu_at_hand_says_so() {
    let run = "run = \"cc -march=native -c main.c -o main.o\"\noutputs = [\"main.o\"]";
    let config = format!("name = \"native\"\nversion = \"1\"\n[steps.work]\n{run}\n");
    let dir = project(&[("kiln.toml", &config), ("main.c", "int x;\n")]);
    let built = Farm::shared().build(dir.path(), &[]).well();
    let warnings = built.of_type("warning");
    assert!(warnings.iter().any(|one| one["text"].as_str().unwrap().contains("same CPU")), "{warnings:?}");
}
