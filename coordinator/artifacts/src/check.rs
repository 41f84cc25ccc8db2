//! Checks an artifact's executables: reads the requirements of each once, and compares them with the target.

use std::collections::{BTreeMap, BTreeSet};

use futures::StreamExt;
use kiln_planner::plan::Target;
use kiln_trees::tree::{Entry, Tree};

use super::assemble::Error;
use crate::elf::{self, Ground, Wants};
use kiln_store::BlobStore;
use kiln_store::trees::flatten;

/// Minimum size of an ELF file.
const MIN_ELF_BYTES: u64 = 20;
/// Maximum size of an executable that is checked.
const MAX_ELF_BYTES: u64 = 4 << 30;

/// The requirements of the ELF files in a tree, by path.
pub(super) async fn wants(store: &dyn BlobStore, tree: &Tree) -> Result<BTreeMap<String, Wants>, Error> {
    let mut found = BTreeMap::new();
    for (path, entry) in flatten(tree) {
        let Entry::File { digest, .. } = entry else { continue };
        if !(MIN_ELF_BYTES..=MAX_ELF_BYTES).contains(&digest.size) {
            continue;
        }
        let mut start = store.read(&digest, 0, Some(4)).await?;
        let magic = match start.next().await {
            Some(bytes) => bytes?,
            None => continue,
        };
        drop(start);
        if !elf::is_elf(&magic) {
            continue;
        }
        let data = store.get(&digest).await?;
        // A file that only looks like ELF is ordinary data.
        if let Ok(wants) = elf::read(&data) {
            found.insert(path, wants);
        }
    }
    Ok(found)
}

/// The names of the files in a tree.
pub(super) fn carried(tree: &Tree) -> BTreeSet<String> {
    flatten(tree).iter().map(|(path, _)| path.rsplit('/').next().unwrap_or(path).to_owned()).collect()
}

/// Rejects an artifact whose files would not run on its target; `fix` says what to do about it.
pub(super) fn hold(
    artifact: &str,
    wants: &BTreeMap<String, Wants>,
    ground: &Ground<'_>,
    fix: String,
) -> Result<(), Error> {
    let objections: Vec<String> = wants.iter().flat_map(|(path, wants)| elf::objections(path, wants, ground)).collect();
    if objections.is_empty() {
        return Ok(());
    }
    Err(Error::WouldNotRun { artifact: artifact.to_owned(), objections, fix })
}

/// The target's own libraries, in addition to the artifact's.
pub(super) fn of_target<'a>(
    target: &'a Target,
    carried: &'a BTreeSet<String>,
    own: &'a BTreeSet<String>,
) -> Ground<'a> {
    Ground {
        target,
        glibc: target.glibc,
        libraries: [carried, own],
        lacking: match target.is_declared() {
            true => "which is neither in the artifact nor declared in the target's `libraries`",
            false => "which is neither in the artifact nor on the system that it was built on",
        },
    }
}
