//! The directory messages of input trees, remembered in memory.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_proto::digest::Digest;
use kiln_proto::transfer::{self, Client};
use kiln_trees::overlay::overlay;
use kiln_trees::walk::{Directory, Found};
use kiln_trees::{Closure, Encoded, Entry, Source, Tree, closure};
use parking_lot::Mutex;

use super::Error;

/// Directories that are remembered.
const REMEMBERED: usize = 100_000;
/// A tree's own name while another is laid over it.
const ROOT: &str = "root";

type Known = HashMap<Digest, Arc<Tree>>;

#[derive(Debug, Default)]
pub(super) struct Directories {
    known: Mutex<Known>,
}

impl Directories {
    /// The whole tree under a root.
    pub(super) async fn closure(&self, client: &Client, root: &Digest) -> Result<Closure, Error> {
        let farm = Remembered { client, known: &self.known };
        match closure::closure(farm, &[*root]).await {
            Ok(closure) => Ok(closure),
            Err(error) => Err(failed(client, error).await),
        }
    }

    /// The tree under a root with another laid over it, and its directories that are not those of the tree under the root.
    pub(super) async fn overlaid(
        &self,
        client: &Client,
        root: &Digest,
        over: Tree,
    ) -> Result<(Digest, Vec<Encoded>), Error> {
        let farm = Remembered { client, known: &self.known };
        let mut tree = Tree::default();
        tree.entries.insert(ROOT.to_owned(), Entry::Sealed { digest: *root });
        let mut above = Tree::default();
        above.entries.insert(ROOT.to_owned(), Entry::Directory(over));
        if let Err(error) = overlay(&farm, &mut tree, above).await {
            return Err(failed(client, error).await);
        }
        let Some(Entry::Directory(tree)) = tree.entries.remove(ROOT) else { return Ok((*root, Vec::new())) };
        let mut messages = Vec::new();
        let digest = tree.encode(root.function, &mut |message| messages.push(message));
        Ok((digest, messages))
    }
}

/// Why a tree cannot be read.
async fn failed(client: &Client, error: closure::Error<Failed>) -> Error {
    match error {
        closure::Error::Absent(digest) => Error::Missing(vec![digest]),
        closure::Error::Malformed(error) => Error::Invalid(format!("inputs: {error}")),
        closure::Error::Source(Failed { digests, error }) => super::fetching::name_all(client, &digests, error).await,
    }
}

/// The farm's directories, of which some are known.
struct Remembered<'a> {
    client: &'a Client,
    known: &'a Mutex<Known>,
}

/// Directories that could not be fetched.
#[derive(Debug)]
struct Failed {
    digests: Vec<Digest>,
    error: transfer::Error,
}

#[async_trait]
impl Source for Remembered<'_> {
    type Directory = Arc<Tree>;
    type Error = Failed;

    async fn read(&self, digests: &[Digest]) -> Result<Vec<Found<Arc<Tree>>>, Failed> {
        let mut found: Vec<Option<Found<Arc<Tree>>>> = {
            let known = self.known.lock();
            digests.iter().map(|digest| known.get(digest).cloned().map(Found::Directory)).collect()
        };
        let unknown: Vec<Digest> =
            digests.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(digest, _)| *digest).collect();
        if !unknown.is_empty() {
            let fetched = self.client.get_many(&unknown).await;
            let fetched = fetched.map_err(|error| Failed { digests: unknown.clone(), error })?;
            let mut known = self.known.lock();
            if known.len().saturating_add(fetched.len()) > REMEMBERED {
                known.clear();
            }
            for (digest, found) in digests.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                *found = fetched.get(digest).map(|data| match Arc::<Tree>::decode(digest, data) {
                    Ok(tree) => {
                        known.insert(*digest, tree.clone());
                        Found::Directory(tree)
                    }
                    Err(malformed) => Found::Malformed(malformed),
                });
            }
        }
        Ok(found.into_iter().map(|found| found.unwrap_or(Found::Absent)).collect())
    }
}
