//! One member of a workspace: only it is built, with what it needs.

use super::{options, tree};
use crate::plan::{Options, Plan, Scope, Source, Step, input_files, plan_for};

fn member(directory: &str, files: &[(&str, &str)]) -> Plan {
    let name = directory.rsplit('/').next().unwrap_or_default();
    let options = Options { directory: directory.into(), directory_name: name.into(), ..options() };
    plan_for(&tree(files), &options, Scope::All).unwrap()
}

fn step<'a>(plan: &'a Plan, name: &str) -> &'a Step {
    plan.steps.iter().find(|step| step.name == name).unwrap_or_else(|| panic!("no step `{name}`"))
}

/// What the plan contains for the member.
fn said(plan: &Plan) -> &str {
    plan.origin.parts()[0]
        .because
        .iter()
        .find(|fact| fact.starts_with("of its "))
        .expect("the plan says which member it is of")
}

const API: &str = r#"{"name":"@shop/api","version":"2.1.0","scripts":{"build":"x","test":"y"},
    "dependencies":{"@shop/shared":"*","ms":"2"},"devDependencies":{"@shop/lint":"*"}}"#;
const NODE: &[(&str, &str)] = &[
    (
        "package.json",
        r#"{"name":"shop","private":true,"workspaces":["packages/*","services/*"],"scripts":{"build":"npm run build -ws"}}"#,
    ),
    ("packages/lint/index.js", ""),
    ("packages/lint/package.json", r#"{"name":"@shop/lint"}"#),
    ("packages/shared/index.js", ""),
    ("packages/shared/package.json", r#"{"name":"@shop/shared","scripts":{"build":"x"}}"#),
    ("services/api/index.js", ""),
    ("services/api/package.json", API),
    ("services/web/index.html", ""),
    (
        "services/web/package.json",
        r#"{"name":"web","version":"3.0.0","scripts":{"build":"vite build"},"devDependencies":{"vite":"7"}}"#,
    ),
    ("services/web/src/main.js", ""),
    ("services/web/vite.config.js", "export default { build: { outDir: 'public_html' } }\n"),
];

fn node(lock: (&'static str, &'static str)) -> Vec<(&'static str, &'static str)> {
    NODE.iter().copied().chain([lock]).collect()
}

const NPM: (&str, &str) = ("package-lock.json", r#"{"x":{"ms":1,"vite":1}}"#);

#[test]
fn a_member_of_an_npm_workspace_is_built_after_what_it_needs() {
    let files = node(NPM);
    let plan = member("services/api", &files);
    assert_eq!((plan.name.as_str(), plan.version.as_deref()), ("@shop/api", Some("2.1.0")));
    assert_eq!(plan.artifacts[0].name, "shop-api");
    assert_eq!(
        said(&plan),
        "of its packages `services/api` is built, with `packages/lint`, `packages/shared`, which it needs"
    );
    let bundle = step(&plan, "bundle");
    let builds: Vec<&str> = bundle.run.lines().filter(|line| line.contains("run build")).collect();
    assert_eq!(builds, ["(cd packages/shared && npm run build)", "(cd services/api && npm run build)"]);
    assert!(bundle.run.contains("cp -a packages/shared/. .kiln/out/.workspace/packages/shared/\n"), "{}", bundle.run);
    assert!(bundle.run.contains("cp -a services/api/. .kiln/out/\n"), "{}", bundle.run);
    assert!(!bundle.run.contains("cp -a packages/lint"), "what only the build needs: {}", bundle.run);
    assert!(step(&plan, "production").run.contains("member.js keep services/api"));

    let whole = plan_for(&tree(&files), &options(), Scope::All).unwrap();
    assert_eq!(step(&whole, "deps"), step(&plan, "deps"), "members share the workspace's layer");
    let source = tree(&files);
    let seen: Vec<&String> = input_files(bundle, source.paths()).into_iter().map(|at| &source.paths()[at]).collect();
    let others: Vec<&&String> = seen.iter().filter(|path| path.starts_with("services/web/")).collect();
    assert_eq!(others, [&"services/web/package.json"], "an edit of another member is no reason to build again");
    let test = step(&plan, "test").run.lines().last();
    assert_eq!(test, Some("(cd services/api && npm test)"));
}

#[test]
fn a_member_that_is_a_site_is_handed_over_as_one() {
    let plan = member("services/web", &node(NPM));
    assert_eq!((plan.name.as_str(), plan.version.as_deref()), ("web", Some("3.0.0")));
    let bundle = step(&plan, "bundle");
    assert!(bundle.run.contains("for site in services/web/public_html services/web/dist "), "{}", bundle.run);
    assert!(plan.steps.iter().all(|step| step.name != "production"));
}

#[test]
fn pnpm_builds_a_member_in_its_own_order() {
    let workspace = ("pnpm-workspace.yaml", "packages:\n  - packages/*\n  - 'services/*' # all\n  - '!services/old'\n");
    let files: Vec<_> = node(("pnpm-lock.yaml", "ms vite")).into_iter().chain([workspace]).collect();
    let plan = member("services/api", &files);
    let bundle = step(&plan, "bundle");
    assert!(bundle.run.contains("pnpm --filter @shop/api... run --if-present build\n"), "{}", bundle.run);
    assert!(step(&plan, "test").run.contains("pnpm --filter @shop/api..."), "tests run on what is built");
}

#[test]
fn yarn_focuses_on_a_member_where_it_has_no_node_modules() {
    let files = node(("yarn.lock", "__metadata:\n  version: 8\n\"ms@npm:2\":\n\"vite@npm:7\":\n"));
    let plan = member("services/api", &files);
    let production = step(&plan, "production");
    assert!(production.run.contains("yarn workspaces focus @shop/api --production"), "{}", production.run);
    let bundle = step(&plan, "bundle");
    assert!(bundle.run.contains("cp -a services/api/. .kiln/out/services/api/\n"), "{}", bundle.run);
    assert!(bundle.run.ends_with("cp -a package.json yarn.lock .kiln/out/\n"), "{}", bundle.run);
    let classic = member("services/api", &node(("yarn.lock", "ms@2:\nvite@7:\n")));
    assert!(step(&classic, "production").run.contains("member.js keep services/api"));
}

#[test]
fn the_roots_build_builds_a_member_that_has_none() {
    let build = |root: &str| {
        let root = format!(r#"{{"workspaces":["a","b"],"scripts":{{"build":"{root}"}}}}"#);
        let files = [
            ("a/main.ts", ""),
            ("a/package.json", "{}"),
            ("b/package.json", "{}"),
            ("b/x.ts", ""),
            ("package.json", &root),
        ];
        let plan = member("a", &files);
        let bundle = step(&plan, "bundle");
        (bundle.run.contains("npm run build"), bundle.inputs.clone())
    };
    assert_eq!(build("tsc --build"), (true, vec![]), "who knows what it reads");
    assert_eq!(build("turbo run build"), (false, vec!["!b/x.ts".to_owned()]));
}

const LOCK: &str = "version = 1\n[[package]]\nname = \"api\"\nversion = \"1.2.0\"\nsource = { editable = \"services/api\" }\n\
    dependencies = [{ name = \"shared\" }]\n\
    [[package]]\nname = \"shared\"\nversion = \"1.0.0\"\nsource = { editable = \"libs/shared\" }\n\
    [[package]]\nname = \"web\"\nversion = \"1.0.0\"\nsource = { editable = \"services/web\" }\n\
    [[package]]\nname = \"shop\"\nversion = \"0.1.0\"\nsource = { virtual = \".\" }\n\
    [package.dev-dependencies]\ndev = [{ name = \"pytest\" }]\n";

fn python(name: &str, version: &str) -> String {
    format!("[project]\nname = \"{name}\"\nversion = \"{version}\"\n[build-system]\nrequires = [\"hatchling\"]\n")
}

#[test]
fn uv_installs_a_member_and_what_it_needs() {
    let (api, shared, web) = (python("api", "1.2.0"), python("shared", "1.0.0"), python("web", "1.0.0"));
    let root = "[project]\nname = \"shop\"\nversion = \"0.1.0\"\n[dependency-groups]\ndev = [\"pytest\"]\n\
                [tool.uv.workspace]\nmembers = [\"services/*\", \"libs/*\"]\nexclude = [\"services/old\"]\n";
    let files = [
        ("libs/shared/pyproject.toml", shared.as_str()),
        ("main.py", ""),
        ("pyproject.toml", root),
        ("services/api/pyproject.toml", &api),
        ("services/api/tests/test_api.py", ""),
        ("services/web/pyproject.toml", &web),
        ("uv.lock", LOCK),
    ];
    let plan = member("services/api", &files);
    assert_eq!((plan.name.as_str(), plan.version.as_deref()), ("api", Some("1.2.0")));
    assert_eq!(said(&plan), "of its packages `services/api` is built, with `libs/shared`, which it needs");
    let deps = step(&plan, "deps");
    assert!(deps.run.contains(" --package api --python"), "{}", deps.run);
    let bundle = step(&plan, "bundle");
    assert!(bundle.run.contains("./services/api ./libs/shared"), "{}", bundle.run);
    assert!(!bundle.run.contains("services/web") && !bundle.run.contains("mv \"$file\""), "{}", bundle.run);
    assert_eq!(bundle.inputs, ["!services/web"], "an edit of another member is no reason to build again");
    assert!(step(&plan, "test-deps").run.contains(" --all-packages --python"), "the root lists pytest for all");
    assert!(step(&plan, "test").run.starts_with("cd services/api\n"));
    assert!(member("libs/shared", &files).steps.iter().all(|step| !step.test), "the tests are another member's");
}

const SHOP: &str = "<project><groupId>k</groupId><artifactId>shop</artifactId><version>1.5</version>\
    <modules><module>services</module><module>libs/core</module></modules>\
    <dependencyManagement><dependencies><dependency><artifactId>web</artifactId></dependency></dependencies>\
    </dependencyManagement></project>";

#[test]
fn maven_builds_a_module_and_those_that_it_needs() {
    let module = |name: &str| {
        format!("<project><parent><version>1.5</version></parent><artifactId>{name}</artifactId></project>")
    };
    let needs = "<dependencies><dependency><artifactId>core</artifactId></dependency></dependencies></project>";
    let api = module("api").replace("</project>", needs);
    let (web, core) = (module("web"), module("core"));
    let services = "<project><artifactId>services</artifactId><modules><module>api</module><module>web</module></modules></project>";
    let files = [
        ("libs/core/pom.xml", core.as_str()),
        ("libs/core/src/main/java/Core.java", ""),
        ("pom.xml", SHOP),
        ("services/api/pom.xml", &api),
        ("services/pom.xml", services),
        ("services/web/pom.xml", &web),
        ("services/web/src/main/java/Web.java", ""),
    ];
    let plan = member("services/api", &files);
    assert_eq!((plan.name.as_str(), plan.version.as_deref()), ("api", Some("1.5")));
    assert_eq!(said(&plan), "of its modules `services/api` is built, after those that it needs");
    let compile = step(&plan, "compile");
    assert!(compile.run.contains(" -pl services/api -am "), "{}", compile.run);
    assert!(compile.run.contains("Gather . services/api\n"), "{}", compile.run);
    assert_eq!(compile.inputs, ["!services/web/src"], "an edit of another module is no reason to build again");
    let both = member("services", &files);
    assert!(step(&both, "compile").run.contains(" -pl services,services/api,services/web -am "));
}

#[test]
fn gradle_runs_the_tasks_of_one_project() {
    let files = [
        ("build.gradle.kts", "plugins { base }\nsubprojects {\n    group = \"k\"\n    version = \"1.7\"\n}\n"),
        ("libs/core/build.gradle.kts", ""),
        ("services/api/build.gradle.kts", "plugins { application }\nversion = \"2.0\"\n"),
        ("services/web/build.gradle.kts", ""),
        (
            "settings.gradle.kts",
            "rootProject.name = \"shop\"\ninclude(\"services:api\", \":services:web\", \"libs:core\")\n",
        ),
    ];
    let plan = member("services/api", &files);
    assert_eq!((plan.name.as_str(), plan.version.as_deref()), ("api", Some("2.0")));
    assert_eq!(said(&plan), "of its projects `:services:api` is built, after those that it needs");
    assert_eq!(member("libs/core", &files).version.as_deref(), Some("1.7"));
    let compile = step(&plan, "compile");
    assert!(compile.run.contains(" :services:api:build -x test :services:api:kilnStage\n"), "{}", compile.run);
    assert!(compile.run.contains("Gather . services/api\n"), "{}", compile.run);
}

#[test]
fn a_member_is_built_in_its_own_workspaces_language() {
    let files = [
        ("Cargo.lock", "version = 4\n[[package]]\nname = \"core\"\nversion = \"1.0.0\"\n"),
        ("Cargo.toml", "[workspace]\nmembers = [\"crates/*\"]\n"),
        ("crates/core/Cargo.toml", "[package]\nname = \"core\"\nversion = \"1.0.0\"\n"),
        ("crates/core/src/main.rs", ""),
        ("package.json", r#"{"workspaces":["web/*"]}"#),
        ("web/site/index.js", ""),
        ("web/site/package.json", r#"{"name":"site"}"#),
    ];
    let plan = member("web/site", &files);
    assert_eq!(plan.name, "site");
    assert_eq!(plan.steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["bundle"]);
    assert_eq!(member("crates/core", &files).name, "core");
}

#[test]
fn a_directory_below_a_member_is_no_member() {
    let source = tree(&[
        ("package.json", r#"{"workspaces":["packages/*"]}"#),
        ("packages/a/package.json", r#"{"name":"a"}"#),
        ("packages/a/test/fixture/index.js", ""),
        ("packages/a/test/fixture/package.json", r#"{"name":"fixture"}"#),
    ]);
    let options = Options { directory: "packages/a/test/fixture".into(), ..options() };
    let plan = plan_for(&source, &options, Scope::Build).unwrap();
    assert_eq!(plan.name, "fixture");
    assert_eq!(plan.steps[0].working_directory.as_deref(), Some("packages/a/test/fixture"));
    assert!(source.member().is_none());
}
