//! Limits on the outputs of one command.

use std::fs;
use std::os::unix::fs::MetadataExt;

use kiln_trees::shape;

use super::Error;

/// Maximum bytes of all outputs of a command as read: as many as it may write.
pub(crate) const MAX_BYTES: u64 = 64 << 30;

/// What the outputs of a command may still add. The limits on entries are those of inputs: anything larger could not be
/// an input of a later action. Bytes are counted as read, so a sparse file counts in full.
#[derive(Debug)]
pub(super) struct Room {
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

impl Room {
    /// A limit of `bytes` for all files together.
    pub(super) fn new(bytes: u64) -> Self {
        Self { entries: shape::MAX_ENTRIES, bytes }
    }

    pub(super) fn take(&mut self, output: &str) -> Result<(), Error> {
        self.entries = self.entries.checked_sub(1).ok_or_else(|| {
            Error::Precondition(format!(
                "output `{output}` brings the command's outputs to more than {} files and directories; list only what \
                 is needed later",
                shape::MAX_ENTRIES
            ))
        })?;
        Ok(())
    }

    pub(super) fn take_bytes(&mut self, output: &str, data: &fs::Metadata) -> Result<(), Error> {
        self.bytes = self.bytes.checked_sub(data.len()).ok_or_else(|| {
            let on_disk = data.blocks() * 512;
            let holes = if on_disk < data.len() / 2 {
                format!(" (a file of {} bytes there has holes, and takes {on_disk} on disk)", data.len())
            } else {
                String::new()
            };
            Error::Precondition(format!(
                "output `{output}` brings the command's outputs to more than {} GiB{holes}; list only what is needed later",
                MAX_BYTES >> 30
            ))
        })?;
        Ok(())
    }
}
