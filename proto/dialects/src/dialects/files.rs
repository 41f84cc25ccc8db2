//! Keys that are paths: Maven's build cache extension, and sccache over WebDAV.
//!
//! Source: RFC 4918. opendal asks for the parents of what it writes and makes those that are missing, so any path that
//! is no entry counts as a directory that exists, and making one does nothing.

use axum::http::{Method, StatusCode};

use crate::ask::{Ask, Fixed, Put};
use crate::refusal::Refusal;

const OPTIONS: Fixed = Fixed {
    status: StatusCode::OK,
    headers: &[("dav", "1"), ("allow", "OPTIONS, GET, HEAD, PUT, DELETE, PROPFIND, MKCOL")],
    body: "",
};

pub(super) fn key(segments: &[&str]) -> Result<String, Refusal> {
    super::lawful(&segments.join("/"), |c| c.is_ascii_alphanumeric() || "/._-+~@=".contains(c))
}

pub(super) fn webdav(method: &Method, segments: &[&str]) -> Result<Ask, Refusal> {
    match method.as_str() {
        "OPTIONS" => return Ok(Ask::Answer(OPTIONS)),
        "PROPFIND" if segments.is_empty() => return Ok(Ask::Find(String::new())),
        "MKCOL" => return Ok(Ask::Answer(Fixed::status(StatusCode::CREATED))),
        _ if segments.is_empty() => return Err(Refusal::Method),
        _ => {}
    }
    let key = key(segments)?;
    match method.as_str() {
        "PROPFIND" => Ok(Ask::Find(key)),
        _ => match super::keyed(method, key, true)? {
            Ask::Put(put) => Ok(Ask::Put(Put { answer: Fixed::status(StatusCode::CREATED), ..put })),
            ask => Ok(ask),
        },
    }
}
