//! Images: layouts on a disk, and registries.

use std::path::{Path, PathBuf};

use kiln_harness::registry::Registry;
use kiln_harness::{project, write};
use serde_json::Value;

use crate::{accepted, farm, json, keys_of, refused, verify, verify_at};

const SHOP: &str = r#"
name = "shop"
version = "1.4.2"
[steps.work]
run = "cat in > data; chmod 644 data"
outputs = ["data"]
[artifacts.shop]
kind = "image"
from = "work"
files = ["data"]
base = "scratch"
"#;

const BOTH: &str = r#"
name = "both"
version = "1"
[targets.amd64]
platform = "linux/amd64"
[targets.arm64]
platform = "linux/arm64"
[steps.work]
platform = "linux/amd64"
run = "(cat in; echo $KILN_TARGET_PLATFORM) > data; chmod 644 data"
outputs = ["data"]
[artifacts.both]
kind = "image"
from = "work"
files = ["data"]
base = "scratch"
"#;

fn shop(config: &str, content: &str) -> tempfile::TempDir {
    project(&[("kiln.toml", config), ("in", content)])
}

fn at(name: &str, key: &Path, more: &[&str]) -> kiln_harness::Ran {
    verify_at(crate::NOWHERE, name, &[&["--key", key.to_str().unwrap()], more].concat())
}

/// A blob of a layout, by its digest.
fn blob(layout: &Path, digest: &Value) -> PathBuf {
    layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"))
}

#[test]
fn a_layout_is_verified_with_every_blob_and_no_registry() {
    let dir = shop(SHOP, "layout\n");
    farm().build(dir.path(), &[]).well();
    let (keys, layout) = (keys_of(farm(), dir.path()), dir.path().join("kiln-out/shop"));
    accepted(&verify(&layout, &keys, &[]));
    let index = json(&layout.join("index.json"));
    let manifest = blob(&layout, &index["manifests"][0]["digest"]);
    let layer = blob(&layout, &json(&manifest)["layers"][0]["digest"]);
    let good = std::fs::read(&layer).unwrap();
    std::fs::write(&layer, [&good[..], b"x"].concat()).unwrap();
    refused(&verify(&layout, &keys, &[]), &["is not what its name says"]);
    std::fs::write(&layer, &good).unwrap();
    // Another image in its place, which is consistent in itself.
    let other = shop(SHOP, "another layout\n");
    farm().build(other.path(), &[]).well();
    std::fs::remove_dir_all(&layout).unwrap();
    kiln_harness::copy(&other.path().join("kiln-out/shop"), &layout);
    refused(&verify(&layout, &keys, &[]), &["the statement is about"]);
}

#[test]
fn an_image_in_a_registry_is_verified_and_a_tampered_registry_is_noticed() {
    let Some(registry) = Registry::start() else { return };
    let dir = shop(SHOP, "pushed\n");
    let keys = keys_of(farm(), dir.path());
    let name = format!("{}/team/shop", registry.name);
    let pushed = farm().build(dir.path(), &["--push", &name]).well().of_type("pushed").remove(0);
    let digest = pushed["digest"].as_str().unwrap().to_owned();
    accepted(&at(&format!("{name}:1.4.2"), &keys, &["--content"]));
    accepted(&at(&format!("{name}@{digest}"), &keys, &[]));
    // Cosign before version 3 finds the envelopes under a tag.
    if kiln_harness::has("skopeo") {
        let attached = format!("docker://{name}:{}.att", digest.replace(':', "-"));
        let raw = kiln_harness::output("skopeo", &["inspect", "--raw", "--tls-verify=false", &attached], dir.path());
        let manifest: Value = serde_json::from_str(&raw).unwrap();
        let layers = manifest["layers"].as_array().unwrap();
        let kinds: Vec<&str> =
            layers.iter().map(|layer| layer["annotations"]["predicateType"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["https://slsa.dev/provenance/v1", "https://cyclonedx.org/bom"]);
        assert_eq!(layers[0]["mediaType"], "application/vnd.dsse.envelope.v1+json");
    }
    let unknown = at(&format!("{name}:9"), &keys, &[]);
    assert_eq!(unknown.code, 2, "{unknown:?}");

    // Another image under the same tag: consistent, and signed for something else.
    let blobs = registry.dir.path().join("storage/docker/registry/v2/blobs/sha256");
    let data = |digest: &str| {
        let hex = digest.trim_start_matches("sha256:");
        blobs.join(&hex[..2]).join(hex).join("data")
    };
    let manifest = json(&data(&digest));
    let layer = data(manifest["layers"][0]["digest"].as_str().unwrap());
    let good = std::fs::read(&layer).unwrap();
    let mut bad = good.clone();
    bad[0] ^= 1;
    std::fs::write(&layer, &bad).unwrap();
    refused(&at(&format!("{name}:1.4.2"), &keys, &["--content"]), &["it sent"]);
    std::fs::write(&layer, &good).unwrap();
    let text = std::fs::read_to_string(data(&digest)).unwrap();
    std::fs::write(data(&digest), text.replace("schemaVersion\":2", "schemaVersion\":1")).unwrap();
    let tampered = at(&format!("{name}@{digest}"), &keys, &[]);
    assert_ne!(tampered.code, 0, "{tampered:?}");
    std::fs::write(data(&digest), text).unwrap();

    // A tag that somebody moved to an image of their own.
    let evil = shop(SHOP, "evil\n");
    let stranger = kiln_harness::Farm::start(&["strange"]);
    stranger.build(evil.path(), &["--push", &format!("{name}:1.4.2"), "--push-over"]).well();
    refused(&at(&format!("{name}:1.4.2"), &keys, &[]), &["none of the trusted keys"]);
    accepted(&at(&format!("{name}@{digest}"), &keys, &[]));
    drop(registry);
    let away = at(&format!("{name}@{digest}"), &keys, &[]);
    assert_eq!(away.code, 3, "{away:?}");
}

#[test]
fn each_platform_of_an_image_is_verified() {
    let Some(registry) = Registry::start() else { return };
    let dir = shop(BOTH, "platforms\n");
    let keys = keys_of(farm(), dir.path());
    let name = format!("{}/team/both", registry.name);
    farm().build(dir.path(), &["--push", &name]).well();
    let report = at(&format!("{name}:1"), &keys, &["--json"]);
    accepted(&report);
    let report: Value = serde_json::from_str(&report.out).unwrap();
    let platforms: Vec<&str> =
        report["verdicts"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(platforms, ["index", "linux/amd64", "linux/arm64"], "the index itself is signed, as Cosign asks for");
    write(dir.path(), "kiln-out/policy.toml", "platforms = ['linux/amd64']\nallow-dirty = true\n");
    let policy = dir.path().join("kiln-out/policy.toml");
    refused(&at(&format!("{name}:1"), &keys, &["--policy", policy.to_str().unwrap()]), &["`linux/arm64`"]);
    // What stays on the disk is one layout for both.
    let dir = shop(BOTH, "platforms here\n");
    farm().build(dir.path(), &[]).well();
    accepted(&verify(&dir.path().join("kiln-out/both"), &keys, &[]));
}

#[test]
fn docker_build_attaches_the_signatures_of_what_was_asked_for() {
    let Some(registry) = Registry::start() else { return };
    let dir = project(&[("Dockerfile", "FROM scratch\nCOPY in /in\n"), ("in", "by docker build\n")]);
    let keys = keys_of(farm(), dir.path());
    let build = |tag: &str, more: &[&str]| {
        let name = format!("{}/team/{tag}:1", registry.name);
        let line = [&["docker", "build", "--push", "--tag", &name, "."], more].concat();
        let mut command = farm().command(&line);
        command.current_dir(dir.path());
        let ran = kiln_harness::Ran::from(command);
        assert_eq!(ran.code, 0, "{ran:?}");
        name
    };
    let name = build("max", &["--provenance=mode=max", "--sbom=true"]);
    write(dir.path(), "policy.toml", "require = ['sbom', 'spdx']\nallow-dirty = true\n");
    let policy = dir.path().join("policy.toml");
    accepted(&at(&name, &keys, &["--policy", policy.to_str().unwrap()]));
    // The farm's provenance has the commands that `mode=min` leaves out.
    refused(&at(&build("min", &["--provenance=mode=min"]), &keys, &[]), &["no signed statement"]);
}

#[test]
fn a_binary_in_a_registry_is_verified_by_its_files() {
    let Some(registry) = Registry::start() else { return };
    let dir = crate::tool("in a registry\n", "https://git.example/tool.git");
    let keys = keys_of(farm(), dir.path());
    let name = format!("{}/tools/tool", registry.name);
    farm().build(dir.path(), &["--push", &name]).well();
    accepted(&at(&format!("{name}:1"), &keys, &["--content"]));
}
