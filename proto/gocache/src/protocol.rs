//! What `go` says, and what it is told.
//!
//! Requests are JSON objects, one a line. The body of a `put` follows as one JSON string in base64, which may be
//! hundreds of megabytes, so it is decoded as it comes.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};

use crate::Error;
use crate::disk::Found;

/// Longest line of a request, in bytes.
const MAX_LINE: u64 = 64 << 10;
/// Bytes of base64 that are decoded at once; a multiple of four.
const PIECE: usize = 64 << 10;

/// A request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: i64,
    pub(super) command: Command,
    pub(super) action: Vec<u8>,
    pub(super) output: Vec<u8>,
    /// Bytes of the body.
    pub(super) size: u64,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    Get,
    Put,
    Close,
    Other(String),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    #[serde(rename = "ID")]
    id: i64,
    command: String,
    #[serde(default, rename = "ActionID")]
    action: Option<String>,
    /// `ObjectID` until Go 1.24.
    #[serde(default, rename = "OutputID", alias = "ObjectID")]
    output: Option<String>,
    #[serde(default)]
    body_size: i64,
}

/// An answer. Fields that are not set are left out.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Answer {
    #[serde(rename = "ID")]
    id: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    err: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    known_commands: Option<[&'static str; 3]>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    miss: bool,
    #[serde(rename = "OutputID", skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_path: Option<String>,
}

impl Answer {
    /// The greeting.
    pub(super) fn known() -> Self {
        Self { known_commands: Some(["get", "put", "close"]), ..Self::default() }
    }

    pub(super) fn miss(id: i64) -> Self {
        Self { id, miss: true, ..Self::default() }
    }

    pub(super) fn hit(id: i64, found: &Found, path: &Path) -> Self {
        let (output, path) = (STANDARD.encode(&found.output), path.display().to_string());
        Self { id, output: Some(output), size: Some(found.size), disk_path: Some(path), ..Self::default() }
    }

    pub(super) fn stored(id: i64, path: &Path) -> Self {
        Self { id, disk_path: Some(path.display().to_string()), ..Self::default() }
    }

    pub(super) fn failed(id: i64, reason: String) -> Self {
        Self { id, err: Some(reason), ..Self::default() }
    }

    pub(super) fn closed(id: i64) -> Self {
        Self { id, ..Self::default() }
    }
}

/// Reads requests and their bodies.
#[derive(Debug)]
pub(super) struct Reader<R>(BufReader<R>);

fn broken(reason: impl ToString) -> Error {
    Error::Protocol(reason.to_string())
}

fn pipe(source: std::io::Error) -> Error {
    Error::Pipe(source)
}

fn id(text: Option<&str>) -> Result<Vec<u8>, Error> {
    STANDARD.decode(text.unwrap_or_default()).map_err(|error| broken(format!("an id is not base64: {error}")))
}

impl<R: AsyncRead + Unpin> Reader<R> {
    pub(super) fn new(input: R) -> Self {
        Self(BufReader::with_capacity(PIECE, input))
    }

    /// The next request; `None` when `go` has closed its end.
    pub(super) async fn next(&mut self) -> Result<Option<Request>, Error> {
        let mut line = Vec::new();
        while line.trim_ascii().is_empty() {
            line.clear();
            let length = (&mut self.0).take(MAX_LINE).read_until(b'\n', &mut line).await.map_err(pipe)?;
            if length == 0 {
                return Ok(None);
            }
        }
        let line: Line = serde_json::from_slice(&line).map_err(broken)?;
        let command = match line.command.as_str() {
            "get" => Command::Get,
            "put" => Command::Put,
            "close" => Command::Close,
            _ => Command::Other(line.command),
        };
        let (action, output) = (id(line.action.as_deref())?, id(line.output.as_deref())?);
        let size = u64::try_from(line.body_size).map_err(|_| broken("a body's size is negative"))?;
        Ok(Some(Request { id: line.id, command, action, output, size }))
    }

    /// Reads the body that follows a request, and gives it out in pieces.
    pub(super) async fn body(&mut self, mut each: impl FnMut(&[u8])) -> Result<(), Error> {
        loop {
            match self.0.read_u8().await.map_err(pipe)? {
                b'"' => break,
                blank if blank.is_ascii_whitespace() => {}
                _ => return Err(broken("a body does not begin with a quote")),
            }
        }
        let mut held = Vec::with_capacity(PIECE);
        loop {
            let there = self.0.fill_buf().await.map_err(pipe)?;
            if there.is_empty() {
                return Err(pipe(std::io::ErrorKind::UnexpectedEof.into()));
            }
            let (body, follows) = there.split_at(there.iter().position(|byte| *byte == b'"').unwrap_or(there.len()));
            let (taken, left) = body.split_at_checked(PIECE.saturating_sub(held.len())).unwrap_or((body, &[]));
            held.extend_from_slice(taken);
            let is_over = left.is_empty() && !follows.is_empty();
            let consumed = taken.len().saturating_add(usize::from(is_over));
            self.0.consume(consumed);
            if is_over || held.len() == PIECE {
                each(&STANDARD.decode(&held).map_err(|error| broken(format!("a body is not base64: {error}")))?);
                held.clear();
            }
            if is_over {
                return Ok(());
            }
        }
    }
}
