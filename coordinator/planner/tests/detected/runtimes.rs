//! JavaScript without Node: Bun and Deno.

use insta::assert_snapshot;

use crate::{assert_sound, options, planned, refused, tree};
use kiln_planner::plan::{ArtifactKind, Options, Plan, Step, plan, unversioned};

const BUN: (&str, &str) = ("bun.lock", "{\n  \"packages\": {\n    \"ms\": [\"ms@2.1.3\"],\n  }, // \"ms\": \"2\"\n}\n");

fn step<'a>(plan: &'a Plan, name: &str) -> &'a Step {
    plan.steps.iter().find(|step| step.name == name).unwrap_or_else(|| panic!("no step `{name}`"))
}

fn because(plan: &Plan) -> String {
    let part = &plan.origin.parts()[0];
    format!("{}: {}", part.language, part.because.join("; "))
}

#[test]
fn bun_installs_from_its_lock_file_and_needs_no_node() {
    let files = [
        BUN,
        (
            "package.json",
            r#"{"name":"a","version":"1.0.0","dependencies":{"ms":"2"},"scripts":{"build":"bun build x.ts"}}"#,
        ),
        ("x.ts", ""),
    ];
    let plan = planned(&files);
    assert_eq!(because(&plan), "node (bun): `package.json` is a package; `bun.lock` locks its dependencies");
    let deps = step(&plan, "deps");
    assert_eq!((deps.inputs.join(" "), deps.tools.join(" ")), ("package.json bun.lock".into(), "bun".into()));
    assert!(deps.run.contains("bun install --frozen-lockfile"), "{}", deps.run);
    assert!(!step(&plan, "production").network, "it finds in the cache what it needs");
    assert_sound(&files, &["x.ts"]);
}

#[test]
fn of_two_lock_files_the_one_of_the_tool_that_the_project_uses_is_read() {
    let npm = ("package-lock.json", r#"{"packages":{"node_modules/ms":{}}}"#);
    let with = |manifest: &str, more: &[(&str, &str)]| {
        let files = [&[("package.json", manifest), BUN, npm][..], more].concat();
        planned(&files).notes.join("\n")
    };
    assert_snapshot!(with(r#"{"dependencies":{"ms":"2"}}"#, &[]), @"dependencies come from `package-lock.json`, because no `packageManager` names another tool than npm; `bun.lock` beside it is not used");
    assert_snapshot!(with(r#"{"dependencies":{"ms":"2"},"scripts":{"start":"bun x.ts"}}"#, &[]), @"dependencies come from `bun.lock`, because its scripts run `bun`; `package-lock.json` beside it is not used");
    assert_snapshot!(with(r#"{"dependencies":{"ms":"2"},"packageManager":"bun@1.2.0"}"#, &[]), @"dependencies come from `bun.lock`, because `packageManager` names its tool; `package-lock.json` beside it is not used");
    assert!(with(r#"{"dependencies":{"ms":"2"}}"#, &[("bunfig.toml", "")]).contains("because `bunfig.toml` is there"));
}

#[test]
fn a_lock_file_of_bun_that_is_missing_stale_or_binary_is_called_so() {
    let manifest = ("package.json", r#"{"packageManager":"bun@1.2.0","dependencies":{"ms":"2","left-pad":"1"}}"#);
    assert_snapshot!(refused(&[manifest]), @"`package.json` names dependencies but there is no `bun.lock`, so two builds of one commit could differ: run `bun install --lockfile-only` and commit `bun.lock`");
    assert_snapshot!(refused(&[manifest, BUN]), @"`bun.lock` is stale: `package.json` depends on `left-pad` 1, which it lacks: run `bun install --lockfile-only` and commit `bun.lock`");
    let binary = planned(&[manifest, ("bun.lockb", "")]);
    assert!(binary.notes.join("\n").contains("`bun.lockb` is binary"), "{:?}", binary.notes);
    let version = planned(&[("package.json", r#"{"dependencies":{"ms":"2"}}"#), BUN, (".bun-version", "1.2.3\n")]);
    assert_eq!(step(&version, "deps").tools, ["bun =1 (.bun-version)"]);
}

#[test]
fn a_project_that_compiles_a_program_delivers_that() {
    let scripts =
        r#"{"name":"a","dependencies":{"ms":"2"},"scripts":{"build":"bun build --compile x.ts --outfile bin/shop"}}"#;
    let plan = planned(&[("package.json", scripts), BUN, ("x.ts", "")]);
    assert_eq!(plan.artifacts[0].kind, ArtifactKind::Binary);
    assert_eq!(plan.artifacts[0].files[0].path, ".kiln/out/shop");
    assert!(plan.steps.iter().all(|step| step.name != "production"), "the program has its packages in it");
    let lock = r#"{"version":"5","specifiers":{"npm:ms@2":"2.1.3"},"npm":{"ms@2.1.3":{}}}"#;
    let manifest = r#"{"imports":{"ms":"npm:ms@2"},"tasks":{"build":"deno compile -A --output shop x.ts"}}"#;
    let plan = planned(&[("deno.json", manifest), ("deno.lock", lock), ("x.ts", "")]);
    assert_eq!(plan.artifacts[0].kind, ArtifactKind::Binary);
    assert!(step(&plan, "deps").outputs.contains(&".kiln/deno/dl".to_owned()), "what a program is made of is fetched");
}

#[test]
fn the_versions_of_a_workspaces_members_are_no_part_of_buns_lock_file() {
    let lock = "{\n  \"workspaces\": {\n    \"\": {\n      \"name\": \"shop\",\n    },\n    \"api\": {\n      \"name\": \"api\",\n      \
                \"version\": \"2.1.0\",\n    },\n  },\n  \"packages\": {\n    \"ms\": [\"ms@2.1.3\"],\n  }\n}\n";
    let of = |version: &str| {
        let source = tree(&[("package.json", r#"{"workspaces":["api"]}"#), ("api/package.json", r#"{"name":"api"}"#)]);
        unversioned("bun.lock", lock.replace("2.1.0", version).as_bytes(), &source)
    };
    assert_eq!(of("2.1.0"), of("2.2.0"));
    assert!(String::from_utf8(of("9.9.9").unwrap()).unwrap().contains("ms@2.1.3"));
}

const DENO: &str = "{\n  // a program\n  \"name\": \"@shop/api\",\n  \"version\": \"1.2.0\",\n  \
                    \"imports\": { \"ms\": \"npm:ms@2\", \"b/\": \"./lib/\", },\n  \"tasks\": { \"build\": \"deno run build.ts\", \"start\": \"deno run main.ts\" }\n}\n";
const DENO_LOCK: &str = r#"{"version":"5","specifiers":{"npm:ms@2":"2.1.3"},"npm":{"ms@2.1.3":{}}}"#;

#[test]
fn deno_fetches_what_its_lock_file_names_without_the_sources() {
    let files = [("deno.jsonc", DENO), ("deno.lock", DENO_LOCK), ("main.ts", "")];
    let plan = planned(&files);
    assert_eq!(because(&plan), "deno: `deno.jsonc` configures Deno; `deno.lock` locks what it imports");
    let deps = step(&plan, "deps");
    assert_eq!((deps.inputs.join(" "), deps.outputs.join(" ")), ("deno.lock".into(), "node_modules".into()));
    assert!(!deps.files["deno.jsonc"].contains("1.2.0"), "a release does not fetch everything again");
    assert!(deps.files["deno.jsonc"].contains("\"nodeModulesDir\": \"manual\""));
    let build = step(&plan, "build");
    assert!(build.run.starts_with("deno task build\n") && build.files["deno.jsonc"].contains("deno run main.ts"));
    assert_sound(&files, &["main.ts"]);
}

#[test]
fn what_deno_imports_by_url_is_fetched_into_vendor() {
    let lock = r#"{"version":"5","remote":{"https://example.org/mod.ts":"abc"}}"#;
    let source = ("main.ts", "import { x } from \"https://example.org/mod.ts\";\n");
    let plan = planned(&[("deno.json", "{}"), ("deno.lock", lock), source]);
    let deps = step(&plan, "deps");
    assert_eq!(deps.files[".kiln/deps.ts"], "import \"https://example.org/mod.ts\";\n");
    assert_eq!(deps.outputs, ["node_modules", "vendor"]);
    assert!(deps.run.contains("--entrypoint .kiln/deps.ts"), "{}", deps.run);
    assert_snapshot!(refused(&[("deno.json", "{}"), source]), @"`deno.json` names dependencies but there is no `deno.lock`, so two builds of one commit could differ: run `deno install` and commit `deno.lock`");
    assert_eq!(planned(&[("deno.json", "{}"), ("main.ts", "console.log(1)")]).steps.len(), 1, "nothing to fetch");
}

#[test]
fn a_lock_file_of_deno_that_is_stale_or_switched_off_is_called_so() {
    let stale = DENO.replace("\"b/\"", "\"odd\": \"npm:is-odd@3\", \"b/\"");
    assert_snapshot!(refused(&[("deno.json", &stale), ("deno.lock", DENO_LOCK)]), @"`deno.lock` is stale: `deno.json` imports `npm:is-odd`, which it lacks: run `deno install` and commit `deno.lock`");
    let off = DENO.replace("\"name\"", "\"lock\": false, \"name\"");
    assert!(refused(&[("deno.json", &off), ("deno.lock", DENO_LOCK)]).contains("without `\"lock\": false`"));
}

#[test]
fn a_deno_json_beside_a_node_lock_file_is_for_an_editor() {
    let node = [
        ("package.json", r#"{"name":"a","main":"a.js","dependencies":{"ms":"2"}}"#),
        ("a.js", ""),
        ("deno.json", "{}"),
    ];
    let lock = ("package-lock.json", r#"{"packages":{"node_modules/ms":{}}}"#);
    let plan = planned(&[&node[..], &[lock]].concat());
    assert!(because(&plan).starts_with("node (npm)"), "{}", because(&plan));
    let both = planned(&[&node[..], &[lock, ("deno.lock", DENO_LOCK)]].concat());
    assert!(because(&both).starts_with("deno:"), "{}", because(&both));
    assert!(both.notes.join("\n").contains("`package-lock.json` beside it is not used"), "{:?}", both.notes);
}

#[test]
fn a_member_of_a_deno_workspace_is_built_in_it() {
    let files = [
        ("api/deno.json", r#"{"name":"@shop/api","version":"2.0.0","tasks":{"build":"deno run b.ts"}}"#),
        ("api/b.ts", ""),
        ("deno.json", r#"{"workspace":["./api","./web"]}"#),
        ("deno.lock", DENO_LOCK),
        ("web/deno.json", "{}"),
    ];
    let plan = plan(&tree(&files), &Options { directory: "api".into(), ..options() }).unwrap();
    assert_eq!((plan.name.as_str(), plan.version.as_deref()), ("@shop/api", Some("2.0.0")));
    assert_eq!(step(&plan, "deps").inputs, ["deno.lock", "api/deno.json", "web/deno.json"]);
    assert!(step(&plan, "build").run.starts_with("deno task --cwd api build\n"));
}

#[test]
fn images_of_bun_and_deno_are_on_their_makers_bases() {
    let image = |files: &[(&str, &str)], base: &str| {
        let mut made = plan(&tree(files), &Options { image: Some(base.to_owned()), ..options() }).unwrap();
        match made.artifacts.remove(0).kind {
            ArtifactKind::Image(image) => {
                (image.base.show(), image.entrypoint.unwrap_or_default().join(" "), made.notes.join("\n"))
            }
            other => panic!("expected an image, found {other:?}"),
        }
    };
    let bun = [("package.json", r#"{"dependencies":{"ms":"2"},"scripts":{"start":"bun x.ts"}}"#), BUN, ("x.ts", "")];
    let (base, command, notes) = image(&bun, "");
    assert_eq!((base.as_str(), notes.as_str()), ("oven/bun:debian", ""));
    assert!(command.ends_with("exec bun x.ts"), "{command}");
    assert!(image(&bun, "debian:12").2.contains("`debian:12` has no package of bun"));
    let deno = [("deno.json", DENO), ("deno.lock", DENO_LOCK), ("main.ts", "")];
    assert_eq!(image(&deno, "").0, "denoland/deno:debian");
    assert_eq!(image(&deno, "").1, "deno task start");
}
