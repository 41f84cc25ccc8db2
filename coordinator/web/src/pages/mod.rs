//! One module for each page.

mod artifacts;
pub(crate) mod build;
mod builds;
mod compare;
mod download;
mod entry;
mod failure;
mod farm;
pub(crate) mod invocation;
pub(crate) mod layers;
pub(crate) mod rates;
mod step;
pub(crate) mod tested;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use kiln_auth::Identity;
use maud::Markup;

use crate::access::Visitor;
use crate::answer::Failure;
use crate::calls::{Calls, Client};
use crate::markup::{Frame, Section};

pub(crate) use artifacts::{
    browse as artifact_files, document, get as artifact, list as artifacts, page as artifact_page, statement,
};
pub(crate) use builds::{Filter, changed as changed_builds, list as builds};
pub(crate) use compare::page as compare;
pub(crate) use entry::{login, open};
pub(crate) use failure::failure;
pub(crate) use farm::{live as live_farm, page as farm};
pub(crate) use step::{browse as step_files, follow as follow_step, page as step_page};

/// A visitor with what they may call.
#[derive(Debug, Clone)]
pub(crate) struct Guest {
    pub(crate) identity: Identity,
    has_session: bool,
    pub(crate) client: Client,
}

impl Guest {
    pub(crate) fn new(visitor: &Visitor, calls: &Calls) -> Self {
        Self { identity: visitor.identity.clone(), has_session: visitor.has_session, client: calls.of(visitor) }
    }

    /// A page for this visitor.
    fn page(&self, title: &str, section: Section, live: Option<String>, content: Markup) -> Markup {
        Frame { title, section, identity: Some(&self.identity), has_session: self.has_session, live }.around(content)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Guest {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let known = parts.extensions.get::<Self>().cloned();
        known.ok_or_else(|| Failure::new(axum::http::StatusCode::UNAUTHORIZED, "authentication required"))
    }
}
