//! Bazel over HTTP, Debian's 4.2.

use std::path::Path;

use kiln_harness::{BAZEL, Ran, has, write};

use crate::world::{World, done};

const BUILD: &str = "\
genrule(name = 'shout', srcs = ['in.txt'], outs = ['loud.txt'], cmd = 'tr a-z A-Z < $< > $@')
genrule(name = 'twice', srcs = [':shout'], outs = ['twice.txt'], cmd = 'cat $< $< > $@')
";

/// Builds with an output base that knows nothing.
fn build(world: &World, caller: &str, dir: &Path) -> Ran {
    let script = format!(
        "HOME=\"$PWD\" USER=tester\nexport HOME USER\n\
        bazel() {{ command bazel --output_user_root=\"$PWD/../output\" {} \"$@\"; }}\n\
        bazel clean --expunge\n\
        kiln_bazel build --color=no --curses=no --spawn_strategy=local --remote_timeout=10 //:twice; cat bazel-bin/twice.txt",
        BAZEL.join(" ")
    );
    done(world.run(caller, "bazel", dir, &script))
}

#[test]
fn bazel_takes_actions_from_the_farms_action_cache() {
    if !has("bazel") {
        return;
    }
    let world = World::start();
    let dir = tempfile::tempdir().unwrap();
    let workspace = dir.path().join("workspace");
    write(&workspace, "WORKSPACE", "");
    write(&workspace, "BUILD", BUILD);
    write(&workspace, "in.txt", "one farm\n");
    let cold = build(&world, "writer", &workspace);
    assert!(cold.err.contains("2 local"), "{}", cold.err);
    // After a restart, which forgets the sizes of blobs.
    world.farm.restart_coordinator();
    world.farm.wait_until_up();
    let warm = build(&world, "reader", &workspace);
    assert!(warm.err.contains("2 remote cache hit") && warm.out.ends_with("ONE FARM\nONE FARM\n"), "{}", warm.err);
    let wrong = build(&world, "nobody", &workspace);
    assert!(wrong.err.contains("2 local") && wrong.err.contains("401"), "{}", wrong.err);
    let end = format!("bazel --output_user_root=\"$PWD/../output\" {} shutdown", BAZEL.join(" "));
    let _ = world.run("reader", "bazel", &workspace, &end);
}
