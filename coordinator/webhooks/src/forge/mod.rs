//! The three forges: how each signs a delivery, describes a push, and accepts a commit status.
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

/// The forge that delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Forge {
    /// GitHub, or GitHub Enterprise Server.
    GitHub,
    /// GitLab.
    GitLab,
    /// Gitea, or Forgejo.
    Gitea,
}

/// A push.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Push {
    /// The URLs of the repository, as the forge gives them.
    pub(super) addresses: Vec<String>,
    /// Its path at the forge, such as `team/shop`.
    pub(super) path: String,
    /// The full name of the reference, such as `refs/heads/main`.
    pub(super) reference: String,
    /// The commit that it points to now.
    pub(super) commit: String,
    /// Who pushed.
    pub(super) user: String,
    /// The repository's default branch.
    #[serde(default)]
    pub(super) default_branch: String,
}

/// The event that a delivery describes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// A branch or a tag points to a commit.
    Push(Push),
    /// Something that is not built, with a description.
    Other(String),
}

/// The state of a commit's build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It waits for its turn, or for the fetch of its repository.
    Waiting,
    /// It is running.
    Running,
    /// It succeeded.
    Success,
    /// The project's own fault.
    Failure,
    /// The farm's fault.
    Error,
    /// It was cancelled.
    Cancelled,
}

/// A status to report.
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
    /// The header with the token: its name and the prefix of the token.
    pub(super) credential: (&'static str, &'static str),
    pub(super) body: serde_json::Value,
}

impl Forge {
    /// Checks that the sender of this body knows the secret and, if the delivery has a time, that it is recent.
    ///
    /// # Errors
    /// If not, with a reason meant for whoever set up the webhook.
    pub(super) fn verify(self, headers: &HeaderMap, body: &[u8], secret: &str, now: SystemTime) -> Result<(), String> {
        match self {
            Self::GitHub => github::verify(headers, body, secret),
            Self::GitLab => gitlab::verify(headers, body, secret, now),
            Self::Gitea => gitea::verify(headers, body, secret),
        }
    }

    /// Checks what is possible before the body is read: that there is a signature or a token, and the token itself if
    /// it does not depend on the body.
    ///
    /// # Errors
    /// If not, with a reason meant for whoever set up the webhook.
    pub(super) fn greet(self, headers: &HeaderMap, secret: &str) -> Result<(), String> {
        match self {
            Self::GitHub => github::greet(headers),
            Self::GitLab => gitlab::greet(headers, secret),
            Self::Gitea => gitea::greet(headers),
        }
    }

    /// The event that a delivery describes.
    ///
    /// # Errors
    /// If it does not have the documented format, with the reason.
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

    /// The URL of the API of the forge that has this repository.
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
                // GitLab expects the whole path as one segment.
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

    /// The user name that goes with a token when git asks for a user name and a password.
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

/// Whether this is the all-zero id, sent when a branch is deleted.
fn is_nothing(commit: &str) -> bool {
    !commit.is_empty() && commit.bytes().all(|byte| byte == b'0')
}

fn header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim)
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| {
        format!("the payload does not have the documented format ({error}); check that the webhook's content type is `application/json`")
    })
}

/// The first `most` characters.
fn cut(text: &str, most: usize) -> String {
    match text.chars().count() <= most {
        true => text.to_owned(),
        false => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// A status with the page that it leads to, if it has one.
fn linked(mut body: serde_json::Value, status: &Status<'_>) -> serde_json::Value {
    if let (Some(fields), Some(link)) = (body.as_object_mut(), &status.link) {
        fields.insert("target_url".to_owned(), link.as_str().into());
    }
    body
}

#[cfg(test)]
mod tests;
