//! An output of any size in the store, read in ranges: an index says where every thousandth line begins.

use std::sync::Arc;

use hashlink::LruCache;
use kiln_proto::bytestream::ReadRequest;
use kiln_proto::reapi;
use kiln_web_lines::ansi::{self, Style};
use parking_lot::Mutex;

use super::{Line, Splitter};
use crate::answer::Failure;
use crate::blobs::Space;
use crate::calls::Client;

/// Lines between two marks.
const MARK: u64 = 1_000;
/// Outputs whose index is kept.
const KEPT: usize = 256;
/// Bytes of a line that are looked at for styles.
const STYLED: usize = 64 << 10;

/// Where lines begin in an output.
#[derive(Debug, Default)]
struct Index {
    lines: u64,
    /// Where line 1, 1,001, 2,001 and so on begin, and how they begin.
    marks: Vec<(u64, Style)>,
}

/// The indexes of outputs that were shown lately. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Indexes(Arc<Mutex<LruCache<String, Arc<Index>>>>);

impl Default for Indexes {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(KEPT))))
    }
}

/// An output in the store, as its visitor may read it.
#[derive(Debug)]
pub(crate) struct Stored {
    client: Client,
    name: String,
    index: Arc<Index>,
}

impl Indexes {
    pub(super) async fn open(&self, client: &Client, space: &Space, digest: &reapi::Digest) -> Result<Stored, Failure> {
        let name = space.name(digest);
        let known = self.0.lock().get(&digest.hash).cloned();
        let index = match known {
            Some(index) => index,
            None => {
                let index = Arc::new(index(client, &name).await?);
                self.0.lock().insert(digest.hash.clone(), index.clone());
                index
            }
        };
        Ok(Stored { client: client.clone(), name, index })
    }
}

async fn read(
    client: &Client,
    name: &str,
    from: u64,
) -> Result<tonic::Streaming<kiln_proto::bytestream::ReadResponse>, Failure> {
    let read_offset = i64::try_from(from).unwrap_or(i64::MAX);
    let request = ReadRequest { resource_name: name.to_owned(), read_offset, read_limit: 0 };
    Ok(client.bytes().read(request).await?.into_inner())
}

async fn index(client: &Client, name: &str) -> Result<Index, Failure> {
    let mut index = Index::default();
    let mut pieces = read(client, name, 0).await?;
    let (mut style, mut line, mut begins, mut at) = (Style::default(), Vec::new(), true, 0_u64);
    while let Some(piece) = pieces.message().await? {
        let mut rest: &[u8] = &piece.data;
        while !rest.is_empty() {
            if begins {
                if index.lines.is_multiple_of(MARK) {
                    index.marks.push((at, style));
                }
                (index.lines, begins) = (index.lines + 1, false);
            }
            let end = rest.iter().position(|byte| *byte == b'\n');
            let part = &rest[..end.unwrap_or(rest.len())];
            // Only what could change the style is kept.
            line.extend_from_slice(&part[..part.len().min(STYLED.saturating_sub(line.len()))]);
            if end.is_some() {
                if line.contains(&0x1b) {
                    ansi::pass(&String::from_utf8_lossy(&line), &mut style);
                }
                line.clear();
                begins = true;
            }
            let used = end.map_or(rest.len(), |end| end + 1);
            at += used as u64;
            rest = &rest[used..];
        }
    }
    Ok(index)
}

impl Stored {
    pub(super) fn len(&self) -> u64 {
        self.index.lines
    }

    pub(super) async fn lines(&self, from: u64, count: usize) -> Result<Vec<Line>, Failure> {
        let from = from.max(1) - 1;
        let Some((at, style)) = self.index.marks.get((from / MARK) as usize).copied() else { return Ok(Vec::new()) };
        let mut skip = (from % MARK) as usize;
        let mut pieces = read(&self.client, &self.name, at).await?;
        let (mut splitter, mut lines) = (Splitter::from(style), Vec::new());
        loop {
            let piece = pieces.message().await?;
            let is_last = piece.is_none();
            match piece {
                Some(piece) => splitter.push(false, &piece.data, 0, &mut lines),
                None => splitter.end(&mut lines),
            }
            let passed = skip.min(lines.len());
            lines.drain(..passed);
            skip -= passed;
            if lines.len() >= count || is_last {
                lines.truncate(count);
                return Ok(lines);
            }
        }
    }
}
