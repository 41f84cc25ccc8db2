//! An agent for key files: on Windows there is the system's own only, which keeps keys that were added to it.

use std::path::PathBuf;

use crate::Error;

/// An agent that there is not.
#[derive(Debug)]
pub(crate) struct Own(std::convert::Infallible);

impl Own {
    /// Says what to do instead.
    pub(crate) fn start(id: &str, keys: &[PathBuf]) -> Result<Self, Error> {
        let reason =
            "start the service `ssh-agent`, add the key with `ssh-add`, and give `--ssh` without a path".to_owned();
        Err(Error::Key { id: id.to_owned(), path: keys.first().cloned().unwrap_or_default(), reason })
    }

    pub(crate) fn socket(&self) -> PathBuf {
        match self.0 {}
    }
}
