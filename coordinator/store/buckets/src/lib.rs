//! Addresses of buckets with S3's protocol and their credentials, validated before anything is sent.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::{ClientConfigKey, RetryConfig};

/// Why a bucket cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("cannot use the bucket `{shown}`: {why}")]
pub struct Error {
    /// The address, in a form that can be shown.
    pub shown: String,
    /// What is wrong with it.
    pub why: String,
}

/// Time limit for connecting.
const CONNECT: &str = "3s";
/// Time limit for a pause within a response. The whole response has no limit, because blobs may be large.
const SILENCE: &str = "20s";
/// Time limit for retries of a call.
const RETRIES: Duration = Duration::from_secs(10);

/// A bucket with its `AWS_…` variables. `Debug` omits their values, because some are secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    url: String,
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Address {
    /// The same bucket, below this prefix.
    #[must_use]
    pub fn below(&self, prefix: &str) -> Self {
        let url = format!("{}/{prefix}", self.url.trim_end_matches('/'));
        Self { url, variables: self.variables.clone() }
    }

    /// The bucket at `s3://BUCKET[/PREFIX]`, with the process's own `AWS_…` variables.
    pub fn from_env(url: &str) -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        Self::new(url, std::env::vars_os().filter_map(text))
    }

    /// The bucket at `s3://BUCKET[/PREFIX]`, with these variables; those without the prefix `AWS_` are ignored.
    pub fn new(url: &str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let variables = variables.into_iter().filter(|(name, _)| name.starts_with("AWS_")).collect();
        Self { url: url.to_owned(), variables }
    }

    /// The address in a form that can be shown.
    pub fn shown(&self) -> &str {
        &self.url
    }

    fn wrong(&self, why: impl Into<String>) -> Error {
        Error { shown: self.url.clone(), why: why.into() }
    }

    /// The bucket's name and the prefix of the farm's objects, which ends with `/` unless it is empty.
    fn parts(&self) -> Result<(String, String), Error> {
        let parsed = url::Url::parse(&self.url).map_err(|error| self.wrong(error.to_string()))?;
        if parsed.scheme() != "s3" {
            return Err(
                self.wrong(format!("unsupported scheme `{}`; expected `s3://BUCKET[/PREFIX]`", parsed.scheme()))
            );
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            // The URL would appear in logs.
            let error = Error {
                shown: "s3://…".to_owned(),
                why: "it contains credentials; give them as `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`".to_owned(),
            };
            return Err(error);
        }
        let name = parsed.host_str().filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| self.wrong("it has no bucket; expected `s3://BUCKET[/PREFIX]`"))?;
        let prefix = match parsed.path().trim_matches('/') {
            "" => String::new(),
            prefix => format!("{prefix}/"),
        };
        Ok((name.to_owned(), prefix))
    }

    /// A client for the bucket, and the prefix. Plain HTTP is used only if the endpoint is `http://`; the bucket is
    /// part of the path rather than the host, unless `AWS_VIRTUAL_HOSTED_STYLE_REQUEST` says otherwise.
    ///
    /// # Errors
    /// If the URL or a variable is invalid.
    pub fn client(&self) -> Result<(AmazonS3, String), Error> {
        let (name, prefix) = self.parts()?;
        // The client would panic if several TLS providers are linked; a provider that was installed earlier is kept.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = |key| AmazonS3ConfigKey::Client(key);
        let mut builder = AmazonS3Builder::new()
            .with_config(client(ClientConfigKey::ConnectTimeout), CONNECT)
            .with_config(client(ClientConfigKey::ReadTimeout), SILENCE)
            .with_config(client(ClientConfigKey::Timeout), "1d");
        for (name, value) in &self.variables {
            if let Ok(key) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(key, value);
            }
        }
        let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"];
        let endpoint = endpoint.iter().find_map(|name| self.variables.get(*name));
        if let Some(endpoint) = endpoint {
            let scheme = url::Url::parse(endpoint).map(|url| url.scheme().to_owned()).unwrap_or_default();
            match scheme.as_str() {
                "http" => builder = builder.with_allow_http(true),
                "https" => {}
                _ => {
                    let why = format!(
                        "`AWS_ENDPOINT_URL` is `{endpoint}`; expected `https://HOST[:PORT]` or `http://HOST[:PORT]`"
                    );
                    return Err(self.wrong(why));
                }
            }
        }
        let retries = RetryConfig { max_retries: 2, retry_timeout: RETRIES, ..Default::default() };
        let built = builder.with_bucket_name(name).with_retry(retries).build();
        Ok((built.map_err(|error| self.wrong(error.to_string()))?, prefix))
    }
}
