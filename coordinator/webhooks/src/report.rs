//! Reports a build's state to the forge, as a commit status.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use reqwest::StatusCode;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};

use super::config::Hook;
use super::deliveries::Job;
use super::forge::{Call, State, Status};

/// How long a forge may take to answer.
pub(super) const REPORT_TIMEOUT: Duration = Duration::from_secs(30);
/// Delays between attempts to report the end of a build: nine attempts in all.
const PAUSES: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_secs(1))
    .with_max_delay(Duration::from_secs(128))
    .with_jitter()
    .with_max_times(8);
/// Characters of a forge's error that are shown.
const MAX_DESCRIPTION_CHARS: usize = 300;

/// Reports to the forge, with a link to the build's page if the farm has `pages`. Returns whether it accepted, or `None` if the webhook has no token. The end of a build is
/// retried, anything before it is reported once.
pub(super) async fn tell(
    (http, pages): (&reqwest::Client, Option<&url::Url>),
    hook: &Hook,
    job: &Job,
    build: Option<&str>,
    state: State,
    words: String,
) -> Option<bool> {
    if !hook.reports() {
        return None;
    }
    let is_end = !matches!(state, State::Waiting | State::Running);
    let mut pauses = PAUSES.with_max_times(if is_end { 8 } else { 0 }).build();
    let page = || pages?.join(&format!("/builds/{}", build?)).ok().map(String::from);
    let link = match &hook.link {
        Some(link) if build.is_none() && link.contains("{build}") => None,
        Some(link) => Some(link.replace("{build}", build.unwrap_or_default()).replace("{commit}", &job.push.commit)),
        None => page(),
    };
    let status = Status { state, context: &hook.context, description: words, link };
    loop {
        let pause = match once(http, hook, job, &status).await {
            Ok(()) => return Some(true),
            Err(Failed { words, may_pass }) => {
                let pause = pauses.next().filter(|_| may_pass);
                tracing::warn!(
                    hook = hook.name(),
                    commit = job.push.commit,
                    reason = words,
                    again = pause.is_some(),
                    "the forge did not accept a commit status"
                );
                pause
            }
        };
        let Some(pause) = pause else { return Some(false) };
        tokio::time::sleep(pause).await;
    }
}

struct Failed {
    words: String,
    may_pass: bool,
}

impl Failed {
    fn for_good(words: impl Into<String>) -> Self {
        Self { words: words.into(), may_pass: false }
    }
}

async fn once(http: &reqwest::Client, hook: &Hook, job: &Job, status: &Status<'_>) -> Result<(), Failed> {
    let Some(token) = hook.token().map_err(Failed::for_good)? else {
        return Err(Failed::for_good("there is no token"));
    };
    let Some(api) = hook.api.clone().or_else(|| hook.forge.api(&job.repository)) else {
        return Err(Failed::for_good(format!("`{}` has no known API URL; set `api`", job.repository)));
    };
    let call = hook.forge.report(&api, &job.push, status);
    let Some(Call { url, credential: (header, before), body }) = call else {
        return Err(Failed::for_good(format!("`api = \"{api}\"` is not a valid base URL")));
    };
    let mut value = HeaderValue::try_from(format!("{before}{}", token.as_str()))
        .map_err(|_| Failed::for_good("the token has characters that a header cannot contain"))?;
    value.set_sensitive(true);
    let sent = http
        .post(url.clone())
        .header(HeaderName::from_static(header), value)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, concat!("kiln/", env!("CARGO_PKG_VERSION")))
        .body(body.to_string())
        .send()
        .await;
    let mut answer = sent.map_err(|error| Failed { words: kiln_images::registry::words(&error), may_pass: true })?;
    let code = answer.status();
    if code.is_success() {
        return Ok(());
    }
    let mut told = Vec::new();
    while told.len() < MAX_DESCRIPTION_CHARS
        && let Ok(Some(piece)) = answer.chunk().await
    {
        told.extend_from_slice(&piece);
    }
    told.truncate(MAX_DESCRIPTION_CHARS);
    let may_pass =
        code.is_server_error() || matches!(code, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
    let hint = match code {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
            "; check that the token in `token_file` may write statuses of this repository"
        }
        _ => "",
    };
    Err(Failed { words: format!("`{url}` answered {code}: {}{hint}", String::from_utf8_lossy(&told).trim()), may_pass })
}
