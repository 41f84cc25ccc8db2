//! The directory messages of input trees, remembered in memory.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kiln_proto::digest::Digest;
use kiln_proto::shape;
use kiln_proto::transfer::Client;
use kiln_proto::tree::mode_of;
use parking_lot::Mutex;

use super::key::Key;
use super::{Error, transfer_failed};

/// Directories that are remembered.
const REMEMBERED: usize = 100_000;

/// A directory and all below it, by digest.
pub(super) type Closure = HashMap<Digest, Arc<Directory>>;

/// A directory with its digests read and its names checked.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) files: Vec<(String, Key)>,
    pub(super) directories: Vec<(String, Digest)>,
    pub(super) links: Vec<(String, String)>,
}

#[derive(Debug, Default)]
pub(super) struct Directories {
    known: Mutex<HashMap<Digest, Arc<Directory>>>,
}

impl Directories {
    /// The whole tree under a root, level by level.
    pub(super) async fn closure(&self, client: &Client, root: &Digest) -> Result<Closure, Error> {
        let mut closure = Closure::new();
        let (mut level, mut seen, mut entries) = (vec![*root], HashSet::from([*root]), 0_usize);
        while !level.is_empty() {
            let unknown: Vec<Digest> = {
                let known = self.known.lock();
                level.iter().filter(|digest| !known.contains_key(*digest)).copied().collect()
            };
            unknown.iter().try_for_each(shape::check_size).map_err(|error| too_large(&error))?;
            if !unknown.is_empty() {
                let fetched = match client.get_many(&unknown).await {
                    Ok(fetched) => fetched,
                    Err(error) => return Err(super::fetching::name_all(client, &unknown, error).await),
                };
                let mut known = self.known.lock();
                if known.len() + fetched.len() > REMEMBERED {
                    known.clear();
                }
                for (digest, data) in fetched {
                    known.insert(digest, Arc::new(read(&digest, &data)?));
                }
            }
            let mut next = Vec::new();
            for digest in level {
                let found = self.known.lock().get(&digest).cloned();
                // Another caller may have made room meanwhile.
                let directory = match found {
                    Some(directory) => directory,
                    None => Arc::new(read(&digest, &client.get(&digest).await.map_err(transfer_failed)?)?),
                };
                for (_, below) in &directory.directories {
                    if seen.insert(*below) {
                        next.push(*below);
                    }
                }
                entries += directory.files.len() + directory.directories.len() + directory.links.len();
                if entries as u64 > shape::MAX_ENTRIES {
                    return Err(too_large(&shape::Error::Entries));
                }
                closure.insert(digest, directory);
            }
            level = next;
        }
        let nodes = closure.iter().map(|(digest, directory)| (*digest, directory.node())).collect();
        shape::measure(root, &nodes).map_err(|error| too_large(&error))?;
        Ok(closure)
    }
}

impl Directory {
    fn node(&self) -> shape::Node {
        let below: Vec<_> = self.directories.iter().map(|(name, digest)| (*digest, name.len())).collect();
        let others = self.files.iter().map(|(name, _)| name.len()).chain(self.links.iter().map(|(name, _)| name.len()));
        let longest = others.chain(below.iter().map(|(_, bytes)| *bytes)).max().unwrap_or(0);
        shape::Node { entries: (self.files.len() + self.links.len() + below.len()) as u64, longest, below }
    }
}

fn too_large(error: &shape::Error) -> Error {
    Error::Invalid(format!("inputs: {error}"))
}

fn read(digest: &Digest, data: &[u8]) -> Result<Directory, Error> {
    let invalid = |words: String| Error::Invalid(format!("input directory `{digest}`: {words}"));
    let message = shape::decode(digest, data).map_err(|error| invalid(error.to_string()))?;
    let function = digest.function;
    let mut directory = Directory { files: Vec::new(), directories: Vec::new(), links: Vec::new() };
    let mut names = HashSet::new();
    let mut check = |name: &str| {
        if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']) {
            return Err(invalid(format!("invalid name `{}` of a directory entry", name.escape_debug())));
        }
        if !names.insert(name.to_owned()) {
            return Err(invalid(format!("`{name}` is in it twice")));
        }
        Ok(())
    };
    for node in message.files {
        check(&node.name)?;
        let digest = Digest::required(function, node.digest.as_ref()).map_err(|error| invalid(error.to_string()))?;
        let mode = mode_of(node.node_properties.as_ref(), node.is_executable);
        directory.files.push((node.name, Key::new(digest, node.is_executable, mode)));
    }
    for node in message.directories {
        check(&node.name)?;
        let digest = Digest::required(function, node.digest.as_ref()).map_err(|error| invalid(error.to_string()))?;
        directory.directories.push((node.name, digest));
    }
    for node in message.symlinks {
        check(&node.name)?;
        if node.target.is_empty() || node.target.contains('\0') {
            return Err(invalid(format!("symbolic link `{}` has no target that can be", node.name)));
        }
        directory.links.push((node.name, node.target));
    }
    Ok(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::digest::DigestFunction;
    use kiln_proto::reapi;
    use prost::Message;

    #[test]
    fn hostile_names_are_refused() {
        for name in ["", ".", "..", "a/b", "a\0"] {
            let links = vec![reapi::SymlinkNode { name: name.into(), target: "x".into(), node_properties: None }];
            let data = reapi::Directory { symlinks: links, ..Default::default() }.encode_to_vec();
            let refused = read(&DigestFunction::Sha256.digest(&data), &data);
            assert!(matches!(refused, Err(Error::Invalid(_))), "expected `{}` to be refused", name.escape_debug());
        }
    }
}
