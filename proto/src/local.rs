//! The token of a coordinator on loopback without configured authentication: it creates one when it starts, and its own
//! user's programs find it in a file.
//!
//! Invariant: only its user can read the file, and a file that others could have written is not used.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use tonic::transport::Uri;

/// A published token; the file is removed on drop.
#[derive(Debug)]
pub struct Published {
    path: PathBuf,
    token: String,
}

impl Published {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token.
    pub fn token(&self) -> &str {
        &self.token
    }
}

impl Drop for Published {
    fn drop(&mut self) {
        // Another coordinator may have this port, and its own token in the file, by now.
        if std::fs::read_to_string(&self.path).is_ok_and(|found| found.trim() == self.token) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The directory with the tokens: `$XDG_STATE_HOME/kiln/local`, else `~/.local/state/kiln/local`.
fn directory() -> Option<PathBuf> {
    Some(kiln_system::state()?.join("kiln").join("local"))
}

/// The file's name contains the machine's, because home directories may be shared between machines.
fn name(port: u16) -> String {
    let machine = kiln_system::host().replace('/', "_");
    format!("{machine}-{port}")
}

/// The file in which this user's programs find the token of the coordinator at this port of this machine.
pub fn token_file(port: u16) -> Option<PathBuf> {
    Some(directory()?.join(name(port)))
}

/// Publishes a token for the coordinator at this port; in `otherwise` if the user has no home directory.
///
/// # Errors
/// If the file cannot be written.
pub fn publish(port: u16, token: String, otherwise: &Path) -> io::Result<Published> {
    let directory = directory().unwrap_or_else(|| otherwise.to_owned());
    kiln_system::create_private_directory(&directory)?;
    let path = directory.join(name(port));
    // A temporary file is readable only by its user from the start.
    let mut file = tempfile::NamedTempFile::new_in(&directory)?;
    writeln!(file, "{token}")?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(Published { path, token })
}

/// The token file of the coordinator at a farm's URL; `None` if it is not on this machine.
pub(crate) fn place(uri: &Uri) -> Option<PathBuf> {
    let is_local = uri.scheme_str() == Some("http") && super::channel::is_this_machine(uri.host()?);
    is_local.then(|| token_file(uri.port_u16().unwrap_or(80)))?
}

/// The token in this file, if it exists and belongs to this user.
pub(crate) fn read(path: &Path) -> Option<String> {
    use std::io::Read;
    let file = std::fs::File::open(path).ok()?;
    let about = file.metadata().ok()?;
    let is_own = kiln_system::is_private(&about);
    let mut text = String::new();
    file.take(4096).read_to_string(&mut text).ok()?;
    is_own.then(|| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_only_from_a_file_that_is_its_users_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "kiln_x\n").unwrap();
        let mode = |mode| kiln_system::set_mode(&path, mode).unwrap();
        mode(0o644);
        assert_eq!(read(&path), None);
        mode(0o600);
        assert_eq!(read(&path).as_deref(), Some("kiln_x"));
        assert_eq!(read(&dir.path().join("absent")), None);
    }

    #[test]
    fn only_coordinators_on_this_machine_have_one() {
        let place = |url: &str| place(&url.parse().unwrap());
        for url in ["https://127.0.0.1:1", "http://farm.example:1", "http://10.0.0.1:1"] {
            assert_eq!(place(url), None, "{url}");
        }
        if directory().is_some() {
            assert_eq!(place("http://127.0.0.1:8980"), place("http://localhost:8980"));
            assert!(place("http://[::1]:8980").is_some_and(|path| path.ends_with(name(8980))));
        }
    }
}
