//! The chart and the Kustomize base are two forms of one thing: with equal settings they make equal objects.

use serde_json::Value;

use super::{REPLICAS, WEBHOOKS, rendered};
use crate::kubernetes;

/// What the chart has and Kustomize does not: whose release an object is, and the service accounts.
const CHARTS_OWN: [&str; 5] = [
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
    "serviceAccountName",
];

/// Takes what only the chart has out of an object, and says of nothing that it is absent.
fn plain(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.iter().filter(|(name, _)| !CHARTS_OWN.contains(&name.as_str()));
            let kept = kept.map(|(name, value)| (name.clone(), plain(value)));
            Value::Object(kept.filter(|(_, value)| *value != serde_json::json!({})).collect())
        }
        Value::Array(items) => {
            let mut items: Vec<Value> = items.iter().map(plain).collect();
            // Kustomize puts what an overlay adds before what was there, which changes nothing.
            if items.iter().all(|item| item["name"].is_string()) {
                items.sort_by_key(|item| item["name"].to_string());
            }
            items.into()
        }
        Value::Null => serde_json::json!({}),
        other => other.clone(),
    }
}

/// The objects as they can be compared, in an order of their own.
fn comparable(objects: &[Value]) -> Vec<Value> {
    let mut objects: Vec<Value> = objects.iter().map(plain).collect();
    for object in &mut objects {
        // Labels that nothing selects by.
        if ["PodDisruptionBudget", "ScaledObject", "HorizontalPodAutoscaler"]
            .contains(&object["kind"].as_str().unwrap())
        {
            object["metadata"].as_object_mut().unwrap().remove("labels");
        }
    }
    objects.retain(|object| !["Namespace", "ServiceAccount"].contains(&object["kind"].as_str().unwrap()));
    objects.sort_by_key(|object| format!("{} {}", object["kind"], object["metadata"]["name"]));
    objects
}

#[track_caller]
fn agree(chart: &[Value], kustomize: &[Value]) {
    let (chart, kustomize) = (comparable(chart), comparable(kustomize));
    let names = |objects: &[Value]| -> Vec<String> {
        objects.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect()
    };
    assert_eq!(names(&chart), names(&kustomize));
    for (made, expected) in chart.iter().zip(&kustomize) {
        assert_eq!(
            serde_json::to_string_pretty(made).unwrap(),
            serde_json::to_string_pretty(expected).unwrap(),
            "the chart's {} {} is another than that of deploy/kubernetes",
            made["kind"],
            made["metadata"]["name"]
        );
    }
}

/// The objects of the chart that are not those of its default values.
fn added(values: &[&str]) -> Option<Vec<Value>> {
    let (before, mut objects) = (rendered(&[])?, rendered(values)?);
    objects.retain(|object| !before.contains(object));
    Some(objects)
}

#[test]
fn values_make_the_objects_of_the_kustomize_base_and_of_the_one_with_one_coordinator() {
    let to_zero = [REPLICAS, &["workers.scaling.by=keda", "workers.scaling.min=0"]].concat();
    for (name, values) in [("one", &[][..]), ("base", REPLICAS), ("keda-zero", &to_zero)] {
        let (Some(chart), Some(kustomize)) = (rendered(values), kubernetes::rendered(name)) else { return };
        agree(&chart, &kustomize);
        let accounts = chart.iter().filter(|object| object["kind"] == "ServiceAccount").count();
        assert_eq!(chart.len(), kustomize.len() - 1 + accounts, "expected nothing else but accounts, and no namespace");
    }
}

#[test]
fn scalers_and_monitors_are_those_of_the_kustomize_components() {
    for (component, values) in [
        ("keda", &["workers.scaling.by=keda"][..]),
        ("hpa", &["workers.scaling.by=hpa"]),
        ("prometheus-operator", &["monitoring.podMonitor.enabled=true"]),
    ] {
        let (Some(chart), Some(kustomize)) = (added(values), kubernetes::rendered(component)) else { return };
        agree(&chart, &kustomize);
    }
}

#[test]
fn webhooks_are_those_of_the_kustomize_overlay() {
    let (Some(mut chart), Some(mut overlay)) = (rendered(WEBHOOKS), kubernetes::rendered("webhooks")) else { return };
    let text = |objects: &[Value]| {
        let map = objects.iter().find(|object| object["kind"] == "ConfigMap").unwrap();
        let text = map["data"]["webhooks.toml"].as_str().unwrap().to_owned();
        (map["metadata"]["name"].as_str().unwrap().to_owned(), text.parse::<toml::Table>().unwrap())
    };
    let ((name, made), (hashed, expected)) = (text(&chart), text(&overlay));
    assert_eq!(made, expected);
    // Kustomize changes the map's name with its content, so that the pod starts again; the chart has an annotation for that.
    let renamed = serde_json::to_string(&overlay).unwrap().replace(&hashed, &name);
    overlay = serde_json::from_str(&renamed).unwrap();
    for objects in [&mut chart, &mut overlay] {
        objects.retain(|object| object["kind"] != "ConfigMap");
    }
    for set in chart.iter_mut().filter(|object| object["metadata"]["name"] == "kiln-coordinator") {
        let Some(annotations) = set["spec"]["template"]["metadata"]["annotations"].as_object_mut() else { continue };
        assert!(annotations.remove("checksum/webhooks").is_some());
    }
    agree(&chart, &overlay);
}

#[test]
fn rules_and_dashboard_are_the_files_that_others_copy() {
    let values = ["monitoring.rules.enabled=true", "monitoring.dashboard.enabled=true"];
    let Some(objects) = rendered(&values) else { return };
    let read = |name: &str| std::fs::read_to_string(crate::deploy().join(name)).unwrap();
    let rules = kubernetes::named(&objects, "PrometheusRule", "kiln");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("rules.json");
    std::fs::write(&file, rules["spec"].to_string()).unwrap();
    let Some(said) = crate::printed("promtool", &["check", "rules", file.to_str().unwrap()]) else { return };
    let alerts = read("prometheus/alerts.yaml").matches("- alert: ").count();
    assert!(said.contains(&format!("{alerts} rules found")), "expected {alerts} rules: {said}");
    let board = kubernetes::named(&objects, "ConfigMap", "kiln-dashboard");
    let board: Value = serde_json::from_str(board["data"]["kiln.json"].as_str().unwrap()).unwrap();
    assert_eq!(board, serde_json::from_str::<Value>(&read("grafana/dashboard.json")).unwrap());
}
