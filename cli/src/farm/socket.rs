//! The socket of a farm inside this process, for this user only.
//!
//! Invariant: the socket is in a directory that only its user may enter, and the kernel is asked for each connection's user.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use futures::{Stream, StreamExt};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;

/// Maximum length of a path for a socket's address (`sun_path` in unix(7) has 108 bytes).
const LONGEST: usize = 100;

/// A listening socket.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// The socket's directory, if the path of the farm's own directory is too long.
    elsewhere: Option<tempfile::TempDir>,
}

/// What must be kept while the socket is used.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    _elsewhere: Option<tempfile::TempDir>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Socket {
    /// Listens in a directory, and restricts it to this user.
    ///
    /// # Errors
    /// If the directory belongs to another user, or no socket can be created.
    pub(super) fn bind(dir: &Path) -> io::Result<Self> {
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o700))?;
        let own = std::path::absolute(dir)?.join("socket");
        let (path, elsewhere) = if own.as_os_str().len() <= LONGEST {
            (own, None)
        } else {
            let elsewhere = tempfile::Builder::new()
                .prefix("kiln-")
                .permissions(std::fs::Permissions::from_mode(0o700))
                .tempdir_in(short_directory())?;
            (elsewhere.path().join("socket"), Some(elsewhere))
        };
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let listener = UnixListener::bind(&path)?;
        Ok(Self { listener, path, elsewhere })
    }

    /// The farm's address.
    pub(super) fn url(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// The connections of this user, and what to drop when there are to be no more.
    pub(super) fn incoming(self) -> (impl Stream<Item = io::Result<UnixStream>> + Send + 'static, Place) {
        let own = rustix::process::geteuid().as_raw();
        let incoming = UnixListenerStream::new(self.listener).filter(move |connection| {
            std::future::ready(connection.as_ref().map_or(true, |connection| is_of(connection, own)))
        });
        (incoming, Place { path: self.path, _elsewhere: self.elsewhere })
    }
}

fn is_of(connection: &UnixStream, own: u32) -> bool {
    match connection.peer_cred() {
        Ok(peer) if peer.uid() == own => true,
        peer => {
            tracing::warn!(?peer, "closed a connection from another user");
            false
        }
    }
}

fn short_directory() -> PathBuf {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_dir());
    runtime.filter(|dir| dir.as_os_str().len() < LONGEST / 2).unwrap_or_else(|| PathBuf::from("/tmp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_its_users_own_also_where_the_path_is_too_long_for_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("d".repeat(120));
        for farm in [dir.path(), long.as_path()] {
            std::fs::create_dir_all(farm).unwrap();
            let socket = Socket::bind(farm).unwrap();
            let path = PathBuf::from(socket.url().strip_prefix("unix://").unwrap());
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(farm), mode(path.parent().unwrap())), (0o700, 0o700));
            let (mut incoming, place) = {
                let (incoming, place) = socket.incoming();
                (Box::pin(incoming), place)
            };
            let _client = UnixStream::connect(&path).await.unwrap();
            assert!(incoming.next().await.unwrap().is_ok(), "expected this user to be let in");
            drop(place);
            assert!(!path.exists(), "expected the socket to be gone");
        }
    }
}
