//! The coordinator's configuration file: every option can stand in it, `--check-config` verifies it, SIGHUP reads it again.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use kiln_harness::guarded::refused;
use kiln_harness::options::{configured, files};
use kiln_harness::remote::{caller_of, shell};
use kiln_harness::{Lasting, Ran};
use kiln_proto::digest::DigestFunction;
use kiln_proto::v1::farm_client::FarmClient;
use kiln_proto::{reapi, v1};

/// `kiln-coordinator` with the file `coordinator.toml` in this directory, and these further arguments.
fn coordinator(dir: &Path, arguments: &[&str]) -> Command {
    configured(env!("CARGO_BIN_EXE_kiln-coordinator"), &dir.join("coordinator.toml"), arguments)
}

const MINIMAL: &str = "listen = \"127.0.0.1:0\"\ndata-dir = \"data\"\ninsecure = true\n";

#[test]
fn every_option_can_stand_in_the_file() {
    kiln_harness::options::round_trip::<kiln_coordinator::Arguments>();
}

#[test]
fn a_mistake_in_the_file_is_refused_with_its_line_before_anything_is_created() {
    for (text, words) in [
        (
            "data-dir = \"data\"\n\nstore-sise = \"1GiB\"\n",
            "line 3: there is no `store-sise`; did you mean `store-size`?",
        ),
        ("data-dir = \"data\"\nstore-size = \"much\"\n", "line 2: invalid value `much` for `store-size`"),
        ("data-dir = \"data\"\nallow-registry = \"x\"\n", "line 2: `allow-registry` must be an array of strings"),
        ("data-dir = \"data\"\nlog = \"kiln=loud\"\n", "line 2: invalid value `kiln=loud` for `log`"),
        ("data-dir = \"data\"\nlog-format = \"xml\"\n", "expected one of `text`, `json`"),
    ] {
        let dir = files(&[("coordinator.toml", text)]);
        let ran = Ran::from(coordinator(dir.path(), &[]));
        refused(&ran, 1, words);
        assert!(ran.err.contains(dir.path().join("coordinator.toml").to_str().unwrap()), "{ran:?}");
        assert!(!dir.path().join("data").exists());
    }
    let dir = files(&[("coordinator.toml", "data-dir = \"data\"\nredis-ca = \"ca.pem\"\n")]);
    refused(&Ran::from(coordinator(dir.path(), &[])), 1, "`--redis-ca` requires `--redis` or `--replicas`");
    assert!(!dir.path().join("data").exists());
}

#[test]
fn what_a_configuration_names_is_checked_without_starting() {
    let text = format!(
        "{MINIMAL}quotas = \"quotas.toml\"\nredis = \"rediss://:hunter22@cache:6379\"\nstore-size = \"1GiB\"\n"
    );
    let dir = files(&[("coordinator.toml", &text), ("quotas.toml", "[default]\nactions = 4\n")]);
    let check = |arguments: &[&str]| {
        Ran::from({
            let mut command = coordinator(dir.path(), &[&["--check-config"], arguments].concat());
            command.env("KILN_CACHE_AGE", "12h");
            command
        })
    };
    let ran = check(&["--store-size", "2GiB"]);
    assert_eq!(ran.code, 0, "{ran:?}");
    for line in [
        "store-size = \"2GiB\"  # command line".to_owned(),
        "cache-age = \"12h\"  # `KILN_CACHE_AGE`".to_owned(),
        format!("insecure = true  # `{}`, line 3", dir.path().join("coordinator.toml").display()),
        "abandoned-after = \"30s\"  # default".to_owned(),
    ] {
        assert!(ran.out.lines().any(|one| one == line), "expected `{line}` in:\n{}", ran.out);
    }
    assert!(ran.out.contains("# redis is set and not shown") && !ran.out.contains("hunter22"), "{}", ran.out);
    assert!(!dir.path().join("data").exists(), "expected nothing to be created");

    // All that is wrong is said at once.
    std::fs::write(dir.path().join("quotas.toml"), "[default]\nactions = 0\n").unwrap();
    std::fs::write(dir.path().join("cert.pem"), "no certificate").unwrap();
    let own = dir.path().join("cert.pem");
    let own = own.to_str().unwrap();
    let ran =
        check(&["--tls-cert", own, "--tls-key", own, "--webhooks", "/nowhere.toml", "--redis-ca", "/nowhere.pem"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    for words in [
        "`actions = 0` allows nothing to run",
        "cert.pem`: it contains no PEM certificate",
        "/nowhere.toml",
        "/nowhere.pem",
    ] {
        assert!(
            ran.err.lines().any(|line| line.starts_with("error: ") && line.contains(words)),
            "expected `{words}` in {ran:?}"
        );
    }
}

#[test]
fn a_certificate_that_has_expired_is_found() {
    let mut parameters = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = parameters.self_signed(&key).unwrap().pem();
    let text = format!("{MINIMAL}tls-cert = \"own.pem\"\ntls-key = \"own.key\"\n");
    let dir = files(&[("coordinator.toml", &text), ("own.pem", &certificate), ("own.key", &key.serialize_pem())]);
    refused(&Ran::from(coordinator(dir.path(), &["--check-config"])), 1, "own.pem`: it has expired");
}

/// A coordinator that runs, and what it logs.
struct Running {
    process: Lasting,
    url: String,
}

impl Running {
    fn start(dir: &Path) -> Self {
        let mut process = Lasting::start(coordinator(dir, &[]));
        let line = process.line_with("ready");
        let address = line.split_once("address=").unwrap().1.split(' ').next().unwrap().to_owned();
        Self { process, url: format!("http://{address}") }
    }

    /// The image that the farm has for Go.
    async fn go(&self) -> Option<String> {
        let channel = kiln_proto::channel::connect(&self.url, &Default::default()).await.unwrap();
        let status = FarmClient::new(channel).status(v1::StatusRequest {}).await.unwrap().into_inner();
        status.toolchains.get("go").cloned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_file_again_and_an_invalid_one_changes_nothing() {
    let text = format!("{MINIMAL}toolchains = \"toolchains.toml\"\n");
    let dir =
        files(&[("coordinator.toml", &text), ("toolchains.toml", "[toolchains]\ngo = \"registry.example/go:1\"\n")]);
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let mut running = Running::start(dir.path());
    assert_eq!(running.go().await.as_deref(), Some("registry.example/go:1"));

    // A file that the configuration names.
    write("toolchains.toml", "[toolchains]\ngo = \"registry.example/go:2\"\n");
    running.process.hang_up();
    running.process.line_with("reloaded the configuration");
    assert_eq!(running.go().await.as_deref(), Some("registry.example/go:2"));

    // An invalid file of those, and an invalid configuration.
    write("toolchains.toml", "[toolchains]\ngo = \"No Image\"\n");
    running.process.hang_up();
    let line = running.process.line_with("the previous one stays in effect");
    assert!(line.contains("the toolchains in") && line.contains("No Image"), "{line}");
    write("toolchains.toml", "[toolchains]\ngo = \"registry.example/go:3\"\n");
    write("coordinator.toml", &format!("{text}strage = 1\n"));
    running.process.hang_up();
    let line = running.process.line_with("the previous one stays in effect");
    assert!(line.contains("line 5: there is no `strage`"), "{line}");
    assert_eq!(running.go().await.as_deref(), Some("registry.example/go:2"), "expected nothing to have changed");

    // Options that need a restart are named, by themselves.
    write("coordinator.toml", &format!("{text}max-connections = 9\nredis-prefix = \"x\"\n"));
    running.process.hang_up();
    let line = running.process.line_with("takes effect after a restart");
    assert!(line.contains("changed=\"`max-connections`, `redis-prefix`\""), "{line}");
    assert_eq!(running.go().await.as_deref(), Some("registry.example/go:3"));

    // The option itself, and the log.
    write("coordinator.toml", &format!("{MINIMAL}log = \"warn\"\n"));
    running.process.hang_up();
    kiln_harness::until("the toolchains to be gone", || {
        let asked = tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(running.go()));
        asked.is_none().then_some(())
    });
    write("coordinator.toml", &format!("{MINIMAL}log = \"warn\"\nfsync = \"always\"\n"));
    running.process.hang_up();
    let lines = running.process.lines_until("takes effect after a restart");
    assert!(!lines.iter().any(|line| line.contains(" INFO ")), "expected warnings only: {lines:#?}");
}

/// What is answered to an action with this property: nothing is there that could run it.
async fn asked_for(running: &Running, property: &str) -> Result<(), tonic::Status> {
    let caller = caller_of(&running.url, DigestFunction::Sha256).await;
    let property = reapi::platform::Property { name: property.to_owned(), value: "large".to_owned() };
    let platform = Some(reapi::Platform { properties: vec![property] });
    let action = caller.action(shell("true", &[]), &[], |action| action.platform = platform).await;
    caller.start(&action, false).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_for_properties_are_replaced_and_invalid_ones_are_not_taken() {
    let rule = |name: &str| format!("[[property]]\nname = \"{name}\"\nignore = true\n");
    let text = format!("{MINIMAL}properties = \"properties.toml\"\n");
    let dir = files(&[("coordinator.toml", &text), ("properties.toml", &rule("acme-one"))]);
    let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
    let mut running = Running::start(dir.path());
    asked_for(&running, "acme-one").await.unwrap();
    let refused = asked_for(&running, "acme-two").await.unwrap_err();
    assert!(refused.message().contains("acme-two"), "{refused:?}");

    write("properties.toml", &rule("acme-two"));
    running.process.hang_up();
    running.process.line_with("reloaded the configuration");
    asked_for(&running, "acme-two").await.unwrap();
    assert!(asked_for(&running, "acme-one").await.is_err());

    // A rule that cannot be used changes nothing.
    write("properties.toml", "[[property]]\nname = \"acme-two\"\n");
    running.process.hang_up();
    let line = running.process.line_with("the previous one stays in effect");
    assert!(line.contains("needs either `ignore = true` or `to`"), "{line}");
    asked_for(&running, "acme-two").await.unwrap();

    // Without the option, there are no rules; and what needs a restart is named.
    write("coordinator.toml", &format!("{MINIMAL}own-credentials = true\nallow-notify = [\"hooks.example\"]\n"));
    running.process.hang_up();
    let line = running.process.line_with("reloaded the configuration");
    assert!(line.contains("changed=\"properties\""), "{line}");
    let line = running.process.line_with("takes effect after a restart");
    assert!(line.contains("`own-credentials`") && line.contains("`allow-notify`"), "{line}");
    assert!(asked_for(&running, "acme-two").await.is_err());
}

#[test]
fn webhooks_are_replaced_and_their_listener_stays() {
    let hooks = |name: &str, port: u16| {
        format!(
            "listen = \"127.0.0.1:{port}\"\n[hooks.{name}]\nforge = \"gitea\"\nsecret_file = \"SECRET\"\n\
             repositories = [\"https://git.example/team/*\"]\n"
        )
    };
    let text = format!("{MINIMAL}webhooks = \"hooks.toml\"\n");
    let dir = files(&[("coordinator.toml", &text), ("secret", "0123456789abcdef0123456789abcdef")]);
    let secret = dir.path().join("secret");
    let write = |text: String| {
        std::fs::write(dir.path().join("hooks.toml"), text.replace("SECRET", secret.to_str().unwrap())).unwrap();
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    write(hooks("one", port));
    let mut process = Lasting::start(coordinator(dir.path(), &[]));
    process.line_with("accepting webhooks");
    process.line_with("ready");
    let mut running = Running { process, url: String::new() };
    // A hook of this name is asked for a signature; of another one nobody learns whether it exists, but the log does.
    write(hooks("two", if port == 1 { 2 } else { 1 }));
    running.process.hang_up();
    let line = running.process.line_with("takes effect after a restart");
    assert!(line.contains("`listen`, `certificate` and `key` in `--webhooks`"), "{line}");
    let deliver = |name: &str| {
        let request = format!(
            "POST /webhooks/{name} HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\
             x-gitea-event: push\r\nx-gitea-delivery: 1\r\nx-gitea-signature: {}\r\n\r\n{{}}",
            "0".repeat(64)
        );
        kiln_harness::http::raw(&format!("127.0.0.1:{port}"), &request)
    };
    assert!(deliver("one").starts_with("HTTP/1.1 401"));
    assert!(deliver("two").starts_with("HTTP/1.1 401"));
    let line = running.process.line_with("cannot authenticate a delivery");
    assert!(line.contains("hook=\"two\""), "expected only the new hook to look at the signature: {line}");
}
