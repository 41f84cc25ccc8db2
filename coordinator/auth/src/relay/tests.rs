use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::codegen::http::HeaderValue;

use super::*;
use crate::Role;

const ADA: &str = "http://10.0.0.1:1";
const SUBMIT: &str = "/kiln.v1.Builds/Submit";

fn call(path: &str, header: Option<HeaderValue>) -> http::request::Parts {
    let mut request = http::Request::builder().uri(path).body(()).unwrap();
    if let Some(header) = header {
        request.headers_mut().insert(HEADER, header);
    }
    request.into_parts().0
}

fn ann() -> Relayed {
    let identity = Identity {
        name: "ann".into(),
        tenant: "web".into(),
        roles: [Role::Builder, Role::Admin].into(),
        expires: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)),
        scope: Some("refs/pull/7".into()),
        ..Identity::anonymous()
    };
    Relayed { identity, address: Some(([10, 0, 0, 1], 7).into()) }
}

fn sealer(key: &FarmKey, to: &str, by: &Reception) -> Sealer {
    Sealer::new(key.clone(), to, &by.challenge()).unwrap()
}

#[tokio::test]
async fn a_relayed_caller_is_believed_once_for_the_call_that_it_was_sealed_for_under_the_farms_key() {
    let (key, other) = (FarmKey::ephemeral(), FarmKey::ephemeral());
    let ada = Reception::new(key.clone(), ADA);
    let ours = sealer(&key, ADA, &ada);
    let seal = || ours.seal(&ann(), SUBMIT, None).unwrap();
    let open = |by: &Reception, path: &str, header| {
        let sealed = by.open(&call(path, Some(header)))?.unwrap();
        by.receive(&sealed).map(|()| sealed)
    };
    assert_eq!(open(&ada, SUBMIT, seal()).unwrap().caller, ann());
    assert!(ada.open(&call(SUBMIT, None)).unwrap().is_none());
    let mut forged = seal().to_str().unwrap().to_owned();
    forged.replace_range(4..5, if forged.as_bytes()[4] == b'A' { "B" } else { "A" });
    let not_ours = "not from a coordinator of this farm";
    // Each for another reason: with the challenge of another coordinator, or sent to that one.
    let ben = Reception::new(key.clone(), "http://10.0.0.2:1");
    let again = Reception::new(key.clone(), ADA);
    let stranger = sealer(&other, ADA, &ada).seal(&ann(), SUBMIT, None).unwrap();
    let misled = sealer(&key, ADA, &ben).seal(&ann(), SUBMIT, None).unwrap();
    for (by, path, header, words) in [
        (&ada, "/kiln.v1.Cache/Prune", seal(), not_ours),
        (&ada, SUBMIT, stranger, not_ours),
        (&ada, SUBMIT, forged.parse().unwrap(), not_ours),
        (&ada, SUBMIT, HeaderValue::from_static(""), not_ours),
        (&ada, SUBMIT, HeaderValue::from_static("."), not_ours),
        (&ada, SUBMIT, HeaderValue::from_bytes(b"\xff.\xff").unwrap(), not_ours),
        (&ben, SUBMIT, seal(), "passed on to the coordinator at `http://10.0.0.1:1`"),
        (&ben, SUBMIT, misled.clone(), "passed on to the coordinator at"),
        (&ada, SUBMIT, misled, "challenge that is over"),
        // After a restart, it remembers nothing and believes nothing from before.
        (&again, SUBMIT, seal(), "challenge that is over"),
    ] {
        let refused = open(by, path, header).expect_err(words);
        assert_eq!(refused.code(), tonic::Code::Unauthenticated);
        assert!(refused.message().contains(words), "expected `{words}` in {refused:?}");
        assert_eq!(refused.metadata().contains_key(OVER), words.contains("is over"));
    }
    let recorded = seal();
    open(&ada, SUBMIT, recorded.clone()).unwrap();
    let refused = open(&ada, SUBMIT, recorded).unwrap_err();
    assert!(refused.message().contains("received before") && !refused.metadata().contains_key(OVER), "{refused:?}");
}

#[tokio::test]
async fn a_request_of_one_message_is_the_one_that_was_sealed() {
    let key = FarmKey::ephemeral();
    let ada = Reception::new(key.clone(), ADA);
    let ours = sealer(&key, ADA, &ada);
    for (sealed, sent, is_same) in [
        (&b"one"[..], &b"one"[..], true),
        (b"", b"", true),
        (b"one", b"two", false),
        (b"one", b"", false),
        (b"one", b"one and more", false),
    ] {
        let header = ours.seal(&ann(), SUBMIT, Some(sealed)).unwrap();
        let message = ada.open(&call(SUBMIT, Some(header))).unwrap().unwrap().message;
        let mut request = http::Request::new(Body::new(Full::from(sent)));
        request.extensions_mut().insert(Message(message.unwrap()));
        match verified(request).await {
            Ok(request) => {
                assert!(is_same, "expected {sent:?} to be refused in place of {sealed:?}");
                assert_eq!(request.into_body().collect().await.unwrap().to_bytes(), sent);
            }
            Err(refused) => {
                assert!(!is_same, "{refused:?}");
                assert_eq!(refused.code(), tonic::Code::Unauthenticated);
            }
        }
    }
}
