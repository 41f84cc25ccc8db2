//! What an artifact is made by: which steps, and what the build was asked for.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine;
use kiln_plan::Step;
use kiln_proto::v1;
use prost::Message;
use serde_json::{Value, json};

/// The names of the steps whose outputs are in an artifact that is made `from` some, directly or through others. Each step comes after those that
/// it needs.
pub fn steps_of(from: &[String], steps: &[Step]) -> BTreeSet<String> {
    let mut names: BTreeSet<String> = from.iter().cloned().collect();
    for step in steps.iter().rev() {
        if names.contains(&step.name) {
            names.extend(step.needs.iter().cloned());
        }
    }
    names
}

/// What a build was asked for that made an artifact, as far as that decides what it is: whoever asks for the same on this platform makes it again.
/// As in the provenance: a `kiln.v1.SubmitRequest`.
pub fn request(request: &v1::SubmitRequest, platform: &str) -> Value {
    let request = v1::SubmitRequest {
        platforms: vec![platform.to_owned()],
        no_cache: false,
        priority: 0,
        request_id: String::new(),
        user: String::new(),
        secrets: Vec::new(),
        queue_timeout: None,
        detached: false,
        check_source: false,
        scope: String::new(),
        verify: None,
        ..request.clone()
    };
    let value = base64::engine::general_purpose::STANDARD.encode(request.encode_to_vec());
    json!({ "type": "kiln.v1.SubmitRequest", "base64": value })
}

/// What names of images stood for when an artifact was made: whoever makes it again means the same, wherever the names have moved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pins {
    /// The SHA-256 of the manifest of each base, in hex, by its reference.
    pub bases: BTreeMap<String, String>,
    /// The image that each step ran in, by the step's name.
    pub steps: BTreeMap<String, String>,
}

impl Pins {
    /// As an artifact's provenance says.
    ///
    /// # Errors
    /// If it is not JSON.
    pub fn read(provenance: &[u8]) -> Result<Self, serde_json::Error> {
        let statement: Value = serde_json::from_slice(provenance)?;
        let list = |pointer: &str| statement.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        let text = |value: &Value, pointer: &str| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let is_base = |one: &&Value| text(one, "/uri").is_some_and(|uri| uri.starts_with("pkg:docker/"));
        let dependencies = list("/predicate/buildDefinition/resolvedDependencies");
        let base = |one: &Value| Some((text(one, "/name")?, text(one, "/digest/sha256")?));
        let step = |one: &Value| Some((text(one, "/name")?, text(one, "/image")?));
        Ok(Self {
            bases: dependencies.iter().filter(is_base).filter_map(base).collect(),
            steps: list("/predicate/buildDefinition/internalParameters/steps").iter().filter_map(step).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provenance_says_what_names_of_images_stood_for() {
        let statement = json!({ "predicate": { "buildDefinition": {
            "internalParameters": { "steps": [{ "name": "one", "image": "debian@sha256:aa" }, { "name": "two", "image": null }] },
            "resolvedDependencies": [
                { "uri": "git+https://git.example/shop@01", "digest": { "gitCommit": "01" } },
                { "name": "debian:12", "uri": "pkg:docker/library/debian@sha256:bb", "digest": { "sha256": "bb" } },
                { "name": "image", "uri": "debian@sha256:aa", "digest": { "sha256": "aa" } },
            ],
        } } });
        let pins = Pins::read(statement.to_string().as_bytes()).unwrap();
        let pair = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        assert_eq!(pins, Pins { bases: pair("debian:12", "bb"), steps: pair("one", "debian@sha256:aa") });
        assert!(Pins::read(b"{").is_err());
        assert_eq!(Pins::read(b"[]").unwrap(), Pins::default());
    }

    #[test]
    fn the_steps_of_an_artifact_are_those_whose_outputs_reach_it() {
        let step = |name: &str, needs: &[&str]| {
            let mut step = Step::new(name, "true");
            step.needs = needs.iter().map(|need| (*need).to_owned()).collect();
            step
        };
        let steps =
            [step("deps", &[]), step("compile", &["deps"]), step("test", &["compile"]), step("bundle", &["compile"])];
        let found: Vec<String> = steps_of(&["bundle".to_owned()], &steps).into_iter().collect();
        assert_eq!(found, ["bundle", "compile", "deps"], "no test is in it");
    }

    #[test]
    fn what_was_asked_for_names_no_secret_and_nobody() {
        let secret = v1::Secret { name: "TOKEN".into(), value: "hunter22".into() };
        let asked = v1::SubmitRequest {
            user: "ada".into(),
            secrets: vec![secret],
            no_cache: true,
            language: "go".into(),
            ..Default::default()
        };
        let value = request(&asked, "linux/arm64");
        let bytes = base64::engine::general_purpose::STANDARD.decode(value["base64"].as_str().unwrap()).unwrap();
        let read = v1::SubmitRequest::decode(bytes.as_slice()).unwrap();
        let platforms = vec!["linux/arm64".to_owned()];
        assert_eq!(read, v1::SubmitRequest { language: "go".into(), platforms, ..Default::default() });
    }
}
