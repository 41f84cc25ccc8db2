//! An issuer of tokens on this machine, as GitHub and GitLab are: its keys, GitHub's endpoint for jobs, and a place to download `kiln` from.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
use ring::signature::RsaKeyPair;
use serde_json::{Value, json};

use kiln_harness::output;

/// The credential with which a job requests a token.
pub const REQUEST_TOKEN: &str = "what-the-runner-gave-this-job";
/// The clock difference that the coordinator tolerates, in seconds: tokens are valid for that much longer.
const LEEWAY: i64 = 30;
const KEY: &str = "38826b17-6a30-5f9b-b169-8beb8202f723";

#[derive(Clone)]
struct Shared {
    key: Arc<RsaKeyPair>,
    jwks: Value,
    /// Claims of the next job's token besides audience and times.
    claims: Arc<Mutex<Value>>,
    /// How long tokens are valid, in seconds.
    life: Arc<Mutex<i64>>,
    away: Arc<Mutex<bool>>,
    given: Arc<Mutex<usize>>,
}

pub struct Issuer {
    /// Its issuer URL and its address.
    pub url: String,
    pub dir: tempfile::TempDir,
    shared: Shared,
    _runtime: tokio::runtime::Runtime,
}

impl Issuer {
    pub fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pem = output("openssl", &["genrsa", "2048"], dir.path());
        std::fs::write(dir.path().join("key.pem"), &pem).unwrap();
        let modulus = output("openssl", &["rsa", "-in", "key.pem", "-noout", "-modulus"], dir.path());
        let modulus = hex(modulus.trim().strip_prefix("Modulus=").unwrap());
        output(
            "openssl",
            &["pkcs8", "-topk8", "-nocrypt", "-in", "key.pem", "-outform", "DER", "-out", "key.der"],
            dir.path(),
        );
        let der = std::fs::read(dir.path().join("key.der")).unwrap();
        // As GitHub's: several keys, with members that verification does not need.
        let member = |id: &str, n: &[u8]| {
            json!({ "kty": "RSA", "alg": "RS256", "use": "sig", "kid": id, "n": B64.encode(n), "e": "AQAB",
            "x5t": "OCa4F2owX5uxaYvrggL3Iw", "x5c": ["MIIDKzCCAhOgAwIBAgIUDnwm6eRIqGFA3o"] })
        };
        let mut other = modulus.clone();
        other[9] ^= 1;
        let shared = Shared {
            key: Arc::new(RsaKeyPair::from_pkcs8(&der).unwrap()),
            jwks: json!({ "keys": [member("cc413527-173f-5a05-976e-9c52b1d7b431", &other), member(KEY, &modulus)] }),
            claims: Arc::new(Mutex::new(json!({}))),
            life: Arc::new(Mutex::new(300)),
            away: Arc::default(),
            given: Arc::default(),
        };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().route("/jwks", get(jwks)).route("/token", get(token)).route("/kiln", get(program));
        let router = router.with_state((url.clone(), shared.clone()));
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self { url, dir, shared, _runtime: runtime }
    }

    /// Sets the claims and the lifetime of future tokens.
    pub fn jobs(&self, claims: Value, life: i64) {
        *self.shared.claims.lock().unwrap() = claims;
        *self.shared.life.lock().unwrap() = life;
    }

    /// Sets whether its keys are available.
    pub fn away(&self, away: bool) {
        *self.shared.away.lock().unwrap() = away;
    }

    /// How many tokens it issued to jobs.
    pub fn given(&self) -> usize {
        *self.shared.given.lock().unwrap()
    }

    /// A token for this audience, as the next job would get.
    pub fn sign(&self, audience: &str) -> String {
        sign(&self.url, &self.shared, audience)
    }

    /// Arguments that make a coordinator accept its tokens.
    pub fn arguments(&self, audience: &str, rules: &std::path::Path) -> Vec<String> {
        let words = ["--jwks", &format!("{}/jwks", self.url), "--jwt-issuer", &self.url, "--jwt-audience", audience];
        words.into_iter().chain(["--jwt-rules", rules.to_str().unwrap()]).map(ToOwned::to_owned).collect()
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn sign(issuer: &str, shared: &Shared, audience: &str) -> String {
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    let mut claims = shared.claims.lock().unwrap().clone();
    let life = *shared.life.lock().unwrap();
    let more = json!({ "iss": issuer, "aud": audience, "iat": now, "nbf": now - 5, "exp": now + life - LEEWAY,
        "jti": format!("{}-{now}", shared.given.lock().unwrap()) });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let header = json!({ "typ": "JWT", "alg": "RS256", "kid": KEY });
    let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
    let mut signature = vec![0; shared.key.public().modulus_len()];
    let random = ring::rand::SystemRandom::new();
    shared.key.sign(&ring::signature::RSA_PKCS1_SHA256, &random, message.as_bytes(), &mut signature).unwrap();
    format!("{message}.{}", B64.encode(signature))
}

type All = State<(String, Shared)>;

async fn jwks(State((_, shared)): All) -> Response {
    match *shared.away.lock().unwrap() {
        true => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        false => shared.jwks.to_string().into_response(),
    }
}

/// GitHub's: the URL already has a query, and the answer is `{"value": TOKEN}`.
async fn token(State((issuer, shared)): All, uri: Uri, headers: HeaderMap) -> Response {
    let shown = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let asked = reqwest::Url::parse(&format!("{issuer}{uri}")).unwrap();
    let of_query =
        |name: &str| asked.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value.into_owned());
    if shown != format!("bearer {REQUEST_TOKEN}") || of_query("api-version").is_none() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let Some(audience) = of_query("audience") else { return StatusCode::BAD_REQUEST.into_response() };
    *shared.given.lock().unwrap() += 1;
    json!({ "value": sign(&issuer, &shared, &audience) }).to_string().into_response()
}

async fn program() -> Vec<u8> {
    tokio::fs::read(env!("CARGO_BIN_EXE_kiln")).await.unwrap()
}
