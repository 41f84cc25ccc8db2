//! Where an agent listens: a socket, or a named pipe of Windows.

use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};

use tokio::io::{AsyncRead, AsyncWrite};

/// The agent that runs here, if the system or a variable says which.
pub(crate) fn own() -> Option<PathBuf> {
    let named = std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from);
    // OpenSSH's service has this one.
    let usual = Path::new(r"\\.\pipe\openssh-ssh-agent");
    named.or_else(|| (cfg!(windows) && usual.exists()).then(|| usual.to_owned()))
}

/// Whether an agent listens there.
pub(crate) fn is_one(path: &Path, data: &Metadata) -> bool {
    #[cfg(unix)]
    {
        let _ = path;
        std::os::unix::fs::FileTypeExt::is_socket(&data.file_type())
    }
    #[cfg(windows)]
    {
        let _ = data;
        path.starts_with(r"\\.\pipe")
    }
}

/// Connects to an agent.
pub(crate) async fn connect(path: &Path) -> io::Result<impl AsyncRead + AsyncWrite + Unpin + use<>> {
    #[cfg(unix)]
    return tokio::net::UnixStream::connect(path).await;
    #[cfg(windows)]
    return tokio::net::windows::named_pipe::ClientOptions::new().open(path);
}
