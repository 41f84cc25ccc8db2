//! The output directory contains what Kiln wrote, and the user's files are never touched.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use kiln_harness::{Farm, output, project, write};

const CONFIG: &str = "name = \"app\"\n[steps.s]\nrun = \"mkdir app && cp in.txt app/made\"\noutputs = [\"app\"]\n\
    [artifacts.app]\nfrom = \"s\"\nfiles = [{ path = \"app\", dest = \".\" }]\n";

/// Everything below a directory: kind, mode, content, and modification time.
fn everything(dir: &Path) -> BTreeMap<String, String> {
    fn walk(dir: &Path, at: &Path, all: &mut BTreeMap<String, String>) {
        for entry in std::fs::read_dir(at).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), entry.path().symlink_metadata().unwrap());
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            let mut state = format!("{:o} {}", metadata.mode(), metadata.ino());
            if metadata.is_symlink() {
                state += &format!(" -> {}", std::fs::read_link(&path).unwrap().display());
            } else if metadata.is_file() {
                state +=
                    &format!(" {:?} {}.{}", std::fs::read(&path).unwrap(), metadata.mtime(), metadata.mtime_nsec());
            }
            all.insert(name, state);
            if metadata.is_dir() {
                walk(dir, &path, all);
            }
        }
    }
    let mut all = BTreeMap::new();
    walk(dir, dir, &mut all);
    all
}

/// A home directory with files of every kind, some with the names of artifacts.
fn home() -> tempfile::TempDir {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path();
    for path in ["app/main.c", "app/deep/notes", "other/app", "other/app.provenance.json", "dir/app/x", ".hidden"] {
        write(dir, path, path);
    }
    write(dir, "app/kiln.toml", CONFIG);
    write(dir, "app/in.txt", "content");
    std::fs::create_dir(dir.join("empty")).unwrap();
    std::fs::create_dir(dir.join("links")).unwrap();
    symlink("../app", dir.join("links/app")).unwrap();
    symlink("nowhere", dir.join("dangling")).unwrap();
    std::fs::hard_link(dir.join("other/app"), dir.join("other/second")).unwrap();
    std::fs::set_permissions(dir.join("app/deep/notes"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::net::UnixListener::bind(dir.join("other/socket")).unwrap();
    home
}

fn kiln(dir: &Path, arguments: &[&str]) -> (i32, String) {
    let mut command = Farm::shared().command(arguments);
    let ran = command.current_dir(dir).output().unwrap();
    let said = String::from_utf8_lossy(&ran.stderr).into_owned();
    (ran.status.code().unwrap_or(-1), said)
}

#[test]
fn every_command_with_an_output_leaves_the_users_files_alone() {
    let home = home();
    let dir = home.path();
    let app = dir.join("app");
    let built = Farm::shared().build(&app, &["--output", &dir.join("made").display().to_string()]).well();
    let artifact = built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned();
    let before = everything(dir);
    let authority = tempfile::tempdir().unwrap();
    let authority_dir = authority.path().display().to_string();
    assert_eq!(kiln(dir, &["farm", "init", &authority_dir, "--host", "localhost"]).0, 0);
    write(dir, "keys/app.key", "mine");
    let before_keys = everything(dir);
    for (arguments, place) in [
        (&["build", "app", "--output", "."][..], "contains the source tree"),
        (&["build", "app", "--output", "app"], "contains the source tree"),
        (&["build", "app", "--output", "app/deep"], "is in the source tree"),
        (&["build", "app", "--output", "dir"], "`dir/app` is in the way"),
        (&["build", "app", "--output", "other"], "`other/app` is in the way"),
        (&["build", "app", "--output", "links"], "`links/app` is in the way"),
        (&["build", "app", "--output", "links/app"], "contains the source tree"),
        (&["build", "app", "--output", ".hidden"], "`.hidden` is not a directory"),
        (&["fetch", &artifact, "--output", "."], "`./app` is in the way"),
        (&["fetch", &artifact, "--output", "dir"], "`dir/app` is in the way"),
        (&["attach", &built.id(), "--output", "dir"], "`dir/app` is in the way"),
        (
            &["farm", "certificate", "app", "--role", "builder", "--farm-dir", &authority_dir, "--output", "keys"],
            "`keys/app.key` already exists",
        ),
    ] {
        let (code, said) = kiln(dir, arguments);
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert!(said.contains(place), "{arguments:?}: expected `{place}` in: {said}");
        assert_eq!(everything(dir), before_keys, "{arguments:?}");
    }
    assert_eq!(before_keys.len(), before.len() + 2);
}

#[test]
fn a_second_build_replaces_the_first_one_and_keeps_what_was_edited_in_it() {
    let dir = project(&[("kiln.toml", CONFIG), ("in.txt", "one")]);
    let made = dir.path().join("kiln-out/app/made");
    Farm::shared().build(dir.path(), &[]).well();
    let first = made.metadata().unwrap().ino();
    Farm::shared().build(dir.path(), &[]).well();
    assert_eq!(made.metadata().unwrap().ino(), first, "expected an unchanged artifact not to be written again");
    write(dir.path(), "in.txt", "two");
    Farm::shared().build(dir.path(), &[]).well();
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "two");
    assert!(!dir.path().join("kiln-out/app.kept-1").exists());
    write(dir.path(), "kiln-out/app/mine", "edited");
    write(dir.path(), "in.txt", "three");
    Farm::shared().build(dir.path(), &[]).well();
    assert_eq!(std::fs::read_to_string(&made).unwrap(), "three");
    assert_eq!(std::fs::read_to_string(dir.path().join("kiln-out/app.kept-1/mine")).unwrap(), "edited");
}

#[test]
fn the_output_is_no_input_and_does_not_make_a_commit_dirty() {
    let dir = project(&[("kiln.toml", CONFIG), ("in.txt", "one")]);
    let git = |arguments: &[&str]| {
        let identity = ["-c", "user.name=n", "-c", "user.email=e@x.example"];
        let done = Command::new("git").args(identity).args(arguments).current_dir(dir.path()).output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    git(&["init", "-q"]);
    git(&["add", "."]);
    git(&["commit", "-q", "-m", "one"]);
    let build = |more: &[&str]| {
        let built = Farm::shared().build(dir.path(), more).well();
        built.of_type("artifact")[0]["id"].as_str().unwrap().to_owned()
    };
    let ids = [build(&["--output", "out/x"]), build(&["--output", "out/x"]), build(&[]), build(&[])];
    assert!(ids.iter().all(|id| *id == ids[0] && !id.contains("dirty")), "{ids:?}");
    assert_eq!(output("git", &["status", "--porcelain"], dir.path()), "");
}
