//! One attempt to make a call.
//!
//! Invariants: no redirect is followed and no body is read, so that a receiver decides nothing but whether it accepts; an attempt has a time
//! limit, whatever the receiver sends; a project's URL is called only where the coordinator may call for others.

use std::time::{Duration, SystemTime};

use kiln_images::registry::{self, Clients, Pattern, Reach, Refused};
use kiln_proto::v1::{Notification, NotificationQueued};
use reqwest::header::{CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use reqwest::{Client, ClientBuilder, StatusCode, redirect};
use url::Url;

use crate::config::Config;
use crate::keys::Secrets;

/// How long a receiver may take, from the first byte to its answer's headers.
const TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT: Duration = Duration::from_secs(10);
/// Longest pause that a receiver can ask for.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// Why an attempt failed.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) words: String,
    /// Another attempt may succeed.
    pub(crate) may_pass: bool,
    /// The receiver wants to be left alone for so long.
    pub(crate) pause: Option<Duration>,
}

impl Failed {
    fn for_good(words: impl Into<String>) -> Self {
        Self { words: words.into(), may_pass: false, pause: None }
    }

    fn for_now(words: impl Into<String>) -> Self {
        Self { words: words.into(), may_pass: true, pause: None }
    }
}

/// Makes calls.
#[derive(Debug)]
pub(crate) struct Sender {
    /// For projects.
    bounded: Clients,
    reach: Reach,
    /// For the operator's own hooks.
    open: Clients,
}

fn client() -> ClientBuilder {
    Client::builder()
        .user_agent(concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .redirect(redirect::Policy::none())
        .connect_timeout(CONNECT)
        .timeout(TIMEOUT)
        // A receiver holds no connection when it is not called.
        .pool_max_idle_per_host(0)
}

impl Sender {
    /// # Errors
    /// If TLS cannot be set up.
    pub(crate) fn new(allowed: &[Pattern]) -> Result<Self, reqwest::Error> {
        let reach = Reach::public(allowed.to_vec());
        let (bounded, open) = (Clients::new(&reach, client)?, Clients::new(&Reach::anywhere(), client)?);
        Ok(Self { bounded, reach, open })
    }

    /// Makes a call once.
    pub(crate) async fn send(&self, config: &Config, tenant: &str, call: &NotificationQueued) -> Result<(), Failed> {
        let shown = call.notification.clone().unwrap_or_default();
        let (url, secrets, clients) = if shown.hook.is_empty() {
            let (url, secrets) = self.of_project(config, tenant, call)?;
            (url, secrets, &self.bounded)
        } else {
            let (url, secrets) = config.hook(&shown.hook, tenant).map_err(Failed::for_good)?;
            (url, secrets, &self.open)
        };
        let client = clients.at(&url).map_err(|refused| not_allowed(&refused))?;
        let headers = headers(&shown, secrets.as_ref(), &call.body)?;
        let answer = client.post(url).headers(headers).body(call.body.clone()).send().await;
        // It is dropped with its connection: what else the receiver has to say is not heard.
        let answer = answer.map_err(|error| match Refused::of(&error) {
            Some(refused) => not_allowed(refused),
            None if error.is_timeout() => Failed::for_now(format!("no answer within {} s", TIMEOUT.as_secs())),
            None => Failed::for_now(registry::words(&error)),
        })?;
        accepted(answer.status(), answer.headers())
    }

    /// Where a project wants to be called, and what signs it.
    fn of_project(
        &self,
        config: &Config,
        tenant: &str,
        call: &NotificationQueued,
    ) -> Result<(Url, Option<Secrets>), Failed> {
        let url = Url::parse(&call.url).map_err(|error| Failed::for_good(format!("`url` of `[notify]`: {error}")))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Failed::for_good(
                "`url` of `[notify]` has a user or a password; use a key of the coordinator's configuration",
            ));
        }
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Failed::for_good("`url` of `[notify]` is not `https://…`"));
        }
        if url.scheme() == "http" && !self.reach.names(&url) {
            let words = "`url` of `[notify]` is not encrypted; the coordinator's `--allow-notify` names hosts that may be called over plain HTTP";
            return Err(Failed::for_good(words));
        }
        let signed_by = |name| config.key(name, tenant, &url).map_err(Failed::for_good);
        let secrets = Some(call.key.as_str()).filter(|key| !key.is_empty()).map(signed_by).transpose()?;
        Ok((url, secrets))
    }
}

fn not_allowed(refused: &Refused) -> Failed {
    Failed::for_good(format!("{refused}; the coordinator's `--allow-notify` allows others"))
}

fn headers(shown: &Notification, secrets: Option<&Secrets>, body: &[u8]) -> Result<HeaderMap, Failed> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut headers = HeaderMap::new();
    let mut add = |name: &'static str, value: &str| {
        let value =
            value.parse().map_err(|_| Failed::for_good(format!("the value of the header `{name}` is not valid")))?;
        headers.insert(name, value);
        Ok::<_, Failed>(())
    };
    add(CONTENT_TYPE.as_str(), "application/json")?;
    add("webhook-id", &shown.id)?;
    add("webhook-timestamp", &now.to_string())?;
    if let Some(secrets) = secrets {
        add("webhook-signature", &secrets.sign(&shown.id, now, body))?;
    }
    Ok(headers)
}

/// Whether a receiver accepts.
fn accepted(status: StatusCode, headers: &HeaderMap) -> Result<(), Failed> {
    if status.is_success() {
        return Ok(());
    }
    let words = match status {
        StatusCode::GONE => return Err(Failed::for_good("the receiver answered 410: it wants no more calls")),
        status if status.is_redirection() => {
            format!("the receiver answered {status}; redirects are not followed, set its own URL")
        }
        status => format!("the receiver answered {status}"),
    };
    let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    let pause = seconds.map(|seconds| Duration::from_secs(seconds).min(MAX_PAUSE));
    Err(Failed { pause, ..Failed::for_now(words) })
}

/// A URL without what may be secret in it.
pub(crate) fn shown(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return String::new() };
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    format!("{}://{}{port}", url.scheme(), url.host_str().unwrap_or_default())
}
