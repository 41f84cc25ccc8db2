//! The states of files.

use super::Error;
use super::walk::State;

/// Looks files up, one after another.
#[derive(Default)]
pub(super) struct States;

impl States {
    pub(super) fn of(&mut self, entry: &ignore::DirEntry) -> Result<State, Error> {
        let path = entry.path();
        let data = path.symlink_metadata().map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Ok(State::new(&data))
    }
}
