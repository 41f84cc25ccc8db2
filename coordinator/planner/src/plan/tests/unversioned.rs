//! A release that only changes the project's version does not change the key of any dependency layer.

use super::{options, tree};
use crate::plan::{input_files, matches, plan, unversioned};

/// The files that the first step sees, as the farm would place them.
fn layer(files: &[(&str, &str)]) -> Vec<(String, String)> {
    let source = tree(files);
    let plan = plan(&source, &options()).unwrap();
    // Steps without network do not matter: their outputs are the same if what they read is equivalent.
    let step = plan.steps.iter().find(|step| step.network).unwrap();
    let paths: Vec<String> = files.iter().map(|(p, _)| (*p).to_owned()).collect();
    let content = |path: &str| files.iter().find(|(p, _)| *p == path).unwrap().1.to_owned();
    let mut seen: Vec<(String, String)> = input_files(step, &paths)
        .into_iter()
        .map(|i| {
            let (path, whole) = (&paths[i], content(&paths[i]));
            let bare = unversioned(path, whole.as_bytes(), &source).filter(|_| matches(&step.unversioned, path));
            (path.clone(), bare.map_or(whole, |b| String::from_utf8(b).unwrap()))
        })
        .collect();
    seen.extend(step.files.clone());
    seen.push(("run".into(), step.run.clone()));
    seen
}

/// Compares `before` with itself after `1.4.2` became `1.5.0`, and after an edit of a source.
fn a_release_keeps_the_layer(before: &[(&str, &str)], source: &str) {
    let after: Vec<(&str, String)> = before
        .iter()
        .map(|(path, text)| (*path, if *path == source { "edited".to_owned() } else { text.replace("1.4.2", "1.5.0") }))
        .collect();
    let after: Vec<(&str, &str)> = after.iter().map(|(p, t)| (*p, t.as_str())).collect();
    assert_ne!(before, after.as_slice());
    assert_eq!(layer(before), layer(&after));
    assert!(layer(before).iter().all(|(_, text)| !text.contains("1.4.2")), "{:?}", layer(before));
}

#[test]
fn of_a_cargo_workspace() {
    a_release_keeps_the_layer(
        &[
            (
                "Cargo.lock",
                "version = 4\n\n[[package]]\nname = \"a\"\nversion = \"1.4.2\"\ndependencies = [\n \"b\",\n]\n\n\
              [[package]]\nname = \"b\"\nversion = \"1.4.2\"\ndependencies = [\n \"itoa\",\n]\n\n\
              [[package]]\nname = \"itoa\"\nversion = \"1.0.1\"\nsource = \"registry+x\"\n",
            ),
            (
                "Cargo.toml",
                "[workspace]\nmembers = [\"a\", \"b\"]\n[workspace.package]\nversion = \"1.4.2\"\n\
              [workspace.dependencies]\nb = { path = \"b\", version = \"1.4.2\" }\n",
            ),
            ("a/Cargo.toml", "[package]\nname = \"a\"\nversion.workspace = true\n[dependencies]\nb.workspace = true\n"),
            ("a/src/main.rs", ""),
            ("b/Cargo.toml", "[package]\nname = \"b\"\nversion = \"1.4.2\"\n[dependencies]\nitoa = \"1\"\n"),
            ("b/src/lib.rs", ""),
        ],
        "a/src/main.rs",
    );
}

#[test]
fn of_an_npm_workspace_and_its_scripts() {
    a_release_keeps_the_layer(
        &[
            ("index.js", ""),
            (
                "package-lock.json",
                r#"{"name":"a","version":"1.4.2","lockfileVersion":3,"packages":{
                "":{"name":"a","version":"1.4.2","hasInstallScript":true,"dependencies":{"ms":"^2"}},
                "node_modules/b":{"resolved":"packages/b","link":true},
                "node_modules/ms":{"version":"2.1.3"},
                "packages/b":{"version":"1.4.2"}}}"#,
            ),
            (
                "package.json",
                r#"{"name":"a","version":"1.4.2","workspaces":["packages/*"],
                "scripts":{"postinstall":"node 1.4.2.js"},"dependencies":{"ms":"^2"}}"#,
            ),
            ("packages/b/package.json", r#"{"name":"b","version":"1.4.2"}"#),
        ],
        "index.js",
    );
}

#[test]
fn of_a_uv_and_a_poetry_project() {
    a_release_keeps_the_layer(
        &[
            ("a.py", ""),
            ("pyproject.toml", "[project]\nname = \"a\"\nversion = \"1.4.2\"\ndependencies = [\"click\"]\n"),
            (
                "uv.lock",
                "version = 1\n\n[[package]]\nname = \"a\"\nversion = \"1.4.2\"\nsource = { virtual = \".\" }\n\n\
              [[package]]\nname = \"click\"\nversion = \"8.1.0\"\nsource = { registry = \"x\" }\n",
            ),
        ],
        "a.py",
    );
    a_release_keeps_the_layer(
        &[
            ("a.py", ""),
            ("poetry.lock", "[[package]]\nname = \"click\"\nversion = \"8.1.0\"\n"),
            (
                "pyproject.toml",
                "[tool.poetry]\nname = \"a\"\nversion = \"1.4.2\"\n[tool.poetry.dependencies]\nclick = \"*\"\n",
            ),
        ],
        "a.py",
    );
}

#[test]
fn of_maven_modules_and_a_gradle_build() {
    a_release_keeps_the_layer(
        &[
            (
                "b/pom.xml",
                "<project><parent><artifactId>a</artifactId><version>1.4.2</version></parent>\
              <artifactId>b</artifactId><dependencies><dependency><artifactId>c</artifactId><version>1.4.2</version>\
              </dependency><dependency><artifactId>junit</artifactId><version>4.13</version></dependency></dependencies></project>",
            ),
            ("b/src/main/java/B.java", ""),
            (
                "c/pom.xml",
                "<project><!-- <version>9</version> --><artifactId>c</artifactId>\n<version>1.4.2</version></project>",
            ),
            (
                "pom.xml",
                "<?xml version=\"1.0\"?>\n<project><artifactId>a</artifactId><version>1.4.2</version>\
              <modules><module>b</module><module>c</module></modules></project>",
            ),
        ],
        "b/src/main/java/B.java",
    );
    a_release_keeps_the_layer(
        &[
            ("build.gradle", "apply plugin: 'java'\nversion = '1.4.2'\n"),
            ("gradle.properties", "version=1.4.2\n"),
            ("src/A.java", ""),
        ],
        "src/A.java",
    );
}

#[test]
fn of_a_gem() {
    a_release_keeps_the_layer(
        &[
            ("Gemfile", "gemspec\n"),
            (
                "Gemfile.lock",
                "PATH\n  remote: .\n  specs:\n    a (1.4.2)\n      a-core (= 1.4.2)\n      rack (>= 2)\n    a-core (1.4.2)\n\n\
              GEM\n  remote: x\n  specs:\n    rack (3.0)\n\nDEPENDENCIES\n  a!\n  a-core!\n\nCHECKSUMS\n  a (1.4.2)\n  a-core (1.4.2)\n",
            ),
            ("a.gemspec", "Gem::Specification.new do |s|\n  s.name = \"a\"\n  s.version = \"1.4.2\"\nend\n"),
            ("lib/a.rb", ""),
            ("lib/a/version.rb", "module A\n  VERSION = \"1.4.2\"\nend\n"),
        ],
        "lib/a.rb",
    );
}

#[test]
fn a_gem_that_a_registry_gem_or_the_gemfile_asks_for_by_version_keeps_it() {
    let lock = "PATH\n  remote: engines\n  specs:\n    core (1.4.2)\n    pay (1.4.2)\n      core (= 1.4.2)\n    web (1.4.2)\n      \
        pay (= 1.4.2)\n\nGEM\n  remote: x\n  specs:\n    auth (2.0)\n      core (>= 1.0)\n\nDEPENDENCIES\n  auth\n  \
        pay (~> 1.4)!\n  web!\n";
    let bare = unversioned("Gemfile.lock", lock.as_bytes(), &tree(&[("Gemfile.lock", lock)])).unwrap();
    assert_eq!(String::from_utf8(bare).unwrap(), lock.replace("web (1.4.2)", "web (0.0.0)"));
}

#[test]
fn of_a_uv_workspace_and_of_a_directory_that_poetry_locks() {
    let member = |name: &str, needs: &str| {
        format!("[project]\nname = \"{name}\"\nversion = \"1.4.2\"\ndependencies = [{needs}]\n")
    };
    a_release_keeps_the_layer(
        &[
            (
                "pyproject.toml",
                &(member("a", "\"b\"")
                    + "[tool.uv.workspace]\nmembers = [\"b\"]\n[tool.uv.sources]\nb = { workspace = true }\n"),
            ),
            ("a.py", ""),
            ("b/pyproject.toml", &member("b", "")),
            (
                "uv.lock",
                "version = 1\n\n[[package]]\nname = \"a\"\nversion = \"1.4.2\"\nsource = { editable = \".\" }\n\
              dependencies = [\n    { name = \"b\" },\n]\n\n[[package]]\nname = \"b\"\nversion = \"1.4.2\"\nsource = { editable = \"b\" }\n",
            ),
        ],
        "a.py",
    );
    a_release_keeps_the_layer(
        &[
            ("a.py", ""),
            ("b/pyproject.toml", "[tool.poetry]\nname = \"b\"\nversion = \"1.4.2\"\n"),
            (
                "poetry.lock",
                "[[package]]\nname = \"b\"\nversion = \"1.4.2\"\n\n[package.source]\ntype = \"directory\"\nurl = \"b\"\n",
            ),
            (
                "pyproject.toml",
                "[tool.poetry]\nname = \"a\"\nversion = \"1.4.2\"\n[tool.poetry.dependencies]\nb = { path = \"b\" }\n",
            ),
        ],
        "a.py",
    );
}

#[test]
fn a_python_package_that_another_asks_for_by_version_keeps_it() {
    let manifest = "[project]\nname = \"My.Core\"\nversion = \"1.4.2\"\n";
    let source = tree(&[
        ("core/pyproject.toml", manifest),
        (
            "pyproject.toml",
            "[project]\nname = \"a\"\nversion = \"1.4.2\"\ndependencies = [\"my-core[fast] >=1.4 ; python_version > '3'\"]\n",
        ),
    ]);
    assert_eq!(unversioned("core/pyproject.toml", manifest.as_bytes(), &source), None);
    let lock = "[[package]]\nname = \"my-core\"\nversion = \"1.4.2\"\nsource = { editable = \"core\" }\n";
    let kept = unversioned("uv.lock", lock.as_bytes(), &source).unwrap();
    assert_eq!(String::from_utf8(kept).unwrap(), lock);
}

#[test]
fn a_patched_crate_keeps_its_version_for_cargo_to_see_that_it_fits() {
    let manifest = "[package]\nname = \"a\"\nversion = \"1.4.2\"\n[patch.crates-io]\nitoa = { path = \"itoa\" }\n";
    let source = tree(&[("Cargo.toml", manifest)]);
    assert_eq!(unversioned("Cargo.toml", manifest.as_bytes(), &source), None);
}

#[test]
fn a_neighbour_wanted_by_a_range_keeps_its_version() {
    let source = tree(&[
        ("package.json", r#"{"workspaces":["p/*"],"dependencies":{"b":"^1.4.0"}}"#),
        ("p/b/package.json", r#"{"name":"b","version":"1.4.2"}"#),
    ]);
    let bare = unversioned("p/b/package.json", br#"{"name":"b","version":"1.4.2"}"#, &source).unwrap();
    assert!(String::from_utf8(bare).unwrap().contains("1.4.2"));
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text: String) {
        for path in ["Cargo.toml", "Cargo.lock", "package.json", "package-lock.json", "pyproject.toml", "uv.lock",
            "pom.xml", "build.gradle", "Gemfile.lock", "version.rb"]
        {
            let _ = unversioned(path, text.as_bytes(), &tree(&[(path, &text)]));
        }
    }
}

#[test]
fn the_lints_of_a_cargo_package_are_no_key_of_its_dependencies() {
    let manifest = "[package]\nname = \"a\"\nversion = \"1.4.2\"\n\n[lints]\nworkspace = true\n\n[workspace.lints.rust]\nmissing_docs = \"forbid\"\n";
    let source = tree(&[("Cargo.toml", manifest)]);
    let bare = unversioned("Cargo.toml", manifest.as_bytes(), &source).unwrap();
    assert!(!String::from_utf8(bare).unwrap().contains("lints"));
}

#[test]
fn a_manifest_gets_no_version_where_it_has_none() {
    for manifest in [
        "[project]\nname = \"a\"\ndynamic = [\"version\"]\n\n[tool.uv.workspace]\nmembers = [\"libs/*\"]\n",
        "[tool.ruff]\nline-length = 100\n",
    ] {
        let source = tree(&[("pyproject.toml", manifest)]);
        let text = unversioned("pyproject.toml", manifest.as_bytes(), &source).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), manifest);
    }
}
