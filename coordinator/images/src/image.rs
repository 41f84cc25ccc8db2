//! Builds an image's configuration and manifest from a base, layers and settings.
//!
//! Invariant: everything in the base's configuration that is not replaced is kept, including Docker's extensions to
//! OCI.
//! Source: OCI image specification 1.1, "Image Configuration".

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::digest::Digest;
use crate::layer::Layer;
use crate::manifest::{Descriptor, Document, Manifest, media_type};
use crate::platform::Platform;

/// The run-time settings of an image. What is absent is taken from the base.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// The command, with `cmd` as its arguments. If it is given, the base's `cmd` is dropped, because it was meant for
    /// another command.
    pub entrypoint: Option<Vec<String>>,
    /// Default arguments, which are replaced by those given at start.
    pub cmd: Option<Vec<String>>,
    /// Environment variables, in addition to the base's.
    pub env: BTreeMap<String, String>,
    /// User and optionally group, by name or number.
    pub user: Option<String>,
    /// The working directory.
    pub workdir: Option<String>,
    /// Labels, in addition to the base's.
    pub labels: BTreeMap<String, String>,
    /// Ports that it listens on, such as `8080/tcp`.
    pub ports: Vec<String>,
}

/// The origin recorded in an image.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The commit's time in seconds since the epoch; the only time in an image.
    pub created: i64,
    /// The commit.
    pub revision: String,
    /// The repository's URL.
    pub source: String,
    /// The version.
    pub version: String,
    /// The image's name.
    pub title: String,
    /// The base's reference.
    pub base_name: String,
}

/// A base image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// The digest of its manifest.
    pub digest: Digest,
    /// Its configuration.
    pub config: Map<String, Value>,
    /// Its layers, lowest first, with OCI's media types.
    pub layers: Vec<Descriptor>,
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its manifest, with the platform in the descriptor.
    pub manifest: Document,
    /// Its configuration.
    pub config: Document,
    /// Its layers, lowest first.
    pub layers: Vec<Descriptor>,
}

/// A layer added by the build, with its origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Added {
    /// The layer.
    pub layer: Layer,
    /// What created it, such as a step's name.
    pub by: String,
}

/// Assembles an image. `base` is `None` for `scratch`.
pub fn assemble(
    base: Option<&Base>,
    platform: &Platform,
    settings: &Settings,
    added: &[Added],
    origin: &Origin,
) -> Image {
    let config = Document::encode(media_type::OCI_CONFIG, &config(base, platform, settings, added, origin));
    let mut layers: Vec<Descriptor> = base.map(|base| base.layers.clone()).unwrap_or_default();
    layers.extend(added.iter().map(|added| added.layer.descriptor.clone()));
    let mut manifest = Manifest::new(config.descriptor.clone(), layers.clone());
    manifest.annotations = annotations(base, origin);
    let mut manifest = Document::from(&manifest);
    manifest.descriptor.platform = Some(platform.clone());
    Image { manifest, config, layers }
}

/// OCI's predefined annotations. Source: OCI image specification 1.1, "Annotations".
fn annotations(base: Option<&Base>, origin: &Origin) -> BTreeMap<String, String> {
    let base_digest = base.map(|base| base.digest.to_string()).unwrap_or_default();
    let known = [
        ("created", rfc3339(origin.created)),
        ("revision", origin.revision.clone()),
        ("source", origin.source.clone()),
        ("version", origin.version.clone()),
        ("title", origin.title.clone()),
        ("base.name", origin.base_name.clone()),
        ("base.digest", base_digest),
    ];
    let said = known.into_iter().filter(|(_, value)| !value.is_empty());
    said.map(|(key, value)| (format!("org.opencontainers.image.{key}"), value)).collect()
}

fn config(
    base: Option<&Base>,
    platform: &Platform,
    settings: &Settings,
    added: &[Added],
    origin: &Origin,
) -> BTreeMap<String, Value> {
    let mut config: BTreeMap<String, Value> =
        base.map(|base| base.config.clone()).unwrap_or_default().into_iter().collect();
    // Remnants of the container that the base was committed from.
    for leftover in ["container", "container_config", "docker_version", "id", "parent", "author"] {
        config.remove(leftover);
    }
    config.insert("architecture".into(), json!(platform.architecture));
    config.insert("os".into(), json!(platform.os));
    match &platform.variant {
        Some(variant) => config.insert("variant".into(), json!(variant)),
        None => None,
    };
    config.insert("created".into(), json!(rfc3339(origin.created)));
    let run = match config.remove("config") {
        Some(Value::Object(run)) => run,
        _ => Map::new(),
    };
    config.insert("config".into(), run_config(run, settings));
    let mut diff_ids = match config.get("rootfs").and_then(|rootfs| rootfs["diff_ids"].as_array()) {
        Some(ids) => ids.clone(),
        None => Vec::new(),
    };
    diff_ids.extend(added.iter().map(|added| json!(added.layer.diff_id)));
    config.insert("rootfs".into(), json!({ "type": "layers", "diff_ids": diff_ids }));
    let mut history = match config.remove("history") {
        Some(Value::Array(history)) => history,
        _ => Vec::new(),
    };
    history
        .extend(added.iter().map(|added| json!({ "created": rfc3339(0), "created_by": added.by, "comment": "kiln" })));
    config.insert("history".into(), Value::Array(history));
    config
}

fn run_config(run: Map<String, Value>, settings: &Settings) -> Value {
    let mut run: BTreeMap<String, Value> = run.into_iter().collect();
    if let Some(entrypoint) = &settings.entrypoint {
        run.insert("Entrypoint".into(), json!(entrypoint));
        run.remove("Cmd");
    }
    if let Some(cmd) = &settings.cmd {
        run.insert("Cmd".into(), json!(cmd));
    }
    if let Some(user) = &settings.user {
        run.insert("User".into(), json!(user));
    }
    if let Some(workdir) = &settings.workdir {
        run.insert("WorkingDir".into(), json!(workdir));
    }
    if !settings.env.is_empty() {
        run.insert("Env".into(), json!(environment(run.get("Env"), &settings.env)));
    }
    if !settings.labels.is_empty() {
        let mut labels: BTreeMap<String, Value> = match run.remove("Labels") {
            Some(Value::Object(labels)) => labels.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        labels.extend(settings.labels.iter().map(|(name, value)| (name.clone(), json!(value))));
        run.insert("Labels".into(), json!(labels));
    }
    if !settings.ports.is_empty() {
        let mut ports: BTreeMap<String, Value> = match run.remove("ExposedPorts") {
            Some(Value::Object(ports)) => ports.into_iter().collect(),
            _ => BTreeMap::new(),
        };
        ports.extend(settings.ports.iter().map(|port| (port.clone(), json!({}))));
        run.insert("ExposedPorts".into(), json!(ports));
    }
    json!(run)
}

/// The base's variables in their order, with overridden values in place; new ones follow, sorted.
fn environment(base: Option<&Value>, set: &BTreeMap<String, String>) -> Vec<String> {
    let base = base.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut found: Vec<String> = base.map(str::to_owned).collect();
    for (name, value) in set {
        let line = format!("{name}={value}");
        match found.iter_mut().find(|line| line.split_once('=').is_some_and(|(known, _)| known == name)) {
            Some(known) => *known = line,
            None => found.push(line),
        }
    }
    found
}

/// Formats a time as RFC 3339 in UTC. Source of the calendar computation: "days from civil", by Howard Hinnant.
pub fn rfc3339(seconds: i64) -> String {
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days.saturating_add(719_468);
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let leap_days = (day_of_era / 1460).saturating_sub(day_of_era / 36_524).saturating_add(day_of_era / 146_096);
    let year_of_era = day_of_era.saturating_sub(leap_days) / 365;
    let before = year_of_era.saturating_mul(365).saturating_add(year_of_era / 4).saturating_sub(year_of_era / 100);
    let day_of_year = day_of_era.saturating_sub(before);
    let month_index = day_of_year.saturating_mul(5).saturating_add(2) / 153;
    let before = month_index.saturating_mul(153).saturating_add(2) / 5;
    let day = day_of_year.saturating_sub(before).saturating_add(1);
    let month = if month_index < 10 { month_index.saturating_add(3) } else { month_index.saturating_sub(9) };
    let year = era.saturating_mul(400).saturating_add(year_of_era).saturating_add(i64::from(month <= 2));
    let (hour, minute, second) = (of_day / 3600, of_day % 3600 / 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(seed: &str) -> Added {
        let descriptor = Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(seed.as_bytes()), 10);
        Added { layer: Layer { descriptor, diff_id: Digest::of(format!("{seed} diff").as_bytes()) }, by: seed.into() }
    }

    fn base() -> Base {
        let config = json!({
            "architecture": "amd64", "os": "linux", "container": "abc", "docker_version": "20",
            "config": {
                "Env": ["PATH=/bin", "LANG=C"], "Cmd": ["bash"], "Labels": { "a": "1" },
                "Healthcheck": { "Test": ["CMD", "true"] },
            },
            "rootfs": { "type": "layers", "diff_ids": [Digest::of(b"base")] },
            "history": [{ "created_by": "debootstrap" }],
        });
        let Value::Object(config) = config else { unreachable!() };
        let layers = vec![Descriptor::new(media_type::OCI_LAYER_GZIP, Digest::of(b"base layer"), 5)];
        Base { digest: Digest::of(b"manifest"), config, layers }
    }

    #[test]
    fn what_the_base_says_is_kept_but_for_what_is_replaced() {
        let settings = Settings {
            entrypoint: Some(vec!["/srv/shop".into()]),
            env: BTreeMap::from([("LANG".into(), "de".into()), ("MODE".into(), "prod".into())]),
            labels: BTreeMap::from([("b".into(), "2".into())]),
            ports: vec!["8080/tcp".into()],
            ..Settings::default()
        };
        let origin = Origin { created: 1_700_000_000, revision: "abc".into(), ..Origin::default() };
        let image =
            assemble(Some(&base()), &Platform::linux("amd64"), &settings, &[layer("deps"), layer("app")], &origin);
        let config: Value = serde_json::from_slice(&image.config.data).unwrap();
        let run = &config["config"];
        assert_eq!(run["Env"], json!(["PATH=/bin", "LANG=de", "MODE=prod"]));
        assert_eq!((&run["Entrypoint"], run.get("Cmd")), (&json!(["/srv/shop"]), None));
        assert_eq!(run["Healthcheck"]["Test"][1], "true");
        assert_eq!(run["Labels"], json!({ "a": "1", "b": "2" }));
        assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
        assert_eq!(config["history"].as_array().unwrap().len(), 3);
        assert_eq!(config["created"], "2023-11-14T22:13:20Z");
        assert!(config.get("container").is_none());
        assert_eq!(image.layers.len(), 3);
        // What other tools read is what OCI's own types read.
        let manifest = oci_spec::image::ImageManifest::from_reader(&image.manifest.data[..]).unwrap();
        assert_eq!(manifest.annotations().as_ref().unwrap()["org.opencontainers.image.revision"], "abc");
        oci_spec::image::ImageConfiguration::from_reader(&image.config.data[..]).unwrap();
    }

    #[test]
    fn equal_ingredients_give_equal_digests_and_another_layer_gives_another() {
        let make = |seed: &str| {
            let origin = Origin::default();
            assemble(None, &Platform::linux("arm64"), &Settings::default(), &[layer(seed)], &origin).manifest.descriptor
        };
        assert_eq!(make("a"), make("a"));
        assert_ne!(make("a").digest, make("b").digest);
        assert_eq!(make("a").platform, Some(Platform::linux("arm64")));
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (4_102_444_799, "2099-12-31T23:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
