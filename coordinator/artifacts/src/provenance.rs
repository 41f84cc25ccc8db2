//! Provenance: an in-toto statement (v1) with a SLSA provenance predicate (v1).
//!
//! Sources: in-toto attestation framework, "Statement v1"; slsa.dev, "Provenance v1".

use kiln_proto::clock;
use kiln_proto::digest::Digest;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1;
use serde_json::{Value, json};

use super::Made;

/// The type of the statement.
const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// What the parameters mean: `BUILDTYPE.md`.
const BUILD_TYPE: &str = "urn:kiln:plan:v1";

/// A file of the artifact.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Its path in the artifact.
    pub name: String,
    /// Its content.
    pub digest: Digest,
}

/// Something that an artifact was made from besides the sources, such as an image's base.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Material {
    /// What the project calls it, such as the reference of a base; empty if it has no name.
    pub name: String,
    /// Its URI.
    pub uri: String,
    /// Its SHA-256, in hex.
    pub sha256: String,
}

/// A step that contributed to the artifact.
#[derive(Debug, Clone)]
pub struct StepFact {
    /// Its name, with the shard if it has several.
    pub name: String,
    /// The digest of its action.
    pub action: Digest,
    /// Whether its result came from the cache.
    pub cached: bool,
    /// The worker that ran it.
    pub worker: String,
    /// Its command.
    pub run: String,
    /// Whether it had network access.
    pub network: bool,
    /// The names of the secrets that it got.
    pub secrets: Vec<String>,
    /// The image that it ran in, by digest; `None` for the worker's own system.
    pub image: Option<String>,
    /// The client that wrote its result into the cache; `None` if the farm ran it.
    pub writer: Option<String>,
    /// When its result was recorded, by the clock of the coordinator that recorded it.
    pub recorded: Option<Timestamp>,
    /// What became of its compiler calls, if it was split into them.
    pub calls: Option<v1::SplitCalls>,
    /// What came of a second run, if there was one: the annotation in the provenance.
    pub reproduced: Option<Value>,
}

/// The facts of a statement, besides subjects and steps.
#[derive(Debug, Clone)]
pub struct Facts<'a> {
    /// The build.
    pub build: &'a v1::Build,
    /// The artifact's name, target and platform.
    pub artifact: &'a v1::Artifact,
    /// Where something ran on the target's platform, if anything did.
    pub environment: Option<&'a v1::Environment>,
    /// Where something ran on other platforms, by their names.
    pub elsewhere: &'a [(String, &'a v1::Environment)],
    /// What it was made from besides the sources.
    pub materials: &'a [Material],
    /// The URI of the farm that made it.
    pub farm: &'a str,
}

/// Creates the statement of a farm with this URI. `BUILDTYPE.md` describes it.
pub fn statement(
    farm: &str,
    build: &v1::Build,
    artifact: &v1::Artifact,
    (environment, elsewhere): (Option<&v1::Environment>, &[(String, &v1::Environment)]),
    made: &Made,
    steps: &[StepFact],
) -> Value {
    let facts = Facts { build, artifact, environment, elsewhere, materials: &made.materials, farm };
    let predicate = match &made.links {
        Some(links) => json!({
            "buildDefinition": definition(&facts, steps),
            "runDetails": run(&facts, steps),
            "kiln_links": links,
        }),
        None => json!({ "buildDefinition": definition(&facts, steps), "runDetails": run(&facts, steps) }),
    };
    about(&made.subjects, PREDICATE_TYPE, predicate)
}

/// An in-toto statement about an artifact's files.
pub fn about(subjects: &[Subject], predicate_type: &str, predicate: Value) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": subjects
            .iter()
            .map(|subject| json!({ "name": subject.name, "digest": digest(&subject.digest) }))
            .collect::<Vec<_>>(),
        "predicateType": predicate_type,
        "predicate": predicate,
    })
}

fn digest(digest: &Digest) -> Value {
    json!({ digest.function.name(): digest.hex() })
}

fn definition(facts: &Facts<'_>, steps: &[StepFact]) -> Value {
    let source = facts.build.source.clone().unwrap_or_default();
    let mut dependencies = Vec::new();
    if !source.commit.is_empty() {
        let repository = if source.repository.is_empty() { "unknown" } else { &source.repository };
        dependencies.push(json!({
            "uri": format!("git+{repository}@{}", source.commit),
            "digest": { "gitCommit": source.commit },
            "annotations": {
                "dirty": source.dirty,
                "describe": source.describe,
                "branch": source.branch,
                // Who vouches for the source: the farm, which fetched the commit, or the client that uploaded the tree.
                "assertedBy": if facts.build.source_verified { "farm" } else { "client" },
            },
        }));
    }
    if let Some(root) = &source.root {
        dependencies.push(json!({
            "name": "source tree",
            "uri": format!("blobs/{}/{}", root.hash, root.size_bytes),
            "digest": { facts.artifact_function(): root.hash },
        }));
    }
    dependencies.extend(facts.materials.iter().map(|material| {
        let (uri, digest) = (&material.uri, json!({ "sha256": material.sha256 }));
        match material.name.as_str() {
            "" => json!({ "uri": uri, "digest": digest }),
            name => json!({ "uri": uri, "digest": digest, "name": name }),
        }
    }));
    let images: std::collections::BTreeSet<&str> = steps.iter().filter_map(|step| step.image.as_deref()).collect();
    for image in images {
        let hash = image.rsplit_once("sha256:").map_or("", |(_, hash)| hash);
        dependencies.push(json!({ "name": "image", "uri": image, "digest": { "sha256": hash } }));
    }
    json!({
        "buildType": BUILD_TYPE,
        "externalParameters": {
            "project": facts.build.project,
            "version": facts.build.version,
            "artifact": facts.artifact.name,
            "platform": facts.artifact.platform,
            "target": facts.artifact.target,
        },
        "internalParameters": {
            "caller": {
                "identity": facts.build.identity,
                "tenant": facts.build.tenant,
                // The user named by the client, if the farm does not authenticate.
                "claimedUser": if facts.build.identity.is_empty() { facts.build.user.as_str() } else { "" },
            },
            "environment": facts.environment.map(machine),
            "otherEnvironments": facts.elsewhere.iter().map(|(platform, environment)| (platform.clone(), machine(environment)))
                .collect::<serde_json::Map<_, _>>(),
            "steps": steps.iter().map(|step| json!({
                "name": step.name, "action": digest(&step.action), "run": step.run, "network": step.network,
                "image": step.image, "secrets": step.secrets,
            })).collect::<Vec<_>>(),
        },
        "resolvedDependencies": dependencies,
    })
}

fn machine(environment: &v1::Environment) -> Value {
    json!({
        "fingerprint": environment.fingerprint,
        "os": environment.os,
        "libc": environment.libc,
        "isa": environment.isa,
        "emulated": environment.emulated,
        "tools": environment.tools.iter().collect::<std::collections::BTreeMap<_, _>>(),
    })
}

impl Facts<'_> {
    fn artifact_function(&self) -> &'static str {
        kiln_proto::digest::DigestFunction::from_wire(self.artifact.digest_function).unwrap_or_default().name()
    }
}

fn run(facts: &Facts<'_>, steps: &[StepFact]) -> Value {
    json!({
        "builder": {
            "id": facts.farm,
            "version": { "kiln": env!("CARGO_PKG_VERSION") },
        },
        "metadata": {
            "invocationId": facts.build.id,
            "startedOn": facts.build.started.as_ref().map(rfc3339),
            "finishedOn": facts.artifact.created.as_ref().map(rfc3339),
        },
        "byproducts": steps.iter().map(|step| json!({
            "name": step.name,
            "digest": digest(&step.action),
            "annotations": {
                "worker": step.worker,
                "recordedOn": step.recorded.as_ref().map(clock::rfc3339),
                "writtenBy": step.writer,
                "cached": step.cached,
                "compilerCalls": calls(step),
                "reproduced": step.reproduced,
            },
        })).collect::<Vec<_>>(),
    })
}

/// What a step was made of besides its own work: results of compiler calls, by their keys. The list of keys is a blob beside the artifact.
fn calls(step: &StepFact) -> Value {
    let Some(calls) = &step.calls else { return Value::Null };
    json!({
        "results": calls.hits.saturating_add(calls.compiled).saturating_add(calls.elsewhere),
        "cached": calls.hits,
        "workers": calls.makers.iter().map(|maker| json!({
            "worker": maker.worker,
            "firstRecordedOn": maker.first.as_ref().map(clock::rfc3339),
            "lastRecordedOn": maker.last.as_ref().map(clock::rfc3339),
        })).collect::<Vec<_>>(),
        "keys": calls.keys.as_ref().map(|keys| json!({
            "uri": format!("blobs/{}/{}", keys.hash, keys.size_bytes),
            "digest": { step.action.function.name(): keys.hash },
        })),
    })
}

/// Formats a time as RFC 3339, to the second.
fn rfc3339(at: &Timestamp) -> String {
    clock::rfc3339(&Timestamp { seconds: at.seconds, nanos: 0 })
}
