//! What an API server refuses although the schemas allow it: rules of Kubernetes' own validation that objects of this kind can break.
//!
//! Sources: <https://kubernetes.io/docs/concepts/overview/working-with-objects/names/>,
//! <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/>, and the API reference of each kind.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What is wrong with these objects, which are applied together.
pub fn problems(objects: &[Value]) -> Vec<String> {
    let mut found = Vec::new();
    let mut seen = BTreeSet::new();
    for object in objects {
        let (kind, name) = (text(&object["kind"]), text(&object["metadata"]["name"]));
        let mut says = |words: String| found.push(format!("{kind} {name}: {words}"));
        if !seen.insert((kind, text(&object["metadata"]["namespace"]), name)) {
            says("is there twice".to_owned());
        }
        // A Service's name is a host name's label.
        let is_lawful = if kind == "Service" { is_label(name) } else { name.split('.').all(is_label) };
        if !is_lawful {
            says("has no lawful name".to_owned());
        }
        labels(object, "", &mut says);
        match kind {
            "Service" => service(object, objects, &mut says),
            "StatefulSet" | "Deployment" | "DaemonSet" | "Job" => workload(object, objects, &mut says),
            "HorizontalPodAutoscaler" => {
                let (least, most) = (object["spec"]["minReplicas"].as_u64(), object["spec"]["maxReplicas"].as_u64());
                // Zero needs the feature gate `HPAScaleToZero` (README.md), and a metric that is there without a pod.
                let has_external = list(&object["spec"]["metrics"]).iter().any(|metric| metric["type"] == "External");
                if (least == Some(0) && !has_external) || least.unwrap_or(1) > most.unwrap_or(0) {
                    says(format!("scales from {least:?} to {most:?}"));
                }
            }
            "PodDisruptionBudget" => {
                let spec = &object["spec"];
                if spec["minAvailable"].is_null() == spec["maxUnavailable"].is_null() {
                    says("expected either `minAvailable` or `maxUnavailable`".to_owned());
                }
            }
            _ => {}
        }
    }
    found
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A label of a DNS name (RFC 1123), in lower case.
fn is_label(text: &str) -> bool {
    let inner = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    (1..=63).contains(&text.len()) && text.chars().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A label's value, or the last part of its key.
fn is_word(text: &str) -> bool {
    let inner = |letter: char| letter.is_ascii_alphanumeric() || "-_.".contains(letter);
    let edges = |letter: Option<char>| letter.is_none_or(|letter| letter.is_ascii_alphanumeric());
    text.len() <= 63 && text.chars().all(inner) && edges(text.chars().next()) && edges(text.chars().last())
}

/// All labels and selectors below here.
fn labels(value: &Value, under: &str, says: &mut impl FnMut(String)) {
    match value {
        Value::Object(fields) if matches!(under, "labels" | "matchLabels") => {
            for (key, value) in fields {
                let (prefix, name) = key.rsplit_once('/').unwrap_or(("a", key));
                if name.is_empty() || !is_word(name) || !prefix.split('.').all(is_label) || !is_word(text(value)) {
                    says(format!("`{key}: {value}` is no label"));
                }
            }
        }
        Value::Object(fields) => fields.iter().for_each(|(key, value)| labels(value, key, says)),
        Value::Array(items) => items.iter().for_each(|item| labels(item, "", says)),
        _ => {}
    }
}

fn covers(selector: &Value, labels: &Value) -> bool {
    selector.as_object().is_some_and(|wanted| wanted.iter().all(|(key, value)| &labels[key] == value))
}

fn service(object: &Value, objects: &[Value], says: &mut impl FnMut(String)) {
    let ports = list(&object["spec"]["ports"]);
    let names: BTreeSet<&str> = ports.iter().map(|port| text(&port["name"])).collect();
    if names.len() < ports.len() || (ports.len() > 1 && names.contains("")) {
        says("expected each port to have a name of its own".to_owned());
    }
    let templates = objects.iter().map(|object| &object["spec"]["template"]);
    let chosen: Vec<&Value> =
        templates.filter(|pod| covers(&object["spec"]["selector"], &pod["metadata"]["labels"])).collect();
    for port in ports.iter().filter(|port| port["targetPort"].is_string()) {
        let target = text(&port["targetPort"]);
        if chosen.iter().any(|pod| !all_ports(&pod["spec"]).contains(target)) {
            says(format!("its pods have no port `{target}`"));
        }
    }
}

fn all_ports(pod: &Value) -> BTreeSet<&str> {
    list(&pod["containers"]).iter().flat_map(|one| list(&one["ports"])).map(|port| text(&port["name"])).collect()
}

fn workload(object: &Value, objects: &[Value], says: &mut impl FnMut(String)) {
    let (spec, template) = (&object["spec"], &object["spec"]["template"]);
    let selector = &spec["selector"]["matchLabels"];
    if !selector.is_null() && !covers(selector, &template["metadata"]["labels"]) {
        says("its selector does not choose its pods".to_owned());
    }
    let is_service = |one: &Value| one["kind"] == "Service" && one["metadata"]["name"] == spec["serviceName"];
    if spec["serviceName"].is_string() && !objects.iter().any(is_service) {
        says(format!("there is no Service `{}`", text(&spec["serviceName"])));
    }
    let pod = &template["spec"];
    let mut volumes = BTreeSet::new();
    for volume in list(&pod["volumes"]) {
        let name = text(&volume["name"]);
        if !is_label(name) || !volumes.insert(name) || volume.as_object().is_none_or(|fields| fields.len() != 2) {
            says(format!("volume `{name}` has no name of its own, or not one source"));
        }
    }
    volumes.extend(list(&spec["volumeClaimTemplates"]).iter().map(|claim| text(&claim["metadata"]["name"])));
    let mut names = BTreeSet::new();
    for container in list(&pod["containers"]).iter().chain(list(&pod["initContainers"])) {
        let name = text(&container["name"]);
        if !is_label(name) || !names.insert(name) {
            says(format!("container `{name}` has no name of its own"));
        }
        for problem in of_container(container, pod, &volumes) {
            says(format!("container `{name}`: {problem}"));
        }
    }
}

fn of_container(container: &Value, pod: &Value, volumes: &BTreeSet<&str>) -> Vec<String> {
    let mut found = Vec::new();
    let (mut ports, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for port in list(&container["ports"]) {
        let name = text(&port["name"]);
        let is_lawful = is_label(name) && name.len() <= 15 && name.contains(|letter: char| letter.is_ascii_lowercase());
        if !is_lawful || !ports.insert(name) || !numbers.insert(port["containerPort"].as_u64()) {
            found.push(format!("port `{name}` has no name and number of its own"));
        }
    }
    let mut variables = BTreeSet::new();
    for variable in list(&container["env"]) {
        let name = text(&variable["name"]);
        let is_lawful = is_word(name) && !name.starts_with(|letter: char| letter.is_ascii_digit());
        let is_once = variable["value"].is_null() || variable["valueFrom"].is_null();
        if name.is_empty() || !is_lawful || !is_once || !variables.insert(name) {
            found.push(format!("variable `{name}` is set twice, or has no lawful name"));
        }
    }
    let mut paths = BTreeSet::new();
    for mount in list(&container["volumeMounts"]) {
        let (name, path) = (text(&mount["name"]), text(&mount["mountPath"]));
        if !volumes.contains(name) || path.contains(':') || !path.starts_with('/') || !paths.insert(path) {
            found.push(format!("there is no volume `{name}` for `{path}`, or another one is there"));
        }
    }
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
        let asked = &container[probe];
        let handlers = ["httpGet", "exec", "tcpSocket", "grpc"].iter().filter(|way| !asked[**way].is_null()).count();
        let port = &asked["httpGet"]["port"];
        if !asked.is_null() && (handlers != 1 || port.as_str().is_some_and(|port| !ports.contains(port))) {
            found.push(format!("`{probe}` does not ask in one way, or at no port"));
        }
        if probe != "readinessProbe" && asked["successThreshold"].as_u64().is_some_and(|count| count != 1) {
            found.push(format!("`{probe}` has another `successThreshold` than 1"));
        }
    }
    for (what, limit) in container["resources"]["limits"].as_object().into_iter().flatten() {
        let asked = &container["resources"]["requests"][what];
        let (Some(most), Some(least)) = (quantity(limit), if asked.is_null() { Some(0.0) } else { quantity(asked) })
        else {
            found.push(format!("`{what}` is no quantity: {limit}, {asked}"));
            continue;
        };
        if least > most {
            found.push(format!("asks for more `{what}` than its limit: {asked}, {limit}"));
        }
    }
    let (own, of_pod) = (&container["securityContext"], &pod["securityContext"]);
    let is = |field: &str| if own[field].is_null() { &of_pod[field] } else { &own[field] };
    if is("runAsNonRoot") == true && is("runAsUser") == 0 {
        found.push("must not be root, and is".to_owned());
    }
    let added: Vec<&str> = list(&own["capabilities"]["add"]).iter().map(text).collect();
    let is_raised = own["privileged"] == true || added.iter().any(|name| name.ends_with("SYS_ADMIN"));
    if own["allowPrivilegeEscalation"] == false && is_raised {
        found.push("may not gain privileges, and has them all".to_owned());
    }
    if own["procMount"] == "Unmasked" && pod["hostUsers"] != false {
        found.push("`procMount: Unmasked` needs `hostUsers: false`".to_owned());
    }
    found
}

/// A quantity's value, in units of one.
fn quantity(value: &Value) -> Option<f64> {
    let said = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let digits = said.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let powers: BTreeMap<&str, f64> = [("", 1.0), ("m", 1e-3), ("k", 1e3), ("M", 1e6), ("G", 1e9), ("T", 1e12)].into();
    let binary =
        |unit: &str| Some(1024_f64.powi(["Ki", "Mi", "Gi", "Ti"].iter().position(|one| *one == unit)? as i32 + 1));
    let unit = &said[digits.len()..];
    Some(digits.parse::<f64>().ok()? * powers.get(unit).copied().or_else(|| binary(unit))?)
}

#[test]
fn what_an_api_server_would_refuse_is_noticed() {
    let set: Value = serde_json::from_str(
        r#"{"kind": "StatefulSet", "metadata": {"name": "one"}, "spec": {
            "serviceName": "one", "selector": {"matchLabels": {"app": "one"}},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            "template": {"metadata": {"labels": {"app": "one"}}, "spec": {
                "hostUsers": false, "securityContext": {"runAsNonRoot": true, "runAsUser": 7},
                "volumes": [{"name": "tmp", "emptyDir": {}}],
                "containers": [{
                    "name": "one", "ports": [{"name": "farm", "containerPort": 1}, {"name": "metrics", "containerPort": 2}],
                    "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {}}],
                    "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, {"name": "data", "mountPath": "/data"}],
                    "livenessProbe": {"httpGet": {"port": "metrics"}},
                    "resources": {"requests": {"memory": "512Mi", "cpu": "500m"}, "limits": {"memory": "1Gi", "cpu": 1}},
                    "securityContext": {"allowPrivilegeEscalation": false, "procMount": "Unmasked"}}]}}}}"#,
    )
    .unwrap();
    let service: Value = serde_json::from_str(
        r#"{"kind": "Service", "metadata": {"name": "one"},
            "spec": {"selector": {"app": "one"}, "ports": [{"name": "farm", "targetPort": "farm"}]}}"#,
    )
    .unwrap();
    let (set, service) = (&set, &service);
    assert_eq!(problems(&[set.clone(), service.clone()]), [""; 0]);
    let container = "/spec/template/spec/containers/0";
    let changes: &[(&Value, &str, &str)] = &[
        (set, "/metadata/name", r#""One""#),
        (set, "/spec/serviceName", r#""two""#),
        (set, "/spec/selector/matchLabels", r#"{"app": "two"}"#),
        (set, "/spec/template/metadata/labels", r#"{"app": "one", "a b": "c"}"#),
        (set, "/spec/template/metadata/labels/app", r#""-one""#),
        (set, "/spec/template/spec/volumes/0/name", r#""other""#),
        (set, "/spec/template/spec/volumes/0", r#"{"name": "tmp", "emptyDir": {}, "secret": {}}"#),
        (set, "/spec/template/spec/hostUsers", "true"),
        (set, "/spec/template/spec/securityContext/runAsUser", "0"),
        (set, &format!("{container}/name"), r#""a_b""#),
        (set, &format!("{container}/ports/1/name"), r#""a-name-that-is-too-long""#),
        (set, &format!("{container}/ports/1/containerPort"), "1"),
        (set, &format!("{container}/env/1/name"), r#""A""#),
        (set, &format!("{container}/env/1/value"), r#""2""#),
        (set, &format!("{container}/volumeMounts/1/mountPath"), r#""/tmp""#),
        (set, &format!("{container}/livenessProbe/httpGet/port"), r#""web""#),
        (set, &format!("{container}/livenessProbe/exec"), "{}"),
        (set, &format!("{container}/livenessProbe/successThreshold"), "2"),
        (set, &format!("{container}/resources/requests/memory"), r#""2G""#),
        (set, &format!("{container}/resources/limits/cpu"), r#""1 core""#),
        (set, &format!("{container}/securityContext/privileged"), "true"),
        (service, "/metadata/name", r#""one.two""#),
        (service, "/spec/ports/0/targetPort", r#""web""#),
        (service, "/spec/ports", r#"[{"port": 1}, {"port": 2}]"#),
    ];
    for (object, at, value) in changes {
        let mut changed = (*object).clone();
        let (above, field) = at.rsplit_once('/').unwrap();
        let place = changed.pointer_mut(above).unwrap();
        let value = serde_json::from_str(value).unwrap();
        match field.parse::<usize>() {
            Ok(number) => place[number] = value,
            Err(_) => place[field] = value,
        }
        let other = if std::ptr::eq(*object, set) { service } else { set };
        assert_ne!(problems(&[changed, other.clone()]), [""; 0], "{at}");
    }
    assert_ne!(problems(&[set.clone(), service.clone(), service.clone()]), [""; 0], "twice");
}
