//! The page where there is none.

use axum::http::StatusCode;
use maud::{Markup, html};

use crate::answer::Failure;
use crate::markup::{Frame, Section};

/// A page that says why there is no other.
pub(crate) fn failure(failure: &Failure) -> Markup {
    let title = match failure.code {
        StatusCode::NOT_FOUND => "Not found",
        StatusCode::FORBIDDEN => "No permission",
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => "Busy",
        code if code.is_client_error() => "That did not work",
        _ => "Something is wrong with the farm",
    };
    let frame = Frame { title, section: Section::None, identity: None, has_session: false, live: None };
    frame.around(html! {
        div .narrow {
            h1 { (title) }
            p .words { (failure.message) }
            p { a href="/builds" { "Back to the builds" } }
        }
    })
}
