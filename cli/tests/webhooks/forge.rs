//! A forge on this machine: repositories over git's smart HTTP protocol, and the API for commit statuses.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use kiln_harness::until;

/// The token that both git and the API require.
pub const TOKEN: &str = "a-token-of-the-forge";

/// A status that the API received.
#[derive(Debug, Clone)]
pub struct Told {
    pub path: String,
    pub body: Value,
    pub headers: HeaderMap,
}

#[derive(Clone)]
struct Shared {
    root: PathBuf,
    told: Arc<Mutex<Vec<Told>>>,
    /// How many of the next API calls fail.
    fails: Arc<Mutex<VecDeque<StatusCode>>>,
    fetches: Arc<Mutex<usize>>,
}

pub struct Forge {
    pub url: String,
    pub dir: tempfile::TempDir,
    shared: Shared,
    runtime: tokio::runtime::Runtime,
}

/// Runs git, and returns what it printed.
pub fn git(dir: &Path, arguments: &[&str]) -> String {
    let identity = ["-c", "user.name=Ann", "-c", "user.email=ann@users.example", "-c", "protocol.file.allow=always"];
    let output = Command::new("git").arg("-C").arg(dir).args(identity).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

impl Forge {
    /// With one empty repository, `team/shop`, and a clone of it in `work`.
    pub fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("git");
        let bare = bare(&root, "team/shop");
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        std::fs::write(dir.path().join("tls.pem"), made.cert.pem()).unwrap();
        std::fs::write(dir.path().join("tls.key"), made.signing_key.serialize_pem()).unwrap();
        git(dir.path(), &["clone", "-q", bare.to_str().unwrap(), "work"]);
        git(&dir.path().join("work"), &["checkout", "-q", "-B", "main"]);
        let shared = Shared { root, told: Arc::default(), fails: Arc::default(), fetches: Arc::default() };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(shared.clone());
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, dir, shared, runtime }
    }

    /// Another repository with these files on `main`; returns its path.
    pub fn add_repository(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let bare = bare(&self.shared.root, name);
        let work = tempfile::tempdir().unwrap();
        git(work.path(), &["init", "-q", "-b", "main"]);
        files.iter().for_each(|(path, content)| std::fs::write(work.path().join(path), content).unwrap());
        git(work.path(), &["add", "."]);
        git(work.path(), &["commit", "-q", "-m", "begin"]);
        git(work.path(), &["push", "-q", bare.to_str().unwrap(), "HEAD:refs/heads/main"]);
        bare
    }

    pub fn repository(&self) -> String {
        format!("{}/team/shop.git", self.url)
    }

    pub fn work(&self) -> PathBuf {
        self.dir.path().join("work")
    }

    /// Commits these files and pushes them to a branch; returns the commit.
    pub fn push(&self, branch: &str, files: &[(&str, &str)]) -> String {
        let work = self.work();
        for (path, content) in files {
            std::fs::create_dir_all(work.join(path).parent().unwrap()).unwrap();
            std::fs::write(work.join(path), content).unwrap();
        }
        git(&work, &["add", "."]);
        git(&work, &["commit", "-q", "-m", "a change"]);
        git(&work, &["push", "-q", "origin", &format!("HEAD:refs/heads/{branch}")]);
        git(&work, &["rev-parse", "HEAD"])
    }

    /// Makes the next API calls fail.
    pub fn fail(&self, codes: &[StatusCode]) {
        self.shared.fails.lock().unwrap().extend(codes);
    }

    /// How often git requested a pack.
    pub fn fetches(&self) -> usize {
        *self.shared.fetches.lock().unwrap()
    }

    /// The statuses of a commit, in the order in which they arrived.
    pub fn told(&self, commit: &str) -> Vec<Told> {
        let told = self.shared.told.lock().unwrap();
        told.iter().filter(|told| told.path.ends_with(commit)).cloned().collect()
    }

    /// Waits until a commit's status is final.
    pub fn ended(&self, commit: &str) -> Told {
        until("the status of the commit to be final", || {
            self.told(commit)
                .into_iter()
                .find(|told| !matches!(told.body["state"].as_str(), Some("pending" | "running")))
        })
    }

    /// Delivers a webhook; returns the response's code and text.
    pub fn deliver(&self, url: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        self.runtime.block_on(async {
            let certificate = std::fs::read(self.dir.path().join("tls.pem")).unwrap();
            let trusted = reqwest::Certificate::from_pem(&certificate).unwrap();
            let client = reqwest::Client::builder().no_proxy().tls_certs_only([trusted]).build().unwrap();
            let mut request = client.post(url).body(body.to_owned());
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = request.send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        })
    }
}

fn bare(root: &Path, name: &str) -> PathBuf {
    let bare = root.join(format!("{name}.git"));
    std::fs::create_dir_all(&bare).unwrap();
    git(&bare, &["init", "-q", "--bare", "-b", "main"]);
    git(&bare, &["config", "uploadpack.allowFilter", "true"]);
    bare
}

async fn serve(State(shared): State<Shared>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 64 << 20).await.unwrap();
    if parts.uri.path().starts_with("/api/") {
        return status(&shared, parts.uri.path(), parts.headers, &body);
    }
    let allowed =
        ["x-access-token", "oauth2"].map(|user| format!("Basic {}", STANDARD.encode(format!("{user}:{TOKEN}"))));
    let shown = parts.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !allowed.iter().any(|allowed| allowed == shown) {
        return (StatusCode::UNAUTHORIZED, [("www-authenticate", "Basic realm=\"forge\"")]).into_response();
    }
    if parts.method == Method::POST {
        *shared.fetches.lock().unwrap() += 1;
    }
    tokio::task::spawn_blocking(move || backend(&shared.root, &parts.method, &parts.uri, &parts.headers, &body))
        .await
        .unwrap()
}

fn status(shared: &Shared, path: &str, headers: HeaderMap, body: &Bytes) -> Response {
    if let Some(code) = shared.fails.lock().unwrap().pop_front() {
        return (code, "not now").into_response();
    }
    let body = serde_json::from_slice(body).unwrap();
    shared.told.lock().unwrap().push(Told { path: path.to_owned(), body, headers });
    StatusCode::CREATED.into_response()
}

/// `git http-backend`, by CGI.
fn backend(root: &Path, method: &Method, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut child = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method.as_str())
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let sent = body.clone();
    let writing = std::thread::spawn(move || drop(std::io::Write::write_all(&mut stdin, &sent)));
    let output = child.wait_with_output().unwrap().stdout;
    writing.join().unwrap();
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let mut answer = Response::builder();
    for line in std::str::from_utf8(&output[..end]).unwrap().split("\r\n") {
        let (name, value) = line.split_once(": ").unwrap();
        answer = match name {
            "Status" => answer.status(value.split(' ').next().unwrap()),
            _ => answer.header(name, value),
        };
    }
    answer.body(axum::body::Body::from(output[end + 4..].to_vec())).unwrap()
}
