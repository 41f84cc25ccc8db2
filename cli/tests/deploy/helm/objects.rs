//! What each option of the chart changes.

use serde_json::{Value, json};

use super::{CERT_MANAGER, REPLICAS, rendered};
use crate::kubernetes::{argument, named};

pub fn pod<'a>(objects: &'a [Value], set: &str) -> &'a Value {
    &named(objects, "StatefulSet", set)["spec"]["template"]["spec"]
}

/// A variable of a pod's container; null if it has none.
pub fn variable(pod: &Value, name: &str) -> Value {
    let variables = pod["containers"][0]["env"].as_array().into_iter().flatten();
    variables.into_iter().find(|variable| variable["name"] == name).cloned().unwrap_or_default()
}

fn mounted(pod: &Value, volume: &str) -> (Value, Value) {
    let find =
        |list: &Value| list.as_array().unwrap().iter().find(|one| one["name"] == volume).cloned().unwrap_or_default();
    (find(&pod["containers"][0]["volumeMounts"])["mountPath"].clone(), find(&pod["volumes"]))
}

pub fn kinds(objects: &[Value], kind: &str) -> Vec<String> {
    let fits = objects.iter().filter(|object| object["kind"] == kind);
    fits.map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn pools_are_added_changed_and_left_out() {
    let values = [
        "workers.pools.arm64=null",
        "workers.defaults.cacheSize=40GiB",
        "workers.defaults.priorityClassName=builds",
        "workers.pools.big.priorityClassName=",
        "workers.pools.big.arch=amd64",
        "workers.pools.big.cpus=32",
        "workers.pools.big.memory=128Gi",
        "workers.pools.big.replicas=2",
        "workers.pools.big.nodeSelector.disk=nvme",
        "workers.pools.big.storage.size=500Gi",
        "workers.pools.big.tolerations[0].key=builds",
        "workers.pools.off.arch=arm64",
        "workers.pools.off.enabled=false",
    ];
    let Some(objects) = rendered(&values) else { return };
    assert_eq!(kinds(&objects, "StatefulSet"), ["kiln-coordinator", "kiln-worker-amd64", "kiln-worker-big"]);
    let big = named(&objects, "StatefulSet", "kiln-worker-big");
    assert_eq!(
        (&big["spec"]["replicas"], &big["spec"]["selector"]["matchLabels"]["kiln/pool"]),
        (&json!(2), &json!("big"))
    );
    let storage = &big["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"];
    assert_eq!(storage, "500Gi");
    let of_big = &big["spec"]["template"]["spec"];
    let selector = json!({"kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64", "disk": "nvme"});
    assert_eq!((&of_big["nodeSelector"], &of_big["tolerations"]), (&selector, &json!([{"key": "builds"}])));
    let container = &of_big["containers"][0];
    assert_eq!((argument(container, "--cpus"), argument(container, "--cache-size")), ("32", "40GiB"));
    assert_eq!(
        container["resources"],
        json!({"requests": {"cpu": "32", "memory": "128Gi"}, "limits": {"memory": "128Gi"}})
    );
    let class = |set: &str| pod(&objects, set)["priorityClassName"].clone();
    assert_eq!((class("kiln-worker-big"), class("kiln-worker-amd64")), (Value::Null, json!("builds")));
    // What one pool says is nothing to another.
    let small = &pod(&objects, "kiln-worker-amd64")["containers"][0];
    assert_eq!((argument(small, "--cpus"), argument(small, "--cache-size")), ("4", "40GiB"));
}

#[test]
fn scalers_follow_their_pools() {
    let values = |by| {
        [
            by,
            "workers.pools.amd64.enabled=false",
            "workers.scaling.anyPool=arm64",
            "workers.scaling.max=50",
            "workers.pools.arm64.scaling.min=0",
            "workers.scaling.actionsPerWorker=8",
            "workers.scaling.matchers=namespace=\"kiln\"",
        ]
    };
    let Some(objects) = rendered(&values("workers.scaling.by=keda")) else { return };
    assert_eq!(kinds(&objects, "ScaledObject"), ["kiln-worker-arm64"]);
    let spec = &named(&objects, "ScaledObject", "kiln-worker-arm64")["spec"];
    assert_eq!((&spec["minReplicaCount"], &spec["maxReplicaCount"]), (&json!(0), &json!(50)));
    let trigger = &spec["triggers"][0]["metadata"];
    let query = "(sum(kiln_queue_actions{isa=~\"arm-a64|any\",namespace=\"kiln\"}) or vector(0)) + \
                 (sum(kiln_waiting_targets{isa=\"arm-a64\",namespace=\"kiln\"}) or vector(0)) + \
                 (sum(kiln_running_actions{isa=\"arm-a64\",namespace=\"kiln\"}) or vector(0))";
    assert_eq!((&trigger["query"], &trigger["threshold"]), (&json!(query), &json!("8")));
    let Some(objects) = rendered(&values("workers.scaling.by=hpa")) else { return };
    let spec = &named(&objects, "HorizontalPodAutoscaler", "kiln-worker-arm64")["spec"];
    let selector = &spec["metrics"][0]["external"]["metric"]["selector"]["matchExpressions"][0]["values"];
    assert_eq!((&spec["maxReplicas"], selector), (&json!(50), &json!(["arm-a64", "any"])));
}

#[test]
fn people_are_shown_a_certificate_of_cert_managers_or_of_a_secret() {
    let Some(objects) = rendered(CERT_MANAGER) else { return };
    let certificate = &named(&objects, "Certificate", "kiln-coordinator")["spec"];
    let issuer = json!({"name": "letsencrypt", "kind": "ClusterIssuer", "group": "cert-manager.io"});
    assert_eq!((&certificate["issuerRef"], &certificate["dnsNames"]), (&issuer, &json!(["farm.example"])));
    let Some(given) = rendered(&["tls.from=secret", "tls.secretName=farm-tls"]) else { return };
    assert!(kinds(&given, "Certificate").is_empty());
    for (objects, secret) in [(&objects, certificate["secretName"].as_str().unwrap()), (&given, "farm-tls")] {
        let pod = pod(objects, "kiln-coordinator");
        let (place, volume) = mounted(pod, "tls");
        assert_eq!(volume["secret"]["secretName"], secret);
        let container = &pod["containers"][0];
        for (option, file) in [("--tls-cert", "tls.crt"), ("--tls-key", "tls.key")] {
            assert_eq!(argument(container, option), format!("{}/{file}", place.as_str().unwrap()));
        }
        // Workers are shown the farm's own, under the name that they connect to.
        assert_eq!(argument(container, "--farm-dir"), "/etc/kiln");
        let coordinator = &variable(self::pod(objects, "kiln-worker-amd64"), "KILN_COORDINATOR")["value"];
        assert_eq!(coordinator, "https://kiln-coordinator:8980");
    }
}

#[test]
fn stores_of_ones_own_are_named_and_their_passwords_stay_in_secrets() {
    let values = [
        "redis.use=external",
        "redis.external.existingSecret=redis",
        "redis.external.tlsSecret=redis-tls",
        "redis.external.clientCertificate=true",
        "s3.use=external",
        "s3.external.url=s3://builds/kiln",
        "s3.external.region=eu-central-1",
        "s3.external.endpoint=https://s3.corp.example",
        "s3.external.existingSecret=bucket",
    ];
    let Some(objects) = rendered(&values) else { return };
    assert!(kinds(&objects, "Deployment").is_empty() && kinds(&objects, "Secret").is_empty());
    let pod = pod(&objects, "kiln-coordinator");
    let from = |name: &str| variable(pod, name)["valueFrom"]["secretKeyRef"].clone();
    assert_eq!(from("KILN_REDIS"), json!({"name": "redis", "key": "url"}));
    assert_eq!(from("AWS_SECRET_ACCESS_KEY"), json!({"name": "bucket", "key": "AWS_SECRET_ACCESS_KEY"}));
    let (place, volume) = mounted(pod, "redis-tls");
    assert_eq!(volume["secret"]["secretName"], "redis-tls");
    let file = |name: &str| json!(format!("{}/{name}", place.as_str().unwrap()));
    for (name, value) in [
        ("KILN_REDIS_CA", file("ca.crt")),
        ("KILN_REDIS_CERT", file("tls.crt")),
        ("KILN_REDIS_KEY", file("tls.key")),
        ("KILN_S3", json!("s3://builds/kiln")),
        ("AWS_REGION", json!("eu-central-1")),
        ("AWS_ENDPOINT_URL", json!("https://s3.corp.example")),
    ] {
        assert_eq!(variable(pod, name)["value"], value, "{name}");
    }
    // A service account with a role needs no key.
    let role = "serviceAccounts.coordinator.annotations.eks\\.amazonaws\\.com/role-arn=arn:aws:iam::1:role/kiln";
    let Some(objects) = rendered(&["s3.use=external", "s3.external.url=s3://builds", role]) else { return };
    let account = named(&objects, "ServiceAccount", "kiln-coordinator");
    assert_eq!(account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"], "arn:aws:iam::1:role/kiln");
    let pod = self::pod(&objects, "kiln-coordinator");
    assert_eq!(
        (&pod["serviceAccountName"], variable(pod, "AWS_ACCESS_KEY_ID")),
        (&json!("kiln-coordinator"), Value::Null)
    );
}

#[test]
fn only_the_coordinator_gets_into_the_bundled_stores() {
    let Some(objects) = rendered(&["redis.use=bundled", "s3.use=bundled"]) else { return };
    let labels = |set: &str| named(&objects, "StatefulSet", set)["spec"]["template"]["metadata"]["labels"].clone();
    for (store, port) in [("kiln-redis", 6379), ("kiln-s3", 8333)] {
        let policy = &named(&objects, "NetworkPolicy", store)["spec"];
        let deployment = &named(&objects, "Deployment", store)["spec"];
        assert_eq!(policy["podSelector"]["matchLabels"], deployment["template"]["metadata"]["labels"]);
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(policy["egress"], json!([]));
        let from = json!([{"podSelector": {"matchLabels": labels("kiln-coordinator")}}]);
        assert_eq!(policy["ingress"], json!([{"from": from, "ports": [{"port": port}]}]));
        let pod = &deployment["template"]["spec"];
        assert!(pod["volumes"].as_array().unwrap().iter().all(|volume| volume["emptyDir"].is_object()), "{store}");
    }
}

#[test]
fn several_coordinators_reach_each_other_and_are_placed_as_asked() {
    let more = [
        "networkPolicies.clients[0].ipBlock.cidr=10.0.0.0/8",
        "coordinator.topologySpreadConstraints[0].topologyKey=rack",
        "coordinator.topologySpreadConstraints[0].maxSkew=1",
        "coordinator.topologySpreadConstraints[0].whenUnsatisfiable=DoNotSchedule",
        "replicas.count=3",
    ];
    let Some(objects) = rendered(&[REPLICAS, &more].concat()) else { return };
    let set = &named(&objects, "StatefulSet", "kiln-coordinator")["spec"];
    assert_eq!(set["replicas"], 3);
    let template = &set["template"];
    let keys: Vec<&Value> = template["spec"]["topologySpreadConstraints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["topologyKey"])
        .collect();
    assert_eq!(keys, ["rack"]);
    let inside = &named(&objects, "NetworkPolicy", "kiln-coordinator")["spec"]["ingress"][0];
    let from: Vec<&Value> =
        inside["from"].as_array().unwrap().iter().map(|peer| &peer["podSelector"]["matchLabels"]).collect();
    assert!(from.contains(&&template["metadata"]["labels"]), "expected coordinators among {from:?}");
    assert_eq!(inside["ports"], json!([{"port": "grpc"}]));
    // Without a second Redis, results are in the one that they agree in.
    let values =
        ["replicas.count=2", "replicas.redis.url=redis://state:6379", "s3.use=external", "s3.external.url=s3://builds"];
    let Some(objects) = rendered(&values) else { return };
    let pod = self::pod(&objects, "kiln-coordinator");
    assert_eq!(variable(pod, "KILN_REPLICAS")["value"], "redis://state:6379");
    assert!(variable(pod, "KILN_REDIS").is_null());
}

#[test]
fn what_people_reach_from_outside_has_no_metrics() {
    let values = [
        "coordinator.public.enabled=true",
        "coordinator.public.sourceRanges={10.0.0.0/8}",
        "coordinator.web.enabled=true",
        "coordinator.web.url=https://farm.example:8982",
        "coordinator.toolCaches.enabled=true",
        "networkPolicies.clients[0].ipBlock.cidr=10.0.0.0/8",
    ];
    let Some(objects) = rendered(&values) else { return };
    let container = &pod(&objects, "kiln-coordinator")["containers"][0];
    assert_eq!(argument(container, "--web-url"), "https://farm.example:8982");
    let listens = |option: &str| argument(container, option).rsplit_once(':').unwrap().1.parse::<u64>().unwrap();
    let service = &named(&objects, "Service", "kiln-public")["spec"];
    let ports: Vec<(&str, u64)> = (service["ports"].as_array().unwrap().iter())
        .map(|port| (port["targetPort"].as_str().unwrap(), port["port"].as_u64().unwrap()))
        .collect();
    assert_eq!(ports, [("grpc", 8980), ("web", listens("--web-listen")), ("caches", listens("--cache-listen"))]);
    assert_eq!(
        (&service["type"], &service["loadBalancerSourceRanges"]),
        (&json!("LoadBalancer"), &json!(["10.0.0.0/8"]))
    );
    for (name, port) in ports {
        let own = container["ports"].as_array().unwrap().iter().find(|own| own["name"] == name).unwrap();
        assert_eq!(own["containerPort"], port);
    }
    let ingress = named(&objects, "NetworkPolicy", "kiln-coordinator")["spec"]["ingress"].as_array().unwrap().clone();
    let clients = ingress.iter().find(|rule| rule["from"][0]["ipBlock"]["cidr"] == "10.0.0.0/8").unwrap();
    assert_eq!(clients["ports"], json!([{"port": "grpc"}, {"port": "web"}, {"port": "caches"}]));
    let anyone = ingress.iter().find(|rule| rule["from"].is_null()).unwrap();
    assert_eq!(anyone["ports"], json!([{"port": "metrics"}]));
}

#[test]
fn pods_are_placed_and_their_images_pulled_as_asked() {
    let digest = format!("images.coordinator.digest=sha256:{}", "0".repeat(64));
    let values = [
        "fullnameOverride=farm",
        "monitoring.annotations=false",
        "images.registry=registry.corp/builds",
        "images.tag=1.2",
        "images.pullPolicy=Always",
        "images.pullSecrets={pull}",
        &digest,
        "coordinator.nodeSelector.disk=ssd",
        "coordinator.tolerations[0].key=farm",
        "coordinator.priorityClassName=high",
        "coordinator.env[0].name=KILN_FSYNC",
        "coordinator.env[0].value=always",
        "coordinator.podAnnotations.team=builds",
        "serviceAccounts.create=false",
        "podDisruptionBudgets.enabled=false",
        "networkPolicies.enabled=false",
    ];
    let Some(objects) = rendered(&values) else { return };
    let absent = ["ServiceAccount", "PodDisruptionBudget", "NetworkPolicy"];
    assert!(absent.iter().all(|kind| kinds(&objects, kind).is_empty()), "{:?}", kinds(&objects, "ServiceAccount"));
    let annotations =
        |set: &str| named(&objects, "StatefulSet", set)["spec"]["template"]["metadata"]["annotations"].clone();
    assert_eq!(
        (annotations("farm-coordinator"), annotations("farm-worker-amd64")),
        (json!({"team": "builds"}), Value::Null)
    );
    let (coordinator, worker) = (pod(&objects, "farm-coordinator"), pod(&objects, "farm-worker-amd64"));
    let image = |pod: &Value| pod["containers"][0]["image"].as_str().unwrap().to_owned();
    assert_eq!(image(coordinator), format!("registry.corp/builds/kiln-coordinator@sha256:{}", "0".repeat(64)));
    assert_eq!(image(worker), "registry.corp/builds/kiln-worker:1.2");
    for pod in [coordinator, worker] {
        assert_eq!(pod["imagePullSecrets"], json!([{"name": "pull"}]));
        assert_eq!(
            (&pod["containers"][0]["imagePullPolicy"], &pod["serviceAccountName"]),
            (&json!("Always"), &json!("default"))
        );
    }
    assert_eq!(
        (&coordinator["nodeSelector"], &coordinator["priorityClassName"]),
        (&json!({"disk": "ssd"}), &json!("high"))
    );
    assert_eq!(
        (&coordinator["tolerations"], variable(coordinator, "KILN_FSYNC")["value"].clone()),
        (&json!([{"key": "farm"}]), json!("always"))
    );
    // Nothing of this is a worker's.
    assert!(worker["tolerations"].is_null() && worker["priorityClassName"].is_null());
}
