//! Fetching from servers of this process: good ones, and those that redirect, lie or stall.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use kiln_assets::{Assets, Downloads};
use kiln_images::registry::Reach;
use kiln_journal::{Fsync, Journal};
use kiln_proto::asset::fetch_server::Fetch;
use kiln_proto::asset::push_server::Push;
use kiln_proto::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, PushBlobRequest, PushDirectoryRequest, Qualifier,
};
use kiln_proto::clock;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_store::{Config, Stores};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request};

const F: DigestFunction = DigestFunction::Sha256;

/// A server that answers each path with the text that `answer` gives, and remembers the requests.
struct Server {
    url: String,
    seen: Arc<Mutex<Vec<String>>>,
    _serving: AbortOnDropHandle<()>,
}

async fn server(answer: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (seen, answer): (Arc<Mutex<Vec<String>>>, _) = (Arc::default(), Arc::new(answer));
    let noted = seen.clone();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (noted, answer) = (noted.clone(), answer.clone());
            tokio::spawn(async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(stream.read_u8().await?);
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                noted.lock().unwrap().push(head.clone());
                match answer(head.split(' ').nth(1).unwrap()) {
                    Some(text) => stream.write_all(text.as_bytes()).await,
                    // It never answers.
                    None => std::future::pending().await,
                }
            });
        }
    });
    Server { url, seen, _serving: AbortOnDropHandle::new(serving) }
}

fn ok(body: &str) -> Option<String> {
    Some(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()))
}

fn gone() -> Option<String> {
    Some("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned())
}

fn to(location: &str) -> Option<String> {
    Some(format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"))
}

async fn assets(directory: &Path, allowed: &[&Server]) -> (Assets, Stores) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let stores = Stores::open(&Config::on_disk(directory.join("store"), 1 << 30)).await.unwrap();
    let journal = Journal::open(&directory.join("journal.redb"), Fsync::default()).unwrap();
    let allowed = allowed.iter().map(|server| server.url.strip_prefix("http://").unwrap().parse().unwrap()).collect();
    let downloads = Downloads::new(Reach::public(allowed), directory.to_owned());
    (Assets::new(stores.clone(), journal, downloads), stores)
}

fn request(uris: &[String], qualifiers: &[(&str, String)]) -> FetchBlobRequest {
    let qualifiers =
        qualifiers.iter().map(|(name, value)| Qualifier { name: (*name).into(), value: value.clone() }).collect();
    FetchBlobRequest { uris: uris.to_vec(), qualifiers, ..FetchBlobRequest::default() }
}

fn sri(content: &str) -> (&'static str, String) {
    use base64::Engine as _;
    (
        "checksum.sri",
        format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(F.digest(content.as_bytes()).hash)),
    )
}

async fn fetch(assets: &Assets, request: FetchBlobRequest) -> FetchBlobResponse {
    assets.fetch_blob(Request::new(request)).await.unwrap().into_inner()
}

#[track_caller]
fn content(response: &FetchBlobResponse) -> Digest {
    assert_eq!(response.status.as_ref().unwrap().code, 0, "{response:?}");
    Digest::from_wire(F, response.blob_digest.as_ref().unwrap()).unwrap()
}

#[track_caller]
fn failure(response: &FetchBlobResponse) -> (Code, &str) {
    let status = response.status.as_ref().unwrap();
    (Code::from(status.code), &status.message)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_many_want_is_fetched_once_and_then_by_its_checksum_from_anywhere() {
    let directory = tempfile::tempdir().unwrap();
    let own = server(|_| ok("content")).await;
    let (assets, stores) = assets(directory.path(), &[&own]).await;
    let asked = request(&[format!("{}/x", own.url)], &[sri("content"), ("bazel.canonical_id", "x".into())]);
    let all = futures::future::join_all((0..8).map(|_| fetch(&assets, asked.clone()))).await;
    for response in &all {
        assert_eq!(stores.blobs.get(&content(response)).await.unwrap(), "content");
    }
    assert_eq!(own.seen.lock().unwrap().len(), 1);
    // Nobody is asked for what is known by its checksum.
    let elsewhere = request(&["https://nowhere.example/y".to_owned()], &[sri("content")]);
    content(&fetch(&assets, elsewhere).await);
    // By another function it is another digest.
    let blake3 = FetchBlobRequest { digest_function: DigestFunction::Blake3.to_wire(), ..asked };
    let response = fetch(&assets, blake3).await;
    let digest = Digest::from_wire(DigestFunction::Blake3, response.blob_digest.as_ref().unwrap()).unwrap();
    assert_eq!(digest, DigestFunction::Blake3.digest(b"content"));
}

#[tokio::test]
async fn a_server_that_lies_or_has_nothing_is_passed_over_and_named() {
    let directory = tempfile::tempdir().unwrap();
    let own = server(|path| {
        if path == "/good" {
            ok("content")
        } else if path == "/bad" {
            ok("other")
        } else {
            gone()
        }
    })
    .await;
    let (assets, stores) = assets(directory.path(), &[&own]).await;
    let at = |path: &str| format!("{}/{path}", own.url);
    let response = fetch(&assets, request(&[at("none"), at("bad")], &[sri("content")])).await;
    let (code, words) = failure(&response);
    assert_eq!(code, Code::Aborted);
    assert!(words.contains("404") && words.contains("another content"), "{words}");
    assert_eq!(
        stores.blobs.find_missing(&[F.digest(b"other")]).await.unwrap().len(),
        1,
        "what was not asked for is not kept"
    );
    let response = fetch(&assets, request(&[at("none"), at("bad"), at("good")], &[sri("content")])).await;
    assert_eq!((content(&response), response.uri), (F.digest(b"content"), at("good")));
    assert_eq!(failure(&fetch(&assets, request(&[at("none")], &[])).await).0, Code::NotFound);
}

#[tokio::test]
async fn only_what_the_operator_allows_is_contacted_and_headers_stay_with_their_server() {
    let directory = tempfile::tempdir().unwrap();
    let inner = server(|_| ok("secret")).await;
    let friend = server(|_| ok("content")).await;
    let (to_inner, to_friend) = (format!("{}/x", inner.url), format!("{}/y", friend.url));
    let (inside, elsewhere) = (to_inner.clone(), to_friend.clone());
    let own = server(move |path| match path {
        "/inner" => to(&inside),
        "/friend" => to(&elsewhere),
        "/loop" => to("/loop"),
        "/file" => to("file:///etc/passwd"),
        _ => ok("own"),
    })
    .await;
    let (assets, _) = assets(directory.path(), &[&own, &friend]).await;
    for uri in
        [to_inner, format!("{}/inner", own.url), format!("{}/file", own.url), "http://169.254.169.254/x".to_owned()]
    {
        let response = fetch(&assets, request(&[uri], &[])).await;
        let (code, words) = failure(&response);
        assert_eq!(code, Code::PermissionDenied, "{words}");
    }
    assert!(inner.seen.lock().unwrap().is_empty());
    let response = fetch(&assets, request(&[format!("{}/loop", own.url)], &[])).await;
    assert!(failure(&response).1.contains("redirects more than"));
    let login = ("http_header:Authorization", "Bearer hunter2".to_owned());
    content(&fetch(&assets, request(&[format!("{}/friend", own.url)], &[login])).await);
    assert!(own.seen.lock().unwrap().last().unwrap().contains("Bearer hunter2"));
    assert!(!friend.seen.lock().unwrap().concat().contains("hunter2"));
}

#[tokio::test]
async fn without_a_checksum_an_address_is_asked_again_in_time_and_with_a_login_always() {
    let directory = tempfile::tempdir().unwrap();
    let own = server(|_| ok("content")).await;
    let (assets, _) = assets(directory.path(), &[&own]).await;
    let asked = request(&[format!("{}/x", own.url)], &[]);
    let times = || own.seen.lock().unwrap().len();
    content(&fetch(&assets, asked.clone()).await);
    content(&fetch(&assets, asked.clone()).await);
    assert_eq!(times(), 1);
    let newer = clock::timestamp(SystemTime::now() + Duration::from_secs(60));
    content(&fetch(&assets, FetchBlobRequest { oldest_content_accepted: Some(newer), ..asked }).await);
    assert_eq!(times(), 2);
    let login = request(&[format!("{}/private", own.url)], &[("http_header:Authorization", "x".into())]);
    content(&fetch(&assets, login.clone()).await);
    content(&fetch(&assets, login).await);
    assert_eq!(times(), 4);
}

#[tokio::test]
async fn a_server_that_never_answers_takes_no_longer_than_the_client_allows() {
    let directory = tempfile::tempdir().unwrap();
    let own = server(|_| None).await;
    let (assets, _) = assets(directory.path(), &[&own]).await;
    let asked = request(&[format!("{}/x", own.url)], &[]);
    let asked = FetchBlobRequest { timeout: Some(clock::duration(Duration::from_millis(200))), ..asked };
    assert_eq!(failure(&fetch(&assets, asked).await).0, Code::DeadlineExceeded);
}

#[tokio::test]
async fn what_is_pushed_is_found_as_long_as_it_is_valid_and_there() {
    let directory = tempfile::tempdir().unwrap();
    let (assets, stores) = assets(directory.path(), &[]).await;
    let (digest, uris) = (F.digest(b"content"), vec!["https://a.example/x".to_owned()]);
    let push =
        PushBlobRequest { uris: uris.clone(), blob_digest: Some(digest.to_wire()), ..PushBlobRequest::default() };
    let refused = assets.push_blob(Request::new(push.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    stores.blobs.put(&digest, "content".into()).await.unwrap();
    let wrong = PushBlobRequest { qualifiers: request(&[], &[sri("other")]).qualifiers, ..push.clone() };
    assert_eq!(assets.push_blob(Request::new(wrong)).await.unwrap_err().code(), Code::InvalidArgument);
    assets.push_blob(Request::new(push.clone())).await.unwrap();
    assert_eq!(content(&fetch(&assets, request(&uris, &[])).await), digest);
    let past = Some(clock::timestamp(SystemTime::now() - Duration::from_secs(1)));
    assets.push_blob(Request::new(PushBlobRequest { expire_at: past, ..push })).await.unwrap();
    assert_ne!(failure(&fetch(&assets, request(&uris, &[])).await).0, Code::Ok);

    let mut tree = kiln_trees::tree::Tree::default();
    tree.insert("a/b", kiln_trees::tree::Entry::file(F.digest(b"absent"), false)).unwrap();
    let root = kiln_store::trees::store_tree(&*stores.blobs, F, &tree).await.unwrap();
    let push =
        PushDirectoryRequest { uris: uris.clone(), root_directory_digest: Some(root.to_wire()), ..Default::default() };
    let refused = assets.push_directory(Request::new(push.clone())).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "a file is missing");
    stores.blobs.put(&F.digest(b"absent"), "absent".into()).await.unwrap();
    assets.push_directory(Request::new(push)).await.unwrap();
    let asked = FetchDirectoryRequest { uris, ..FetchDirectoryRequest::default() };
    let response = assets.fetch_directory(Request::new(asked)).await.unwrap().into_inner();
    assert_eq!(response.root_directory_digest, Some(root.to_wire()));
}
