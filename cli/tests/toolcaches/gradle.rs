//! Gradle, Debian's 4.4.

use kiln_harness::{has, project};

use crate::world::{World, done};

const SETTINGS: &str = "rootProject.name = 'shop'\nbuildCache { local { enabled = false } }\n";
const BUILD: &str = "\
ext.shouts = { name ->
    task(name) {
        inputs.file(name + '.in').withPathSensitivity(PathSensitivity.RELATIVE)
        outputs.file name + '.out'
        outputs.cacheIf { true }
        doLast { file(name + '.out').text = file(name + '.in').text.toUpperCase() }
    }
}
shouts('one')
shouts('two')
two.mustRunAfter one
";

/// Runs tasks in a new directory with a new home.
fn run(world: &World, caller: &str, one: &str, tasks: &str) -> String {
    let files = [("settings.gradle", SETTINGS), ("build.gradle", BUILD), ("one.in", one), ("two.in", "farm\n")];
    let dir = project(&files);
    let init = done(world.farm.kiln(&["cache", "env", "gradle", "--format", "file"]));
    assert!(!init.out.contains(world.token("admin")), "{}", init.out);
    kiln_harness::write(dir.path(), "home/init.d/kiln.gradle", &init.out);
    let script =
        format!("gradle --no-daemon --console=plain --build-cache --gradle-user-home home {tasks} && cat two.out");
    let ran = done(world.run(caller, "gradle", dir.path(), &script));
    assert!(ran.out.ends_with("FARM\n"), "{}", ran.out);
    ran.out + &ran.err
}

#[test]
fn gradle_takes_outputs_from_the_farm_and_goes_on_when_it_may_not_write() {
    if !has("gradle") {
        return;
    }
    let world = World::start();
    let hit = |said: &str, task: &str| said.contains(&format!(":{task} FROM-CACHE"));
    let is_off = |said: &str| said.contains("is now disabled") || said.contains("was disabled");
    let cold = run(&world, "writer", "x\n", "two");
    assert!(!hit(&cold, "two") && !is_off(&cold), "{cold}");
    // What cannot be stored comes first, and does not end the use of the cache.
    let warm = run(&world, "reader", "new\n", "one two");
    assert!(!hit(&warm, "one") && hit(&warm, "two") && !is_off(&warm), "{warm}");
    let wrong = run(&world, "nobody", "x\n", "two");
    assert!(!hit(&wrong, "two") && is_off(&wrong), "expected Gradle to notice a wrong token: {wrong}");
}
