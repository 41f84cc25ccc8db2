//! Python projects whose requirements refer to other files and to packages in the tree.

use insta::assert_snapshot;

use super::{planned, refused, tree};
use crate::plan::{MemorySource, Plan, Source, Step, input_files};

const BACKEND: &str = "[build-system]\nrequires = [\"setuptools>=61\"]\nbuild-backend = \"setuptools.build_meta\"\n";

fn step<'a>(plan: &'a Plan, name: &str) -> &'a Step {
    plan.steps.iter().find(|step| step.name == name).unwrap_or_else(|| panic!("no step `{name}`"))
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.steps.iter().map(|step| step.name.as_str()).collect()
}

/// The input files of a step, including those that the plan itself adds.
fn seen(files: &[(&str, &str)], step: &Step) -> Vec<String> {
    let source = tree(files);
    let paths = source.paths();
    let mut seen: Vec<String> = input_files(step, paths).into_iter().map(|i| paths[i].clone()).collect();
    seen.extend(step.files.keys().filter(|path| !paths.contains(path)).cloned());
    seen.sort();
    seen
}

#[test]
fn includes_and_constraints_are_inputs_however_deep() {
    let files = [
        ("app/__main__.py", ""),
        ("requirements.txt", "-r requirements/production.txt\n"),
        ("requirements/common.txt", "-c pins.txt\ncolorama\n"),
        ("requirements/pins.txt", "colorama==0.4.6\n"),
        ("requirements/production.txt", "-r common.txt  # shared\nidna==3.7\n"),
        ("requirements/unrelated.txt", ""),
    ];
    let plan = planned(&files);
    let lists = ["requirements.txt", "requirements/common.txt", "requirements/pins.txt", "requirements/production.txt"];
    assert_eq!(seen(&files, step(&plan, "deps")), lists);
    assert!(plan.notes.iter().all(|note| !note.contains("does not pin")), "{:?}", plan.notes);
}

#[test]
fn a_directory_that_a_list_names_is_built_by_the_bundle_and_its_needs_are_in_the_layer() {
    let money = format!(
        "[project]\nname = \"money\"\nversion = \"1\"\ndependencies = [\"babel==2.15.0\", \"shop-core\"]\n{BACKEND}"
    );
    let core = format!(
        "[project]\nname = \"Shop.Core\"\nversion = \"1\"\n[project.optional-dependencies]\nfast = [\"ujson==5\"]\n{BACKEND}"
    );
    let files = [
        ("libs/core/pyproject.toml", core.as_str()),
        ("libs/core/shop_core.py", ""),
        ("libs/money/money.py", ""),
        ("libs/money/pyproject.toml", money.as_str()),
        ("main.py", ""),
        (
            "requirements.txt",
            "./libs/money\n-e libs/core[fast]\n--find-links=./wheels\nidna==3.7\n./vendor/x-1-py3-none-any.whl\n",
        ),
        ("vendor/x-1-py3-none-any.whl", ""),
        ("wheels/idna-3.7-py3-none-any.whl", ""),
    ];
    let plan = planned(&files);
    let deps = step(&plan, "deps");
    let read = [
        ".kiln/requirements.txt",
        "requirements.txt",
        "vendor/x-1-py3-none-any.whl",
        "wheels/idna-3.7-py3-none-any.whl",
    ];
    assert_eq!(seen(&files, deps), read);
    assert_eq!(deps.files[".kiln/requirements.txt"], "babel==2.15.0\nujson==5\n");
    assert_eq!(deps.files["requirements.txt"], "--find-links=./wheels\nidna==3.7\n./vendor/x-1-py3-none-any.whl\n");
    assert!(step(&plan, "bundle").run.contains(" ./.kiln/tree/libs/money ./.kiln/tree/libs/core\n"));
}

#[test]
fn what_only_a_build_backend_knows_is_asked_for_without_the_network() {
    let files = [("pkg/__init__.py", ""), ("setup.py", "setup(setup_requires=['pbr'], install_requires=read())")];
    let plan = planned(&files);
    assert_eq!(names(&plan), ["backend", "requires", "deps", "bundle"]);
    assert!(step(&plan, "backend").run.ends_with(" setuptools pbr wheel\n"), "{}", step(&plan, "backend").run);
    let requires = step(&plan, "requires");
    assert!(!requires.network && seen(&files, requires).contains(&"setup.py".to_owned()));
    let deps = step(&plan, "deps");
    assert!(deps.network && seen(&files, deps).is_empty() && deps.needs == ["requires"]);
    assert!(deps.run.ends_with(" -r .kiln/required.txt\n"), "{}", deps.run);
}

#[test]
fn a_program_in_the_root_comes_along_with_the_package_beside_it() {
    let list = ("requirements.txt", "-e .\ngunicorn==23.0.0\n");
    let package = format!("[project]\nname = \"shop\"\nversion = \"1\"\n{BACKEND}");
    let package = ("pyproject.toml", package.as_str());
    let alone = planned(&[package, list, ("src/shop/__init__.py", "")]);
    assert!(step(&alone, "bundle").run.ends_with("|| true\n") && !step(&alone, "bundle").run.contains("for file in"));
    let beside = planned(&[package, list, ("src/shop/__init__.py", ""), ("wsgi.py", "")]);
    assert!(step(&beside, "bundle").run.contains("for file in"), "{}", step(&beside, "bundle").run);
    assert!(step(&beside, "bundle").run.contains(" ./.kiln/tree\n"));
    let own = planned(&[list, ("main.py", ""), ("packages/a.py", "")]);
    assert!(step(&own, "bundle").run.contains("mv .kiln/packages .kiln/out/site-packages\n"));
}

#[test]
fn a_list_for_developers_pins_versions_and_installs_nothing() {
    let package = format!("[project]\nname = \"shop\"\nversion = \"1\"\ndependencies = [\"idna\"]\n{BACKEND}");
    let plan = planned(&[
        ("pyproject.toml", &package),
        ("requirements.txt", "idna==3.7 ; python_version > '3'\npytest==8.0\n"),
    ]);
    let deps = step(&plan, "deps");
    assert!(deps.run.contains(" -c .kiln/constraints.txt -r .kiln/requirements.txt\n"), "{}", deps.run);
    assert_eq!(deps.files[".kiln/constraints.txt"], "idna==3.7 ; python_version > '3'\npytest==8.0\n");
    let plan = planned(&[
        ("main.py", ""),
        ("requirements.txt", "-r requirements/local.txt\n"),
        ("requirements/local.txt", "pytest==8.0\n"),
        ("requirements/production.txt", "idna==3.7\n"),
    ]);
    assert_eq!(step(&plan, "deps").inputs, ["requirements/production.txt"]);
    let plan = planned(&[("manage.py", ""), ("package.json", "{}"), ("requirements/base.txt", "idna==3.7\n")]);
    assert_eq!(step(&plan, "deps").inputs, ["requirements/base.txt"]);
}

/// A lock file of a root, a member that it needs, one that it does not need, and a package from git.
const WORKSPACE: &str = r#"
[[package]]
name = "app"
version = "1"
source = { editable = "." }
dependencies = [{ name = "greet" }, { name = "far" }]
[[package]]
name = "greet"
source = { editable = "packages/greet" }
[[package]]
name = "other"
source = { editable = "packages/other" }
[[package]]
name = "far"
source = { git = "https://example.com/far?rev=1#1" }
"#;

#[test]
fn members_of_a_workspace_that_the_root_needs_are_built() {
    let member = |name: &str| format!("[project]\nname = \"{name}\"\nversion = \"1\"\ndependencies = []\n{BACKEND}");
    let (app, greet, other) = (member("app"), member("greet"), member("other"));
    let files = [
        ("packages/greet/pyproject.toml", greet.as_str()),
        ("packages/greet/src/greet/__init__.py", ""),
        ("packages/other/pyproject.toml", other.as_str()),
        ("pyproject.toml", app.as_str()),
        ("src/app/__init__.py", ""),
        ("uv.lock", WORKSPACE),
    ];
    let plan = planned(&files);
    let deps = step(&plan, "deps");
    assert!(
        deps.run.contains("uv sync --locked --no-dev --no-editable --no-install-workspace --no-install-package greet")
    );
    assert!(!deps.run.contains("--require-hashes") && deps.tools.contains(&"git".to_owned()), "{deps:?}");
    let manifests = ["packages/greet/pyproject.toml", "packages/other/pyproject.toml", "pyproject.toml", "uv.lock"];
    assert_eq!(seen(&files, deps), manifests);
    assert!(step(&plan, "bundle").run.contains(" . ./packages/greet\n"), "{}", step(&plan, "bundle").run);

    let virtual_root = planned(&[
        ("packages/greet/pyproject.toml", &greet),
        ("pyproject.toml", "[tool.uv.workspace]\nmembers = [\"packages/*\"]\n"),
        ("uv.lock", "[[package]]\nname = \"greet\"\nsource = { editable = \"packages/greet\" }\n"),
    ]);
    assert!(step(&virtual_root, "deps").run.contains(" --all-packages "));
    assert!(step(&virtual_root, "bundle").run.contains(" ./packages/greet\n"));
}

#[test]
fn a_directory_that_uv_or_poetry_locks_is_built_and_one_outside_is_refused() {
    let greet = format!("[project]\nname = \"greet\"\nversion = \"1\"\ndependencies = []\n{BACKEND}");
    let plan = planned(&[
        ("libs/greet/pyproject.toml", &greet),
        ("main.py", ""),
        ("pyproject.toml", "[project]\nname = \"svc\"\nversion = \"1\"\ndependencies = [\"greet\"]\n"),
        (
            "uv.lock",
            "[[package]]\nname = \"greet\"\nsource = { directory = \"libs/greet\" }\n\n[[package]]\nname = \"svc\"\nsource = { virtual = \".\" }\ndependencies = [{ name = \"greet\" }]\n",
        ),
    ]);
    assert!(step(&plan, "bundle").run.contains(" ./.kiln/tree/libs/greet\n"), "{}", step(&plan, "bundle").run);
    let project = "[tool.poetry]\nname = \"svc\"\nversion = \"1\"\npackage-mode = false\n[tool.poetry.dependencies]\ngreet = { path = \"libs/greet\" }\n";
    let lock = |place: &str| {
        format!(
            "[[package]]\nname = \"greet\"\nversion = \"1\"\ngroups = [\"main\"]\n\n[package.source]\ntype = \"directory\"\nurl = \"{place}\"\n"
        )
    };
    let plan = planned(&[
        ("libs/greet/pyproject.toml", &greet),
        ("main.py", ""),
        ("poetry.lock", &lock("libs/greet")),
        ("pyproject.toml", project),
    ]);
    assert!(step(&plan, "deps").run.contains("poetry install --only main --no-root --no-directory"));
    assert!(step(&plan, "bundle").run.contains(" ./.kiln/tree/libs/greet\n"));
    assert_snapshot!(refused(&[("poetry.lock", &lock("../greet")), ("pyproject.toml", project)]), @"`poetry.lock` cannot be read: `greet` lies in `../greet`, outside the project: build the directory that holds both");
}

#[test]
fn only_a_package_whose_version_is_the_commits_is_told_it() {
    let told = |requires: &str| {
        let text =
            format!("[project]\nname = \"a\"\ndynamic = [\"version\"]\n[build-system]\nrequires = [{requires}]\n");
        let plan = planned(&[("a.py", ""), ("pyproject.toml", &text)]);
        let bundle = step(&plan, "bundle").clone();
        (bundle.stamp, bundle.run.lines().find(|line| line.trim().starts_with("export")).map(|l| l.trim().to_owned()))
    };
    assert_eq!(told("\"setuptools\""), (false, None));
    assert_eq!(
        told("\"setuptools_scm[toml]>=8\""),
        (true, Some("export SETUPTOOLS_SCM_PRETEND_VERSION=\"$version\"".into()))
    );
    assert!(told("\"hatchling\", \"hatch-vcs\"").0);
    assert_eq!(
        told("\"poetry-core\", \"poetry-dynamic-versioning\"").1.unwrap(),
        "export POETRY_DYNAMIC_VERSIONING_BYPASS=\"$version\""
    );
}

#[test]
fn a_package_that_cargo_builds_has_its_crates_fetched_before() {
    let manifest = "[project]\nname = \"fast\"\nversion = \"1\"\n[build-system]\nrequires = [\"maturin>=1,<2\"]\n";
    let files = [
        ("Cargo.lock", "version = 4\n"),
        ("Cargo.toml", "[package]\nname = \"fast\"\nversion = \"1.0.0\"\n"),
        ("pyproject.toml", manifest),
        ("src/lib.rs", ""),
    ];
    let mut asked = super::options();
    asked.language = Some("python".parse().unwrap());
    let plan = crate::plan::plan(&tree(&files), &asked).unwrap();
    let crates = step(&plan, "crates");
    assert_eq!(seen(&files, crates), ["Cargo.lock", "Cargo.toml"]);
    assert!(crates.run.contains("cargo fetch --locked --manifest-path Cargo.toml\n"), "{}", crates.run);
    let bundle = step(&plan, "bundle");
    assert!(bundle.needs.contains(&"crates".to_owned()) && bundle.run.contains("CARGO_NET_OFFLINE=true"));
    assert!(bundle.run.contains("PATH=\"$PWD/.kiln/backend/bin:$PATH\""), "{}", bundle.run);
}

#[test]
fn a_list_that_powershell_wrote_is_read_and_a_foreign_lock_is_named() {
    let wide: Vec<u8> = "\u{feff}-r base.txt\r\nidna==3.7\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files = [("base.txt", b"colorama==0.4.6\n".to_vec()), ("main.py", Vec::new()), ("requirements.txt", wide)];
    let plan = crate::plan::plan(&files.into_iter().collect::<MemorySource>(), &super::options()).unwrap();
    assert_eq!(step(&plan, "deps").inputs, ["requirements.txt", "base.txt"]);
    let project = "[project]\nname = \"a\"\nversion = \"1\"\ndependencies = [\"idna\"]\n";
    let plan = planned(&[("a.py", ""), ("pdm.lock", ""), ("pyproject.toml", project)]);
    assert_snapshot!(plan.notes.join("\n"), @"`pdm.lock` is not read, so two builds of one commit could differ: export it to a `requirements.txt` with hashes, or use uv or poetry");
}
