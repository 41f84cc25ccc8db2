//! Values that the chart refuses, before anything is installed.

use super::{WEBHOOKS, helm};

#[track_caller]
fn refused(values: &[&str], words: &str) {
    let Some(ran) = helm(&["template", "kiln"], values) else { return };
    assert_ne!(ran.code, 0, "expected {values:?} to be refused");
    assert!(ran.err.contains(words), "expected `{words}` for {values:?}: {}", ran.err);
}

#[test]
fn unknown_values_and_those_of_a_wrong_form_are_refused_by_name() {
    for (value, words) in [
        ("redsi.use=bundled", "'redsi' not allowed"),
        ("workers.pools.amd64.cpu=8", "/workers/pools/amd64"),
        ("workers.defaults.memory=lots", "'lots' does not match pattern"),
        ("workers.defaults.cpus=0", "/workers/defaults/cpus"),
        ("workers.pools.amd64.arch=riscv64", "/workers/pools/amd64"),
        ("workers.pools.Big_One.arch=amd64", "Big_One"),
        ("workers.pools.big.cpus=8", "missing property 'arch'"),
        ("workers.scaling.by=luck", "/workers/scaling/by"),
        ("tls.from=thin-air", "/tls/from"),
        ("redis.external.url=redis://user:password@cache:6379", "/redis/external/url"),
        ("replicas.redis.url=redis://user:password@state:6379", "/replicas/redis/url"),
        ("replicas.count=0", "/replicas/count"),
        ("s3.external.endpoint=https://key:secret@s3.example", "/s3/external/endpoint"),
        ("join.token=abc", "/join/token"),
        ("farm.existingSecret=", "/farm/existingSecret"),
        ("coordinator.public.type=ExternalName", "/coordinator/public/type"),
        ("images.coordinator.digest=sha256:12", "/images/coordinator/digest"),
        ("webhooks.hooks.shop.forge=sourceforge", "/webhooks/hooks/shop"),
        ("webhooks.hooks.shop.secret=hunter2", "'secret' not allowed"),
        ("coordinator.resources.limit.cpu=1", "'limit' not allowed"),
    ] {
        refused(&[value], words);
    }
}

#[test]
fn values_that_do_not_go_together_are_refused_with_what_to_do() {
    let cases: &[(&[&str], &str)] = &[
        (&["tls.from=secret"], "name a Secret with `tls.crt` and `tls.key`"),
        (&["tls.from=certManager"], "name an issuer of this cluster"),
        (&["tls.from=certManager", "tls.certManager.issuer.name=a"], "list the names at which people reach the farm"),
        (
            &["tls.from=certManager", "tls.certManager.issuer.name=a", "tls.certManager.dnsNames={kiln-coordinator}"],
            "workers must be shown the farm's own certificate",
        ),
        (&["redis.use=external"], "set either `redis.external.url`"),
        (&["replicas.count=2"], "set either `replicas.redis.url`"),
        (&["replicas.count=2", "replicas.redis.url=redis://a"], "`s3.use` is `none`"),
        (
            &["redis.use=external", "redis.external.url=redis://a", "redis.external.existingSecret=b"],
            "set either `redis.external.url`",
        ),
        (
            &["redis.use=external", "redis.external.url=rediss://a", "redis.external.clientCertificate=true"],
            "needs `redis.external.tlsSecret`",
        ),
        (&["s3.use=external"], "set it to `s3://BUCKET/PREFIX`"),
        (&["redis.use=bundled", "networkPolicies.enabled=false"], "leave it on, or use stores of your own"),
        (&["coordinator.web.url=https://farm.example"], "`coordinator.web.enabled` is not"),
        (&["workers.scaling.by=keda", "workers.pools.amd64.replicas=3"], "leave out one of them"),
        (&["workers.scaling.by=keda", "workers.pools.amd64.scaling.min=30"], "make `min` at most `max`"),
        (&["workers.scaling.by=hpa", "workers.pools.amd64=null"], "name one of: arm64"),
    ];
    for (values, words) in cases {
        refused(values, words);
    }
    for missing in ["webhooks.host", "webhooks.tlsSecret", "webhooks.hooks"] {
        let kept: Vec<&str> = WEBHOOKS.iter().copied().filter(|value| !value.starts_with(missing)).collect();
        refused(&kept, &format!("`webhooks.enabled` needs `{missing}`"));
    }
}

#[test]
fn a_cluster_that_is_too_old_for_the_workers_sandbox_is_refused() {
    let Some(ran) = helm(&["template", "kiln", "--kube-version", "1.30"], &[]) else { return };
    assert!(ran.code != 0 && ran.err.contains("kubeVersion: >=1.33.0-0"), "{}", ran.err);
}
