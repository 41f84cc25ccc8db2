//! The tools' dialects: what a method and a path mean. Pure.
//!
//! Sources: each tool's client, spoken to in `cli/tests/toolcaches`.

mod ccache;
mod files;
mod turbo;

use axum::http::{HeaderMap, Method, StatusCode};

use crate::ask::{Ask, Fixed, Put, Verb};
use crate::refusal::Refusal;
use crate::tool::Tool;

/// What a request asks for.
///
/// # Errors
/// If the tool has no such request, or its key is none of the tool's.
pub fn ask(tool: Tool, method: &Method, segments: &[String], headers: &HeaderMap) -> Result<Ask, Refusal> {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match tool {
        Tool::Bazel => bazel(method, &segments),
        Tool::Ccache => keyed(method, ccache::key(&segments)?, true),
        Tool::Gradle => match segments[..] {
            [key] => keyed(method, lawful(key, is_hex)?, false),
            _ => Err(Refusal::Unknown),
        },
        Tool::Go => match segments[..] {
            [key] if key.len() == 64 => keyed(method, lawful(key, is_hex)?, false),
            _ => Err(Refusal::Unknown),
        },
        Tool::Nx => match segments[..] {
            ["v1", "cache", key] => nx(method, lawful(key, |c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))?),
            _ => Err(Refusal::Unknown),
        },
        Tool::Maven => match segments[..] {
            // `v1.1/GROUP/ARTIFACT/CHECKSUM/FILE`
            [version, _, _, _, _] if version.starts_with('v') => keyed(method, files::key(&segments)?, false),
            _ => Err(Refusal::Unknown),
        },
        Tool::Sccache => files::webdav(method, &segments),
        Tool::Turbo => turbo::ask(method, &segments, headers),
    }
}

/// `GET`, `HEAD` and `PUT` by key, and `DELETE` where the tool knows it.
fn keyed(method: &Method, key: String, deletes: bool) -> Result<Ask, Refusal> {
    match *method {
        Method::GET => Ok(Ask::Get(key)),
        Method::HEAD => Ok(Ask::Head(key)),
        Method::PUT => Ok(Ask::Put(Put::plain(key))),
        Method::DELETE if deletes => Ok(Ask::Delete(key)),
        _ => Err(Refusal::Method),
    }
}

/// A key of these characters.
fn lawful(key: &str, is_lawful: impl Fn(char) -> bool) -> Result<String, Refusal> {
    if !key.is_empty() && key.chars().all(is_lawful) {
        Ok(key.to_owned())
    } else {
        Err(Refusal::Malformed("the key is none of this tool's".to_owned()))
    }
}

fn is_hex(c: char) -> bool {
    matches!(c, '0'..='9' | 'a'..='f')
}

/// Nx never replaces an entry, so that a task's outputs cannot be exchanged later.
fn nx(method: &Method, key: String) -> Result<Ask, Refusal> {
    match keyed(method, key, false)? {
        Ask::Put(put) => Ok(Ask::Put(Put { replaces: false, ..put })),
        ask => Ok(ask),
    }
}

/// `ac/SHA256` and `cas/SHA256`.
fn bazel(method: &Method, segments: &[&str]) -> Result<Ask, Refusal> {
    let [kind @ ("ac" | "cas"), hash] = *segments else { return Err(Refusal::Unknown) };
    let hash = lawful(hash, is_hex)?;
    let hash: [u8; 32] = hex::decode(hash)
        .ok()
        .and_then(|hash| hash.try_into().ok())
        .ok_or_else(|| Refusal::Malformed("the key is not a SHA-256; use `--digest_function=sha256`".to_owned()))?;
    let verb = match *method {
        Method::GET => Verb::Get,
        Method::HEAD => Verb::Head,
        Method::PUT => Verb::Put,
        _ => return Err(Refusal::Method),
    };
    Ok(if kind == "ac" { Ask::Result(hash, verb) } else { Ask::Blob(hash, verb) })
}

/// An empty answer of success.
const DONE: Fixed = Fixed::status(StatusCode::OK);

#[cfg(test)]
mod tests;
