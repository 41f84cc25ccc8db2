//! A plan as JSON.

use std::time::Duration;

use kiln_planner::plan::gates::{Check, Gate, Place};
use kiln_planner::plan::{Artifact, ArtifactKind, Dockerfile, Image, Origin, Part, Plan, Step, Target, VersionOrigin};
use serde_json::{Value, json};

use super::{Expected, cpus};

/// The plan as an object.
pub fn object(plan: &Plan, expected: &Expected) -> Value {
    let (origin, considered) = match &plan.origin {
        Origin::KilnToml => ("kiln.toml".to_owned(), &[][..]),
        Origin::Detected { parts, considered } => {
            let languages: Vec<&str> = parts.iter().map(|part| part.language.as_str()).collect();
            (languages.join(", "), &considered[..])
        }
    };
    let because: Vec<&String> = plan.origin.parts().iter().flat_map(|part| &part.because).collect();
    let version_origin = match plan.version_origin {
        VersionOrigin::KilnToml => "kiln.toml",
        VersionOrigin::Manifest => "manifest",
        VersionOrigin::Git => "git",
        VersionOrigin::Directory => "directory",
        VersionOrigin::Unknown => "unknown",
    };
    json!({
        "name": plan.name,
        "version": plan.version,
        "version_origin": version_origin,
        "origin": origin,
        "because": because,
        "languages": plan.origin.parts().iter().map(|one| part(plan, one)).collect::<Vec<_>>(),
        "considered": considered,
        "targets": plan.targets.iter().map(target).collect::<Vec<_>>(),
        "steps": plan.steps.iter().map(|planned| step(planned, expected.get(&planned.name))).collect::<Vec<_>>(),
        "artifacts": plan.artifacts.iter().map(artifact).collect::<Vec<_>>(),
        "gates": plan.gates.iter().map(gate).collect::<Vec<_>>(),
        "exclude": plan.exclude,
        "excludable": plan.excludable,
        "notes": plan.notes,
    })
}

fn part(plan: &Plan, part: &Part) -> Value {
    let steps = plan.steps.iter().map(|step| &step.name).filter(|name| part.has(name));
    let artifacts = plan.artifacts.iter().filter(|artifact| part.makes(artifact)).map(|artifact| &artifact.name);
    json!({
        "language": part.language,
        "because": part.because,
        "steps": steps.collect::<Vec<_>>(),
        "artifacts": artifacts.collect::<Vec<_>>(),
    })
}

fn gate(gate: &Gate) -> Value {
    let mut object = json!({ "name": gate.name, "artifacts": gate.artifacts });
    let check = match &gate.check {
        Check::Command(command) => json!({
            "use": null,
            "place": match command.place {
                Place::Beside => "beside",
                Place::Inside => "inside",
                Place::Started { .. } => "started",
            },
            "run": command.step.run,
            "predicate": command.predicate.name(),
        }),
        Check::Vulnerabilities(scan) => {
            json!({ "use": "vulns", "database": scan.database, "fail_on": scan.fail_on.name(), "ignore": scan.ignore })
        }
        Check::Licenses(policy) => json!({ "use": "licenses", "allow": policy.allow, "deny": policy.deny }),
        Check::Size { max_bytes } => json!({ "use": "size", "max_bytes": max_bytes }),
    };
    if let (Some(all), Some(more)) = (object.as_object_mut(), check.as_object()) {
        all.extend(more.clone());
    }
    object
}

fn target(target: &Target) -> Value {
    json!({
        "name": target.name,
        "platform": target.platform.to_string(),
        "os": target.os,
        "glibc": target.glibc.map(|(major, minor)| format!("{major}.{minor}")),
        "image": target.image,
        "labels": target.labels,
        "libraries": target.libraries,
    })
}

fn step(step: &Step, expected: Option<&Duration>) -> Value {
    json!({
        "name": step.name,
        "why": step.why,
        "needs": step.needs,
        "inputs": step.inputs,
        "unversioned": step.unversioned,
        "files": step.files,
        "run": step.run,
        "outputs": step.outputs,
        "env": step.env,
        "secrets": step.secrets,
        "network": step.network,
        "cpus": cpus(step),
        "memory_bytes": step.memory_bytes,
        "memory_auto": step.memory_auto,
        "timeout_s": step.timeout.map(|timeout| timeout.as_secs_f64()),
        "shards": step.shards,
        "shards_auto": step.shards_auto,
        "reports": step.reports,
        "retries": step.retries,
        "cache": step.cache,
        "caches": step.caches.iter().map(|(path, cache)| {
            (path.clone(), json!({ "key": cache.key, "sharing": cache.sharing.name() }))
        }).collect::<serde_json::Map<_, _>>(),
        "image": step.image,
        "platform": step.platform.map(|platform| platform.to_string()),
        "packages": step.packages,
        "tools": step.tools,
        "working_directory": step.working_directory,
        "stamp": step.stamp,
        "native": step.native,
        "split": step.split.name(),
        "test": step.test,
        "expected_ms": expected.map(|expected| expected.as_millis() as u64),
    })
}

fn artifact(artifact: &Artifact) -> Value {
    let files = artifact.files.iter().map(|file| json!({ "path": file.path, "dest": file.dest })).collect::<Vec<_>>();
    json!({
        "name": artifact.name,
        "from": artifact.from,
        "files": files,
        "kind": artifact.kind.name(),
        "image": match &artifact.kind {
            ArtifactKind::Image(image) => of_image(image),
            ArtifactKind::Dockerfile(dockerfile) => of_dockerfile(dockerfile),
            ArtifactKind::Binary | ArtifactKind::Archive => Value::Null,
        },
        "check_elf": artifact.check_elf,
        "bundle_libraries": artifact.bundle_libraries,
    })
}

fn of_image(image: &Image) -> Value {
    json!({
        "base": image.base.show(),
        "runtime_packages": image.packages,
        "entrypoint": image.entrypoint,
        "cmd": image.cmd,
        "start": image.start,
        "layers": image.layers,
        "env": image.env,
        "user": image.user,
        "workdir": image.workdir,
        "labels": image.labels,
        "ports": image.ports,
    })
}

fn of_dockerfile(dockerfile: &Dockerfile) -> Value {
    json!({
        "dockerfile": dockerfile.file,
        "context": dockerfile.context,
        "target": dockerfile.stage,
        "args": dockerfile.args,
        "contexts": dockerfile.contexts,
        "secrets": dockerfile.secrets,
        "labels": dockerfile.labels,
    })
}
