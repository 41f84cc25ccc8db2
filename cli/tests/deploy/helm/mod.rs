//! The Helm chart, rendered by Helm itself (`.ci/test` installs it) and checked against the schemas of Kubernetes and of its operators.

mod agreement;
mod objects;
mod refused;
mod releases;
mod runs;

use std::process::{Command, Stdio};

use kiln_harness::{Ran, cannot_run};
use serde_json::Value;

use crate::kubernetes::TOOLS;
use crate::{deploy, kubernetes};

/// What the webhooks' overlay says, as values.
pub const WEBHOOKS: &[&str] = &[
    "webhooks.enabled=true",
    "webhooks.host=builds.example",
    "webhooks.tlsSecret=kiln-webhooks-tls",
    "webhooks.hooks.shop.forge=github",
    "webhooks.hooks.shop.repositories={https://github.com/acme/*}",
    "webhooks.hooks.shop.branches={main,release/*}",
    "webhooks.hooks.shop.tags={v*}",
];
/// What the Kustomize base says of several coordinators, as values.
pub const REPLICAS: &[&str] = &[
    "replicas.count=2",
    "replicas.redis.existingSecret=kiln-stores",
    "redis.use=external",
    "redis.external.existingSecret=kiln-stores",
    "redis.external.key=redis",
    "s3.use=external",
    "s3.external.url=s3://builds/kiln",
    "s3.external.region=eu-central-1",
    "s3.external.existingSecret=kiln-stores",
];
/// A certificate of a public authority.
pub const CERT_MANAGER: &[&str] =
    &["tls.from=certManager", "tls.certManager.issuer.name=letsencrypt", "tls.certManager.dnsNames={farm.example}"];

/// Helm on the chart with these values (`NAME=VALUE`). `None`, with a message, if it is not installed.
pub fn helm(arguments: &[&str], values: &[&str]) -> Option<Ran> {
    let program = format!("{TOOLS}/helm");
    if !std::path::Path::new(&program).exists() {
        cannot_run(&format!("`{program}` is not installed"));
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(program);
    command.args(arguments).arg(deploy().join("helm/kiln")).args(["--namespace", "kiln"]);
    command.args(values.iter().flat_map(|value| ["--set", value])).stdin(Stdio::null());
    // No settings, plugins or cluster of whoever runs this.
    command
        .env("HOME", dir.path())
        .env("KUBECONFIG", "/nowhere")
        .envs(["HELM_CONFIG_HOME", "HELM_DATA_HOME"].map(|name| (name, dir.path())));
    Some(Ran::from(command))
}

/// The objects that the chart makes with these values, each known to its schema.
#[track_caller]
pub fn rendered(values: &[&str]) -> Option<Vec<Value>> {
    let ran = helm(&["template", "kiln"], values)?;
    assert_eq!(ran.code, 0, "expected the chart to be rendered with {values:?}: {}", ran.err);
    kubernetes::checked(&ran.out)
}

#[test]
fn the_chart_is_sound_and_says_what_to_do_next() {
    let Some(linted) = helm(&["lint", "--strict"], &[]) else { return };
    assert_eq!(linted.code, 0, "{}{}", linted.out, linted.err);
    let Some(installed) = helm(&["install", "kiln", "--dry-run=client"], &["images.registry=registry.corp"]) else {
        return;
    };
    assert_eq!(installed.code, 0, "{}{}", installed.out, installed.err);
    let (_, notes) = installed.out.split_once("\nNOTES:\n").expect("expected notes");
    assert!(!notes.contains("registry.example") && !notes.contains("trial"), "{notes}");
    let bundled = ["redis.use=bundled", "s3.use=bundled"];
    let Some(trial) = helm(&["install", "kiln", "--dry-run=client"], &bundled) else { return };
    assert!(
        trial.out.contains("is lost when their pods stop") && trial.out.contains("images.registry="),
        "{}",
        trial.out
    );
}

#[test]
fn values_on_the_charts_page_are_taken() {
    let page = std::fs::read_to_string(deploy().join("helm/kiln/README.md")).unwrap();
    let blocks: Vec<&str> = page.split("```yaml\n").skip(1).map(|rest| rest.split_once("```").unwrap().0).collect();
    let [webhooks, rules] = blocks[..] else { panic!("expected two blocks of YAML, found {blocks:?}") };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("values.yaml");
    std::fs::write(&file, webhooks).unwrap();
    let Some(ran) = helm(&["template", "kiln", "--values", file.to_str().unwrap()], &[]) else { return };
    assert_eq!(ran.code, 0, "{}", ran.err);
    let Some(objects) = kubernetes::checked(&ran.out) else { return };
    let map = kubernetes::named(&objects, "ConfigMap", "kiln-webhooks");
    let text = map["data"]["webhooks.toml"].as_str().unwrap();
    assert!(text.contains("secret_file = \"/etc/kiln-webhooks/secrets/shop.secret\""), "{text}");
    // The adapter's rule is the one that stands beside the Kustomize component.
    let query = rules.lines().find(|line| line.contains("metricsQuery: ")).unwrap().trim();
    let component = std::fs::read_to_string(deploy().join("kubernetes/hpa/worker-amd64.yaml")).unwrap();
    assert!(component.contains(query), "expected `{query}` in {component}");
}
