//! What others' tools say of the same files: Sigstore's verification of bundles (npm), securesystemslib and in-toto's (PyPI).

use std::path::Path;
use std::process::Command;

use kiln_harness::{cannot_run, has};

use crate::{farm, keys_of, tool};

const PYTHON: &str = "/opt/kiln-test-tools/bin/python";

/// Verifies an envelope with a key, and reads what it says with in-toto's own messages.
const SECURESYSTEMSLIB: &str = r#"
import base64, json, sys
from google.protobuf import json_format
from in_toto_attestation.v1.statement import Statement
from in_toto_attestation.v1 import statement_pb2
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

bundle = json.load(open(sys.argv[1]))
hint = bundle["verificationMaterial"]["publicKey"]["hint"]
pem = open(sys.argv[2]).read()
key = SSlibKey.from_crypto(load_pem_public_key(pem[pem.index("-----BEGIN"):].encode()), keyid=hint)
envelope = Envelope.from_dict(bundle["dsseEnvelope"])
envelope.verify([key], 1)
statement = Statement.copy_from_pb(json_format.ParseDict(json.loads(envelope.payload), statement_pb2.Statement()))
statement.validate()
print(statement.pb.predicate_type, statement.pb.subject[0].digest["sha256"])
"#;

/// Verifies a bundle with Sigstore's code and a key in place of its public services.
const SIGSTORE: &str = r#"
const fs = require('fs');
const crypto = require('crypto');
const { bundleFromJSON } = require('@sigstore/bundle');
const { Verifier, toSignedEntity, toTrustMaterial } = require('@sigstore/verify');

const bundle = bundleFromJSON(JSON.parse(fs.readFileSync(process.argv[1])));
const pem = fs.readFileSync(process.argv[2], 'utf8');
const der = crypto.createPublicKey(pem.slice(pem.indexOf('-----BEGIN'))).export({ type: 'spki', format: 'der' });
const id = crypto.createHash('sha256').update(der).digest('hex');
const keys = { [id]: { rawBytes: der, keyDetails: 'PKIX_ECDSA_P256_SHA_256', validFor: { start: new Date(0) } } };
const root = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
const verifier = new Verifier(toTrustMaterial(root, keys), { tlogThreshold: 0, ctlogThreshold: 0, timestampThreshold: 0 });
verifier.verify(toSignedEntity(bundle));
const statement = JSON.parse(bundle.content.dsseEnvelope.payload.toString());
console.log(statement.predicateType, statement.subject[0].digest.sha256);
"#;

/// Whether a tool accepts a bundle, and what it says.
fn said(tool: &mut Command) -> (bool, String) {
    let output = tool.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout) + &text(&output.stderr))
}

fn securesystemslib(bundle: &Path, key: &Path) -> (bool, String) {
    said(Command::new(PYTHON).arg("-c").arg(SECURESYSTEMSLIB).arg(bundle).arg(key))
}

fn sigstore(bundle: &Path, key: &Path) -> (bool, String) {
    let root = Command::new("npm").args(["root", "--global"]).output().unwrap();
    let root = String::from_utf8(root.stdout).unwrap();
    said(Command::new("node").env("NODE_PATH", root.trim()).args(["-e", SIGSTORE]).arg(bundle).arg(key))
}

#[test]
fn sigstore_and_in_toto_accept_what_the_farm_signed_and_nothing_else() {
    let imports = "import in_toto_attestation, securesystemslib.dsse, cryptography";
    let is_there = Command::new(PYTHON).args(["-c", imports]).status().is_ok_and(|status| status.success());
    if !is_there || !has("npm") || !has("node") {
        return cannot_run("securesystemslib, in-toto-attestation and Sigstore's packages: `.ci/test` installs them");
    }
    let dir = tool("for others\n", "https://git.example/tool.git");
    farm().build(dir.path(), &[]).well();
    let (keys, out) = (keys_of(farm(), dir.path()), dir.path().join("kiln-out"));
    let sums = Command::new("sha256sum").arg(out.join("tool")).output().unwrap().stdout;
    let sums = String::from_utf8(sums).unwrap();
    let digest = sums.split_whitespace().next().unwrap();
    let private = kiln_attest::PrivateKey::generate(kiln_attest::Algorithm::EcdsaP256).unwrap();
    let strange = dir.path().join("strange.pem");
    std::fs::write(&strange, private.public().pem()).unwrap();
    for (name, kind) in [("provenance", "https://slsa.dev/provenance/v1"), ("sbom", "https://cyclonedx.org/bom")] {
        let bundle = out.join(format!("tool.{name}.sigstore.json"));
        let forged = dir.path().join("forged.json");
        let mut json = crate::json(&bundle);
        let payload = json["dsseEnvelope"]["payload"].as_str().unwrap().replacen('A', "B", 1);
        json["dsseEnvelope"]["payload"] = payload.into();
        std::fs::write(&forged, json.to_string()).unwrap();
        for verifier in [securesystemslib, sigstore] {
            let (accepted, words) = verifier(&bundle, &keys);
            assert!(accepted && words.trim() == format!("{kind} {digest}"), "{words}");
            assert!(!verifier(&forged, &keys).0, "expected a forged statement to be refused");
            assert!(!verifier(&bundle, &strange).0, "expected another key to be refused");
        }
    }
}
