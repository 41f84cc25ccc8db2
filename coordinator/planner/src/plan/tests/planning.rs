//! Order, targets, versions and inputs.

use std::collections::BTreeMap;

use super::{options, planned, tree};
use crate::plan::{
    MemorySource, Origin, Platform, Source, Stamp, Step, Variable, VersionOrigin, input_files, plan, set_variables,
    stamp, to_kiln_toml,
};

const TARGETS: &str = "[targets.prod]\nplatform = \"linux/amd64\"\nglibc = \"2.36\"\n\
                       [targets.edge]\nplatform = \"linux/arm64\"\n[steps.a]\nrun = \"x\"\n";

fn names(options: &crate::plan::Options) -> Result<Vec<String>, String> {
    let plan = plan(&tree(&[("kiln.toml", TARGETS)]), options).map_err(|e| e.to_string())?;
    Ok(plan.targets.into_iter().map(|t| format!("{} {}", t.name, t.platform)).collect())
}

#[test]
fn a_release_directory_tells_the_version_that_nothing_else_does() {
    let of = |directory: &str, files: &[(&str, &str)], describe: Option<&str>| {
        let named = crate::plan::Options {
            directory_name: directory.into(),
            describe: describe.map(String::from),
            ..options()
        };
        let plan = plan(&tree(files), &named).unwrap();
        (plan.name, plan.version.unwrap_or_default())
    };
    let make = [("Makefile", "all:\n\tcc a.c\n"), ("a.c", "")];
    let pair = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    assert_eq!(of("jq-1.6", &make, None), pair("jq", "1.6"));
    assert_eq!(of("redis-v7.0.15+ds", &make, None), pair("redis", "7.0.15+ds"));
    assert_eq!(of("jq-1.6", &make, Some("v9-1-gabc")), pair("jq-1.6", "v9-1-gabc"));
    assert_eq!(of("my-project", &make, None), pair("my-project", ""));
    let cmake = |text: &'static str| [("CMakeLists.txt", text)];
    assert_eq!(of("fmtlib-9.1.0+ds1", &cmake("project(FMT CXX)\n"), None), pair("FMT", "9.1.0+ds1"));
}

#[test]
fn cmake_and_autoconf_versions_are_read_through_their_variables() {
    for (path, text, name, version) in [
        (
            "CMakeLists.txt",
            "set(V_MAJOR 2)\nset(V \"${V_MAJOR}.5\")\nproject(shop VERSION ${V} LANGUAGES C)",
            "shop",
            "2.5",
        ),
        (
            "CMakeLists.txt",
            "cmake_minimum_required(VERSION 3.8)\nset(FMT_VERSION 9.1.0)\nproject(FMT CXX)",
            "FMT",
            "9.1.0",
        ),
        ("CMakeLists.txt", "PROJECT(shop)\nSET(PROJECT_VERSION \"3.1\")", "shop", "3.1"),
        ("CMakeLists.txt", "file(READ v.h h)\nproject(shop VERSION ${CMAKE_MATCH_1})", "shop", ""),
        ("configure.ac", "AC_PREREQ([2.69])\nAC_INIT([shop], [1.4.2], [bugs@example.org])\n", "shop", "1.4.2"),
        ("configure.ac", "AC_INIT([shop], m4_esyscmd([./version]))\n", "shop", ""),
    ] {
        let plan = plan(&tree(&[(path, text)]), &options()).unwrap();
        assert_eq!((plan.name.as_str(), plan.version.as_deref().unwrap_or_default()), (name, version), "{text}");
    }
}

#[test]
fn a_version_in_a_header_that_cmake_reads_is_found() {
    let by_digits = "file(READ include/fmt/core.h core_h)\nif (NOT core_h MATCHES \"FMT_VERSION ([0-9]+)([0-9][0-9])([0-9][0-9])\")\n\
                     endif()\nproject(FMT CXX)\n";
    let macros = "#define V_VERSION_MAJOR 3\n#  define V_VERSION_MINOR 11 // two digits\n#define V_VERSION_PATCH 2\n";
    for (cmake, header, version) in [
        (by_digits, "// 9\n#define FMT_VERSION 90100\n", "9.1.0"),
        ("file(STRINGS \"${CMAKE_CURRENT_SOURCE_DIR}/include/fmt/core.h\" v)\nproject(FMT)", macros, "3.11.2"),
        ("project(FMT)\nfile(READ include/fmt/core.h v)", "#define FMT_VERSION \"1.2.3-rc1\"\n", "1.2.3-rc1"),
        // Nothing says how to split the digits.
        ("file(READ include/fmt/core.h v)\nproject(FMT)", "#define FMT_VERSION 90100\n", ""),
        ("project(FMT)", macros, ""),
    ] {
        let plan = plan(&tree(&[("CMakeLists.txt", cmake), ("include/fmt/core.h", header)]), &options()).unwrap();
        assert_eq!(plan.version.as_deref().unwrap_or_default(), version, "{cmake}{header}");
    }
}

#[test]
fn documentation_that_a_step_sees_and_no_build_file_names_is_proposed_for_exclusion() {
    let files = [
        ("CMakeLists.txt", "project(x)\ninstall(FILES NEWS DESTINATION share)\n"),
        ("README.md", ""),
        ("NEWS", ""),
        ("docs/a.md", ""),
        ("src/docs/b.md", ""),
        (".github/workflows/ci.yml", ""),
    ];
    let found = plan(&tree(&files), &options()).unwrap();
    assert_eq!(found.excludable, ["docs", ".github", "README.md"]);
    let text = crate::plan::to_kiln_toml(&found);
    assert!(text.contains("# exclude = ["), "{text}");
    // The proposed line is valid once it is uncommented.
    let uncommented: String = text
        .lines()
        .map(|line| match line.strip_prefix("# exclude") {
            Some(rest) => format!("exclude{rest}\n"),
            None => format!("{line}\n"),
        })
        .collect();
    let files: Vec<(&str, &str)> = files.into_iter().chain([("kiln.toml", uncommented.as_str())]).collect();
    let excluded = plan(&tree(&files), &options()).unwrap();
    assert_eq!(excluded.exclude, ["docs", ".github", "README.md"]);
    // Rust's compiler is known not to read them.
    let rust =
        [("Cargo.toml", "[package]\nname = \"x\"\nversion = \"1.0.0\"\n"), ("src/main.rs", ""), ("README.md", "")];
    assert!(plan(&tree(&rust), &options()).unwrap().excludable.is_empty());
}

#[test]
fn steps_come_after_those_they_need() {
    let plan = planned(&[(
        "kiln.toml",
        "[steps.test]\nneeds = [\"build\"]\nrun = \"x\"\n[steps.build]\nneeds = [\"deps\"]\nrun = \"x\"\n\
         [steps.lint]\nrun = \"x\"\n[steps.deps]\nrun = \"x\"",
    )]);
    let order: Vec<&str> = plan.steps.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(order, ["lint", "deps", "build", "test"]);
}

#[test]
fn targets_are_the_projects_else_the_host() {
    assert_eq!(names(&options()).unwrap(), ["prod linux/amd64", "edge linux/arm64"]);
    let edge = crate::plan::Options { targets: vec!["edge".into()], ..options() };
    assert_eq!(names(&edge).unwrap(), ["edge linux/arm64"]);
    let arm = crate::plan::Options { platforms: vec![Platform::Arm64], ..options() };
    assert_eq!(names(&arm).unwrap(), ["edge linux/arm64"]);
    let both = crate::plan::Options { platforms: vec![Platform::Arm64], targets: vec!["prod".into()], ..options() };
    assert_eq!(names(&both).unwrap(), ["prod-arm64 linux/arm64"]);
    let unknown = crate::plan::Options { targets: vec!["prd".into()], ..options() };
    insta::assert_snapshot!(names(&unknown).unwrap_err(), @"the project has no target `prd`: did you mean `prod`?");
    let bare = planned(&[("Makefile", "all:\n")]);
    assert_eq!((bare.targets[0].name.as_str(), bare.targets[0].platform), ("linux-amd64", Platform::Amd64));
}

#[test]
fn the_version_is_the_projects_else_the_manifests_else_gits() {
    let kiln = "[steps.a]\nrun = \"x\"";
    let cargo = "[package]\nname = \"shop\"\nversion = \"1.2.3\"";
    let git = crate::plan::Options { describe: Some("v1-3-gabc".into()), ..options() };
    let of = |files: &[(&str, &str)]| {
        let plan = plan(&tree(files), &git).unwrap();
        (plan.name, plan.version.unwrap(), plan.version_origin)
    };
    let own = format!("version = \"9\"\n{kiln}");
    assert_eq!(of(&[("kiln.toml", &own)]), ("project".into(), "9".into(), VersionOrigin::KilnToml));
    let manifest = of(&[("kiln.toml", kiln), ("Cargo.toml", cargo)]);
    assert_eq!(manifest, ("shop".into(), "1.2.3".into(), VersionOrigin::Manifest));
    assert_eq!(of(&[("kiln.toml", kiln)]), ("project".into(), "v1-3-gabc".into(), VersionOrigin::Git));
}

#[test]
fn inputs_are_globs_and_directories_less_what_is_excluded() {
    let paths: Vec<String> = ["a/x.rs", "a/y.txt", "b.rs", "doc/z.md", "kiln.toml"].map(String::from).to_vec();
    let chosen = |inputs: &[&str]| {
        let step = Step { inputs: inputs.iter().map(|i| (*i).to_owned()).collect(), ..Step::new("a", "x") };
        input_files(&step, &paths).into_iter().map(|i| paths[i].as_str()).collect::<Vec<_>>()
    };
    assert_eq!(chosen(&[]), ["a/x.rs", "a/y.txt", "b.rs", "doc/z.md"]);
    assert_eq!(chosen(&["a/"]), ["a/x.rs", "a/y.txt"]);
    assert_eq!(chosen(&["*.rs"]), ["b.rs"]);
    assert_eq!(chosen(&["**/*.rs"]), ["a/x.rs", "b.rs"]);
    assert_eq!(chosen(&["!a"]), ["b.rs", "doc/z.md"]);
    assert_eq!(chosen(&["kiln.toml", "a", "!**/*.txt"]), ["a/x.rs", "kiln.toml"]);
}

#[test]
fn what_is_excluded_enters_no_step() {
    let source = tree(&[
        ("kiln.toml", "exclude = [\"doc\"]\n[steps.a]\nrun = \"x\"\n[steps.b]\nrun = \"x\"\ninputs = [\"**/*.md\"]"),
        ("doc/a.md", ""),
        ("b.md", ""),
    ]);
    let plan = plan(&source, &options()).unwrap();
    for step in &plan.steps {
        assert_eq!(input_files(step, crate::plan::Source::paths(&source)), [0]);
    }
    assert!(to_kiln_toml(&plan).contains("inputs = [\"**/*.md\"]\n"));
}

#[test]
fn a_kiln_toml_reads_back_to_the_same_plan() {
    let text = "name = \"shop\"\nversion = \"1.0\"\nexclude = [\"doc\"]\n\
        [targets.prod]\nplatform = \"linux/arm64\"\nos = \"debian:12\"\nglibc = \"2.36\"\nlabels = { zone = \"a\" }\n\
        libraries = [\"libc.so.6\"]\n\
        [steps.a]\nwhy = \"it \\\"must\\\"\"\nrun = \"\"\"\none 'x' $KILN_SHARD\ntwo \\\\ '''\"\"\"\noutputs = [\"o\"]\ncpus = 0.25\n\
        memory = \"300MiB\"\nplatform = \"linux/amd64\"\ntimeout = \"90s\"\nshards = 3\nreports = [\"-\"]\nretries = 2\ncache = false\nstamp = true\nnative = true\nimage = \"debian:12\"\ntools = [\"sh\"]\n\
        working_directory = \"d\"\nenv = { \"A.B\" = \"tab\\there\" }\nnetwork = true\nsecrets = [\"NPM_TOKEN\"]\n\
        [steps.a.files]\n\"x/y z.txt\" = \"1\\n2\\u0007\"\n\
        [artifacts.z]\nfrom = [\"a\"]\nfiles = [\"o/*\", { path = \"o\", dest = \".\" }]\nkind = \"archive\"\n\
        check_elf = false\nbundle_libraries = true\n\
        [notify]\nurl = \"https://ci.example/hook?x=1\"\nevents = [\"finished\"]\nbranches = [\"main\", \"release/*\"]\nkey = \"ci\"\n\
        uncommitted = true\n";
    let first = planned(&[("kiln.toml", text)]);
    let again = planned(&[("kiln.toml", &to_kiln_toml(&first))]);
    assert_eq!(first, again);
    assert_eq!(again.origin, Origin::KilnToml);
    assert!(again.notify.is_some_and(|notify| notify.key.as_deref() == Some("ci")));
}

#[test]
fn a_plan_is_found_by_supplying_the_files_that_it_asks_for() {
    let all = tree(&[
        ("Cargo.toml", "[workspace]\nmembers = [\"a\"]\n"),
        ("Cargo.lock", "version = 4\n[[package]]\nname = \"a\"\nversion = \"1.0.0\"\n"),
        ("a/Cargo.toml", "[package]\nname = \"a\"\nversion = \"1.0.0\"\n"),
        ("a/src/main.rs", "fn main() {}"),
        ("a/words.txt", "x"),
    ]);
    let mut lazy = MemorySource::with_paths(all.paths().to_vec(), BTreeMap::new());
    let mut asked = Vec::new();
    let found = loop {
        let plan = plan(&lazy, &options());
        let unread = lazy.unread();
        if unread.is_empty() {
            break plan;
        }
        for path in unread {
            lazy.supply(path.clone(), all.read(&path));
            asked.push(path);
        }
    };
    assert_eq!(found, plan(&all, &options()));
    // Sources are read only for the files that they include (`include_str!`).
    assert!(!asked.contains(&"a/words.txt".to_owned()), "what decides no plan is not read: {asked:?}");
}

#[test]
fn only_a_stamped_step_is_told_what_is_built() {
    let text = "[steps.deps]\nrun = \"x\"\n[steps.compile]\nrun = \"x\"\nstamp = true";
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let stamped = |describe: Option<&str>, facts: &Stamp| {
        let options = crate::plan::Options { describe: describe.map(str::to_owned), ..options() };
        let mut plan = plan(&tree(&[("kiln.toml", text)]), &options).unwrap();
        stamp(&mut plan, facts);
        assert!(plan.steps[0].env.is_empty(), "deps: {:?}", plan.steps[0].env);
        let env = &plan.steps[1].env;
        [&env["KILN_VERSION"], &env["KILN_COMMIT"], &env["KILN_DIRTY"]].map(String::clone)
    };
    let dirty = Stamp { commit: commit.into(), dirty: true, describe: String::new() };
    assert_eq!(stamped(Some("v1-3-gabc"), &dirty), ["v1-3-gabc", commit, "true"]);
    assert_eq!(stamped(None, &dirty), ["0123456789ab", commit, "true"]);
    assert_eq!(stamped(None, &Stamp::default()), ["0", "", "false"]);
}

#[test]
fn variables_of_the_command_line_override_those_of_the_steps() {
    let text =
        "[steps.deps]\nrun = \"x\"\nsecrets = [\"TOKEN\"]\n[steps.compile]\nrun = \"x\"\nenv = { MODE = \"debug\" }";
    let with = |words: &[&str]| {
        let mut plan = planned(&[("kiln.toml", text)]);
        let variables: Result<Vec<Variable>, String> = words.iter().map(|word| word.parse()).collect();
        set_variables(&mut plan, &variables?).map_err(|error| error.to_string())?;
        Ok::<_, String>(plan.steps.into_iter().map(|step| step.env.into_iter().collect::<Vec<_>>()).collect::<Vec<_>>())
    };
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(with(&["compile:MODE=a=b"]).unwrap(), [vec![], vec![pair("MODE", "a=b")]]);
    assert_eq!(
        with(&["compile:MODE=one", "MODE=all"]).unwrap(),
        [vec![pair("MODE", "all")], vec![pair("MODE", "one")]]
    );
    insta::assert_snapshot!(with(&["MODE"]).unwrap_err(), @"invalid variable `MODE`; expected `NAME=VALUE` or `STEP:NAME=VALUE`");
    insta::assert_snapshot!(with(&["compil:X=1"]).unwrap_err(), @"`compil:X` is set for step `compil`, which the plan does not have: did you mean `compile`?");
    insta::assert_snapshot!(with(&["KILN_X=1"]).unwrap_err(), @"step `deps` sets `KILN_X`, but variables that start with `KILN_` are the farm's own");
    insta::assert_snapshot!(with(&["TOKEN=1"]).unwrap_err(), @"step `deps` asks for the secret `TOKEN`, which it also has in `env`: leave one out");
}

#[test]
fn an_output_may_go_up_as_long_as_it_stays_in_the_tree() {
    let outputs = |directory: &str, output: &str| {
        let text = format!("[steps.a]\nrun = \"x\"\nworking_directory = \"{directory}\"\noutputs = [\"{output}\"]");
        let plan = plan(&tree(&[("kiln.toml", &text)]), &options()).map_err(|error| error.to_string())?;
        Ok::<_, String>(plan.steps[0].outputs[0].clone())
    };
    assert_eq!(outputs("a", "a/../b/x").unwrap(), "b/x");
    assert_eq!(outputs("a", "../b/x").unwrap(), "b/x");
    assert!(outputs("a", "../../b/x").unwrap_err().contains("leaves the tree by `..`"));
}

#[test]
fn declared_libraries_add_to_those_of_the_c_library() {
    let text = "[targets.prod]\nlibraries = [\"libpq.so.5\"]\n[steps.a]\nrun = \"x\"";
    let plan = planned(&[("kiln.toml", text)]);
    let libraries = &plan.targets[0].libraries;
    assert!(["libpq.so.5", "libc.so.6"].iter().all(|name| libraries.iter().any(|library| library == name)));
    assert!(plan.targets[0].is_declared());
    assert!(to_kiln_toml(&plan).contains("libraries = [\"libpq.so.5\"]\n"));
    assert!(!planned(&[("kiln.toml", "[steps.a]\nrun = \"x\"")]).targets[0].is_declared());
}

#[test]
fn memory_that_earlier_runs_decide_is_written_as_such() {
    let plan = planned(&[("kiln.toml", "name = \"p\"\nversion = \"1\"\n[steps.a]\nrun = \"x\"\nmemory = \"auto\"\n")]);
    assert!(plan.steps[0].memory_auto && to_kiln_toml(&plan).contains("memory = \"auto\""));
    let refused = super::refused(&[("kiln.toml", "[steps.a]\nrun = \"x\"\nmemory = \"some\"\n")]);
    assert!(refused.contains("expected `\"auto\"`, or a size"), "{refused}");
}
