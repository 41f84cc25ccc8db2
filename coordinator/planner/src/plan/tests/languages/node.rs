//! Realistic Node projects: workspaces, local dependencies, sites, pinned package managers.

use insta::assert_snapshot;

use super::{options, planned, refused, tree};
use crate::plan::{Plan, Source, Step, input_files, plan};

fn step<'a>(plan: &'a Plan, name: &str) -> &'a Step {
    plan.steps.iter().find(|step| step.name == name).unwrap_or_else(|| panic!("no step `{name}`"))
}

/// The lines of the last step that run the packages' scripts.
fn scripts(plan: &Plan) -> Vec<&str> {
    let run = &step(plan, "bundle").run;
    run.lines().filter(|line| line.contains("run ") || line.starts_with("for file in packages")).collect()
}

#[test]
fn local_tarballs_are_inputs_of_the_layer_and_npm_links_directories() {
    let plan = planned(&[
        ("libs/money/index.js", ""),
        (
            "libs/money/package.json",
            r#"{"name":"money","version":"2.0.0","dependencies":{"tiny":"file:../../vendor/tiny-1.0.0.tgz"}}"#,
        ),
        ("package-lock.json", "{}"),
        ("package.json", r#"{"dependencies":{"money":"file:libs/money"}}"#),
        ("vendor/tiny-1.0.0.tgz", ""),
    ]);
    let deps = step(&plan, "deps");
    assert_eq!(deps.inputs, ["package.json", "libs/money/package.json", "package-lock.json", "vendor/tiny-1.0.0.tgz"]);
    assert_eq!(deps.outputs, ["node_modules", "libs/money/node_modules"]);
    assert_eq!(deps.unversioned, ["package.json", "libs/money/package.json", "package-lock.json"]);
}

#[test]
fn other_managers_copy_directories_so_all_their_files_are_inputs() {
    for (lock, text) in [("pnpm-lock.yaml", ""), ("yarn.lock", ""), ("yarn.lock", "__metadata:\n")] {
        let plan = planned(&[
            ("libs/money/index.js", ""),
            ("libs/money/package.json", r#"{"name":"money"}"#),
            (lock, text),
            ("package.json", r#"{"dependencies":{"money":"file:./libs/money"}}"#),
        ]);
        let deps = step(&plan, "deps");
        assert!(deps.inputs.contains(&"libs/money".to_owned()), "{lock}: {:?}", deps.inputs);
        assert!(!deps.unversioned.contains(&"libs/money/package.json".to_owned()), "{lock}: its scripts are needed");
    }
    let linked = planned(&[
        ("libs/money/package.json", r#"{"name":"money"}"#),
        ("package.json", r#"{"dependencies":{"money":"link:libs/money"}}"#),
        ("pnpm-lock.yaml", ""),
    ]);
    assert_eq!(step(&linked, "deps").inputs, ["package.json", "libs/money/package.json", "pnpm-lock.yaml"]);
    assert_eq!(step(&linked, "deps").outputs, [".kiln/pnpm-store", "node_modules"]);
}

#[test]
fn a_local_dependency_that_is_not_there_is_named() {
    let files = [("package.json", r#"{"dependencies":{"tiny":"file:vendor/tiny.tgz"}}"#), ("package-lock.json", "{}")];
    assert_snapshot!(refused(&files), @"`package.json` depends on `tiny` at `vendor/tiny.tgz`, which is not in the project: add it, and check that no ignore file matches it");
}

#[test]
fn members_run_their_install_scripts_and_build_after_what_they_need() {
    let files = [
        ("package-lock.json", r#"{"packages":{}}"#),
        (
            "package.json",
            r#"{"private":true,"workspaces":["packages/*"],"scripts":{"postinstall":"x","preinstall":"npx only-allow npm"}}"#,
        ),
        (
            "packages/api/package.json",
            r#"{"name":"api","scripts":{"build":"x"},"dependencies":{"db":"*","shared":"*"}}"#,
        ),
        ("packages/db/bin/generate.js", "#!/usr/bin/env node\n"),
        (
            "packages/db/package.json",
            r#"{"name":"db","bin":"bin/generate.js","scripts":{"postinstall":"x"},"dependencies":{"shared":"*"}}"#,
        ),
        ("packages/shared/package.json", r#"{"name":"shared","scripts":{"build":"x"}}"#),
    ];
    assert_snapshot!(scripts(&planned(&files)).join("\n"), @r#"
    for file in packages/db/bin/generate.js; do if [ -f "$file" ]; then chmod +x "$file"; fi; done
    (cd packages/db && npm run postinstall)
    npm run postinstall
    (cd packages/shared && npm run build)
    (cd packages/api && npm run build)
    "#);
    let deps = planned(&files);
    assert_eq!(step(&deps, "deps").files["packages/db/bin/generate.js"], "#!/usr/bin/env node\n");
}

#[test]
fn a_pnpm_workspace_is_read_as_yaml_and_built_by_pnpms_own_order() {
    let plan = planned(&[
        ("package.json", r#"{"private":true}"#),
        ("packages/a/package.json", r#"{"name":"a","scripts":{"build":"x"},"dependencies":{"ms":"2"}}"#),
        ("packages/b/package.json", r#"{"name":"b","scripts":{"build":"x"}}"#),
        ("packages/old/package.json", r#"{"name":"old"}"#),
        ("pnpm-lock.yaml", "packages:\n  ms@2.1.3: {}\n"),
        ("pnpm-workspace.yaml", "# all\n\"packages\": ['packages/*', \"!packages/old\"]\n"),
    ]);
    assert_eq!(
        step(&plan, "deps").outputs[1..],
        ["node_modules", "packages/a/node_modules", "packages/b/node_modules"]
    );
    assert_eq!(scripts(&plan), ["pnpm --recursive run --if-present build"]);
    let broken = [("package.json", "{}"), ("pnpm-lock.yaml", ""), ("pnpm-workspace.yaml", "packages: [")];
    assert!(refused(&broken).starts_with("`pnpm-workspace.yaml` cannot be read: "), "{}", refused(&broken));
}

#[test]
fn the_package_manager_that_is_pinned_is_provided_by_the_layer() {
    let plan = planned(&[
        ("package.json", r#"{"packageManager":"pnpm@9.15.4","dependencies":{"ms":"2"}}"#),
        ("pnpm-lock.yaml", "ms"),
    ]);
    let deps = step(&plan, "deps");
    assert!(deps.run.contains("if [ \"$have\" != 9.15.4 ]"), "{}", deps.run);
    assert!(deps.run.contains("corepack 'pnpm@9.15.4'"), "{}", deps.run);
    assert!(deps.outputs.contains(&".kiln/manager".to_owned()));
    assert!(!deps.tools.contains(&"pnpm".to_owned()), "a worker without pnpm fetches it");
    for step in &plan.steps[1..] {
        assert!(step.run.starts_with("export PATH=/build/.kiln/manager/bin:"), "{}", step.run);
    }
}

#[test]
fn what_a_layer_makes_is_no_source() {
    let source = tree(&[
        ("index.js", ""),
        ("node_modules/ms/stale.js", ""),
        ("package-lock.json", r#"{"x":{"ms":1}}"#),
        ("package.json", r#"{"dependencies":{"ms":"2"}}"#),
        ("test/fixtures/node_modules/a/index.js", ""),
    ]);
    let plan = plan(&source, &options()).unwrap();
    assert_eq!(plan.exclude, ["node_modules"]);
    let bundle = input_files(step(&plan, "bundle"), source.paths());
    let paths: Vec<&str> = bundle.into_iter().map(|index| source.paths()[index].as_str()).collect();
    assert_eq!(paths, ["index.js", "package-lock.json", "package.json", "test/fixtures/node_modules/a/index.js"]);
}

#[test]
fn what_a_layer_takes_in_by_name_stays_a_source() {
    let plan = planned(&[
        (".yarn/cache/ms.zip", ""),
        ("package.json", r#"{"dependencies":{"ms":"2"}}"#),
        ("yarn.lock", "__metadata:\n  version: 8\n\"ms@npm:2\":\n"),
    ]);
    assert!(plan.exclude.is_empty(), "{:?}", plan.exclude);
}

#[test]
fn other_languages_keep_what_they_make_out_too() {
    let rust = planned(&[
        (
            "Cargo.lock",
            "version = 4\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n[[package]]\nname = \"itoa\"\nversion = \"1.0.0\"\nsource = \"registry+x\"\n",
        ),
        ("Cargo.toml", "[package]\nname = \"a\"\nversion = \"1.0.0\"\n[dependencies]\nitoa = \"1\"\n"),
        ("src/main.rs", ""),
        ("target/debug/a", ""),
    ]);
    assert_eq!(rust.exclude, ["target"]);
    let python = planned(&[("env/pyvenv.cfg", ""), ("main.py", ""), ("requirements.txt", "idna==3.7\n")]);
    assert_eq!(python.exclude, ["env"]);
    let own = planned(&[
        (
            "kiln.toml",
            "[steps.deps]\nrun = \"x\"\nnetwork = true\ninputs = [\"lock\"]\noutputs = [\"vendor\"]\n\
                       [steps.generate]\nrun = \"x\"\noutputs = [\"src\"]\n\
                       [steps.build]\nrun = \"x\"\nneeds = [\"deps\", \"generate\"]\n",
        ),
        ("lock", ""),
        ("src/a.c", ""),
        ("vendor/b.c", ""),
    ]);
    assert_eq!(own.exclude, ["vendor"], "only what a step with the network brings is surely no source");
}

#[test]
fn a_site_is_handed_over_as_its_files_alone() {
    let plan = planned(&[
        ("index.html", ""),
        ("package-lock.json", r#"{"x":{"vite":1,"react":1}}"#),
        (
            "package.json",
            r#"{"name":"site","scripts":{"start":"vite","build":"tsc && npm run bundle","bundle":"vite build"},
            "dependencies":{"react":"19"},"devDependencies":{"vite":"7"}}"#,
        ),
        ("vite.config.ts", "export default defineConfig({\n  build: {\n    outDir: 'public_html',\n  },\n})\n"),
    ]);
    assert!(plan.steps.iter().all(|step| step.name != "production"), "no package is handed over");
    let bundle = step(&plan, "bundle");
    assert!(bundle.run.contains("for site in public_html dist build out; do"), "{}", bundle.run);
    let because = &plan.origin.parts()[0].because;
    assert_snapshot!(because.last().unwrap(), @"its build is `vite build`, so the artifact is the site in `public_html`");
}

#[test]
fn what_serves_or_is_used_by_others_is_no_site() {
    let lock = ("package-lock.json", r#"{"x":{"vite":1,"express":1,"next":1}}"#);
    let build = r#""scripts":{"build":"vite build"}"#;
    for manifest in [
        format!(r#"{{{build},"dependencies":{{"express":"5"}}}}"#),
        format!(r#"{{{build},"bin":"cli.js"}}"#),
        format!(r#"{{{build},"exports":"./dist/index.js"}}"#),
        r#"{"scripts":{"build":"vite build","start":"node server.js"},"devDependencies":{"vite":"7"}}"#.to_owned(),
        r#"{"scripts":{"build":"next build"},"dependencies":{"next":"15"}}"#.to_owned(),
        r#"{"scripts":{"build":"tsc"}}"#.to_owned(),
    ] {
        let plan = planned(&[lock, ("package.json", &manifest)]);
        assert!(!step(&plan, "bundle").run.contains("for site in"), "{manifest}");
    }
    let exported = planned(&[
        lock,
        ("next.config.js", "module.exports = { output: 'export' }\n"),
        ("package.json", r#"{"scripts":{"build":"next build"},"dependencies":{"next":"15"}}"#),
    ]);
    assert!(step(&exported, "bundle").run.contains("for site in out "));
}
