//! JSON web tokens of an identity provider, verified with its published keys.
//!
//! Sources: RFC 7519 (JWT), RFC 7517 (JWK sets), RFC 8725 (best current practices): only asymmetric algorithms, issuer
//! and audience are always checked, and the key is chosen by its id.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Error, Identity, Role, check_name, check_scope};

mod rules;
mod signatures;

pub use rules::Rules;

/// Keys are refreshed after this time.
const FRESH: Duration = Duration::from_secs(300);
/// How long known keys are used while the provider cannot be reached.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Minimum interval between fetches caused by tokens with an unknown key id.
const PAUSE: Duration = Duration::from_secs(10);
/// Time limit for the provider's response.
const FETCH_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum size of a key set, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// Number of verified tokens that are cached.
const REMEMBERED: usize = 1_000;
/// Tolerated difference from the provider's clock, in seconds.
const LEEWAY_SECS: u64 = 30;
/// Longest `sub`, in bytes: those of CI systems contain repository and branch.
const MAX_NAME: usize = 512;

const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Where the provider's keys are read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file.
    File(PathBuf),
    /// A URL, fetched with GET.
    Url(url::Url),
}

impl std::str::FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match url::Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "https" | "http") => Ok(Self::Url(url)),
            Ok(url) if text.contains("://") => {
                Err(format!("unsupported scheme `{}://` for keys; expected `https://…` or a file", url.scheme()))
            }
            _ => Ok(Self::File(text.into())),
        }
    }
}

/// Requirements for tokens, and the names of their claims.
#[derive(Debug, Clone)]
pub struct Config {
    /// The provider's keys.
    pub source: Source,
    /// Required issuer.
    pub issuer: String,
    /// Required audience.
    pub audience: String,
    /// The claim that names the tenant.
    pub tenant_claim: String,
    /// The claim that lists roles: an array, or words separated by spaces.
    pub roles_claim: String,
    /// The claim that names the branch scope, if the holder is confined to one.
    pub scope_claim: String,
    /// Maximum remaining validity of a token.
    pub max_life: Duration,
    /// The directory of tenants: if it contains any, a token must name its tenant.
    pub tenants_dir: PathBuf,
}

/// A verified token.
#[derive(Debug, Clone)]
struct Verified {
    claims: Arc<Value>,
    expires: SystemTime,
}

/// Verifies tokens.
#[derive(Debug)]
pub struct Jwt {
    config: Config,
    keys: RwLock<Arc<JwkSet>>,
    /// When keys were last requested, and the outcome. A caller whose key is known reads this without waiting for
    /// `fetching`.
    fetched: Mutex<Option<(Instant, Result<(), String>)>>,
    fetching: tokio::sync::Mutex<()>,
    /// When keys were last received.
    published: Mutex<Option<Instant>>,
    verified: Mutex<HashMap<[u8; 32], Verified>>,
}

impl Jwt {
    /// Fetches the keys for the first time. If the provider does not respond, that is repeated when a token arrives.
    ///
    /// # Errors
    /// If a file contains no valid keys.
    pub async fn open(config: Config) -> Result<Self, Error> {
        signatures::install();
        let jwt = Self {
            config,
            keys: RwLock::new(Arc::new(JwkSet { keys: Vec::new() })),
            fetched: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
            published: Mutex::default(),
            verified: Mutex::default(),
        };
        match (jwt.fetch().await, &jwt.config.source) {
            (Err(reason), Source::File(path)) => return Err(Error::File { path: path.clone(), reason }),
            (Err(reason), Source::Url(url)) => {
                tracing::warn!(%url, reason, "cannot fetch the keys for tokens; retrying when a token arrives")
            }
            (Ok(()), _) => {}
        }
        Ok(jwt)
    }

    /// Identifies the holder of a token. With `rules`, these map its claims; otherwise the token itself names tenant
    /// and roles.
    ///
    /// # Errors
    /// Why the token is not accepted.
    pub async fn identify(&self, token: &str, rules: Option<&Rules>) -> Result<Identity, String> {
        let verified = self.verify(token).await?;
        let claims = &*verified.claims;
        let name = text(claims, "sub");
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err("the token's `sub` is not a valid name".to_owned());
        }
        let (tenant, roles) = match rules {
            Some(rules) => rules.apply(claims).inspect_err(|reason| tracing::warn!(name, reason, "refused a token"))?,
            None => (self.tenant(claims)?, roles(&claims[&self.config.roles_claim])),
        };
        if !tenant.is_empty() {
            check_name("tenant", &tenant)?;
        }
        let scope = match rules {
            Some(rules) => rules.scope(claims)?,
            None => self.scope(claims)?,
        };
        Ok(Identity { name, tenant, roles, scope, expires: Some(verified.expires), ..Identity::anonymous() })
    }

    /// The tenant that a token names. A missing name means the default tenant only if there are no others; otherwise it
    /// is ambiguous.
    fn tenant(&self, claims: &Value) -> Result<String, String> {
        let claim = &self.config.tenant_claim;
        match &claims[claim] {
            Value::String(tenant) if !tenant.is_empty() => Ok(tenant.clone()),
            Value::Null if !self.has_tenants() => Ok(String::new()),
            Value::Null => Err(format!("the token names no tenant (`{claim}`), and this farm has tenants")),
            other => Err(format!("the token's `{claim}` is `{other}`; expected a tenant's name")),
        }
    }

    /// The scope that a token names. One that cannot be read must not open the base.
    fn scope(&self, claims: &Value) -> Result<Option<String>, String> {
        let claim = &self.config.scope_claim;
        match &claims[claim] {
            Value::Null => Ok(None),
            Value::String(scope) => check_scope(scope).map(|()| Some(scope.clone())),
            other => Err(format!("the token's `{claim}` is `{other}`; expected a scope's name")),
        }
    }

    fn has_tenants(&self) -> bool {
        std::fs::read_dir(&self.config.tenants_dir).is_ok_and(|mut tenants| tenants.next().is_some())
    }

    async fn verify(&self, token: &str) -> Result<Verified, String> {
        // Refreshing removes withdrawn keys and what they had verified. One caller fetches; the others continue with
        // the known keys.
        let is_due = self.fetched.lock().as_ref().is_some_and(|(at, _)| at.elapsed() >= FRESH);
        if is_due
            && self.fetching.try_lock().is_ok()
            && let Err(reason) = self.fetch().await
        {
            tracing::warn!(reason, "cannot fetch the keys for tokens");
        }
        self.check_age()?;
        let hash: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(known) = self.verified.lock().get(&hash).filter(|known| known.expires > SystemTime::now()) {
            return Ok(known.clone());
        }
        let header = jsonwebtoken::decode_header(token).map_err(|_| "unknown token".to_owned())?;
        if !ALGORITHMS.contains(&header.alg) {
            return Err(format!(
                "the token is signed with {:?}, which anyone who can verify it could forge",
                header.alg
            ));
        }
        check_header(token)?;
        let key = self.key(header.kid.as_deref()).await?;
        check_key(&key, header.alg)?;
        let claims = self.claims(token, header.alg, &key)?;
        let expires = claims["exp"].as_u64().and_then(|at| at.checked_add(LEEWAY_SECS)).map(Duration::from_secs);
        let expires = expires.and_then(|since| SystemTime::UNIX_EPOCH.checked_add(since));
        let expires = expires.ok_or("the token's `exp` is not a timestamp")?;
        if expires > SystemTime::now() + self.config.max_life + Duration::from_secs(LEEWAY_SECS) {
            let most = humantime::format_duration(self.config.max_life);
            return Err(format!(
                "the token is valid for more than {most}, the most that this farm accepts (`--jwt-max-life`)"
            ));
        }
        let verified = Verified { claims: Arc::new(claims), expires };
        let mut remembered = self.verified.lock();
        if remembered.len() >= REMEMBERED {
            remembered.clear();
        }
        remembered.insert(hash, verified.clone());
        Ok(verified)
    }

    fn claims(&self, token: &str, algorithm: Algorithm, key: &Jwk) -> Result<Value, String> {
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_SECS;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[&self.config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let key = DecodingKey::from_jwk(key).map_err(|_| "cannot use the provider's key for this token".to_owned())?;
        jsonwebtoken::decode(token, &key, &validation).map(|token| token.claims).map_err(|error| self.words(&error))
    }

    fn words(&self, error: &jsonwebtoken::errors::Error) -> String {
        use jsonwebtoken::errors::ErrorKind;
        match error.kind() {
            ErrorKind::ExpiredSignature => "the token has expired".to_owned(),
            ErrorKind::ImmatureSignature => "the token is not valid yet; is this machine's clock right?".to_owned(),
            ErrorKind::InvalidIssuer => format!("the token is not from `{}`", self.config.issuer),
            ErrorKind::InvalidAudience => format!("the token is not for `{}`", self.config.audience),
            ErrorKind::InvalidSignature => "the token is not signed by the provider".to_owned(),
            ErrorKind::InvalidClaimFormat(claim) => format!("the token's `{claim}` has the wrong type"),
            ErrorKind::MissingRequiredClaim(claim) => format!("the token has no claim `{claim}`"),
            other => format!("invalid token: {other:?}"),
        }
    }

    /// Known keys remain usable for a while when the provider is unavailable.
    fn check_age(&self) -> Result<(), String> {
        if self.published.lock().is_some_and(|at| at.elapsed() > STALE) {
            let hours = STALE.as_secs() / 3600;
            return Err(format!(
                "the provider's keys could not be fetched for {hours} h, so its tokens are refused; try again"
            ));
        }
        Ok(())
    }

    async fn key(&self, id: Option<&str>) -> Result<Jwk, String> {
        if let Some(key) = self.known(id) {
            return Ok(key);
        }
        let wrong = self.fetch().await.err();
        self.known(id).ok_or_else(|| match wrong {
            Some(reason) => {
                tracing::warn!(reason, "cannot fetch the keys for tokens");
                "cannot fetch the provider's keys at the moment; try again".to_owned()
            }
            None => "the token is signed with a key that the provider does not publish".to_owned(),
        })
    }

    fn known(&self, id: Option<&str>) -> Option<Jwk> {
        let keys = self.keys.read();
        match id {
            Some(id) => keys.find(id).cloned(),
            None => keys.keys.first().filter(|_| keys.keys.len() == 1).cloned(),
        }
    }

    /// Fetches the keys, unless that was just tried. Concurrent callers wait for the one that fetches.
    async fn fetch(&self) -> Result<(), String> {
        let _alone = self.fetching.lock().await;
        if let Some((at, result)) = &*self.fetched.lock()
            && at.elapsed() < PAUSE
        {
            return result.clone();
        }
        // Recorded first: if this caller is dropped midway, the next one must not fetch again immediately.
        *self.fetched.lock() = Some((Instant::now(), Err("the provider has not responded".to_owned())));
        let result = self.fetch_now().await;
        *self.fetched.lock() = Some((Instant::now(), result.clone()));
        result
    }

    async fn fetch_now(&self) -> Result<(), String> {
        let data = match &self.config.source {
            Source::File(path) => tokio::fs::read(path).await.map_err(|error| error.to_string())?,
            Source::Url(url) => download(url).await?,
        };
        let keys = key_set(&data)?;
        *self.keys.write() = Arc::new(keys);
        *self.published.lock() = Some(Instant::now());
        // A withdrawn key must no longer verify anything.
        self.verified.lock().clear();
        Ok(())
    }
}

fn key_set(data: &[u8]) -> Result<JwkSet, String> {
    serde_json::from_slice(data).map_err(|error| format!("not a key set: {error}"))
}

/// Whether a file has keys.
///
/// # Errors
/// If it cannot be read, or has something else.
pub(crate) fn check_keys(path: &std::path::Path) -> Result<(), Error> {
    let wrong = |reason: String| Error::File { path: path.to_owned(), reason };
    let data = std::fs::read(path).map_err(|error| wrong(error.to_string()))?;
    key_set(&data).map(drop).map_err(wrong)
}

/// RFC 7515, 4.1.11: a recipient that does not understand an extension named in `crit` must refuse the token.
fn check_header(token: &str) -> Result<(), String> {
    let header = token.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok()).unwrap_or_default();
    let header: Value = serde_json::from_slice(&header).map_err(|_| "cannot read the token's header".to_owned())?;
    if header.get("crit").is_some() {
        return Err(format!(
            "the token's header requires (`crit`) extensions that this farm does not support: {}",
            header["crit"]
        ));
    }
    Ok(())
}

/// Checks that a key is used with the algorithm and for the purpose it was published for (RFC 8725, 3.1).
fn check_key(key: &Jwk, algorithm: Algorithm) -> Result<(), String> {
    let own = key.common.key_algorithm.map(|own| own.to_string());
    if own.as_ref().is_some_and(|own| *own != format!("{algorithm:?}")) {
        return Err(format!("the token is signed with {algorithm:?} by a key for {}", own.unwrap_or_default()));
    }
    match &key.common.public_key_use {
        None | Some(PublicKeyUse::Signature) => Ok(()),
        Some(_) => Err("the token is signed with a key that is not meant for signatures".to_owned()),
    }
}

fn text(claims: &Value, claim: &str) -> String {
    claims[claim].as_str().unwrap_or_default().to_owned()
}

fn roles(claim: &Value) -> BTreeSet<Role> {
    let words: Vec<&str> = match claim {
        Value::String(text) => text.split([' ', ',']).collect(),
        Value::Array(list) => list.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    // Providers list other systems' roles in the same claim.
    words.into_iter().filter_map(|word| word.strip_prefix("kiln:").unwrap_or(word).parse().ok()).collect()
}

async fn download(url: &url::Url) -> Result<Vec<u8>, String> {
    let failed = |error: reqwest::Error| kiln_images::registry::words(&error);
    let client = crate::outgoing::client(FETCH_TIMEOUT).map_err(failed)?;
    let mut answer =
        client.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status).map_err(failed)?;
    let mut data = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(failed)? {
        data.extend_from_slice(&chunk);
        if data.len() > MAX_BYTES {
            return Err(format!("the key set is larger than {MAX_BYTES} bytes"));
        }
    }
    Ok(data)
}

#[cfg(test)]
mod tests;
