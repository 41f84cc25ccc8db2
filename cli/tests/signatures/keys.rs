//! The farm's keys: their rotation, commands in place of files, and who cannot reach them.

use std::os::unix::fs::PermissionsExt;

use kiln_harness::{Farm, project, until};
use serde_json::Value;

use crate::{accepted, keys_of, refused, tool, verify, verify_at};

const TOOL: &str = "https://git.example/tool.git";

fn published(farm: &Farm) -> Vec<Value> {
    let keys: Value = serde_json::from_str(&farm.kiln(&["farm", "keys", "--json"]).out).unwrap();
    keys["keys"].as_array().unwrap().clone()
}

#[test]
fn a_rotated_key_signs_what_follows_and_a_policy_decides_about_the_rest() {
    let farm = Farm::start(&["rotates"]);
    let (before, after) = (tool("before\n", TOOL), tool("after\n", TOOL));
    farm.build(before.path(), &[]).well();
    let file = farm.dir.path().join("coordinator/signing.key");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let rotate = |overlap: &str| {
        let known = published(&farm);
        let rotated = farm.kiln(&["farm", "rotate-signing-key", file.to_str().unwrap(), "--overlap", overlap]);
        assert_eq!(rotated.code, 0, "{}", rotated.err);
        until("the new key to be published", || (published(&farm).len() != known.len()).then_some(()));
    };
    // A new key is known before it signs.
    rotate("1h");
    farm.build(after.path(), &[]).well();
    let with_both = keys_of(&farm, before.path());
    for dir in [&before, &after] {
        accepted(&verify(&dir.path().join("kiln-out/tool"), &with_both, &[]));
    }
    let lost = Farm::start(&["loses"]);
    let (before, after) = (tool("before a loss\n", TOOL), tool("after a loss\n", TOOL));
    lost.build(before.path(), &[]).well();
    let file = lost.dir.path().join("coordinator/signing.key");
    let first = published(&lost)[0]["id"].clone();
    assert_eq!(lost.kiln(&["farm", "rotate-signing-key", file.to_str().unwrap(), "--overlap", "0s"]).code, 0);
    until("the new key to sign", || (published(&lost)[0]["id"] != first).then_some(()));
    lost.build(after.path(), &[]).well();
    let path = |dir: &tempfile::TempDir| dir.path().join("kiln-out/tool").to_str().unwrap().to_owned();
    accepted(&verify_at(&lost.url, &path(&after), &[]));
    refused(&verify_at(&lost.url, &path(&before), &[]), &["was retired at"]);
    let policy = before.path().join("policy.toml");
    std::fs::write(&policy, "retired-keys = 'allow'\n").unwrap();
    accepted(&verify_at(&lost.url, &path(&before), &["--policy", policy.to_str().unwrap()]));
}

#[test]
fn a_command_signs_in_place_of_a_file_and_is_named_when_it_fails() {
    let directory = tempfile::tempdir().unwrap();
    let private = kiln_attest::PrivateKey::generate(kiln_attest::Algorithm::EcdsaP256).unwrap();
    let (secret, public) = (directory.path().join("kms.key"), directory.path().join("kms.pem"));
    std::fs::write(&secret, &*private.pem()).unwrap();
    std::fs::write(&public, private.public().pem()).unwrap();
    let command = format!("openssl dgst -sha256 -sign {} | base64", secret.display());
    let with = |command: &str| {
        Farm::with(&["--signing-command", command, "--signing-public-key", public.to_str().unwrap()], &["kms"])
    };
    let dir = tool("by a command\n", TOOL);
    let farm = with(&command);
    farm.build(dir.path(), &[]).well();
    accepted(&verify(&dir.path().join("kiln-out/tool"), &public, &[]));
    assert!(!farm.dir.path().join("coordinator/signing.key").exists());
    let failing = with("echo the service is away >&2; exit 7").build(dir.path(), &[]);
    assert_eq!(failing.0.code, 3, "{:?}", failing.0);
    assert!(failing.message().contains("the service is away") && failing.message().contains("exit 7"), "{failing:?}");
}

#[test]
fn no_step_reaches_the_key() {
    let farm = crate::farm();
    let file = farm.dir.path().join("coordinator/signing.key");
    let secret = std::fs::read_to_string(&file).unwrap();
    let script = format!(
        "if cat {0} || ls {1}; then echo reached; exit 3; fi\nfor p in /proc/[0-9]*; do tr '\\0' '\\n' < $p/environ; done > all 2>/dev/null || true\n\
         find / -xdev -name signing.key 2>/dev/null >> all || true",
        file.display(),
        file.parent().unwrap().display()
    );
    let config = format!(
        "name = \"thief\"\nversion = \"1\"\n[steps.work]\nrun = '''{script}'''\noutputs = [\"all\"]\n[artifacts.all]\nfrom = \"work\"\nfiles = \"all\"\n"
    );
    let dir = project(&[("kiln.toml", &config), ("in", "x")]);
    let built = farm.build(dir.path(), &[]).well();
    assert!(!built.log().contains("reached"), "{}", built.log());
    let all = std::fs::read_to_string(dir.path().join("kiln-out/all")).unwrap();
    assert!(!all.contains("signing.key") && !all.contains("PRIVATE"), "{all}");
    // What the farm writes about a build has no part of it either.
    let line = secret.lines().find(|line| !line.starts_with("-----") && !line.contains(':')).unwrap();
    for entry in std::fs::read_dir(dir.path().join("kiln-out")).unwrap().map(Result::unwrap) {
        let bytes = std::fs::read(entry.path()).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&bytes).contains(line), "{:?}", entry.path());
    }
    let keys = farm.kiln(&["farm", "keys"]).out;
    assert!(keys.contains("PUBLIC KEY") && !keys.contains("PRIVATE") && !farm.log("coordinator").contains(line));
}

#[test]
fn a_key_that_others_can_read_stops_the_coordinator_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("signing.key");
    let private = kiln_attest::PrivateKey::generate(kiln_attest::Algorithm::Ed25519).unwrap();
    std::fs::write(&path, &*private.pem()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let data = directory.path().join("data");
    let arguments = ["coordinator", "--listen", "127.0.0.1:0", "--data-dir", data.to_str().unwrap()];
    let mut command = crate::farm().command(&arguments);
    command.arg("--signing-key").arg(&path);
    let ran = kiln_harness::Ran::from(command);
    assert_ne!(ran.code, 0);
    assert!(ran.err.contains("chmod 600") && ran.err.contains("signing.key"), "{}", ran.err);
}
