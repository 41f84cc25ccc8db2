//! Zig projects.

use insta::assert_snapshot;

use crate::{assert_sound, planned, refused};
use kiln_planner::plan::Plan;

const BUILD: (&str, &str) = (
    "build.zig",
    "const t = b.standardTargetOptions(.{});\nconst o = b.standardOptimizeOption(.{});\nb.step(\"test\", \"\");\n",
);

fn zon(dependencies: &str) -> String {
    format!(
        ".{{\n    .name = .clock,\n    .version = \"1.4.0\",\n    .minimum_zig_version = \"0.14.0\",\n    .dependencies = .{{ {dependencies} }},\n    .paths = .{{\"\"}},\n}}\n"
    )
}

fn run(plan: &Plan) -> &str {
    plan.steps.iter().find(|step| step.name == "compile").unwrap().run.as_str()
}

#[test]
fn dependencies_are_fetched_by_their_hashes_and_the_build_has_no_network() {
    let manifest =
        zon(".far = .{ .url = \"https://example.org/x.tar.gz\", .hash = \"far-1\" }, .near = .{ .path = \"near\" }");
    let files = [
        BUILD,
        ("build.zig.zon", manifest.as_str()),
        ("near/build.zig", ""),
        ("near/build.zig.zon", ".{}"),
        ("src/main.zig", ""),
    ];
    let plan = planned(&files);
    assert_eq!((plan.name.as_str(), plan.version.as_deref()), ("clock", Some("1.4.0")));
    let deps = &plan.steps[0];
    assert_eq!(deps.inputs.join(" "), "build.zig build.zig.zon near/build.zig near/build.zig.zon");
    assert_eq!(
        (deps.outputs.join(" "), deps.run.as_str()),
        (".kiln/zig/p".into(), "zig build --fetch\nmkdir -p .kiln/zig/p\n")
    );
    assert_eq!(deps.tools, ["zig >=0.14.0 (build.zig.zon)"]);
    assert!(run(&plan).starts_with(
        "zig build --prefix .kiln/out --release=safe -Dtarget=\"$(uname -m)-linux-gnu\" -Dcpu=baseline\n"
    ));
    assert_sound(&files, &["src/main.zig"]);
    let newer = manifest.replace("1.4.0", "1.5.0");
    let of = |text: &str| kiln_planner::plan::unversioned("build.zig.zon", text.as_bytes(), &crate::tree(&[]));
    assert_eq!(of(&manifest), of(&newer), "a release fetches nothing again");
}

#[test]
fn options_are_given_only_where_the_build_has_them() {
    assert_eq!(
        run(&planned(&[("build.zig", ""), ("src/a.zig", "")])).lines().next(),
        Some("zig build --prefix .kiln/out")
    );
    let linked = format!("{}\nexe.linkSystemLibrary(\"z\")", BUILD.1);
    let plan = planned(&[("build.zig", linked.as_str()), ("src/a.zig", ""), (".zigversion", "0.15.2\n")]);
    assert!(run(&plan).contains(" -Dtarget=native -Dcpu=baseline\n"), "{}", run(&plan));
    assert_eq!(plan.steps[0].tools, ["zig =0.15 (.zigversion)"]);
}

#[test]
fn a_dependency_without_a_hash_or_a_directory_is_refused() {
    let loose = zon(".far = .{ .url = \"https://example.org/x.tar.gz\" }");
    assert_snapshot!(refused(&[BUILD, ("build.zig.zon", &loose)]), @"`build.zig.zon` is stale: its dependency `far` has no `hash`: run `zig fetch --save=far https://example.org/x.tar.gz` and commit `build.zig.zon`");
    let gone = zon(".near = .{ .path = \"near\" }");
    assert!(
        refused(&[BUILD, ("build.zig.zon", &gone)])
            .contains("depends on `near` at `near`, which is not in the project")
    );
    assert_snapshot!(refused(&[BUILD, ("build.zig.zon", ".{ .name = }")]), @"`build.zig.zon` cannot be read: line 1: expected a value");
}
