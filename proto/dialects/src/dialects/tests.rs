use super::*;

fn said(tool: Tool, method: &str, path: &str) -> Result<Ask, Refusal> {
    let segments: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
    ask(tool, &method.parse().unwrap(), &segments, &HeaderMap::new())
}

fn get(key: &str) -> Result<Ask, Refusal> {
    Ok(Ask::Get(key.to_owned()))
}

#[test]
fn ccache_writes_one_key_in_two_layouts_and_another_in_the_third() {
    let bazel = "ab".repeat(32);
    assert_eq!(
        said(Tool::Ccache, "GET", "20/7brhveurg506evise1be53ia7ll1ps4"),
        get("207brhveurg506evise1be53ia7ll1ps4")
    );
    assert_eq!(
        said(Tool::Ccache, "GET", "207brhveurg506evise1be53ia7ll1ps4"),
        get("207brhveurg506evise1be53ia7ll1ps4")
    );
    assert_eq!(said(Tool::Ccache, "GET", &format!("ac/{bazel}")), get(&format!("bazel/{bazel}")));
    assert_eq!(said(Tool::Ccache, "DELETE", "20/7b"), Ok(Ask::Delete("207b".into())));
    assert_eq!(said(Tool::Ccache, "GET", "a/b/c"), Err(Refusal::Unknown));
    assert!(said(Tool::Ccache, "GET", "20/7B").is_err());
}

#[test]
fn bazel_has_blobs_and_results() {
    let hash = "5a".repeat(32);
    assert_eq!(said(Tool::Bazel, "GET", &format!("ac/{hash}")), Ok(Ask::Result([0x5a; 32], Verb::Get)));
    assert_eq!(said(Tool::Bazel, "PUT", &format!("cas/{hash}")), Ok(Ask::Blob([0x5a; 32], Verb::Put)));
    assert!(said(Tool::Bazel, "PUT", &format!("cas/{}", &hash[1..])).is_err());
    assert_eq!(said(Tool::Bazel, "DELETE", &format!("cas/{hash}")), Err(Refusal::Method));
    assert_eq!(said(Tool::Bazel, "GET", &format!("other/{hash}")), Err(Refusal::Unknown));
}

#[test]
fn turborepo_keeps_what_must_come_back() {
    let mut headers = HeaderMap::new();
    headers.insert("x-artifact-duration", "1200".parse().unwrap());
    headers.insert("x-artifact-tag", "a".repeat(601).parse().unwrap());
    let segments = ["v8", "artifacts", "0123abc"].map(str::to_owned);
    assert!(
        ask(Tool::Turbo, &Method::PUT, &segments, &headers).is_err(),
        "expected a tag that is too long to be refused"
    );
    headers.insert("x-artifact-tag", "dGFn".parse().unwrap());
    let Ok(Ask::Put(put)) = ask(Tool::Turbo, &Method::PUT, &segments, &headers) else { panic!("expected a put") };
    assert_eq!((put.headers["x-artifact-duration"].as_str(), put.headers["x-artifact-tag"].as_str()), ("1200", "dGFn"));
    assert_eq!(said(Tool::Turbo, "GET", "v8/artifacts/status"), Ok(Ask::Answer(turbo_status())));
    assert_eq!(said(Tool::Turbo, "POST", "v8/artifacts"), Ok(Ask::List));
    assert!(matches!(said(Tool::Turbo, "POST", "v8/artifacts/events"), Ok(Ask::Ignore(_))));
    assert_eq!(said(Tool::Turbo, "GET", "v2/user"), Err(Refusal::Unknown));
}

fn turbo_status() -> Fixed {
    Fixed::json(StatusCode::OK, r#"{"status":"enabled"}"#)
}

#[test]
fn the_others_have_keys_of_their_own() {
    let key = "d41d8cd98f00b204e9800998ecf8427e";
    assert_eq!(said(Tool::Gradle, "GET", key), get(key));
    assert!(said(Tool::Gradle, "GET", "UPPER").is_err());
    assert_eq!(said(Tool::Nx, "GET", "v1/cache/14567889"), get("14567889"));
    assert!(matches!(said(Tool::Nx, "PUT", "v1/cache/14567889"), Ok(Ask::Put(Put { replaces: false, .. }))));
    assert_eq!(said(Tool::Sccache, "GET", "a/b/c/abcd"), get("a/b/c/abcd"));
    assert_eq!(said(Tool::Sccache, "PROPFIND", "a/b/"), Ok(Ask::Find("a/b".into())));
    assert!(matches!(said(Tool::Sccache, "MKCOL", "a/b/"), Ok(Ask::Answer(_))));
    assert_eq!(said(Tool::Sccache, "PUT", ""), Err(Refusal::Method));
    assert_eq!(
        said(Tool::Maven, "GET", "v1.1/org.shop/app/0f/buildinfo.xml"),
        get("v1.1/org.shop/app/0f/buildinfo.xml")
    );
    assert_eq!(said(Tool::Go, "GET", "aa"), Err(Refusal::Unknown));
}
