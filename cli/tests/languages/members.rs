//! One member of a workspace, built and run: the artifact contains what it needs, and no other member.

use std::path::{Path, PathBuf};

use kiln_harness::project::use_debian;
use kiln_harness::{Farm, commit, find, output, project, unpack, write};

/// Builds the member in a directory of a repository with these files.
fn built(files: &[(&str, &str)], member: &str) -> (tempfile::TempDir, PathBuf) {
    let dir = project(files);
    if files.iter().any(|(path, _)| *path == "pom.xml") {
        use_debian(dir.path());
    }
    commit(dir.path());
    let at = dir.path().join(member);
    let built = Farm::shared().build(&at, &[]).well();
    assert_eq!(built.of_type("artifact").len(), 1);
    (dir, at)
}

/// Every path in a directory, relative to it.
fn paths(root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
            found.push(entry.path().strip_prefix(root).unwrap().display().to_string());
        }
    }
    found
}

pub(crate) fn assert_without(root: &Path, words: &[&str]) {
    for path in paths(root) {
        assert!(
            !words.iter().any(|word| path.contains(word)),
            "`{path}` belongs to another member or only to the build"
        );
    }
}

/// The member needs one version of a package, its dependency another, and the other member a third. The root's `build`
/// and the other member's fail.
fn node(workspace: &str, range: &str) -> Vec<(&'static str, String)> {
    let manifest = |text: String| text.replace("WORKSPACE", workspace).replace("RANGE", range);
    let of = |text: &str| manifest(text.to_owned());
    vec![
        ("package.json", of(r#"{"name":"shop","private":true,WORKSPACE"scripts":{"build":"exit 7 --workspaces"}}"#)),
        ("packages/lint/package.json", of(r#"{"name":"lint","version":"1.0.0"}"#)),
        (
            "packages/shared/build.js",
            of("require('fs').writeFileSync('index.js', 'exports.ms = require(\"ms/package.json\").version\\n')\n"),
        ),
        (
            "packages/shared/package.json",
            of(
                r#"{"name":"shared","version":"1.0.0","scripts":{"build":"node build.js"},"dependencies":{"ms":"2.1.2"}}"#,
            ),
        ),
        (
            "services/api/build.js",
            of(
                "require('fs').writeFileSync('main.js', `console.log(require('shared').ms, require('ms/package.json').version, ${JSON.stringify(require('shared').ms)})\\n`)\n",
            ),
        ),
        (
            "services/api/package.json",
            of(r#"{"name":"api","version":"2.1.0","scripts":{"start":"node main.js","build":"node build.js"},
                "dependencies":{"ms":"2.1.3","shared":"RANGE"},"devDependencies":{"lint":"RANGE"}}"#),
        ),
        (
            "services/web/package.json",
            of(r#"{"name":"web","version":"1.0.0","scripts":{"build":"exit 7"},"dependencies":{"ms":"2.0.0"}}"#),
        ),
        ("services/web/secret.js", String::new()),
    ]
}

fn node_member(workspace: &str, range: &str, locks: &[(&str, &str)]) {
    let files = node(workspace, range);
    let files: Vec<(&str, &str)> =
        files.iter().map(|(path, text)| (*path, text.as_str())).chain(locks.iter().copied()).collect();
    let (dir, at) = built(&files, "services/api");
    let unpacked = unpack(&at.join("kiln-out"));
    assert_eq!(output("node", &["main.js"], unpacked.path()), "2.1.2 2.1.3 2.1.2\n");
    assert_without(unpacked.path(), &["web", "lint", "secret", "pnpm-lock", "ms@2.0.0"]);
    let archive = find(&at.join("kiln-out"), ".tar.zst").unwrap();
    assert!(archive.display().to_string().contains("api-2.1.0"), "{}", archive.display());

    write(dir.path(), "services/web/secret.js", "edited\n");
    let again = Farm::shared().build(&at, &[]).well();
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
}

#[test]
fn a_member_of_an_npm_workspace_runs_where_it_is_unpacked() {
    let lock = r#"{"name":"shop","lockfileVersion":3,"requires":true,"packages":{
        "":{"name":"shop","workspaces":["packages/*","services/*"]},
        "node_modules/api":{"resolved":"services/api","link":true},
        "node_modules/lint":{"resolved":"packages/lint","link":true},
        "node_modules/ms":{"version":"2.0.0"},
        "node_modules/shared":{"resolved":"packages/shared","link":true},
        "node_modules/web":{"resolved":"services/web","link":true},
        "packages/lint":{"version":"1.0.0"},
        "packages/shared":{"version":"1.0.0","dependencies":{"ms":"2.1.2"}},
        "packages/shared/node_modules/ms":{"version":"2.1.2"},
        "services/api":{"version":"2.1.0","dependencies":{"ms":"2.1.3","shared":"*"},"devDependencies":{"lint":"*"}},
        "services/api/node_modules/ms":{"version":"2.1.3"},
        "services/web":{"version":"1.0.0","dependencies":{"ms":"2.0.0"}}}}"#;
    node_member(r#""workspaces":["packages/*","services/*"],"#, "*", &[("package-lock.json", lock)]);
}

#[test]
fn a_member_of_a_pnpm_workspace_runs_where_it_is_unpacked() {
    let lock = "lockfileVersion: '9.0'\nsettings:\n  autoInstallPeers: true\n  excludeLinksFromLockfile: false\nimporters:\n  .: {}\n  \
        packages/lint: {}\n  packages/shared:\n    dependencies:\n      ms:\n        specifier: 2.1.2\n        version: 2.1.2\n  \
        services/api:\n    dependencies:\n      ms:\n        specifier: 2.1.3\n        version: 2.1.3\n      \
        shared:\n        specifier: workspace:*\n        version: link:../../packages/shared\n    \
        devDependencies:\n      lint:\n        specifier: workspace:*\n        version: link:../../packages/lint\n  \
        services/web:\n    dependencies:\n      ms:\n        specifier: 2.0.0\n        version: 2.0.0\n\
        packages:\n  ms@2.0.0:\n    resolution: {integrity: MS-2.0.0}\n  ms@2.1.2:\n    resolution: {integrity: MS-2.1.2}\n  \
        ms@2.1.3:\n    resolution: {integrity: MS-2.1.3}\n\
        snapshots:\n  ms@2.0.0: {}\n  ms@2.1.2: {}\n  ms@2.1.3: {}\n";
    let lock = lock.replace("MS-2.0.0", MS[0]).replace("MS-2.1.2", MS[1]).replace("MS-2.1.3", MS[2]);
    let workspace = ("pnpm-workspace.yaml", "packages:\n  - packages/*\n  - services/*\n");
    node_member("", "workspace:*", &[("pnpm-lock.yaml", &lock), workspace]);
}

/// How the three versions are recognised.
const MS: [&str; 3] = [
    "sha512-Tpp60P6IUJDTuOq/5Z8cdskzJujfwqfOTkrwIwj7IRISpnkJnT6SyJ4PCPnGMoFjC9ddhal5KVIYtAt97ix05A==",
    "sha512-sGkPx+VjMtmA6MX27oA4FBFELFCZZ4S4XqeGOXCv68tT+jb3vk/RyaKWP0PTKyWtmLSM0b+adUTEvbs1PEaH2w==",
    "sha512-6FlzubTLZG3J2a/NVCAleEhjzq5oxgHyaCU9yYXvcLsvoVaHJq/s5xXI6/XXP6tz7R9xAOtHnSO/tXtF3WRTlA==",
];

#[test]
fn a_member_of_a_uv_workspace_runs_where_it_is_unpacked() {
    let package = |name: &str, more: &str| {
        format!(
            "[project]\nname = \"{name}\"\nversion = \"1.3.0\"\nrequires-python = \">=3.9\"\n{more}\n\
             [build-system]\nrequires = [\"setuptools>=64\"]\nbuild-backend = \"setuptools.build_meta\"\n"
        )
    };
    let script = |name: &str| format!("[project.scripts]\n{name} = \"{name}:main\"\n");
    let api = package(
        "api",
        &format!("dependencies = [\"shared\"]\n{}[tool.uv.sources]\nshared = {{ workspace = true }}", script("api")),
    );
    let locked = |name: &str, directory: &str, more: &str| {
        format!(
            "[[package]]\nname = \"{name}\"\nversion = \"1.3.0\"\nsource = {{ editable = \"{directory}\" }}\n{more}\n"
        )
    };
    let lock = format!(
        "version = 1\nrevision = 3\nrequires-python = \">=3.9\"\n[manifest]\nmembers = [\"api\", \"shared\", \"web\"]\n{}{}{}",
        locked(
            "api",
            "services/api",
            "dependencies = [{ name = \"shared\" }]\n[package.metadata]\nrequires-dist = [{ name = \"shared\", editable = \"libs/shared\" }]"
        ),
        locked("shared", "libs/shared", ""),
        locked("web", "services/web", "")
    );
    let (_dir, at) = built(
        &[
            ("libs/shared/pyproject.toml", &package("shared", "")),
            ("libs/shared/src/shared/__init__.py", "def hello(): return 'hello from shared'\n"),
            ("pyproject.toml", "[tool.uv.workspace]\nmembers = [\"libs/*\", \"services/*\"]\n"),
            ("services/api/pyproject.toml", &api),
            ("services/api/src/api/__init__.py", "from shared import hello\ndef main(): print(hello())\n"),
            ("services/web/pyproject.toml", &package("web", &script("web"))),
            ("services/web/src/web/__init__.py", "def main(): pass\n"),
            ("uv.lock", &lock),
        ],
        "services/api",
    );
    let unpacked = unpack(&at.join("kiln-out"));
    assert_eq!(output(unpacked.path().join("bin/api"), &[], Path::new("/")), "hello from shared\n");
    assert_without(unpacked.path(), &["web"]);
}

const WORDS: &str =
    "package words;\npublic final class Words {\n    public static String of() { return \"hello\"; }\n}\n";
const API: &str = "package api;\npublic final class Api {\n    public static void main(String[] arguments) {\n        \
                   System.out.println(words.Words.of());\n    }\n}\n";
/// It would not compile.
const WEB: &str = "package web;\npublic final class Web { int broken }\n";

#[test]
fn a_module_of_maven_starts_with_the_jars_that_it_needs() {
    let pom = |parent: &str, name: &str, more: &str| {
        format!(
            "<project><modelVersion>4.0.0</modelVersion><parent><groupId>k</groupId><artifactId>{parent}</artifactId>\
             <version>1.0</version></parent><artifactId>{name}</artifactId>{more}</project>"
        )
    };
    let modules = |names: [&str; 2]| {
        let names = names.map(|name| format!("<module>{name}</module>"));
        format!("<packaging>pom</packaging><modules>{}</modules>", names.concat())
    };
    let root = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>k</groupId><artifactId>shop</artifactId><version>1.0</version>\
         <properties><maven.compiler.source>11</maven.compiler.source><maven.compiler.target>11</maven.compiler.target>\
         </properties>{}</project>",
        modules(["services", "words"])
    );
    let needs = "<dependencies><dependency><groupId>k</groupId><artifactId>words</artifactId><version>1.0</version>\
                 </dependency></dependencies>";
    let (_dir, at) = built(
        &[
            ("pom.xml", &root),
            ("services/api/pom.xml", &pom("services", "api", needs)),
            ("services/api/src/main/java/api/Api.java", API),
            ("services/pom.xml", &pom("shop", "services", &modules(["api", "web"]))),
            ("services/web/pom.xml", &pom("services", "web", "")),
            ("services/web/src/main/java/web/Web.java", WEB),
            ("words/pom.xml", &pom("shop", "words", "")),
            ("words/src/main/java/words/Words.java", WORDS),
        ],
        "services/api",
    );
    runs_alone(&at.join("kiln-out"));
}

pub(crate) fn a_project_of_gradle() {
    let (_dir, at) = built(
        &[
            ("build.gradle", "subprojects {\n    apply plugin: 'java'\n    version = '1.0'\n}\n"),
            (
                "services/api/build.gradle",
                "apply plugin: 'application'\nmainClassName = 'api.Api'\ndependencies { compile project(':words') }\n",
            ),
            ("services/api/src/main/java/api/Api.java", API),
            ("services/web/build.gradle", ""),
            ("services/web/src/main/java/web/Web.java", WEB),
            ("settings.gradle", "rootProject.name = 'shop'\ninclude(':services:api',\n    'services:web', 'words')\n"),
            ("words/build.gradle", ""),
            ("words/src/main/java/words/Words.java", WORDS),
        ],
        "services/api",
    );
    runs_alone(&at.join("kiln-out"));
}

/// The artifact is only a script and two jars.
fn runs_alone(out: &Path) {
    let script = find(out, "bin/api").expect("a script that starts it");
    assert_eq!(output(script, &[], Path::new("/")), "hello\n");
    assert_without(out, &["web", "shop"]);
    assert_eq!(paths(out).iter().filter(|path| path.ends_with(".jar")).count(), 2, "{:?}", paths(out));
}
