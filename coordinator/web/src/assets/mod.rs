//! The style, the script and the icon, in the program: there is no build step and nothing is loaded from elsewhere.

use std::sync::LazyLock;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

/// Browsers keep them for ever: their addresses change with their content.
const KEPT: &str = "public, max-age=31536000, immutable";

const ALL: [(&str, &str, &str); 3] = [
    ("style.css", "text/css; charset=utf-8", include_str!("style.css")),
    ("live.js", "text/javascript; charset=utf-8", include_str!("live.js")),
    ("icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// Stands for the content of all of them.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let hash = ALL.iter().fold(Sha256::new(), |hash, (_, _, content)| hash.chain_update(content));
    hex::encode(&hash.finalize()[..8])
});

/// The path of one of them.
pub(crate) fn path(name: &str) -> String {
    format!("/assets/{}/{name}", *VERSION)
}

/// One of them by its name, whatever version was asked for.
pub(crate) fn answer(name: &str) -> Response {
    match ALL.iter().find(|(known, _, _)| *known == name) {
        Some((_, kind, content)) => {
            ([(header::CONTENT_TYPE, *kind), (header::CACHE_CONTROL, KEPT)], *content).into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}
