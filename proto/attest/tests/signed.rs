//! What is accepted as signed, and what is not.

#![allow(clippy::unwrap_used)]

use std::time::{Duration, SystemTime};

use kiln_attest::{Algorithm, Envelope, Error, Key, Keys, PrivateKey, PublicKey, Secret, Signature, State, pae};
use proptest::prelude::*;

const STATEMENT: &str = r#"{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a","digest":{"sha256":"00ff"}}],"predicateType":"urn:p","predicate":{"a":1}}"#;

fn key(algorithm: Algorithm) -> PrivateKey {
    PrivateKey::generate(algorithm).unwrap()
}

fn trusted(keys: &[&PrivateKey]) -> Keys {
    let key = |key: &&PrivateKey| Key { public: key.public().clone(), created: None, not_after: None };
    Keys::new(keys.iter().map(key).collect())
}

fn signed(payload: &str, keys: &[&PrivateKey]) -> Envelope {
    let message = pae(kiln_attest::PAYLOAD_TYPE, payload.as_bytes());
    let sign = |key: &&PrivateKey| Signature { key: key.public().id().into(), bytes: key.sign(&message).unwrap() };
    Envelope::new(payload.into(), keys.iter().map(sign).collect())
}

#[test]
fn the_encoding_that_is_signed_is_that_of_the_specification() {
    assert_eq!(
        pae("http://example.com/HelloWorld", b"hello world"),
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    );
}

#[test]
fn a_bundle_is_accepted_with_the_key_that_signed_it_and_with_no_other() {
    for algorithm in [Algorithm::EcdsaP256, Algorithm::Ed25519] {
        let (own, other) = (key(algorithm), key(algorithm));
        let bundle = kiln_attest::bundle(&signed(STATEMENT, &[&own])).unwrap();
        let envelope = kiln_attest::parse(&bundle).unwrap();
        let keys = trusted(&[&other, &own]);
        let (statement, by) = envelope.verify(&keys).unwrap();
        assert!(statement.is_about("sha256", "00FF") && !statement.is_about("sha256", "00fe"));
        assert_eq!(by.public.id(), own.public().id());
        let refused = envelope.verify(&trusted(&[&other])).unwrap_err();
        assert!(matches!(&refused, Error::Untrusted { hint, .. } if hint == own.public().id()), "{refused}");
        assert!(envelope.verify(&Keys::default()).is_err());
    }
}

#[test]
fn an_envelope_with_several_signatures_needs_one_that_is_trusted() {
    let (one, two, other) = (key(Algorithm::EcdsaP256), key(Algorithm::Ed25519), key(Algorithm::Ed25519));
    let envelope = Envelope::parse(&signed(STATEMENT, &[&one, &two]).to_json().unwrap()).unwrap();
    for trusts in [&one, &two] {
        assert!(envelope.verify(&trusted(&[trusts])).is_ok());
    }
    assert!(envelope.verify(&trusted(&[&other])).is_err());
}

#[test]
fn a_payload_that_was_replaced_is_called_forged() {
    let own = key(Algorithm::EcdsaP256);
    let text = String::from_utf8(signed(STATEMENT, &[&own]).to_json().unwrap()).unwrap();
    let other = signed(&STATEMENT.replace("00ff", "00fe"), &[&own]);
    let payload =
        |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap()["payload"].as_str().unwrap().to_owned();
    let others = payload(&String::from_utf8(other.to_json().unwrap()).unwrap());
    let swapped = text.replace(&payload(&text), &others);
    let refused = Envelope::parse(swapped.as_bytes()).unwrap().verify(&trusted(&[&own])).unwrap_err();
    assert_eq!(refused, Error::Forged { key: own.public().id().into() });
}

#[test]
fn another_type_of_payload_is_no_statement_even_if_it_is_signed() {
    let own = key(Algorithm::Ed25519);
    let message = pae("text/plain", STATEMENT.as_bytes());
    let text = String::from_utf8(signed(STATEMENT, &[&own]).to_json().unwrap()).unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&text).unwrap();
    json["payloadType"] = "text/plain".into();
    let unsigned = Envelope::parse(json.to_string().as_bytes()).unwrap().verify(&trusted(&[&own])).unwrap_err();
    assert!(matches!(unsigned, Error::Forged { .. }), "the type is a part of what is signed: {unsigned}");
    json["signatures"][0]["sig"] = base64(&own.sign(&message).unwrap()).into();
    let refused = Envelope::parse(json.to_string().as_bytes()).unwrap().verify(&trusted(&[&own])).unwrap_err();
    assert!(refused.to_string().contains("text/plain"), "{refused}");
}

fn base64(data: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(data)
}

#[test]
fn a_truncated_bundle_is_called_truncated() {
    let bundle = kiln_attest::bundle(&signed(STATEMENT, &[&key(Algorithm::Ed25519)])).unwrap();
    for end in 0..bundle.len() {
        let refused = kiln_attest::parse(&bundle[..end]).unwrap_err();
        assert!(refused.to_string().contains("truncated"), "{end}: {refused}");
    }
}

#[test]
fn keys_keep_their_times_in_a_file_and_a_private_one_is_refused_among_public_ones() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let (one, two) = (key(Algorithm::EcdsaP256), key(Algorithm::Ed25519));
    let keys = Keys::new(vec![
        Key { public: one.public().clone(), created: Some(at(100)), not_after: None },
        Key { public: two.public().clone(), created: Some(at(10)), not_after: Some(at(200)) },
    ]);
    let text = keys.pem();
    assert_eq!(Keys::parse(&text).unwrap(), keys);
    assert_eq!(Keys::parse(&text.replace('\n', "\r\n")).unwrap(), keys);
    let second = keys.iter().nth(1).unwrap();
    assert_eq!(second.state(at(9)), State::Early(at(10)));
    assert_eq!((second.state(at(10)), second.state(at(199))), (State::Valid, State::Valid));
    assert_eq!(second.state(at(200)), State::Retired(at(200)));
    assert!(Keys::parse(&text[..text.len() - 20]).unwrap_err().to_string().contains("truncated"));
    let secret = Secret { key: keys.iter().next().unwrap().clone(), private: one };
    assert!(Keys::parse(&secret.pem()).unwrap_err().to_string().contains("private key"));
    let (secrets, public) = Keys::parse_secret(&format!("{}{}", *secret.pem(), text)).unwrap();
    assert_eq!((secrets.len(), public.len()), (1, 2));
    assert_eq!(secrets[0].key, secret.key);
}

#[test]
fn keys_of_openssl_are_read() {
    for arguments in [&["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"][..], &["-algorithm", "ed25519"]] {
        let made = std::process::Command::new("openssl").arg("genpkey").args(arguments).output().unwrap();
        let private = PrivateKey::from_pem(&String::from_utf8(made.stdout).unwrap()).unwrap();
        assert!(private.public().verifies(b"message", &private.sign(b"message").unwrap()));
        assert_eq!(PublicKey::from_pem(&private.public().pem()).unwrap(), *private.public());
    }
    let rsa = std::process::Command::new("openssl").args(["genpkey", "-algorithm", "RSA"]).output().unwrap();
    let refused = PrivateKey::from_pem(&String::from_utf8(rsa.stdout).unwrap()).unwrap_err();
    assert!(refused.to_string().contains("P-256"), "{refused}");
}

proptest! {
    #[test]
    fn any_payload_survives_and_any_changed_byte_is_noticed(
        payload in proptest::collection::vec(any::<u8>(), 0..200), at in any::<prop::sample::Index>(), bit in 0..8u32,
    ) {
        let own = key(Algorithm::Ed25519);
        let message = pae(kiln_attest::PAYLOAD_TYPE, &payload);
        let signature = own.sign(&message).unwrap();
        prop_assert!(own.public().verifies(&message, &signature));
        let mut changed = message.clone();
        let at = at.index(changed.len());
        changed[at] ^= 1 << bit;
        prop_assert!(!own.public().verifies(&changed, &signature));
    }

    #[test]
    fn no_input_makes_a_parser_panic(data in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,300}") {
        let _ = kiln_attest::parse(&data);
        let _ = Envelope::parse(text.as_bytes());
        let _ = Keys::parse(&text);
        let _ = Keys::parse(&format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n"));
        let _ = PublicKey::from_der(&data);
        let _ = PrivateKey::from_der(&data);
    }

    #[test]
    fn two_different_contents_are_never_signed_by_the_same_bytes(
        one in (".{0,20}", proptest::collection::vec(any::<u8>(), 0..20)),
        two in (".{0,20}", proptest::collection::vec(any::<u8>(), 0..20)),
    ) {
        prop_assert_eq!(pae(&one.0, &one.1) == pae(&two.0, &two.1), one == two);
    }

    #[test]
    fn a_bundle_with_any_changed_character_is_never_accepted_as_something_else(
        at in any::<prop::sample::Index>(), with in any::<u8>(),
    ) {
        let own = key(Algorithm::Ed25519);
        let mut bundle = kiln_attest::bundle(&signed(STATEMENT, &[&own])).unwrap();
        let at = at.index(bundle.len());
        bundle[at] = with;
        if let Ok(envelope) = kiln_attest::parse(&bundle)
            && let Ok((statement, _)) = envelope.verify(&trusted(&[&own]))
        {
            prop_assert!(statement.is_about("sha256", "00ff"));
        }
    }
}
