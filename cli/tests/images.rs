//! Container images on a farm of real processes: what is in them, what is made again, what is refused.

#![allow(clippy::unwrap_used)]

mod real;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use real::{Built, Farm, project, write};
use serde_json::Value;

/// Dependencies in one step, the project's own program in another.
const SHOP: &str = r#"
name = "shop"
version = "1.4.2"
[steps.deps]
inputs = ["deps.lock"]
run = "mkdir -p vendor/empty; cat deps.lock deps.lock > vendor/lib.txt; ln -s lib.txt vendor/link"
outputs = ["vendor"]
[steps.compile]
inputs = ["shop.c"]
run = "cc -static -O1 -o shop shop.c"
outputs = ["shop"]
[artifacts.shop]
kind = "image"
from = ["deps", "compile"]
files = ["vendor", { path = "shop", dest = "/usr/bin/shop" }]
base = "scratch"
entrypoint = ["/usr/bin/shop"]
workdir = "/srv"
env = { MODE = "prod" }
user = "1000:1000"
labels = { team = "shop" }
ports = [8080]
"#;

fn source(says: &str) -> String {
    format!("#include <stdio.h>\nint main(void) {{ puts(\"{says}\"); return 0; }}\n")
}

fn shop(lock: &str, says: &str) -> tempfile::TempDir {
    project(&[("kiln.toml", SHOP), ("deps.lock", lock), ("shop.c", &source(says))])
}

/// An OCI layout as it lies on the disk.
struct Layout {
    dir: std::path::PathBuf,
    manifest: Value,
    config: Value,
    digest: String,
}

impl Layout {
    fn read(dir: &Path) -> Self {
        let json = |path: &str| -> Value { serde_json::from_slice(&std::fs::read(dir.join(path)).unwrap()).unwrap() };
        let blob = |digest: &Value| json(&format!("blobs/{}", digest.as_str().unwrap().replace(':', "/")));
        let index = json("index.json");
        let digest = index["manifests"][0]["digest"].clone();
        let manifest = blob(&digest);
        let config = blob(&manifest["config"]["digest"]);
        Self { dir: dir.to_owned(), manifest, config, digest: digest.as_str().unwrap().to_owned() }
    }

    fn of(project: &Path) -> Self {
        Self::read(&project.join("kiln-out/shop"))
    }

    fn layers(&self) -> Vec<String> {
        let layers = self.manifest["layers"].as_array().unwrap().iter();
        layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
    }

    /// Each entry of a layer: its kind and mode, owner, and content or target.
    fn entries(&self, layer: usize) -> BTreeMap<String, String> {
        let path = self.dir.join("blobs").join(self.layers()[layer].replace(':', "/"));
        let listed = std::process::Command::new("tar").arg("-tvzf").arg(path).arg("--numeric-owner").output().unwrap();
        let text = String::from_utf8(listed.stdout).unwrap();
        let line = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            (words[5].to_owned(), format!("{} {} {}", words[0], words[1], words[3]))
        };
        text.lines().map(line).collect()
    }
}

#[track_caller]
fn refused(built: &Built, words: &[&str]) {
    assert_eq!(built.0.code, 1, "expected the project's own failure, found {:?}", built.0);
    for word in words {
        assert!(built.message().contains(word), "expected `{word}` in: {}", built.message());
    }
}

#[test]
fn each_steps_files_are_a_layer_and_a_source_edit_changes_only_its_own() {
    let farm = Farm::shared();
    let dir = shop("zlib 1.3\n", "one");
    let built = farm.build(dir.path(), &[]).well();
    let first = Layout::of(dir.path());
    assert_eq!(built.of_type("artifact")[0]["kind"], "image");
    assert_eq!(format!("sha256:{}", built.of_type("artifact")[0]["digest"].as_str().unwrap()), first.digest);
    let deps = first.entries(0);
    assert_eq!(deps["srv/vendor/lib.txt"], "-rw-r--r-- 0/0 2000-01-01", "{deps:?}");
    assert_eq!(deps["srv/vendor/empty/"], "drwxr-xr-x 0/0 2000-01-01", "{deps:?}");
    assert_eq!(first.entries(1)["usr/bin/shop"], "-rwxr-xr-x 0/0 2000-01-01");
    let run = &first.config["config"];
    assert_eq!((&run["Entrypoint"][0], &run["WorkingDir"]), (&"/usr/bin/shop".into(), &"/srv".into()));
    assert_eq!((&run["Env"][0], &run["User"]), (&"MODE=prod".into(), &"1000:1000".into()));
    assert!(run["ExposedPorts"]["8080/tcp"].is_object() && run["Labels"]["team"] == "shop");

    write(dir.path(), "shop.c", &source("two"));
    farm.build(dir.path(), &[]).well();
    let second = Layout::of(dir.path());
    assert_eq!(first.layers()[0], second.layers()[0], "the dependencies did not change");
    assert_ne!(first.layers()[1], second.layers()[1]);
}

#[test]
fn the_same_sources_give_the_same_digest_on_another_farm() {
    let (one, two) = (shop("a\n", "same"), shop("a\n", "same"));
    for dir in [&one, &two] {
        real::commit(dir.path());
    }
    Farm::shared().build(one.path(), &[]).well();
    Farm::start(&["other"]).build(two.path(), &[]).well();
    assert_eq!(Layout::of(one.path()).digest, Layout::of(two.path()).digest);
}
