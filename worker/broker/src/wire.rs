//! Frames between the worker and a shim, with descriptors (see `kiln_call`).

use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use kiln_call::{Answer, Ask, GO, MAX_BYTES, frame};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// What a shim asks for.
pub(super) enum Asked {
    /// To carry out a call.
    Call(Ask),
    /// To be the cache of a `go` command from now on.
    GoCache,
}

/// What a shim asks; none if it hung up.
///
/// # Errors
/// If the connection breaks, or what arrives is not a question.
pub(super) async fn receive(stream: &mut UnixStream) -> io::Result<Option<Asked>> {
    let length = match stream.read_u32_le().await {
        Ok(length) => length as usize,
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    // Not reserved at once: the length is the job's word.
    let mut content = Vec::new();
    stream.take(length as u64).read_to_end(&mut content).await?;
    if content == GO {
        return Ok(Some(Asked::GoCache));
    }
    Ask::decode(&content).map(Asked::Call).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Completes when the shim is gone.
pub(super) async fn hung_up(stream: &UnixStream) {
    // A shim says nothing more before it is answered.
    while stream.readable().await.is_ok() {
        match stream.try_read(&mut [0]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return,
        }
    }
}

/// Answers a shim.
///
/// # Errors
/// If it hung up.
pub(super) async fn send(stream: &mut UnixStream, answer: &Answer, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let message = frame(&answer.encode());
    let raw: Vec<RawFd> = files.iter().map(AsRawFd::as_raw_fd).collect();
    let sent = stream
        .async_io(Interest::WRITABLE, || {
            let control = [ControlMessage::ScmRights(&raw)];
            let control = if raw.is_empty() { &control[..0] } else { &control[..] };
            let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&message)], control, flags, None)?)
        })
        .await?;
    stream.write_all(message.get(sent..).unwrap_or_default()).await
}
