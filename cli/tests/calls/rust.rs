//! cargo and rustc.

use kiln_harness::{Farm, project};

use super::project::{built, calls, config};

pub(super) fn workspace(name: &str, binary: &str, leaf: &str) -> tempfile::TempDir {
    let run = "export CARGO_TARGET_DIR=/build/target CARGO_HOME=/build/.cargo CARGO_NET_OFFLINE=true; cargo build --release; mkdir out; cp target/release/app out";
    let package = |name: &str, more: &str| {
        format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\n{more}")
    };
    project(&[
        ("kiln.toml", &config(name, run, "cpus = 2")),
        ("Cargo.toml", "[workspace]\nmembers = [\"app\", \"base\", \"leaf\", \"derive\"]\nresolver = \"2\"\n"),
        ("base/Cargo.toml", &package("base", "")),
        ("base/src/lib.rs", "pub fn base() -> u32 { 41 }\n"),
        ("derive/Cargo.toml", &package("derive", "[lib]\nproc-macro = true\n")),
        (
            "derive/src/lib.rs",
            "use proc_macro::TokenStream;\n#[proc_macro]\npub fn one(_: TokenStream) -> TokenStream { \"1u32\".parse().unwrap() }\n",
        ),
        (
            "leaf/Cargo.toml",
            &package("leaf", "[dependencies]\nbase = { path = \"../base\" }\nderive = { path = \"../derive\" }\n"),
        ),
        (
            "leaf/build.rs",
            "fn main() { std::fs::write(format!(\"{}/made.rs\", std::env::var(\"OUT_DIR\").unwrap()), \"pub const MADE: u32 = 7;\").unwrap(); }\n",
        ),
        ("leaf/src/lib.rs", leaf),
        ("app/Cargo.toml", &package("app", "[dependencies]\nleaf = { path = \"../leaf\" }\n")),
        ("app/src/main.rs", binary),
    ])
}

pub(super) const LEAF: &str = "include!(concat!(env!(\"OUT_DIR\"), \"/made.rs\"));\npub fn leaf() -> u32 { base::base() + derive::one!() + MADE }\n";
pub(super) const APP: &str = "fn main() { println!(\"{}\", leaf::leaf()); }\n";

#[test]
fn crates_macros_build_scripts_and_programs_are_known_again() {
    let farm = Farm::shared();
    let dir = workspace("crates", APP, LEAF);
    let (cold, first) = built(farm, dir.path());
    let cold = calls(&cold, "build");
    let all = cold.ran();
    assert!(cold.hits == 0 && all >= 5, "expected base, derive, the build script, leaf and app, found {cold:?}");
    assert_eq!(cold.refused.keys().collect::<Vec<_>>(), ["information"], "cargo asks rustc what it is");

    let edited = workspace("crates", &format!("{APP}// edited\n"), LEAF);
    let (edited, _) = built(farm, edited.path());
    let edited = calls(&edited, "build");
    assert_eq!((edited.hits, edited.ran()), (all - 1, 1), "only the program is compiled: {edited:?}");

    let leaf = workspace("crates", APP, &format!("{LEAF}pub fn more() {{}}\n"));
    let (leaf, _) = built(farm, leaf.path());
    let leaf = calls(&leaf, "build");
    assert_eq!((leaf.hits, leaf.ran()), (all - 2, 2), "the crate and what depends on it: {leaf:?}");

    let plain = workspace("crates-plain", APP, LEAF);
    let toml = std::fs::read_to_string(plain.path().join("kiln.toml")).unwrap();
    kiln_harness::write(plain.path(), "kiln.toml", &toml.replace("cpus = 2", "cpus = 2\nsplit = false"));
    let (_, right) = built(farm, plain.path());
    assert_eq!(first["app"], right["app"], "expected the program that cargo builds without Kiln's help");
}

#[test]
fn native_code_of_rust_is_known_again_on_the_same_kind_of_cpu() {
    let farm = Farm::shared();
    let build = |round: &str, more: &str| {
        let run = format!(
            "mkdir out; kiln-call rustc --crate-name n --edition=2021 n.rs --crate-type lib --emit=link -O -C target-cpu=native --out-dir out; echo {round}"
        );
        let run = if more.is_empty() { run } else { run.replace("kiln-call ", "") };
        let source = "pub fn rust_native(x: &[f32; 64]) -> f32 { x.iter().map(|x| x * x).sum() }\n";
        let dir = project(&[("kiln.toml", &config("rust-native", &run, more)), ("n.rs", source)]);
        built(farm, dir.path())
    };
    let (_, plain) = build("plain", "split = false");
    for (round, expected) in [("one", (0, 1)), ("two", (1, 0))] {
        let (ran, left) = build(round, "");
        let calls = calls(&ran, "build");
        assert_eq!((calls.hits, calls.compiled), expected, "{calls:?}");
        assert!(left == plain, "{round}: expected what is built without splitting, bit for bit");
    }
}
