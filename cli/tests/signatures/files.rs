//! Files and directories, with their bundles beside them.

use std::path::Path;

use kiln_harness::{find, project, write};
use serde_json::Value;

use crate::{BUILDER, accepted, farm, keys_of, refused, tool, verify, verify_at};

const SHOP: &str = "https://git.example/shop.git";

fn policy(dir: &Path, text: &str) -> String {
    write(dir, "kiln-out/policy.toml", text);
    dir.join("kiln-out/policy.toml").to_str().unwrap().to_owned()
}

#[test]
fn what_was_built_is_verified_without_the_farm() {
    let dir = tool("verified\n", SHOP);
    farm().build(dir.path(), &[]).well();
    let (keys, out) = (keys_of(farm(), dir.path()), dir.path().join("kiln-out"));
    accepted(&verify(&out.join("tool"), &keys, &[]));
    let demands = format!(
        "builder = '{BUILDER}'\nrepository = 'https://git.example/shop'\nbranch = 'main'\nplatforms = ['linux/amd64']\nmax-age = '1d'\n\
         require = ['sbom']\n"
    );
    let policy = policy(dir.path(), &demands);
    let report = verify(&out.join("tool"), &keys, &["--policy", &policy, "--json"]);
    accepted(&report);
    let report: Value = serde_json::from_str(&report.out).unwrap();
    assert_eq!(report["verified"], true);
    let checks = report["verdicts"][0]["checks"].as_array().unwrap();
    let held: Vec<&str> =
        checks.iter().filter(|one| one["outcome"] == "ok").map(|one| one["check"].as_str().unwrap()).collect();
    assert_eq!(held, ["signature", "digest", "builder", "repository", "branch", "platform", "age", "sbom"]);
    // The farm has the same artifact and the same keys.
    accepted(&verify_at(&farm().url, "tool-1", &["--policy", &policy]));
    accepted(&verify_at(&farm().url, out.join("tool").to_str().unwrap(), &[]));
}

#[test]
fn what_somebody_changed_is_refused_in_words() {
    let dir = tool("to be changed\n", SHOP);
    farm().build(dir.path(), &[]).well();
    let (keys, out) = (keys_of(farm(), dir.path()), dir.path().join("kiln-out"));
    let (file, bundle) = (out.join("tool"), out.join("tool.provenance.sigstore.json"));
    let good = std::fs::read(&bundle).unwrap();

    // Another artifact's bundle, with a subject of its own.
    let other = tool("another\n", SHOP);
    farm().build(other.path(), &[]).well();
    std::fs::copy(other.path().join("kiln-out/tool.provenance.sigstore.json"), &bundle).unwrap();
    refused(&verify(&file, &keys, &[]), &["has the digest", "the statement is about"]);
    // The subject replaced in the statement itself.
    let mut json: Value = serde_json::from_slice(&good).unwrap();
    let forged: Value = crate::json(&other.path().join("kiln-out/tool.provenance.sigstore.json"));
    json["dsseEnvelope"]["payload"] = forged["dsseEnvelope"]["payload"].clone();
    std::fs::write(&bundle, json.to_string()).unwrap();
    refused(&verify(&file, &keys, &[]), &["does not match its content"]);
    std::fs::write(&bundle, &good[..good.len() / 2]).unwrap();
    refused(&verify(&file, &keys, &[]), &["truncated"]);
    std::fs::write(&bundle, &good).unwrap();
    accepted(&verify(&file, &keys, &[]));

    std::fs::write(&file, "something else\n").unwrap();
    refused(&verify(&file, &keys, &[]), &["`tool` has the digest"]);
    std::fs::remove_file(&bundle).unwrap();
    std::fs::remove_file(out.join("tool.sbom.sigstore.json")).unwrap();
    refused(&verify(&file, &keys, &[]), &["no signed statement"]);
}

#[test]
fn keys_of_others_and_of_other_times_are_refused() {
    let dir = tool("times\n", SHOP);
    farm().build(dir.path(), &[]).well();
    let (keys, file) = (keys_of(farm(), dir.path()), dir.path().join("kiln-out/tool"));
    let own = std::fs::read_to_string(&keys).unwrap();
    let with = |line: &str| {
        let begin = "-----BEGIN";
        let lines: Vec<&str> = own.lines().filter(|line| !line.starts_with("created:")).collect();
        std::fs::write(&keys, lines.join("\n").replacen(begin, &format!("{line}\n{begin}"), 1)).unwrap();
    };
    with("created: 2100-01-01T00:00:00Z");
    refused(&verify(&file, &keys, &[]), &["valid from 2100", "set the clock"]);
    with("not-after: 2100-01-01T00:00:00Z");
    accepted(&verify(&file, &keys, &[]));
    with("not-after: 2020-01-01T00:00:00Z");
    refused(&verify(&file, &keys, &[]), &["was retired at 2020"]);
    let allows = policy(dir.path(), "retired-keys = 'allow'\n");
    refused(&verify(&file, &keys, &["--policy", &allows]), &["after its key was retired"]);
    let private = kiln_attest::PrivateKey::generate(kiln_attest::Algorithm::EcdsaP256).unwrap();
    std::fs::write(&keys, private.public().pem()).unwrap();
    refused(&verify(&file, &keys, &[]), &["none of the trusted keys", "kiln farm keys"]);
}

#[test]
fn equal_bytes_of_another_source_are_refused_by_a_policy() {
    let content = "the same bytes\n";
    let (own, fork) = (tool(content, SHOP), tool(content, "https://git.example/fork.git"));
    write(fork.path(), "more", "makes another commit\n");
    kiln_harness::commit(fork.path());
    farm().build(own.path(), &[]).well();
    farm().build(fork.path(), &[]).well();
    let keys = keys_of(farm(), own.path());
    let demands = policy(own.path(), "repository = 'https://git.example/shop'\n");
    let file = |dir: &Path| dir.join("kiln-out/tool");
    assert_eq!(std::fs::read(file(own.path())).unwrap(), std::fs::read(file(fork.path())).unwrap());
    accepted(&verify(&file(own.path()), &keys, &["--policy", &demands]));
    accepted(&verify(&file(fork.path()), &keys, &[]));
    refused(&verify(&file(fork.path()), &keys, &["--policy", &demands]), &["https://git.example/fork.git"]);
    // Changes that are not committed are no source that anybody else has.
    write(own.path(), "in", "edited\n");
    farm().build(own.path(), &[]).well();
    refused(&verify(&file(own.path()), &keys, &["--policy", &demands]), &["not committed", "allow-dirty"]);
}

#[test]
fn archives_and_directories_are_verified_as_a_whole() {
    let config = "name = \"set\"\nversion = \"1\"\n[steps.work]\nrun = \"mkdir bin; echo a > bin/a; echo b > bin/b\"\noutputs = [\"bin\"]\n\
                  [artifacts.dir]\nfrom = \"work\"\nfiles = \"bin\"\nkind = \"binary\"\n[artifacts.packed]\nfrom = \"work\"\nfiles = \"bin\"\n\
                  kind = \"archive\"\n";
    let dir = project(&[("kiln.toml", config)]);
    farm().build(dir.path(), &[]).well();
    let (keys, out) = (keys_of(farm(), dir.path()), dir.path().join("kiln-out"));
    accepted(&verify(&out.join("dir"), &keys, &[]));
    accepted(&verify(
        &out.join("dir/bin/a"),
        &keys,
        &["--bundle", out.join("dir.provenance.sigstore.json").to_str().unwrap()],
    ));
    accepted(&verify(&find(&out, ".tar.zst").unwrap(), &keys, &[]));
    accepted(&verify(&out.join("packed"), &keys, &[]));
    std::fs::write(out.join("dir/bin/c"), "c\n").unwrap();
    refused(&verify(&out.join("dir"), &keys, &[]), &["bin/c"]);
    std::fs::remove_file(out.join("dir/bin/c")).unwrap();
    std::fs::remove_file(out.join("dir/bin/b")).unwrap();
    refused(&verify(&out.join("dir"), &keys, &[]), &["`bin/b` is missing"]);
}

#[test]
fn a_symbolic_link_that_was_changed_added_or_removed_is_named() {
    let config = "name = \"linked\"\nversion = \"1\"\n[steps.work]\nrun = \"mkdir -p lib; echo a > lib/a; ln -s a lib/current; ln -s lib/current top\"\n\
                  outputs = [\"lib\", \"top\"]\n[artifacts.linked]\nfrom = \"work\"\nfiles = [\"lib\", \"top\"]\nkind = \"binary\"\n";
    let dir = project(&[("kiln.toml", config)]);
    farm().build(dir.path(), &[]).well();
    let (keys, linked) = (keys_of(farm(), dir.path()), dir.path().join("kiln-out/linked"));
    let whole = verify(&linked, &keys, &[]);
    accepted(&whole);
    assert!(whole.out.contains("2 symbolic links"), "{whole:?}");
    accepted(&verify_at(&farm().url, "linked-1", &[]));

    let link = |to: &str, at: &str| std::os::unix::fs::symlink(to, linked.join(at)).unwrap();
    std::fs::remove_file(linked.join("lib/current")).unwrap();
    refused(&verify(&linked, &keys, &[]), &["`lib/current`, a symbolic link to `a`, is missing"]);
    link("/bin/sh", "lib/current");
    refused(&verify(&linked, &keys, &[]), &["`lib/current` leads to `/bin/sh`, and the statement has `a`"]);
    std::fs::remove_file(linked.join("lib/current")).unwrap();
    // A file in its place, with what the link leads to.
    std::fs::write(linked.join("lib/current"), "a\n").unwrap();
    refused(&verify(&linked, &keys, &[]), &["lib/current"]);
    std::fs::remove_file(linked.join("lib/current")).unwrap();
    link("a", "lib/current");
    accepted(&verify(&linked, &keys, &[]));
    link("/etc", "lib/etc");
    refused(&verify(&linked, &keys, &[]), &["`lib/etc`, a symbolic link to `/etc`, is not part of the artifact"]);
}

#[test]
fn exit_codes_tell_what_is_wrong() {
    let dir = tool("codes\n", SHOP);
    farm().build(dir.path(), &[]).well();
    let (keys, file) = (keys_of(farm(), dir.path()), dir.path().join("kiln-out/tool"));
    let wrong = policy(dir.path(), "repositry = 'x'\n");
    let unusable = verify(&file, &keys, &["--policy", &wrong]);
    assert!(unusable.code == 2 && unusable.err.contains("did you mean `repository`?"), "{unusable:?}");
    let missing = verify(&file, &dir.path().join("no.pem"), &[]);
    assert!(missing.code == 2 && missing.err.contains("no.pem"), "{missing:?}");
    let no_key = verify(&file, &dir.path().join("in"), &[]);
    assert!(no_key.code == 2 && no_key.err.contains("PUBLIC KEY"), "{no_key:?}");
    let away = verify_at(crate::NOWHERE, file.to_str().unwrap(), &[]);
    assert_eq!(away.code, 3, "{away:?}");
    let unknown = verify_at(&farm().url, "no-such-artifact", &[]);
    assert_eq!(unknown.code, 2, "{unknown:?}");
}
