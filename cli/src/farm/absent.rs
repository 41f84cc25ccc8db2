//! In place of a farm inside this process, where it has none: steps run on Linux only.

use std::path::Path;

use kiln_proto::channel::Channel;
use kiln_units::Bound;

use super::Error;

/// A farm that there is not.
pub(super) struct Opened {
    pub(super) url: String,
    pub(super) channel: Channel,
    never: std::convert::Infallible,
}

/// Says what to do instead.
///
/// # Errors
/// Always.
pub(super) async fn open(_dir: &Path, _store: Bound) -> Result<Opened, Error> {
    Err(Error::Absent)
}

impl Opened {
    pub(super) fn fault(&self) -> Option<String> {
        match self.never {}
    }

    pub(super) async fn close(self) {
        match self.never {}
    }
}
