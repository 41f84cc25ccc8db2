//! Several languages in one root.

use crate::{options, planned, refused, tree};
use kiln_detect::Language;
use kiln_planner::plan::{ArtifactKind, Options, Origin, Plan, Scope, Toolchains, plan, plan_for, to_kiln_toml};

const GO: [(&str, &str); 2] =
    [("go.mod", "module example.com/shop\n\ngo 1.19\n"), ("main.go", "package main\n\nfunc main() {}\n")];
const LOCK: (&str, &str) = ("package-lock.json", r#"{"packages":{"":{},"node_modules/vite":{},"node_modules/ms":{}}}"#);
const SITE: [(&str, &str); 3] = [
    ("package.json", r#"{"name":"shop","scripts":{"build":"vite build"},"devDependencies":{"vite":"7"}}"#),
    LOCK,
    ("index.html", ""),
];
const CARGO: [(&str, &str); 3] = [
    ("Cargo.toml", "[package]\nname = \"tool\"\nversion = \"1.0.0\"\n"),
    ("Cargo.lock", "version = 4\n[[package]]\nname = \"tool\"\nversion = \"1.0.0\"\n"),
    ("src/main.rs", "fn main() {}\n"),
];
const FLASK: [(&str, &str); 2] = [("app.py", ""), ("requirements.txt", "flask==3.0\n")];

fn languages(plan: &Plan) -> String {
    let parts = plan.origin.parts().iter().map(|part| part.language.split(' ').next().unwrap());
    parts.collect::<Vec<_>>().join(" ")
}

fn considered(plan: &Plan) -> Vec<String> {
    match &plan.origin {
        Origin::Detected { considered, .. } => considered.clone(),
        Origin::KilnToml => panic!("expected a detected plan"),
    }
}

/// The languages that a root of all of these is built as.
fn of(files: &[&[(&str, &str)]]) -> String {
    languages(&planned(&files.concat()))
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.name.as_str()).collect()
}

#[test]
fn a_server_and_its_front_end_are_artifacts_of_one_plan() {
    let plan = planned(&[&GO[..], &SITE].concat());
    assert_eq!(languages(&plan), "go node");
    let because: Vec<String> = plan.origin.parts().iter().map(|part| part.because.join("; ")).collect();
    assert!(because[0].ends_with("`main.go` is a program's"), "{because:?}");
    assert!(because[1].contains("its build is `vite build`"), "{because:?}");
    let artifacts: Vec<(&str, &str)> =
        plan.artifacts.iter().map(|artifact| (artifact.name.as_str(), artifact.from[0].as_str())).collect();
    assert_eq!(artifacts, [("shop", "compile"), ("shop-node", "node-bundle")], "both manifests give the same name");
    assert!(considered(&plan).is_empty());
}

#[test]
fn each_language_has_the_steps_of_a_plan_of_its_own() {
    let files = [&GO[..], &SITE].concat();
    let both = plan_for(&tree(&files), &options(), Scope::All).unwrap();
    for (language, prefix) in [(Language::Go, ""), (Language::Node, "node-")] {
        let chosen = Options { language: Some(language), ..options() };
        let alone = plan_for(&tree(&files), &chosen, Scope::All).unwrap();
        assert_eq!(languages(&alone), language.name());
        for mut step in alone.steps {
            step.name.insert_str(0, prefix);
            step.needs.iter_mut().for_each(|need| need.insert_str(0, prefix));
            let same = both.steps.iter().find(|other| other.name == step.name).unwrap();
            assert_eq!(*same, step, "so that both find each other's results");
        }
    }
}

#[test]
fn what_only_has_tools_is_not_built() {
    let tooling = ("package.json", r#"{"devDependencies":{"prettier":"3"},"scripts":{"lint":"prettier ."}}"#);
    let plan = planned(&[&CARGO[..], &[tooling]].concat());
    assert_eq!(languages(&plan), "rust");
    assert_eq!(considered(&plan), ["node (`package.json` has only development tools)"]);
    // What `start` runs is the other language's.
    let starts = |start: &str| format!(r#"{{"name":"a","scripts":{{"start":"{start}"}}}}"#);
    for start in ["cargo run", "nodemon --exec cargo run"] {
        assert_eq!(of(&[&CARGO, &[("package.json", &starts(start))]]), "rust", "{start}");
    }
    assert_eq!(of(&[&CARGO, &[("package.json", &starts("node server.js"))]]), "rust node");
    // A library in Rust serves nobody but Rust, and `main` of `npm init` is no file.
    let library = [CARGO[0], CARGO[1], ("src/lib.rs", "")];
    let node = [("package.json", r#"{"name":"a","main":"a.js","scripts":{"start":"node a.js"}}"#), ("a.js", "")];
    let plan = planned(&[&library[..], &node].concat());
    assert_eq!(languages(&plan), "rust node", "the first is built whatever it makes");
    let go_library = [GO[0], ("shop.go", "package shop\n"), ("tools/gen.go", "package main\n")];
    let plan = planned(&[&CARGO[..], &go_library].concat());
    assert_eq!(languages(&plan), "rust");
    assert_eq!(considered(&plan), ["go (`go.mod` is a Go manifest): it has no program"]);
    let ruff = ("pyproject.toml", "[tool.ruff]\nline-length = 100\n");
    let docs = ("requirements.txt", "mkdocs==1.6\n");
    assert_eq!(of(&[&CARGO, &[ruff, docs]]), "rust");
    let editor = ("deno.json", r#"{"fmt":{"lineWidth":100}}"#);
    assert_eq!(of(&[&CARGO, &[editor]]), "rust");
    assert_eq!(of(&[&GO, &[("Gemfile", "gem 'danger'\n"), ("Gemfile.lock", "")]]), "go");
    assert_eq!(of(&[&GO, &[("Makefile", "all:\n\tgo build\n")]]), "go");
}

#[test]
fn what_another_languages_build_makes_is_not_built_again() {
    let maturin = "[project]\nname = \"a\"\nversion = \"1\"\n[build-system]\nrequires = [\"maturin\"]\nbuild-backend = \"maturin\"\n";
    let plan = planned(&[&CARGO[..], &[("pyproject.toml", maturin)]].concat());
    assert_eq!(languages(&plan), "python");
    assert_eq!(considered(&plan), ["rust (`Cargo.toml` is a Cargo manifest): `pyproject.toml` runs `maturin`"]);
    let builds = |build: &str| format!(r#"{{"name":"a","scripts":{{"start":"node a.js","build":"{build}"}}}}"#);
    assert_eq!(of(&[&CARGO, &[("package.json", &builds("wasm-pack build && tsc"))]]), "rust");
    assert_eq!(of(&[&CARGO, &[("package.json", &builds("tsc"))]]), "rust node");
    let build_rs = ("build.rs", "fn main() { std::process::Command::new(\"npm\").args([\"run\", \"build\"]); }\n");
    assert_eq!(of(&[&CARGO, &SITE, &[build_rs]]), "rust");
    let pom = "<project><groupId>k</groupId><artifactId>shop</artifactId><version>1</version>\
               <build><plugins><plugin><artifactId>frontend-maven-plugin</artifactId></plugin></plugins></build></project>";
    assert_eq!(of(&[&SITE, &[("pom.xml", pom)]]), "java");
    assert_eq!(of(&[&SITE, &[("pom.xml", &pom.replace("frontend-maven-plugin", "x"))]]), "java node");
    let rails = [("Gemfile", ""), ("Gemfile.lock", ""), ("config/application.rb", "")];
    let plan = planned(&[&rails[..], &SITE].concat());
    assert_eq!(languages(&plan), "ruby");
    assert!(considered(&plan)[0].ends_with("its packages are for the assets of the Ruby application"));
    // Vite bundles the assets of a server that has the pages.
    let assets = [SITE[0], LOCK, ("templates/index.html", "")];
    assert_eq!(of(&[&FLASK, &assets]), "python");
    assert_eq!(of(&[&FLASK, &SITE]), "python node");
    let cgo = [GO[0], ("main.go", "package main\n\nimport \"C\"\n\nfunc main() {}\n")];
    let cmake = ("CMakeLists.txt", "project(x C)\nadd_executable(x x.c)\ninstall(TARGETS x)\n");
    assert_eq!(of(&[&cgo, &[cmake]]), "go");
    assert_eq!(of(&[&GO, &[cmake]]), "go c");
}

#[test]
fn a_procfile_speaks_for_each_language_that_it_starts() {
    let worker = [("requirements.txt", "celery==5.4\n"), ("Procfile", "web: ./shop\nworker: celery -A tasks worker\n")];
    assert_eq!(of(&[&GO, &worker]), "python go");
    assert_eq!(of(&[&GO, &worker[..1]]), "go");
}

#[test]
fn what_is_wrong_in_one_of_them_is_an_error_with_a_way_out() {
    let unlocked = ("package.json", r#"{"name":"web","scripts":{"start":"node a.js"},"dependencies":{"ms":"2"}}"#);
    let words = refused(&[&GO[..], &[unlocked]].concat());
    assert!(words.starts_with("`package.json` names dependencies but there is no `package-lock.json`"), "{words}");
    assert!(
        words.ends_with("; this is for node, which is built beside go: `--language go` builds that alone"),
        "{words}"
    );
    let ignored = Options { ignored: vec!["package-lock.json".into()], ..options() };
    let words = plan(&tree(&[&GO[..], &[unlocked]].concat()), &ignored).unwrap_err().to_string();
    assert!(words.starts_with("`package-lock.json` exists but is left out of the build"), "{words}");
    assert_eq!(of(&[&GO, &[unlocked], &[("kiln.toml", "language = \"go\"\n")]]), "go");
}

#[test]
fn a_kiln_toml_changes_the_steps_of_each() {
    let text = "name = \"store\"\n[steps.compile]\ncpus = 4\n[steps.node-bundle]\nenv = { MODE = \"prod\" }\n";
    let plan = planned(&[&GO[..], &SITE, &[("kiln.toml", text)]].concat());
    let step = |name: &str| plan.steps.iter().find(|step| step.name == name).unwrap();
    assert_eq!((step("compile").milli_cpus, step("node-bundle").env["MODE"].as_str()), (4000, "prod"));
    assert_eq!(plan.artifacts.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["store", "shop-node"]);
    // What `kiln init` writes is the same plan.
    let detected = planned(&[&GO[..], &SITE].concat());
    let written = to_kiln_toml(&detected);
    let again = planned(&[&GO[..], &SITE, &[("kiln.toml", &written)]].concat());
    assert_eq!((again.steps, again.artifacts), (detected.steps, detected.artifacts), "{written}");
}

#[test]
fn each_language_has_its_own_toolchain_and_its_own_image() {
    let given = [("go 1.25", "golang:1"), ("node", "node:22")].map(|(name, image)| (name.to_owned(), image.to_owned()));
    let toolchains = Toolchains::read(given.iter().map(|(name, image)| (name, image))).unwrap();
    let started = [("package.json", r#"{"name":"web","scripts":{"start":"node a.js"}}"#), ("a.js", "")];
    let files = [&GO[..], &started].concat();
    let plan_with = |options: Options| plan(&tree(&files), &options).unwrap();
    let plan = plan_with(Options { toolchains, ..options() });
    for step in &plan.steps {
        let image = if step.name.starts_with("node-") { "node:22" } else { "golang:1" };
        assert_eq!(step.image.as_deref(), Some(image), "{}", step.name);
    }
    let plan = plan_with(Options { image: Some(String::new()), ..options() });
    let images = plan.artifacts.iter().map(|artifact| match &artifact.kind {
        ArtifactKind::Image(image) => (image.packages.join(" "), image.entrypoint.clone(), image.start),
        other => panic!("expected an image, found {other:?}"),
    });
    let node = ("ca-certificates nodejs".to_owned(), Some(vec!["node".to_owned(), "a.js".to_owned()]), false);
    assert_eq!(images.collect::<Vec<_>>(), [("ca-certificates".to_owned(), None, true), node]);
}

#[test]
fn go_asks_the_worker_for_its_cache_beside_another_language() {
    let newer = [("go.mod", "module example.com/shop\n\ngo 1.24\n"), GO[1]];
    let plan = planned(&[&newer[..], &SITE].concat());
    assert!(!names(&plan).contains(&"std"), "{:?}", names(&plan));
    let step = |name: &str| plan.steps.iter().find(|step| step.name == name).unwrap();
    assert!(!step("compile").env.contains_key("GOCACHE") && step("node-bundle").needs == ["node-deps"]);
}
