//! Every language's example, built with its real tool on a farm of processes: the artifact runs, and the second build
//! has only hits.

#![allow(clippy::unwrap_used)]

#[path = "languages/beside.rs"]
mod beside;
#[path = "languages/java.rs"]
mod java_programs;
#[path = "languages/members.rs"]
mod members;
#[path = "languages/native.rs"]
mod native;
#[path = "languages/node.rs"]
mod node;
#[path = "languages/runtimes.rs"]
mod runtimes;

use std::path::Path;

use kiln_harness::{Farm, cannot_run, commit, example, find, output, unpack, write};

/// Examples whose steps all run a second time in every run of the tests; the others' do in the long one.
const REPEATED: [&str; 4] = ["rust", "c-make", "python-pip", "node-npm"];

/// Is this `.ci/long`?
fn is_long() -> bool {
    std::env::var_os("KILN_TESTS_LONG").is_some()
}

/// Builds an example three times: the second time has only hits, the third runs everything again, and the artifact is
/// the same.
fn twice(name: &str) -> Option<tempfile::TempDir> {
    let dir = example(name);
    if name == "java-maven" {
        kiln_harness::project::use_debian(dir.path());
    }
    let built = Farm::shared().build(dir.path(), &[]);
    if built.0.code != 0 {
        let registry = ["Could not transfer", "Unknown host", "NoPluginFoundForPrefix", "repo.maven.apache.org"];
        if let Some(tool) = built.message().split("has no `").nth(1).and_then(|rest| rest.split('`').next()) {
            assert_eq!(built.0.code, 3, "expected a missing tool to be the farm's fault");
            eprintln!("SKIPPED: {name}: the machine has no `{tool}`, and kiln said so");
            return None;
        }
        if registry.iter().any(|words| built.log().contains(words)) {
            assert_eq!(built.0.code, 1);
            eprintln!("SKIPPED: {name}: its registry cannot be reached from here");
            return None;
        }
    }
    let first = built.well();
    let second = Farm::shared().build(dir.path(), &[]).well();
    assert!(!first.caches().is_empty());
    assert!(second.caches().values().all(|cache| cache == "hit"), "{:?}", second.caches());
    let digest = |built: &kiln_harness::Built| built.of_type("artifact")[0]["digest"].clone();
    assert_eq!(digest(&first), digest(&second));
    assert_eq!(second.finished()["bytes_uploaded"], 0);
    if !REPEATED.contains(&name) && !is_long() {
        return Some(dir);
    }
    let again = Farm::shared().build(dir.path(), &["--no-cache"]).well();
    assert!(again.caches().values().all(|cache| cache == "miss"), "{:?}", again.caches());
    let ids = |built: &kiln_harness::Built| {
        built.of_type("artifact").iter().map(|artifact| artifact["id"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&first), ids(&again), "{name}: two runs of the same steps left different files");
    Some(dir)
}

/// Asserts that the example can build here: its tool and its registry are available.
fn built(name: &str) -> tempfile::TempDir {
    twice(name).unwrap_or_else(|| {
        cannot_run(&format!("the tool or the registry of {name}"));
        panic!("not built")
    })
}

fn out(dir: &tempfile::TempDir, path: &str) -> std::path::PathBuf {
    dir.path().join("kiln-out").join(path)
}

#[test]
fn rust() {
    let dir = built("rust");
    assert_eq!(output(out(&dir, "greet"), &["you"], dir.path()), "{\"hello\":\"you\",\"length\":\"3\"}\n");
}

#[test]
fn a_rust_workspace() {
    let dir = built("rust-workspace");
    assert!(output(out(&dir, "inventory"), &[], dir.path()).contains("built-by-script"));
}

#[test]
fn go() {
    let dir = built("go");
    assert!(!output(out(&dir, "hello"), &[], dir.path()).is_empty());
}

#[test]
fn c_with_make_cmake_and_meson() {
    let dir = built("c-make");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(output(unpacked.path().join("bin/reverse"), &["abc"], dir.path()).trim(), "cba");
    let dir = built("c-cmake");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    let _ = output(unpacked.path().join("usr/local/bin/wordcount"), &["CMakeLists.txt"], dir.path());
    let dir = built("c-meson");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert!(!output(unpacked.path().join("usr/local/bin/fibonacci"), &["10"], dir.path()).is_empty());
}

#[test]
fn java() {
    let dir = built("java-plain");
    let jar = find(&dir.path().join("kiln-out"), ".jar").expect("the artifact is a jar");
    assert_eq!(output("java", &["-jar", jar.to_str().unwrap()], dir.path()), "hello world\n");
    let dir = built("java-maven");
    let jar = find(&dir.path().join("kiln-out"), ".jar").expect("the artifact is a jar");
    assert_eq!(output("java", &["-jar", jar.to_str().unwrap()], dir.path()), "hello world\n");
}

fn node(name: &str, main: &str, expected: &str) {
    let dir = built(name);
    let unpacked = unpack(&dir.path().join("kiln-out"));
    let said = output("node", &[unpacked.path().join(main).to_str().unwrap()], Path::new("/"));
    assert!(said.contains(expected), "{name}: expected `{expected}` in `{said}`");
}

#[test]
fn node_with_npm() {
    node("node-npm", "dist/main.js", "2 hours");
}

fn python(name: &str, program: &str) {
    let dir = built(name);
    let unpacked = unpack(&dir.path().join("kiln-out"));
    let program = unpacked.path().join(program);
    let text = std::fs::read_to_string(&program).unwrap();
    assert!(text.starts_with("#!"), "{name}: expected a script, found {text}");
    let ran = std::process::Command::new(&program).arg("--help").output().unwrap();
    assert!(ran.status.success(), "{name}: {}", String::from_utf8_lossy(&ran.stderr));
}

#[test]
fn python_with_pip_and_uv() {
    let dir = built("python-pip");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(output("python3", &["main.py", "a", "b"], unpacked.path()), "hello a and b\n");
    python("python-uv", "bin/orbit");
}

/// `.ci/long` runs these: other tests of every run use the same tools on other projects.
mod long {
    use super::*;

    #[test]
    #[ignore = "long: run by .ci/long"]
    fn java_with_gradle() {
        let dir = built("java-gradle");
        let jar = find(&dir.path().join("kiln-out"), ".jar").expect("the artifact is a jar");
        assert!(!output("java", &["-jar", jar.to_str().unwrap()], dir.path()).is_empty());
    }

    #[test]
    #[ignore = "long: run by .ci/long"]
    fn node_with_pnpm_and_yarn() {
        node("node-pnpm", "packages/app/main.js", "one-phrase");
        node("node-yarn", "main.js", "1\\+1");
    }

    #[test]
    #[ignore = "long: run by .ci/long"]
    fn python_with_poetry() {
        python("python-poetry", "bin/tally");
    }

    #[test]
    #[ignore = "long: run by .ci/long"]
    fn a_project_of_gradle_starts_with_the_jars_that_it_needs() {
        members::a_project_of_gradle();
    }
}

#[test]
fn ruby() {
    let dir = built("ruby");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert!(!output("ruby", &["main.rb", "x"], unpacked.path()).is_empty());
}

#[test]
fn php() {
    let dir = built("php");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(output("php", &["shop"], unpacked.path()), "3 EUR\n");
}

/// Packages that are copied from the tree, or unpacked from archives in it: both are inputs of the layer.
#[test]
fn composer_takes_packages_from_directories_and_archives_of_the_tree() {
    let manifest = |repository: &str| {
        format!(
            r#"{{"name":"k/shop","version":"1.0.0","require":{{"k/money":"*"}},"repositories":[{repository},{{"packagist.org":false}}],"bin":["shop"]}}"#
        )
    };
    let package = r#"{"name":"k/money","version":"1.2.0","autoload":{"psr-4":{"Money\\":"src"}}}"#;
    let class = |currency: &str| {
        format!("<?php namespace Money; class M {{ static function t($x) {{ return \"$x {currency}\"; }} }}\n")
    };
    let shop = "<?php require __DIR__.'/vendor/autoload.php'; echo Money\\M::t(3), \"\\n\";\n";
    let copied = r#"{"type":"path","url":"libs/*","options":{"symlink":false}}"#;
    let zipped = r#"{"type":"artifact","url":"archives"}"#;
    let zip = "import zipfile; z = zipfile.ZipFile('archives/money-1.2.0.zip', 'w'); [z.write('libs/money/' + f, f) for f in ['composer.json', 'src/M.php']]";
    for repository in [copied, zipped] {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        write(at, "composer.json", &manifest(repository));
        write(at, "libs/money/composer.json", package);
        write(at, "shop", shop);
        let build = |currency: &str| {
            write(at, "libs/money/src/M.php", &class(currency));
            write(at, "archives/.keep", "");
            output("python3", &["-c", zip], at);
            output("composer", &["update", "--no-install", "--no-interaction", "--quiet"], at);
            let built = Farm::shared().build(at, &[]).well();
            let unpacked = unpack(&at.join("kiln-out"));
            (output("php", &["shop"], unpacked.path()), built.caches()["deps"].clone())
        };
        assert_eq!(build("EUR").0, "3 EUR\n", "{repository}");
        assert_eq!(build("USD"), ("3 USD\n".to_owned(), "miss".to_owned()), "{repository}");
    }
}

#[test]
fn python_with_pipenv() {
    let dir = built("python-pipenv");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    assert_eq!(output("python3", &["main.py", "x"], unpacked.path()), "xn--mnchen-3ya.de True x\n");
}

#[test]
fn sites_of_hugo_and_vite() {
    let dir = built("hugo");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    let page = std::fs::read_to_string(unpacked.path().join("hello/index.html")).unwrap();
    assert!(page.contains("<p>Two hours.</p>"), "{page}");
    let dir = built("node-vite");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    let page = std::fs::read_to_string(unpacked.path().join("index.html")).unwrap();
    assert!(page.contains("/assets/index-"), "{page}");
    assert!(!unpacked.path().join("package.json").exists(), "a site is its files and not the sources");
}

#[test]
fn zig() {
    let dir = built("zig");
    let unpacked = unpack(&dir.path().join("kiln-out"));
    let ran = std::process::Command::new(unpacked.path().join("bin/clock")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ran.stderr), "hello\n");
    let tested = Farm::shared().kiln(&["test", &dir.path().display().to_string()]);
    assert_eq!(tested.code, 0, "{}", tested.err);
}

#[test]
fn a_source_edit_leaves_the_dependency_layers_and_a_lock_edit_does_not() {
    let dir = example("rust");
    commit(dir.path());
    let farm = Farm::shared();
    farm.build(dir.path(), &[]).well();
    let caches = |built: kiln_harness::Built| {
        let caches = built.caches();
        ["fetch", "deps", "compile"].map(|step| caches[step].clone())
    };

    let main = std::fs::read_to_string(dir.path().join("src/main.rs")).unwrap();
    write(dir.path(), "src/main.rs", &format!("{main}\n// edited\n"));
    let edited = farm.build(dir.path(), &[]).well();
    assert!(!edited.log().contains("Compiling serde"), "expected only the project to be compiled: {}", edited.log());
    assert_eq!(caches(edited), ["hit", "hit", "miss"]);

    let manifest = std::fs::read_to_string(dir.path().join("Cargo.toml")).unwrap();
    let lock = std::fs::read_to_string(dir.path().join("Cargo.lock")).unwrap();
    write(dir.path(), "Cargo.toml", &manifest.replace("1.4.2", "1.5.0"));
    write(dir.path(), "Cargo.lock", &lock.replace("1.4.2", "1.5.0"));
    let newer = farm.build(dir.path(), &[]).well();
    assert!(newer.of_type("artifact")[0]["id"].as_str().unwrap().contains("1.5.0"));
    assert_eq!(
        caches(newer),
        ["hit", "hit", "miss"],
        "expected the project's own version not to be in its dependencies' key"
    );

    let itoa = lock.find("name = \"itoa\"").map(|at| lock[at..].lines().nth(1).unwrap().to_owned()).unwrap();
    write(dir.path(), "Cargo.toml", &manifest);
    write(
        dir.path(),
        "Cargo.lock",
        &lock.replace(&itoa, "version = \"1.0.14\"").replace(
            lock[lock.find("name = \"itoa\"").unwrap()..].lines().nth(3).unwrap(),
            "checksum = \"d75a2a4b1b190afb6f5425f10f6a8f959d2ea0b9c2b1d79553551850539e4674\"",
        ),
    );
    let locked = farm.build(dir.path(), &[]).well();
    assert_eq!(caches(locked), ["miss", "miss", "miss"]);
}

#[test]
fn python_programs_start_from_where_they_are_unpacked() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    write(at, "main.py", "import idna, money\nprint(idna.__version__, money.text(3))\n");
    write(at, "requirements.txt", "-r requirements/production.txt\n./libs/money\n");
    write(at, "requirements/production.txt", "idna==3.7\ncharset-normalizer==3.3.2\n");
    write(at, "libs/money/money/__init__.py", "def text(x): return f'{x:.2f} EUR'\n");
    write(
        at,
        "libs/money/setup.py",
        "from setuptools import setup\nsetup(name='money', version='1', packages=['money'])\n",
    );
    Farm::shared().build(at, &[]).well();
    let unpacked = unpack(&at.join("kiln-out"));
    assert_eq!(output("python3", &["main.py"], unpacked.path()), "3.7 3.00 EUR\n");
    assert!(output(unpacked.path().join("bin/normalizer"), &["--version"], Path::new("/")).contains("3.3.2"));

    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let setup = "from setuptools import setup\nsetup(name='old', version=open('VERSION').read().strip(), packages=['old'], \
                 install_requires=open('needs.txt').read().split(), entry_points={'console_scripts': ['old=old:main']})\n";
    write(at, "setup.py", setup);
    write(at, "VERSION", "1.2\n");
    write(at, "needs.txt", "idna==3.7\n");
    write(at, "old/__init__.py", "import idna\ndef main(): print(idna.__version__)\n");
    let first = Farm::shared().build(at, &[]).well();
    let unpacked = unpack(&at.join("kiln-out"));
    assert_eq!(output(unpacked.path().join("bin/old"), &[], Path::new("/")), "3.7\n");
    write(at, "old/__init__.py", "import idna\ndef main(): print('edited', idna.__version__)\n");
    let second = Farm::shared().build(at, &[]).well();
    assert_eq!((first.caches()["deps"].as_str(), second.caches()["deps"].as_str()), ("miss", "hit"));
}

#[test]
fn a_python_package_knows_the_tag_that_it_is_built_from() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let manifest = "[build-system]\nrequires = [\"setuptools>=64\", \"setuptools_scm>=8\"]\n\
                    build-backend = \"setuptools.build_meta\"\n[project]\nname = \"stamped\"\ndynamic = [\"version\"]\n\
                    scripts = { stamped = \"stamped:main\" }\n[tool.setuptools_scm]\n";
    write(at, "pyproject.toml", manifest);
    write(
        at,
        "src/stamped/__init__.py",
        "def main():\n    from importlib.metadata import version\n    print(version('stamped'))\n",
    );
    commit(at);
    kiln_harness::git(at, &["tag", "v3.1.4"]);
    Farm::shared().build(at, &[]).well();
    let unpacked = unpack(&at.join("kiln-out"));
    assert_eq!(output(unpacked.path().join("bin/stamped"), &[], Path::new("/")), "3.1.4\n");
}

#[test]
fn gems_of_the_tree_read_their_files_and_pin_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let spec = |name: &str, version: &str, more: &str| {
        format!(
            "Gem::Specification.new do |s|\n  s.name = '{name}'\n  s.version = {version}\n  s.summary = 'x'\n  \
             s.authors = ['a']\n  s.files = Dir['lib/**/*']\n  {more}\nend\n"
        )
    };
    let far = tempfile::tempdir().unwrap();
    write(far.path(), "far.gemspec", &spec("far", "'2.0'", ""));
    write(far.path(), "lib/far.rb", "FAR = 2\n");
    output("gem", &["build", "far.gemspec"], far.path());
    std::fs::create_dir_all(at.join("vendor/cache")).unwrap();
    std::fs::copy(far.path().join("far-2.0.gem"), at.join("vendor/cache/far-2.0.gem")).unwrap();
    write(at, "core/VERSION", "1.4.0\n");
    write(at, "core/core.gemspec", &spec("sol-core", "File.read(File.join(__dir__, 'VERSION')).strip", ""));
    write(at, "core/lib/sol-core.rb", "CORE = 1\n");
    write(at, "web/web.gemspec", &spec("sol-web", "'1.4.0'", "s.add_dependency 'sol-core', s.version"));
    write(at, "web/lib/sol-web.rb", "require 'sol-core'\n");
    write(
        at,
        "Gemfile",
        "source 'https://rubygems.org'\ngem 'far'\ngem 'sol-core', path: 'core'\ngem 'sol-web', path: 'web'\n",
    );
    let lock = "PATH\n  remote: core\n  specs:\n    sol-core (1.4.0)\n\nPATH\n  remote: web\n  specs:\n    sol-web (1.4.0)\n      \
                sol-core (= 1.4.0)\n\nGEM\n  remote: https://rubygems.org/\n  specs:\n    far (2.0)\n\nPLATFORMS\n  ruby\n\n\
                DEPENDENCIES\n  far\n  sol-core!\n  sol-web!\n";
    write(at, "Gemfile.lock", lock);
    write(at, "main.rb", "require 'bundler/setup'\nrequire 'sol-web'\nrequire 'far'\nputs CORE + FAR\n");
    Farm::shared().build(at, &[]).well();
    let unpacked = unpack(&at.join("kiln-out"));
    assert_eq!(output("ruby", &["main.rb"], unpacked.path()), "3\n");
}

/// The context of a project in a repository with several is whatever it refers to, wherever that is.
#[test]
fn projects_in_a_repository_of_several() {
    let dir = kiln_harness::project(&[
        ("libs/core/Cargo.toml", "[package]\nname = \"core-lib\"\nversion = \"0.1.0\"\nedition = \"2021\"\n"),
        ("libs/core/src/lib.rs", "pub fn four() -> u32 { 4 }\n"),
        (
            "services/api/Cargo.toml",
            "[package]\nname = \"api\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\ncore-lib = { path = \"../../libs/core\" }\n",
        ),
        (
            "services/api/Cargo.lock",
            "version = 3\n[[package]]\nname = \"api\"\nversion = \"0.1.0\"\ndependencies = [\"core-lib\"]\n\
             [[package]]\nname = \"core-lib\"\nversion = \"0.1.0\"\n",
        ),
        ("services/api/src/main.rs", "fn main() { println!(\"{}\", core_lib::four()) }\n"),
        ("unrelated/a.txt", "1"),
    ]);
    commit(dir.path());
    let api = dir.path().join("services/api");
    Farm::shared().build(&api, &[]).well();
    assert_eq!(output(api.join("kiln-out/api"), &[], &api), "4\n");
    write(dir.path(), "unrelated/a.txt", "2");
    let again = Farm::shared().build(&api, &[]).well();
    assert!(again.caches().values().all(|cache| cache == "hit"), "{:?}", again.caches());
    assert!(
        !again.of_type("artifact")[0]["id"].as_str().unwrap().contains("dirty"),
        "expected an edit of what it does not need to change nothing"
    );
    // `kiln init` writes the same plan.
    let init = Farm::shared().kiln(&["init", &api.display().to_string()]);
    assert_eq!(init.code, 0, "{}", init.err);
    let written = Farm::shared().build(&api, &[]).well();
    assert!(written.caches().values().all(|cache| cache == "hit"), "{:?}", written.caches());
    let root = Farm::shared().build(dir.path(), &[]);
    assert!(root.0.err.contains("`kiln build services/api` (rust)"), "{}", root.0.err);
}
