//! ccache's storage helper (4.13 and later): a process that ccache starts once, and that keeps connections to the farm open
//! for all its processes; with TLS, which ccache itself does not have.
//!
//! Source: ccache, `doc/remote_storage_helper_spec.md`, protocol version 1. Integers are in the host's byte order.
//!
//! Invariant: whoever can reach the socket is its user, because nobody else may open it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use kiln_proto::channel::Access;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader, BufWriter};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Notify, watch};

use crate::Error;
use crate::farm::{Remote, Sent};

/// The variable with the path of the socket. A program that is started with it is meant to be a helper.
pub const ENDPOINT: &str = "CRSH_IPC_ENDPOINT";
const TOOL: &str = "ccache";
/// Protocol version 1 with three capabilities: get, put and remove; info; exists.
const GREETING: [u8; 5] = [1, 3, 0, 1, 2];
const OK: u8 = 0;
const NOOP: u8 = 1;
const ERROR: u8 = 2;
/// Largest value, in bytes; the farm may allow less.
const MAX_VALUE: u64 = 4 << 30;
/// Bytes that are moved at once.
const PIECE: usize = 64 << 10;

/// What ccache tells a helper in variables.
#[derive(Debug, Default)]
pub struct Told {
    endpoint: PathBuf,
    url: String,
    /// How long to stay without requests; for ever if none.
    idle: Option<Duration>,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl Told {
    /// Reads the variables; `None` if this process is no helper.
    ///
    /// # Errors
    /// If they are incomplete.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        let Some(endpoint) = variable(ENDPOINT) else { return Ok(None) };
        let broken = |reason: &str| Error::Protocol { tool: TOOL, reason: reason.to_owned() };
        let number = |name: &str| variable(name).unwrap_or_default().parse::<u64>().unwrap_or(0);
        let idle = Some(number("CRSH_IDLE_TIMEOUT")).filter(|idle| *idle > 0).map(Duration::from_secs);
        let mut told = Self { endpoint: endpoint.into(), idle, ..Self::default() };
        for at in 0..number("CRSH_NUM_ATTR").min(64) {
            let value = variable(&format!("CRSH_ATTR_VALUE_{at}")).unwrap_or_default();
            match variable(&format!("CRSH_ATTR_KEY_{at}")).unwrap_or_default().as_str() {
                "url" => told.url = value,
                "token-file" => told.token_file = Some(value.into()),
                "ca" => told.ca = Some(value.into()),
                _ => {}
            }
        }
        if told.url.is_empty() {
            return Err(broken("no attribute `@url=…` names the farm's cache; see `kiln cache env ccache`"));
        }
        Ok(Some(told))
    }
}

/// Serves ccache until it is idle for too long, or told to stop.
///
/// # Errors
/// If the socket or the credentials cannot be used.
pub async fn run(told: Told, access: &Access) -> Result<(), Error> {
    let mut access = access.clone();
    access.token_file = told.token_file.clone().or(access.token_file);
    access.ca = told.ca.clone().or(access.ca);
    let remote = Remote::open(&told.url, &access)?;
    let listener = bind(&told.endpoint)?;
    let served = serve(listener, remote, told.idle).await;
    let _ = std::fs::remove_file(&told.endpoint);
    served
}

/// Binds the socket so that only its user can connect: it gets its name when its rights are set.
fn bind(endpoint: &Path) -> Result<UnixListener, Error> {
    let failed = |source| Error::File { doing: "listen on", path: endpoint.to_owned(), source };
    let bound = (|| {
        let private =
            tempfile::Builder::new().prefix(".kiln-").tempdir_in(endpoint.parent().unwrap_or(Path::new(".")))?;
        let inside = private.path().join("s");
        let listener = UnixListener::bind(&inside)?;
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o600))?;
        // Fails if there is one: two helpers must not take each other's place.
        std::fs::hard_link(&inside, endpoint)?;
        Ok(listener)
    })();
    bound.map_err(failed)
}

async fn serve(listener: UnixListener, remote: Remote, idle: Option<Duration>) -> Result<(), Error> {
    let stop = Arc::new(Notify::new());
    let (asked, mut activity) = watch::channel(());
    loop {
        let quiet = async {
            match idle {
                Some(idle) => while tokio::time::timeout(idle, activity.changed()).await.is_ok() {},
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    asked.send_replace(());
                    let (remote, stop, asked) = (remote.clone(), stop.clone(), asked.clone());
                    tokio::spawn(async move {
                        if let Err(error) = talk(stream, &remote, &stop, &asked).await {
                            tracing::debug!(%error, "a connection of ccache ended");
                        }
                    });
                }
            }
            () = stop.notified() => return Ok(()),
            () = quiet => return Ok(()),
        }
    }
}

/// Answers one process of ccache.
async fn talk(stream: UnixStream, remote: &Remote, stop: &Notify, asked: &watch::Sender<()>) -> std::io::Result<()> {
    let (input, output) = stream.into_split();
    let (mut input, mut output) = (BufReader::with_capacity(PIECE, input), BufWriter::with_capacity(PIECE, output));
    output.write_all(&GREETING).await?;
    output.flush().await?;
    loop {
        let Ok(request) = input.read_u8().await else { return Ok(()) };
        asked.send_replace(());
        match request {
            0 => {
                let key = key(&mut input).await?;
                get(remote, &key, &mut output).await?;
            }
            1 => {
                let key = key(&mut input).await?;
                let flags = input.read_u8().await?;
                put(remote, &key, flags & 1 == 1, &mut input, &mut output).await?;
            }
            2 => {
                let key = key(&mut input).await?;
                let removed = remote.remove(&key).await;
                output.write_u8(if removed { OK } else { NOOP }).await?;
            }
            3 => {
                output.write_u8(OK).await?;
                output.flush().await?;
                stop.notify_one();
                return Ok(());
            }
            4 => {
                message(&mut output, concat!("kiln ", env!("CARGO_PKG_VERSION"))).await?;
                output.write_u8(0).await?;
            }
            5 => {
                let key = key(&mut input).await?;
                let is_there = remote.has(&key).await;
                output.write_u8(if is_there { OK } else { NOOP }).await?;
            }
            other => {
                output.write_u8(ERROR).await?;
                message(&mut output, &format!("unknown request {other}")).await?;
                return output.flush().await;
            }
        }
        output.flush().await?;
    }
}

/// A key, as it stands in the farm's addresses.
async fn key(input: &mut (impl AsyncRead + Unpin)) -> std::io::Result<String> {
    let mut key = vec![0; input.read_u8().await?.into()];
    input.read_exact(&mut key).await?;
    Ok(hex::encode(key))
}

async fn message(output: &mut (impl AsyncWrite + Unpin), text: &str) -> std::io::Result<()> {
    let text = &text.as_bytes()[..text.len().min(255)];
    output.write_u8(text.len() as u8).await?;
    output.write_all(text).await
}

async fn get(remote: &Remote, key: &str, output: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
    let found = if remote.is_down() { None } else { remote.get(key).await };
    let Some((response, length)) =
        found.and_then(|response| response.content_length().map(|length| (response, length)))
    else {
        return output.write_u8(NOOP).await;
    };
    output.write_u8(OK).await?;
    output.write_all(&length.to_ne_bytes()).await?;
    let mut pieces = response.bytes_stream();
    while let Some(piece) = pieces.next().await {
        // A value that is cut off ends the connection: there is no other way to take its length back.
        output.write_all(&piece.map_err(std::io::Error::other)?).await?;
    }
    Ok(())
}

async fn put(
    remote: &Remote,
    key: &str,
    overwrites: bool,
    input: &mut (impl AsyncRead + Unpin),
    output: &mut (impl AsyncWrite + Unpin),
) -> std::io::Result<()> {
    let mut length = [0; 8];
    input.read_exact(&mut length).await?;
    let length = u64::from_ne_bytes(length);
    if length > MAX_VALUE {
        return Err(std::io::Error::other(format!("a value has {length} bytes")));
    }
    let mut file = tempfile::NamedTempFile::new()?;
    let (mut left, mut piece) = (length, vec![0; PIECE]);
    while left > 0 {
        let most = PIECE.min(usize::try_from(left).unwrap_or(PIECE));
        let read = input.read(&mut piece[..most]).await?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        file.write_all(&piece[..read])?;
        left -= read as u64;
    }
    file.flush()?;
    if !remote.takes() || (!overwrites && remote.has(key).await) {
        return output.write_u8(NOOP).await;
    }
    match remote.put(key, file.path(), length).await? {
        Sent::Stored => output.write_u8(OK).await,
        // It is no fault of ccache's that nothing is stored, and the compilation goes on.
        Sent::Refused | Sent::Failed => output.write_u8(NOOP).await,
    }
}
