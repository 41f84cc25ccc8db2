//! What a release carries of secrets, what an upgrade may change of it, and releases side by side.

use serde_json::{Value, json};

use super::objects::{kinds, pod, variable};
use super::{CERT_MANAGER, WEBHOOKS, helm, rendered};
use crate::kubernetes::named;

/// The values of all options that have something to do with secrets.
fn everything() -> Vec<&'static str> {
    let more = [
        "replicas.count=3",
        "replicas.redis.existingSecret=kiln-state",
        "redis.use=bundled",
        "s3.use=bundled",
        "coordinator.public.enabled=true",
        "monitoring.podMonitor.enabled=true",
    ];
    [CERT_MANAGER, WEBHOOKS, &more].concat()
}

#[test]
fn no_object_carries_a_secret_unless_that_was_asked_for() {
    for values in [vec![], everything()] {
        let Some(objects) = rendered(&values) else { return };
        let secrets = kinds(&objects, "Secret");
        // The trial's bucket has keys that the chart makes up itself.
        assert_eq!(secrets, if values.is_empty() { vec![] } else { vec!["kiln-s3".to_owned()] });
        for pod in objects.iter().map(|object| &object["spec"]["template"]["spec"]).filter(|pod| pod.is_object()) {
            for variable in pod["containers"][0]["env"].as_array().into_iter().flatten() {
                let name = variable["name"].as_str().unwrap();
                let is_secret = ["JOIN", "TOKEN", "KEY", "PASSWORD"].iter().any(|word| name.contains(word));
                assert!(!is_secret || variable["value"].is_null(), "expected a reference: {variable}");
            }
            assert_eq!(pod["automountServiceAccountToken"], false);
        }
    }
    let token = format!("kiln-join.{}.kiln_s3cr3t", "a".repeat(64));
    let Some(objects) = rendered(&[&format!("join.token={token}")]) else { return };
    let holders: Vec<&Value> = objects.iter().filter(|object| object.to_string().contains("s3cr3t")).collect();
    assert_eq!(holders.len(), 1, "expected the token in one place: {holders:?}");
    assert_eq!((&holders[0]["kind"], &holders[0]["stringData"]["token"]), (&json!("Secret"), &json!(token)));
    let from = variable(pod(&objects, "kiln-worker-amd64"), "KILN_JOIN")["valueFrom"]["secretKeyRef"].clone();
    assert_eq!(from, json!({"name": holders[0]["metadata"]["name"], "key": "token"}));
    let Some(installed) = helm(&["install", "kiln", "--dry-run=client"], &[&format!("join.token={token}")]) else {
        return;
    };
    assert!(installed.out.contains("prefer `join.existingSecret`"), "expected a warning: {}", installed.out);
}

/// What the cluster lets nobody change of an object.
fn immutable(object: &Value) -> Value {
    let spec = &object["spec"];
    let fields = ["selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates"];
    let kept = fields.iter().filter(|field| object["kind"] != "Service" || **field == "serviceName");
    kept.map(|field| ((*field).to_owned(), spec[*field].clone()))
        .chain([("clusterIP".to_owned(), spec["clusterIP"].clone())])
        .collect()
}

#[test]
fn an_upgrade_changes_nothing_that_the_cluster_keeps() {
    let Some(before) = rendered(&[]) else { return };
    // Another version of the chart and of the images, and other values of everything that may change.
    let dir = tempfile::tempdir().unwrap();
    let chart = dir.path().join("kiln");
    kiln_harness::copy(&crate::deploy().join("helm/kiln"), &chart);
    let text = std::fs::read_to_string(chart.join("Chart.yaml")).unwrap();
    let later = text.replace("version: 0.1.0", "version: 0.2.0").replace("\"0.1.0\"", "\"0.2.0\"");
    assert_ne!(text, later);
    std::fs::write(chart.join("Chart.yaml"), later).unwrap();
    let mut values = everything();
    values.extend([
        "coordinator.storeSize=70GiB",
        "workers.defaults.cpus=8",
        "images.tag=next",
        "serviceAccounts.create=false",
    ]);
    let mut command = std::process::Command::new(format!("{}/helm", crate::kubernetes::TOOLS));
    command.args(["template", "kiln"]).arg(&chart).args(["--namespace", "kiln"]);
    command.args(values.iter().flat_map(|value| ["--set", value]));
    let ran = kiln_harness::Ran::from(command);
    assert_eq!(ran.code, 0, "{}", ran.err);
    let Some(after) = crate::kubernetes::checked(&ran.out) else { return };
    for old in before.iter().filter(|object| object["kind"] != "ServiceAccount") {
        let new = named(&after, old["kind"].as_str().unwrap(), old["metadata"]["name"].as_str().unwrap());
        assert_eq!(immutable(new), immutable(old), "{} {}", old["kind"], old["metadata"]["name"]);
    }
    let version = |objects: &[Value]| {
        named(objects, "StatefulSet", "kiln-coordinator")["metadata"]["labels"]["helm.sh/chart"].clone()
    };
    assert_ne!(version(&before), version(&after));
}

#[test]
fn two_releases_in_one_namespace_are_two_farms() {
    let Some(ran) = helm(&["template", "second"], &[]) else { return };
    let (Some(second), Some(first)) = (crate::kubernetes::checked(&ran.out), rendered(&[])) else { return };
    for object in &second {
        let other = first
            .iter()
            .find(|other| other["kind"] == object["kind"] && other["metadata"]["name"] == object["metadata"]["name"]);
        assert!(other.is_none(), "expected another name than {}", object["metadata"]["name"]);
    }
    let selector =
        |objects: &[Value], name: &str| named(objects, "StatefulSet", name)["spec"]["selector"]["matchLabels"].clone();
    assert_ne!(selector(&second, "second-kiln-coordinator"), selector(&first, "kiln-coordinator"));
    let coordinator = variable(pod(&second, "second-kiln-worker-amd64"), "KILN_COORDINATOR");
    assert_eq!(coordinator["value"], "https://second-kiln-coordinator:8980");
}
