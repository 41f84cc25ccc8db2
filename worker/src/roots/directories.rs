//! The directory messages of roots, remembered in memory.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use kiln_proto::digest::Digest;
use kiln_proto::transfer::{self, Client};
use kiln_trees::root::{self, Directory, Forest};
use kiln_trees::shape;
use kiln_trees::walk::{self, Directory as _, Found, Source, Walk};
use parking_lot::Mutex;

use crate::inputs::Error;
use crate::inputs::fetching::name_all;

/// Directories that are remembered.
const REMEMBERED: usize = 300_000;

type Map = HashMap<Digest, Arc<Directory>>;

/// Directories of roots that were here before.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Map>);

impl Known {
    /// All directories of a root in memory.
    ///
    /// # Errors
    /// Where one is absent or malformed, or where the root, laid out, would be larger than [`shape`] allows.
    pub(super) async fn forest(&self, client: &Client, root: &Digest) -> Result<Forest, Error> {
        let mut forest = Forest::new(root.function);
        let mut nodes = HashMap::new();
        let mut walk = Walk::new(Remembered { client, known: &self.0 }, [*root]);
        loop {
            match walk.next().await {
                Ok(Some((digest, Found::Directory(directory)))) => {
                    nodes.insert(digest, directory.shape());
                    forest.add(digest, directory);
                }
                Ok(Some((digest, Found::Absent))) => return Err(Error::Missing(vec![digest])),
                Ok(Some((_, Found::Malformed(error)))) => return Err(Error::Invalid(format!("root: {error}"))),
                Ok(None) => break,
                Err(walk::Error::Entries) => return Err(Error::Invalid(format!("root: {}", shape::Error::Entries))),
                Err(walk::Error::Source(Failed { digests, error })) => {
                    return Err(name_all(client, &digests, error).await);
                }
            }
        }
        shape::measure(root, &nodes).map_err(|error| Error::Invalid(format!("root: {error}")))?;
        Ok(forest)
    }

    /// Does an operation on roots that are all known; none where a directory of them is not.
    pub(super) fn with<T>(
        &self,
        forest: &mut Forest,
        operation: impl Fn(&mut Forest) -> Result<T, root::Error>,
    ) -> Result<Option<T>, root::Error> {
        loop {
            let unread = match operation(forest) {
                Err(root::Error::Unread(unread)) => unread,
                done => return done.map(Some),
            };
            let known = self.0.lock();
            for digest in unread {
                let Some(directory) = known.get(&digest) else { return Ok(None) };
                forest.add(digest, directory.clone());
            }
        }
    }

    /// Remembers directories that were made here.
    pub(super) fn remember(&self, made: impl Iterator<Item = (Digest, Arc<Directory>)>) {
        let mut known = self.0.lock();
        make_room(&mut known, 0);
        known.extend(made);
    }
}

fn make_room(known: &mut Map, more: usize) {
    if known.len() + more > REMEMBERED {
        known.clear();
    }
}

/// The farm's directories, of which some are known.
struct Remembered<'a> {
    client: &'a Client,
    known: &'a Mutex<Map>,
}

/// Directories that could not be fetched.
struct Failed {
    digests: Vec<Digest>,
    error: transfer::Error,
}

#[async_trait]
impl Source for Remembered<'_> {
    type Directory = Arc<Directory>;
    type Error = Failed;

    async fn read(&self, digests: &[Digest]) -> Result<Vec<Found<Arc<Directory>>>, Failed> {
        let mut found: Vec<Option<Found<Arc<Directory>>>> = {
            let known = self.known.lock();
            digests.iter().map(|digest| known.get(digest).cloned().map(Found::Directory)).collect()
        };
        let unknown: Vec<Digest> =
            digests.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(digest, _)| *digest).collect();
        if !unknown.is_empty() {
            let fetched = self.client.get_many(&unknown).await;
            let fetched = fetched.map_err(|error| Failed { digests: unknown.clone(), error })?;
            let mut known = self.known.lock();
            make_room(&mut known, fetched.len());
            for (digest, found) in digests.iter().zip(&mut found).filter(|(_, found)| found.is_none()) {
                *found = fetched.get(digest).map(|data| match Arc::<Directory>::decode(digest, data) {
                    Ok(directory) => {
                        known.insert(*digest, directory.clone());
                        Found::Directory(directory)
                    }
                    Err(malformed) => Found::Malformed(malformed),
                });
            }
        }
        Ok(found.into_iter().map(|found| found.unwrap_or(Found::Absent)).collect())
    }
}
