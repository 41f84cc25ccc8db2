//! Archives: packs a tree so that the same files always produce the same bytes.

use std::io::Write;

use futures::StreamExt;
use kiln_proto::digest::DigestFunction;
use kiln_trees::tree::{Entry, Tree};

use super::assemble::Error;
use super::{MTIME, file_mode};
use kiln_store::BlobStore;

/// zstd level for archives.
const LEVEL: i32 = 9;

/// Packs a tree as a reproducible `.tar.zst`, with a checksum file: sorted names, one timestamp, root as owner, and the
/// modes that the build set. Directories are only listed if they are empty or have a special mode.
pub(super) async fn pack(
    store: &dyn BlobStore,
    function: DigestFunction,
    tree: &Tree,
    stem: &str,
) -> Result<Tree, Error> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("archive");
    let mut builder = tar::Builder::new(zstd::Encoder::new(std::fs::File::create(&path)?, LEVEL)?);
    builder.mode(tar::HeaderMode::Deterministic);
    for (name, entry) in entries(tree) {
        append(store, &mut builder, &name, &entry).await?;
    }
    builder.into_inner()?.finish()?.flush()?;
    let (archive, sha256) = kiln_store::files::put(store, function, &path).await?;
    let name = format!("{stem}.tar.zst");
    let checksum = format!("{}  {name}\n", sha256.hex()).into_bytes();
    let checksum_digest = function.digest(&checksum);
    store.put(&checksum_digest, checksum.into()).await?;
    let mut packed = Tree::default();
    let plain = |digest| Entry::file(digest, false);
    packed.entries.insert(format!("{name}.sha256"), plain(checksum_digest));
    packed.entries.insert(name, plain(archive));
    Ok(packed)
}

/// The archive's entries, each directory before its contents.
fn entries(tree: &Tree) -> Vec<(String, Entry)> {
    fn walk(tree: &Tree, prefix: &str, found: &mut Vec<(String, Entry)>) {
        for (name, entry) in &tree.entries {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}/{name}") };
            match entry {
                Entry::Directory(below) => {
                    if below.entries.is_empty() || below.mode.is_some() {
                        let own = Tree { mode: below.mode, ..Tree::default() };
                        found.push((path.clone(), Entry::Directory(own)));
                    }
                    walk(below, &path, found);
                }
                other => found.push((path, other.clone())),
            }
        }
    }
    let mut found = Vec::new();
    walk(tree, "", &mut found);
    found
}

async fn append<W: Write>(
    store: &dyn BlobStore,
    builder: &mut tar::Builder<W>,
    name: &str,
    entry: &Entry,
) -> Result<(), Error> {
    let mut header = tar::Header::new_gnu();
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    match entry {
        Entry::File { digest, executable, mode } => {
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(file_mode(*executable, *mode));
            header.set_size(digest.size);
            // Large files go through a temporary file: the builder reads synchronously, the store streams.
            let mut file = tempfile::tempfile()?;
            let mut stream = store.read(digest, 0, None).await?;
            while let Some(chunk) = stream.next().await {
                file.write_all(&chunk?)?;
            }
            std::io::Seek::rewind(&mut file)?;
            builder.append_data(&mut header, name, file)?;
        }
        Entry::Symlink { target } => {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_mode(0o777);
            header.set_size(0);
            builder.append_link(&mut header, name, target)?;
        }
        Entry::Directory(tree) => {
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(tree.mode.unwrap_or(0o755));
            header.set_size(0);
            builder.append_data(&mut header, format!("{name}/"), std::io::empty())?;
        }
        Entry::Sealed { .. } => {}
    }
    Ok(())
}
