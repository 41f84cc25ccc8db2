use std::time::{Duration, UNIX_EPOCH};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

use super::*;

const SECRET: &str = "It's a Secret to Everybody";
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const NOTHING: &str = "0000000000000000000000000000000000000000";

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair =
        |(name, value): &(&str, &str)| (HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
    pairs.iter().map(pair).collect()
}

fn tag(body: &[u8], key: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), body).as_ref().to_vec()
}

fn github_push(reference: &str, after: &str, head: &str) -> String {
    format!(
        r#"{{"ref":"{reference}","before":"{NOTHING}","after":"{after}","created":true,"deleted":false,"forced":false,
        "head_commit":{head},"commits":[],"compare":"https://github.com/team/shop/compare/a...b",
        "repository":{{"id":35129377,"name":"shop","full_name":"team/shop","private":false,"owner":{{"name":"team","login":"team"}},
        "html_url":"https://github.com/team/shop","clone_url":"https://github.com/team/shop.git",
        "ssh_url":"git@github.com:team/shop.git","git_url":"git://github.com/team/shop.git","pushed_at":1435180208,
        "default_branch":"main"}},"pusher":{{"name":"ann","email":"ann@users.example"}},"sender":{{"login":"ann","id":6752317}}}}"#
    )
}

#[test]
fn githubs_published_example_of_a_signature_is_taken() {
    // From "Validating webhook deliveries".
    let given = "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let (now, body) = (UNIX_EPOCH, b"Hello, World!");
    let verify = |given: &str, body: &[u8], secret: &str| {
        Forge::GitHub.verify(&headers(&[("x-hub-signature-256", given)]), body, secret, now)
    };
    assert_eq!(verify(given, body, SECRET), Ok(()));
    let other = given.replace("757", "758");
    for (given, body, secret) in [
        (other.as_str(), &body[..], SECRET),
        (given, &b"Hello, World?"[..], SECRET),
        (given, &body[..], "does not match the body and the secret"),
        ("sha256=", &body[..], SECRET),
        ("sha1=757107", &body[..], SECRET),
    ] {
        assert!(verify(given, body, secret).is_err(), "expected `{given}` to be refused");
    }
    let unsigned = Forge::GitHub.verify(&HeaderMap::new(), body, SECRET, now).unwrap_err();
    assert!(unsigned.contains("set the webhook's secret"), "{unsigned}");
}

#[test]
fn gitea_signs_in_bare_hex() {
    let body = b"{}";
    let given = hex::encode(tag(body, SECRET.as_bytes()));
    let verify = |name: &str, given: &str| Forge::Gitea.verify(&headers(&[(name, given)]), body, SECRET, UNIX_EPOCH);
    assert_eq!(verify("x-gitea-signature", &given), Ok(()));
    assert_eq!(verify("x-forgejo-signature", &given), Ok(()));
    assert!(verify("x-gitea-signature", "").is_err());
    assert!(verify("x-gitea-signature", &given.replace(['0', '1', '2'], "3")).is_err());
}

#[test]
fn gitlab_shows_a_token_or_signs_id_time_and_body() {
    let now = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let body = br#"{"object_kind":"push"}"#;
    let plain = |token: &str| Forge::GitLab.verify(&headers(&[("x-gitlab-token", token)]), body, SECRET, now);
    assert_eq!(plain(SECRET), Ok(()));
    assert!(plain("It's a Secret to Everybodx").is_err() && plain("").is_err());

    let key = b"twenty-four bytes of key";
    let secret = format!("whsec_{}", STANDARD.encode(key));
    let signed = |time: u64, sent: u64, body: &[u8]| {
        let parts = [b"msg_1.".as_slice(), time.to_string().as_bytes(), b".", body].concat();
        let given = format!("v1,bm90IHRoaXMgb25l v1,{}", STANDARD.encode(tag(&parts, key)));
        let sent = sent.to_string();
        let pairs = [("webhook-id", "msg_1"), ("webhook-timestamp", &sent), ("webhook-signature", &given)];
        Forge::GitLab.verify(&headers(&pairs), br#"{"object_kind":"push"}"#, &secret, now)
    };
    assert_eq!(signed(1_700_000_000, 1_700_000_000, body), Ok(()));
    assert_eq!(
        signed(1_699_999_800, 1_699_999_800, body),
        Ok(()),
        "expected clocks to be allowed a difference of minutes"
    );
    let late = signed(1_699_999_000, 1_699_999_000, body).unwrap_err();
    assert!(late.contains("replay"), "{late}");
    assert!(signed(1_699_999_000, 1_700_000_000, body).is_err(), "expected the time to be signed too");
    assert!(signed(1_700_000_000, 1_700_000_000, b"another").is_err());
    // The plain token of a webhook that signs is not sufficient.
    let both = [("webhook-signature", "v1,bm90"), ("x-gitlab-token", secret.as_str())];
    assert!(Forge::GitLab.verify(&headers(&both), body, &secret, now).is_err());
}

#[test]
fn a_push_names_commit_reference_and_repository() {
    let of = headers(&[("x-github-event", "push")]);
    let head = format!(r#"{{"id":"{COMMIT}","message":"m"}}"#);
    let read = |forge: Forge, headers: &HeaderMap, body: &str| forge.read(headers, body.as_bytes());
    let pushed = read(Forge::GitHub, &of, &github_push("refs/heads/main", COMMIT, &head)).unwrap();
    let expected = Push {
        addresses: ["https://github.com/team/shop.git", "git@github.com:team/shop.git", "https://github.com/team/shop"]
            .map(str::to_owned)
            .into(),
        path: "team/shop".to_owned(),
        reference: "refs/heads/main".to_owned(),
        commit: COMMIT.to_owned(),
        user: "ann".to_owned(),
        default_branch: "main".to_owned(),
    };
    assert_eq!(pushed, Event::Push(expected.clone()));
    // An annotated tag has an id of its own besides its commit's.
    let tagged = read(Forge::GitHub, &of, &github_push("refs/tags/v1", &"f".repeat(40), &head)).unwrap();
    assert_eq!(tagged, Event::Push(Push { reference: "refs/tags/v1".to_owned(), ..expected.clone() }));
    let gone = read(Forge::GitHub, &of, &github_push("refs/heads/old", NOTHING, "null")).unwrap();
    assert!(matches!(gone, Event::Other(words) if words.contains("deleted")));
    let ping = read(Forge::GitHub, &headers(&[("x-github-event", "ping")]), "{}").unwrap();
    assert!(matches!(ping, Event::Other(words) if words.contains("the webhook works")));
    for bad in ["", "{}", "payload=%7B%7D", &github_push("refs/heads/main", "--upload-pack=id", "null")] {
        assert!(read(Forge::GitHub, &of, bad).is_err(), "expected `{bad}` to be refused");
    }

    let gitlab = format!(
        r#"{{"object_kind":"push","event_name":"push","before":"{NOTHING}","after":"{COMMIT}","ref":"refs/heads/main",
        "ref_protected":true,"checkout_sha":"{COMMIT}","user_id":4,"user_name":"Ann","user_username":"ann","project_id":15,
        "project":{{"id":15,"name":"shop","web_url":"https://gitlab.example/team/deep/shop",
        "git_ssh_url":"git@gitlab.example:team/deep/shop.git","git_http_url":"https://gitlab.example/team/deep/shop.git",
        "path_with_namespace":"team/deep/shop","default_branch":"main"}},"commits":[],"total_commits_count":0}}"#
    );
    let of = headers(&[("x-gitlab-event", "Push Hook")]);
    let Event::Push(pushed) = read(Forge::GitLab, &of, &gitlab).unwrap() else { panic!("expected a push") };
    assert_eq!((pushed.path.as_str(), pushed.user.as_str(), pushed.commit.as_str()), ("team/deep/shop", "ann", COMMIT));
    let other = read(Forge::GitLab, &headers(&[("x-gitlab-event", "Note Hook")]), "{}").unwrap();
    assert!(matches!(other, Event::Other(words) if words.contains("Note Hook")));

    let gitea = github_push("refs/heads/main", COMMIT, "null").replace(
        r#""pusher":{"name":"ann","email""#,
        r#""pusher":{"id":1,"login":"ann","username":"ann","full_name":"","email""#,
    );
    let Event::Push(pushed) = read(Forge::Gitea, &headers(&[("x-gitea-event", "push")]), &gitea).unwrap() else {
        panic!("expected a push")
    };
    assert_eq!((pushed.user.as_str(), pushed.commit.as_str()), ("ann", COMMIT));
}

#[test]
fn each_forge_takes_a_status_at_its_own_place_and_in_its_own_words() {
    let push = Push {
        addresses: Vec::new(),
        path: "team/deep/shop".to_owned(),
        reference: "refs/heads/main".to_owned(),
        commit: COMMIT.to_owned(),
        user: String::new(),
        default_branch: String::new(),
    };
    let link = Some("https://builds.example/1".to_owned());
    let status = |state| Status { state, context: "kiln", description: "x".repeat(300), link: link.clone() };
    let call = |forge: Forge, repository: &str, state| {
        forge.report(&forge.api(repository).unwrap(), &push, &status(state)).unwrap()
    };
    let github = call(Forge::GitHub, "https://github.com/team/shop.git", State::Running);
    assert_eq!(github.url.as_str(), format!("https://api.github.com/repos/team/deep/shop/statuses/{COMMIT}"));
    assert_eq!((github.credential, &github.body["state"]), (("authorization", "Bearer "), &"pending".into()));
    assert_eq!(github.body["description"].as_str().unwrap().chars().count(), 140);
    assert_eq!(github.body["target_url"], "https://builds.example/1");
    let own = call(Forge::GitHub, "https://git.corp.example:8443/team/shop", State::Failure);
    assert_eq!(
        own.url.as_str(),
        format!("https://git.corp.example:8443/api/v3/repos/team/deep/shop/statuses/{COMMIT}")
    );
    let gitlab = call(Forge::GitLab, "https://gitlab.example/team/deep/shop.git", State::Cancelled);
    assert_eq!(
        gitlab.url.as_str(),
        format!("https://gitlab.example/api/v4/projects/team%2Fdeep%2Fshop/statuses/{COMMIT}")
    );
    assert_eq!(
        (&gitlab.body["state"], &gitlab.body["name"], &gitlab.body["ref"]),
        (&"canceled".into(), &"kiln".into(), &"main".into())
    );
    let gitea = call(Forge::Gitea, "http://gitea.example:3000/team/shop.git", State::Error);
    assert_eq!(gitea.url.as_str(), format!("http://gitea.example:3000/api/v1/repos/team/deep/shop/statuses/{COMMIT}"));
    assert_eq!((gitea.credential, &gitea.body["state"]), (("authorization", "token "), &"error".into()));
    assert_eq!(Forge::GitHub.api("ssh://git@github.com/team/shop"), None);
}
