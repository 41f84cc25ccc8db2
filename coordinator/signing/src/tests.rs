#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;

const STATEMENT: &str =
    r#"{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"urn:p","predicate":{}}"#;

fn directory() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("signing.key");
    (directory, path)
}

fn file(path: &Path) -> Result<Signer, Error> {
    Signer::open(&Options::default(), path)
}

async fn signs(signer: &Signer) -> String {
    let signed = signer.sign(STATEMENT.into()).await.unwrap();
    let keys = signer.published();
    let envelope = kiln_attest::parse(&signed.bundle).unwrap();
    assert_eq!(envelope.verify(&keys).unwrap().1.public.id(), signed.key);
    signed.key
}

#[tokio::test]
async fn a_key_is_created_for_its_owner_alone_and_stays() {
    let (_directory, path) = directory();
    let key = signs(&file(&path).unwrap()).await;
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let again = file(&path).unwrap();
    assert_eq!((signs(&again).await, again.farm()), (key.clone(), key));
}

#[tokio::test]
async fn a_key_that_others_can_read_is_refused() {
    let (_directory, path) = directory();
    file(&path).unwrap();
    for (mode, fits) in [(0o600, true), (0o400, true), (0o440, true), (0o660, true), (0o604, false), (0o644, false)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let opened = file(&path).map(drop).map_err(|error| error.to_string());
        assert_eq!(opened.is_ok(), fits, "{mode:o}: {opened:?}");
        assert!(fits || opened.unwrap_err().contains("chmod 600"));
    }
}

#[tokio::test]
async fn a_rotation_publishes_the_new_key_before_it_signs() {
    let (_directory, path) = directory();
    let first = signs(&file(&path).unwrap()).await;
    rotate(&path, Duration::from_secs(3600)).unwrap();
    let overlapping = file(&path).unwrap();
    assert_eq!(signs(&overlapping).await, first);
    let published = overlapping.published();
    let states: Vec<State> = published.iter().map(|key| key.state(SystemTime::now())).collect();
    assert!(
        matches!(states[..], [State::Early(at), State::Valid] if published.iter().nth(1).unwrap().not_after == Some(at))
    );
    // At once: the one before never signed, and the first does not any more.
    rotate(&path, Duration::ZERO).unwrap();
    let after = file(&path).unwrap();
    let second = signs(&after).await;
    assert_ne!(second, first);
    let states: Vec<(String, bool)> = after
        .published()
        .iter()
        .map(|key| (key.public.id().to_owned(), key.state(SystemTime::now()) == State::Valid))
        .filter(|(id, _)| *id == first || *id == second)
        .collect();
    assert_eq!(states, [(second, true), (first.clone(), false)]);
    assert_eq!(after.farm(), first, "the farm is the same");
    assert_eq!(std::fs::read_to_string(&path).unwrap().matches("PRIVATE KEY").count(), 2, "one block");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn a_rotated_file_is_taken_over_while_the_farm_runs() {
    let (_directory, path) = directory();
    let signer = file(&path).unwrap();
    let first = signs(&signer).await;
    rotate(&path, Duration::ZERO).unwrap();
    while signs(&signer).await == first {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Options with a command of this machine's OpenSSL, and the files that it needs.
fn by_command(directory: &Path, command: &str) -> Options {
    let path = directory.join("kms.key");
    let private = kiln_attest::PrivateKey::generate(kiln_attest::Algorithm::EcdsaP256).unwrap();
    std::fs::write(&path, &*private.pem()).unwrap();
    std::fs::write(directory.join("kms.pem"), private.public().pem()).unwrap();
    Options {
        signing_command: Some(command.replace("KEY", path.to_str().unwrap())),
        signing_public_key: Some(directory.join("kms.pem")),
        signing_timeout: Duration::from_secs(20),
        ..Options::default()
    }
}

#[tokio::test]
async fn a_command_signs_in_place_of_a_file() {
    for command in ["openssl dgst -sha256 -sign KEY", "openssl dgst -sha256 -sign KEY | base64"] {
        let (directory, path) = directory();
        let signer = Signer::open(&by_command(directory.path(), command), &path).unwrap();
        signs(&signer).await;
        assert!(!path.exists(), "no key is created beside it");
    }
}

#[tokio::test]
async fn a_command_that_fails_hangs_or_prints_something_else_is_named() {
    let cases = [
        ("echo no key here >&2; exit 3", "no key here"),
        ("cat", "printed no signature"),
        ("sleep 1000", "did not end"),
        ("true", "printed no signature"),
    ];
    for (command, reason) in cases {
        let (directory, path) = directory();
        let mut options = by_command(directory.path(), command);
        if command.starts_with("sleep") {
            options.signing_timeout = Duration::from_millis(10);
        }
        let refused = Signer::open(&options, &path).unwrap().sign(STATEMENT.into()).await.unwrap_err().to_string();
        assert!(refused.contains(command) && refused.contains(reason), "{refused}");
    }
}

#[tokio::test]
async fn what_is_not_a_key_is_refused_with_its_file() {
    let (_directory, path) = directory();
    for text in [
        "",
        "-----BEGIN PRIVATE KEY-----\nAA",
        "-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n",
    ] {
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let refused = file(&path).unwrap_err().to_string();
        assert!(refused.contains("signing.key"), "{refused}");
    }
}
