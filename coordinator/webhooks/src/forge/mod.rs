//! The three forges: how each signs a delivery, says what was pushed, and takes the status of a commit.
//!
//! Sources: GitHub's "Validating webhook deliveries", "Webhook events and payloads" and the REST API's commit statuses; GitLab's
//! "Webhooks", "Webhook events" and its API's commit statuses; Gitea's "Webhooks" and its API; the Standard Webhooks specification.

mod gitea;
mod github;
mod gitlab;
mod signature;

use std::time::SystemTime;

use axum::http::HeaderMap;
use serde::{Deserialize, Serialize};
use url::Url;

/// Who delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Forge {
    /// GitHub, or an Enterprise server of it.
    GitHub,
    /// GitLab.
    GitLab,
    /// Gitea, or Forgejo.
    Gitea,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Push {
    /// Where the repository may be fetched, as the forge says.
    pub(super) addresses: Vec<String>,
    /// Its path at the forge, such as `team/shop`.
    pub(super) path: String,
    /// The full name of what was pushed to, such as `refs/heads/main`.
    pub(super) reference: String,
    /// The commit that it is at now.
    pub(super) commit: String,
    /// Who pushed.
    pub(super) user: String,
    /// The branch that the forge shows first.
    #[serde(default)]
    pub(super) default_branch: String,
}

/// What a delivery is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A commit is at a branch or a tag.
    Push(Push),
    /// Nothing that is built; in words.
    Other(String),
}

/// How a build of a commit stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for its turn, or for its repository.
    Waiting,
    /// It is under way.
    Running,
    /// It made its artifacts.
    Success,
    /// The project's own fault.
    Failure,
    /// The farm's fault.
    Error,
    /// It was cancelled.
    Cancelled,
}

/// A status as it is reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status<'a> {
    pub(super) state: State,
    pub(super) context: &'a str,
    pub(super) description: String,
    pub(super) link: Option<String>,
}

/// A call that reports a status.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub(super) url: Url,
    /// The header with the token: its name and what stands before the token.
    pub(super) credential: (&'static str, &'static str),
    pub(super) body: serde_json::Value,
}

impl Forge {
    /// Checks that who knows the secret sent this body, and not too long ago where that is said.
    ///
    /// # Errors
    /// In words for whoever set the webhook up.
    pub(super) fn verify(self, headers: &HeaderMap, body: &[u8], secret: &str, now: SystemTime) -> Result<(), String> {
        match self {
            Self::GitHub => github::verify(headers, body, secret),
            Self::GitLab => gitlab::verify(headers, body, secret, now),
            Self::Gitea => gitea::verify(headers, body, secret),
        }
    }

    /// Checks what can be before the body is read: that there is a signature or a token, and the token where it needs no body.
    ///
    /// # Errors
    /// In words for whoever set the webhook up.
    pub(super) fn greet(self, headers: &HeaderMap, secret: &str) -> Result<(), String> {
        match self {
            Self::GitHub => github::greet(headers),
            Self::GitLab => gitlab::greet(headers, secret),
            Self::Gitea => gitea::greet(headers),
        }
    }

    /// What a delivery is about.
    ///
    /// # Errors
    /// In words, where it is not of the documented form.
    pub(super) fn read(self, headers: &HeaderMap, body: &[u8]) -> Result<Event, String> {
        let event = match self {
            Self::GitHub => github::read(headers, body),
            Self::GitLab => gitlab::read(headers, body),
            Self::Gitea => gitea::read(headers, body),
        }?;
        match &event {
            Event::Push(push) if !is_commit(&push.commit) => Err(format!("invalid commit `{}`", push.commit)),
            _ => Ok(event),
        }
    }

    /// Where the API of the forge is whose repository is at this address.
    pub(super) fn api(self, repository: &str) -> Option<Url> {
        let mut url = Url::parse(repository).ok().filter(|url| matches!(url.scheme(), "http" | "https"))?;
        match self {
            Self::GitHub if url.host_str() == Some("github.com") => return Url::parse("https://api.github.com/").ok(),
            Self::GitHub => url.set_path("/api/v3/"),
            Self::GitLab => url.set_path("/api/v4/"),
            Self::Gitea => url.set_path("/api/v1/"),
        }
        Some(url)
    }

    /// The call that reports a status of this push's commit.
    pub(super) fn report(self, api: &Url, push: &Push, status: &Status<'_>) -> Option<Call> {
        let mut url = api.clone();
        {
            let mut segments = url.path_segments_mut().ok()?;
            segments.pop_if_empty();
            match self {
                Self::GitHub | Self::Gitea => segments.push("repos").extend(push.path.split('/')),
                // GitLab takes the whole path as one segment.
                Self::GitLab => segments.extend(["projects", &push.path]),
            };
            segments.extend(["statuses", &push.commit]);
        }
        Some(match self {
            Self::GitHub => github::report(url, status),
            Self::GitLab => gitlab::report(url, push, status),
            Self::Gitea => gitea::report(url, status),
        })
    }

    /// The user by which the forge takes a token in place of a password, where git asks for both.
    pub(super) fn token_user(self) -> &'static str {
        match self {
            Self::GitHub => "x-access-token",
            Self::GitLab | Self::Gitea => "oauth2",
        }
    }
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether it is the name that stands for no commit: of a branch that was deleted.
fn is_nothing(commit: &str) -> bool {
    !commit.is_empty() && commit.bytes().all(|byte| byte == b'0')
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        format!("the payload is not of the documented form ({error}); is the content type of the webhook `application/json`?")
    })
}

/// At most so many characters.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most { text.to_owned() } else { text.chars().take(most - 1).chain(['…']).collect() }
}

#[cfg(test)]
mod tests;
