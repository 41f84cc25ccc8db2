//! Several languages in one root: each that makes something of its own becomes artifacts of one build.

use kiln_harness::{Farm, commit, example, output, project, unpack, write};

const GO: [(&str, &str); 2] = [
    ("go.mod", "module example.com/shop\n\ngo 1.19\n"),
    ("main.go", "package main\n\nimport \"fmt\"\n\nfunc main() { fmt.Println(\"served\") }\n"),
];

/// The names of a build's artifacts.
fn artifacts(built: &kiln_harness::Built) -> Vec<String> {
    let names = built.of_type("artifact").into_iter().map(|artifact| artifact["name"].as_str().unwrap().to_owned());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_server_in_go_and_its_front_end_are_built_together() {
    let dir = example("node-vite");
    let at = dir.path();
    for (path, text) in GO {
        write(at, path, text);
    }
    commit(at);
    let farm = Farm::shared();
    let planned = farm.kiln(&["plan", &at.display().to_string()]);
    assert_eq!(planned.code, 0, "{}", planned.err);
    for line in
        ["\ngo: `go.mod` is a module; `main.go` is a program's\n", "\nnode (npm): `package.json` is a package; "]
    {
        assert!(planned.out.contains(line), "expected {line} in {}", planned.out);
    }
    let built = farm.build(at, &[]).well();
    let names = artifacts(&built);
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(output(at.join("kiln-out/shop"), &[], at).trim(), "served");
    let site = unpack(&at.join("kiln-out"));
    let page = std::fs::read_to_string(site.path().join("index.html")).unwrap();
    assert!(page.contains("/assets/index-"), "{page}");

    // Alone, each finds what both together have left.
    for (language, artifact) in [("go", "shop"), ("node", names.iter().find(|name| *name != "shop").unwrap().as_str())]
    {
        let alone = farm.build(at, &["--language", language]).well();
        assert_eq!(artifacts(&alone), [artifact]);
        assert!(alone.caches().values().all(|cache| cache == "hit"), "{language}: {:?}", alone.caches());
    }
    // What `kiln init` writes is the same plan.
    let init = farm.kiln(&["init", &at.display().to_string()]);
    assert_eq!(init.code, 0, "{}", init.err);
    let written = farm.build(at, &[]).well();
    assert_eq!(artifacts(&written), names);
    assert!(written.caches().values().all(|cache| cache == "hit"), "{:?}", written.caches());
}

#[test]
fn an_application_in_python_and_a_program_in_rust_of_one_name_do_not_collide() {
    let dir = project(&[
        ("Cargo.toml", "[package]\nname = \"shop\"\nversion = \"1.0.0\"\nedition = \"2021\"\n"),
        ("Cargo.lock", "version = 3\n[[package]]\nname = \"shop\"\nversion = \"1.0.0\"\n"),
        ("src/main.rs", "fn main() { println!(\"rust\") }\n"),
        ("pyproject.toml", "[project]\nname = \"shop\"\nversion = \"1.0.0\"\ndependencies = [\"idna==3.7\"]\n"),
        ("main.py", "import idna\nprint('python', idna.__version__)\n"),
        (
            "test_main.py",
            "import unittest\n\n\nclass Sums(unittest.TestCase):\n    def test_adds(self):\n        self.assertEqual(1 + 1, 2)\n",
        ),
        ("package.json", r#"{"private":true,"devDependencies":{"prettier":"3"},"scripts":{"format":"prettier ."}}"#),
    ]);
    let at = dir.path();
    commit(at);
    let farm = Farm::shared();
    let planned = farm.kiln(&["plan", "--json", &at.display().to_string()]);
    let plan: serde_json::Value = serde_json::from_str(&planned.out).unwrap();
    let languages: Vec<&str> =
        plan["languages"].as_array().unwrap().iter().map(|one| one["language"].as_str().unwrap()).collect();
    assert_eq!(languages, ["python (pip)", "rust"]);
    assert_eq!(plan["languages"][1]["artifacts"][0], "shop-rust");
    assert_eq!(plan["considered"][0], "node (`package.json` has only development tools)");
    let built = farm.build(at, &[]).well();
    assert_eq!(artifacts(&built), ["shop", "shop-rust"]);
    assert_eq!(output(at.join("kiln-out/shop-rust/shop"), &[], at), "rust\n");
    let unpacked = unpack(&at.join("kiln-out"));
    assert_eq!(output("python3", &["main.py"], unpacked.path()), "python 3.7\n");
    let tested = farm.kiln(&["test", &at.display().to_string()]);
    assert_eq!(tested.code, 0, "{}", tested.err);
    for step in ["test", "rust-test"] {
        assert!(tested.err.contains(&format!("{step}: ")), "expected the tests of each language: {}", tested.err);
    }
}
