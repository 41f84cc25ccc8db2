use jsonwebtoken::Header;
use rcgen::KeyPair;
use serde_json::json;

use super::*;

struct Provider {
    directory: tempfile::TempDir,
    key: KeyPair,
}

fn unix() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

impl Provider {
    fn new() -> Self {
        let provider = Self { directory: tempfile::tempdir().unwrap(), key: KeyPair::generate().unwrap() };
        provider.publish("one");
        provider
    }

    fn publish(&self, id: &str) {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
        // An uncompressed point of P-256: 4, then x and y.
        let point = self.key.public_key_raw();
        let key = json!({ "kty": "EC", "crv": "P-256", "kid": id, "alg": "ES256", "use": "sig",
            "x": B64.encode(&point[1..33]), "y": B64.encode(&point[33..65]) });
        std::fs::write(self.path(), json!({ "keys": [key] }).to_string()).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("jwks.json")
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_with(Header { kid: Some("one".into()), ..Header::new(Algorithm::ES256) }, claims)
    }

    /// A correctly signed token with an arbitrary header.
    fn sign_raw(&self, header: &Value, claims: &Value) -> String {
        use base64::Engine;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD as B64;
        let message = format!("{}.{}", B64.encode(header.to_string()), B64.encode(claims.to_string()));
        let (random, fixed) = (ring::rand::SystemRandom::new(), &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING);
        let key = ring::signature::EcdsaKeyPair::from_pkcs8(fixed, &self.key.serialize_der(), &random).unwrap();
        let signature = key.sign(&random, message.as_bytes()).unwrap();
        format!("{message}.{}", B64.encode(signature))
    }

    fn sign_with(&self, header: Header, claims: &Value) -> String {
        self.sign_raw(&serde_json::to_value(&header).unwrap(), claims)
    }

    async fn open(&self) -> Jwt {
        let config = Config {
            source: Source::File(self.path()),
            issuer: "https://id.example".into(),
            audience: "kiln".into(),
            tenant_claim: "tenant".into(),
            scope_claim: "kiln_scope".into(),
            roles_claim: "roles".into(),
            max_life: Duration::from_secs(3600),
            tenants_dir: self.directory.path().join("tenants"),
        };
        Jwt::open(config).await.unwrap()
    }
}

fn claims() -> Value {
    json!({ "sub": "ann", "iss": "https://id.example", "aud": "kiln", "exp": unix() + 60,
        "tenant": "shop", "roles": ["kiln:builder", "somewhere-else"] })
}

#[tokio::test]
async fn a_token_of_the_provider_says_who_shows_it() {
    let provider = Provider::new();
    let jwt = provider.open().await;
    let token = provider.sign(&claims());
    for _ in 0..2 {
        let identity = jwt.identify(&token, None).await.unwrap();
        assert_eq!((identity.name.as_str(), identity.tenant.as_str()), ("ann", "shop"));
        assert_eq!(identity.roles, [Role::Builder].into(), "expected roles of other systems to be left out");
    }
    let mut words = claims();
    words["roles"] = json!("cache-reader cache-writer");
    let identity = jwt.identify(&provider.sign(&words), None).await.unwrap();
    assert_eq!(identity.roles, [Role::CacheReader, Role::CacheWriter].into());
}

#[tokio::test]
async fn a_token_that_is_not_for_this_farm_is_refused_in_words() {
    let provider = Provider::new();
    let jwt = provider.open().await;
    for (claim, value, word) in [
        ("iss", json!("https://other.example"), "not from"),
        ("aud", json!("other"), "not for `kiln`"),
        ("exp", json!(unix() - 3600), "has expired"),
        ("exp", Value::Null, "exp"),
        ("nbf", json!(unix() + 3600), "not valid yet"),
        ("sub", Value::Null, "sub"),
        ("tenant", json!("../other"), "invalid tenant name"),
    ] {
        let mut claims = claims();
        claims[claim] = value;
        if claims[claim].is_null() {
            claims.as_object_mut().unwrap().remove(claim);
        }
        let refused = jwt.identify(&provider.sign(&claims), None).await.expect_err(word);
        assert!(refused.contains(word), "expected `{word}` in: {refused}");
    }
    let stranger = Provider::new();
    assert!(jwt.identify(&stranger.sign(&claims()), None).await.unwrap_err().contains("not signed by the provider"));
    // Refused before its signature is looked at.
    let forged = provider.sign_with(Header::default(), &claims());
    assert!(jwt.identify(&forged, None).await.unwrap_err().contains("could forge"));
    for nonsense in ["", "a.b.c", "kiln_x", "é"] {
        assert!(jwt.identify(nonsense, None).await.is_err());
    }
}

#[tokio::test]
async fn a_key_that_is_not_published_is_nobodys() {
    let provider = Provider::new();
    provider.publish("two");
    let jwt = provider.open().await;
    let refused = jwt.identify(&provider.sign(&claims()), None).await.unwrap_err();
    assert!(refused.contains("does not publish"), "{refused}");
}

#[tokio::test]
async fn rules_say_what_the_claims_of_a_token_mean() {
    let provider = Provider::new();
    let jwt = provider.open().await;
    let path = provider.directory.path().join("rules.toml");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        Rules::read(&path).unwrap()
    };
    let mut claims = claims();
    claims["sub"] = json!("repo:team/shop:ref:refs/heads/main");
    claims["repository"] = json!("team/shop");
    let token = provider.sign(&claims);
    let rules = read("[[rule]]\nwhen = { repository = \"team/*\" }\ntenant = \"team\"\nroles = [\"cache-reader\"]");
    let identity = jwt.identify(&token, Some(&rules)).await.unwrap();
    assert_eq!((identity.name.as_str(), identity.tenant.as_str()), ("repo:team/shop:ref:refs/heads/main", "team"));
    assert_eq!(identity.roles, [Role::CacheReader].into(), "expected the rule's roles and not the token's");
    assert!(identity.expires.is_some());
    // New rules apply at once, even to a token that is already known.
    let other = read("[[rule]]\nwhen = { repository = \"other/*\" }\nroles = [\"builder\"]");
    assert!(jwt.identify(&token, Some(&other)).await.unwrap_err().contains("no rule"));
}

#[tokio::test]
async fn a_token_with_an_odd_time_header_key_or_tenant_is_refused() {
    let provider = Provider::new();
    let jwt = provider.open().await;
    let refused = async |token: &str, word: &str| {
        let reason = jwt.identify(token, None).await.expect_err(word);
        assert!(reason.contains(word), "expected `{word}` in: {reason}");
    };
    let with = |claim: &str, value: Value| {
        let mut claims = claims();
        claims[claim] = value;
        claims
    };
    for (claim, value, word) in [
        ("nbf", json!("yesterday"), "`nbf` has the wrong type"),
        ("exp", json!(unix() + 10 * 3600), "valid for more than 1h"),
        ("tenant", json!(["shop"]), "expected a tenant's name"),
        ("tenant", json!(7), "expected a tenant's name"),
        ("tenant", json!(""), "expected a tenant's name"),
        ("tenant", json!("../shop"), "invalid tenant name"),
    ] {
        refused(&provider.sign(&with(claim, value)), word).await;
    }
    let critical = json!({ "alg": "ES256", "kid": "one", "crit": ["exp"] });
    refused(&provider.sign_raw(&critical, &claims()), "`crit`").await;
    // A token without a tenant is the default tenant's only if there are no others.
    let nobodys = provider.sign(&with("tenant", Value::Null));
    assert_eq!(jwt.identify(&nobodys, None).await.unwrap().tenant, "");
    std::fs::create_dir_all(provider.directory.path().join("tenants/shop")).unwrap();
    refused(&nobodys, "names no tenant").await;
    // A key that was published for another algorithm or another purpose.
    for (member, value, word) in
        [("alg", json!("ES384"), "by a key for ES384"), ("use", json!("enc"), "not meant for signatures")]
    {
        let mut keys: Value = serde_json::from_slice(&std::fs::read(provider.path()).unwrap()).unwrap();
        keys["keys"][0][member] = value;
        std::fs::write(provider.path(), keys.to_string()).unwrap();
        let jwt = provider.open().await;
        let reason = jwt.identify(&provider.sign(&claims()), None).await.expect_err(word);
        assert!(reason.contains(word), "expected `{word}` in: {reason}");
        provider.publish("one");
    }
}

#[tokio::test]
async fn keys_that_were_not_told_for_a_day_verify_nothing_also_of_what_is_remembered() {
    let provider = Provider::new();
    let jwt = provider.open().await;
    let token = provider.sign(&claims());
    jwt.identify(&token, None).await.unwrap();
    *jwt.published.lock() = Instant::now().checked_sub(STALE + Duration::from_secs(1));
    for _ in 0..2 {
        let reason = jwt.identify(&token, None).await.unwrap_err();
        assert!(reason.contains("could not be fetched for 24 h"), "{reason}");
    }
    // The provider is back, and a key is withdrawn: the next fetch removes what was remembered of it.
    provider.publish("another");
    *jwt.fetched.lock() = Instant::now().checked_sub(FRESH).map(|at| (at, Ok(())));
    let reason = jwt.identify(&token, None).await.unwrap_err();
    assert!(
        reason.contains("does not publish") || reason.contains("cannot fetch the provider's keys at the moment"),
        "{reason}"
    );
}
