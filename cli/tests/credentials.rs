//! Credentials for registries: a tenant's steps and images get the farm's credentials for that tenant, and nobody gets
//! the workers'.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use kiln_harness::guarded::{Guarded, access, certificate};
use kiln_harness::registry::{Registry, Setup};
use kiln_harness::{Built, Farm, PROGRAM, Ran, has, project};

/// A step that looks for anything it could leak.
const SPIES: &str = r#"
name = "spy"
[steps.fetch]
network = true
run = '''
env
cat ~/.npmrc ~/.m2/settings.xml ~/.config/pip/pip.conf 2> /dev/null
echo "npm has $(wc -c < ~/.npmrc) bytes"
stat -c '%a %F' -L ~/.npmrc
find / -xdev -name '*.npmrc' -path '*home*' 2> /dev/null
date +%N > out
'''
outputs = ["out"]
cache = false
[artifacts.out]
from = "fetch"
files = ["out"]
kind = "archive"
"#;

type Variables = Vec<(String, String)>;

fn someone(guarded: &Guarded, tenant: &str) -> Variables {
    let made = certificate(&guarded.dir(), &format!("one-of-{tenant}"), &["--role", "builder", "--tenant", tenant]);
    access(&guarded.dir(), Some(&made))
}

fn build(guarded: &Guarded, who: &Variables, config: &str) -> Built {
    let dir = project(&[("kiln.toml", config)]);
    let mut command = guarded.as_other(who.clone(), &["build", "--progress", "json"]);
    command.current_dir(dir.path());
    Built(Ran::from(command))
}

fn write(path: &Path, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

#[test]
fn a_step_with_the_network_has_its_tenants_credentials_and_none_of_the_workers() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().join("home");
    write(
        &home.join(".npmrc"),
        "registry=https://mirror.example/npm/\n//mirror.example/:_authToken=workers-token-npm\n",
    );
    write(
        &home.join(".m2/settings.xml"),
        "<settings><mirrors><mirror><url>https://mirror.example/maven</url></mirror></mirrors><servers><server><id>corp</id>\
         <password>workers-token-maven</password></server></servers></settings>",
    );
    write(
        &home.join(".config/pip/pip.conf"),
        "[global]\nindex-url = https://u:workers-token-pip@mirror.example/simple\n",
    );
    write(&dir.path().join("token"), "tenants-token-npm\n");
    let credentials = format!(
        "[credentials.npm]\ntenants = [\"shop\"]\nsecrets = {{ NPM_TOKEN = {:?} }}\n\
         files = {{ \".npmrc\" = \"//npm.corp.example/:_authToken=${{NPM_TOKEN}}\\n\" }}\n",
        dir.path().join("token")
    );
    write(&dir.path().join("credentials.toml"), &credentials);
    let guarded = Guarded::start(&["--credentials", dir.path().join("credentials.toml").to_str().unwrap()]);
    let of_worker = [
        ("HOME", home.to_str().unwrap()),
        ("CARGO_REGISTRIES_CORP_TOKEN", "workers-token-cargo"),
        ("PIP_INDEX_URL", "https://u:workers-token-index@mirror.example/simple"),
        ("HTTPS_PROXY", "http://u:proxys-password@proxy.example:3128"),
    ];
    guarded.farm.start_worker_in(&guarded.farm.url, "one", &["--join", &guarded.join], &of_worker);
    guarded.farm.wait_for_worker("one");

    let shop = build(&guarded, &someone(&guarded, "shop"), SPIES).well();
    let log = shop.log();
    assert!(log.contains("//npm.corp.example/:_authToken=***"), "expected the tenant's own, masked: {log}");
    assert!(log.contains("NPM_TOKEN=***"), "{log}");
    assert!(log.contains("600 regular file"), "{log}");
    let bank = build(&guarded, &someone(&guarded, "bank"), SPIES).well();
    let others = bank.log();
    assert!(!others.contains("npm.corp.example") && !others.contains("NPM_TOKEN"), "{others}");
    for (log, whose) in [(&log, "shop"), (&others, "bank")] {
        assert!(!log.contains("workers-token"), "expected nothing of the worker's user for {whose}: {log}");
        assert!(!log.contains("CARGO_REGISTRIES_CORP_TOKEN"), "{log}");
        assert!(log.contains("index-url = https://mirror.example/simple"), "expected mirrors to pass: {log}");
        assert!(log.contains("<url>https://mirror.example/maven</url>"), "{log}");
        assert!(log.contains("HTTPS_PROXY=http://u:***@proxy.example:3128"), "expected a proxy to pass, masked: {log}");
    }
    assert!(others.contains("registry=https://mirror.example/npm/"), "{others}");
    // Nothing that the farm stores contains either, in keys or in records.
    let kept = std::process::Command::new("grep")
        .args(["-rlE", "tenants-token-npm|workers-token|proxys-password"])
        .arg(guarded.farm.dir.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&kept.stdout), "", "expected no file of the farm to hold a credential");
}

#[test]
fn credentials_are_replaced_while_the_farm_runs() {
    if !Farm::has_program() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("credentials.toml");
    let shows = "name = \"shows\"\n[steps.fetch]\nnetwork = true\ncache = false\n\
                 run = 'cat ~/.npmrc || true; echo \"token ${NPM_TOKEN:-none}\"; date +%N > out'\noutputs = [\"out\"]\n";
    let give = |host: &str, tenant: &str| {
        let secret = dir.path().join("token");
        write(&secret, "a-tenants-token\n");
        let files = format!("{{ \".npmrc\" = \"//{host}/:_authToken=${{NPM_TOKEN}}\\n\" }}");
        let text = format!(
            "[credentials.npm]\ntenants = [\"{tenant}\"]\nsecrets = {{ NPM_TOKEN = {secret:?} }}\nfiles = {files}\n"
        );
        write(&file, &text);
    };
    give("old.example", "shop");
    let guarded = Guarded::start(&[PROGRAM, "--credentials", file.to_str().unwrap()]);
    guarded.worker("one");
    let (shop, bank) = (someone(&guarded, "shop"), someone(&guarded, "bank"));
    assert!(build(&guarded, &shop, shows).well().log().contains("//old.example/:_authToken=***"));
    give("new.example", "shop");
    guarded.farm.reload_coordinator();
    let log = build(&guarded, &shop, shows).well().log();
    assert!(log.contains("//new.example/:_authToken=***") && !log.contains("old.example"), "{log}");
    // Who has none any more gets none.
    give("new.example", "bank");
    guarded.farm.reload_coordinator();
    let (log, others) = (build(&guarded, &shop, shows).well().log(), build(&guarded, &bank, shows).well().log());
    assert!(!log.contains("new.example") && log.contains("token none"), "{log}");
    assert!(others.contains("//new.example/:_authToken=***"), "{others}");
    // A file that is wrong changes nothing.
    write(&file, "[credentials.npm]\ntenants = 7\n");
    guarded.farm.reload_coordinator_in_vain();
    assert!(build(&guarded, &bank, shows).well().log().contains("//new.example/:_authToken=***"));
}

#[test]
fn a_base_is_fetched_with_the_credentials_of_its_tenant_alone() {
    if !has("skopeo") {
        return;
    }
    let Some(registry) = Registry::with(&Setup { login: Some(("ann", "secret")), ..Setup::default() }) else { return };
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let layout = kiln_harness::guarded::well(Ran::from({
        let project = project(&[(
            "kiln.toml",
            "name = \"base\"\nversion = \"1\"\n[steps.s]\nrun = \"echo x > out\"\noutputs = [\"out\"]\n[artifacts.base]\n\
             kind = \"image\"\nfrom = \"s\"\nfiles = [\"out\"]\nbase = \"scratch\"\n",
        )]);
        let mut command = Farm::shared().build_command(project.path(), &["--output", image.to_str().unwrap()]);
        command.current_dir(project.keep());
        command
    }));
    assert!(layout.contains("success"), "{layout}");
    let to = format!("docker://{}/team/base:1", registry.name);
    let from = format!("oci:{}", image.join("base").display());
    kiln_harness::output(
        "skopeo",
        &["copy", "--quiet", "--dest-tls-verify=false", "--dest-creds", "ann:secret", &from, &to],
        dir.path(),
    );

    let login = format!("{{\"auths\":{{\"{}\":{{\"auth\":\"{}\"}}}}}}", registry.name, STANDARD.encode("ann:secret"));
    write(&dir.path().join("shop/config.json"), &login);
    // The login of the coordinator's user.
    write(&dir.path().join("own/config.json"), &login);
    let credentials = format!(
        "[credentials.images]\ntenants = [\"shop\"]\ndocker_config = {:?}\n",
        dir.path().join("shop/config.json")
    );
    write(&dir.path().join("credentials.toml"), &credentials);
    let guarded = Guarded::start_in(
        vec![("DOCKER_CONFIG".to_owned(), dir.path().join("own").display().to_string())],
        &["--credentials", dir.path().join("credentials.toml").to_str().unwrap(), "--allow-registry", "127.0.0.0/8"],
    );
    guarded.worker("one");
    let config = format!(
        "name = \"on\"\nversion = \"1\"\n[steps.s]\nrun = \"echo x > out\"\noutputs = [\"out\"]\n[artifacts.on]\nkind = \"image\"\n\
         from = \"s\"\nfiles = [\"out\"]\nbase = \"{}/team/base:1\"\n",
        registry.name
    );
    build(&guarded, &someone(&guarded, "shop"), &config).well();
    let bank = build(&guarded, &someone(&guarded, "bank"), &config);
    let words = format!("{}{}", bank.0.out, bank.0.err);
    assert!(
        bank.0.code != 0 && words.contains("requires credentials"),
        "expected another tenant to be refused: {words}"
    );
}
