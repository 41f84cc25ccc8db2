//! What a worker has: how it proves that it has a blob without sending it, and what a result names.
//!
//! Invariant: a proof is good for one challenge and one content. A challenge belongs to one lease and is random, so whoever answers it had the content
//! while the lease lasted: neither the digest nor earlier answers help.

use std::io::{self, Read};

use crate::digest::{self, Digest, DigestFunction};
use crate::{calls, reapi, v1};

/// Bytes of a challenge and of a proof.
pub const BYTES: usize = 32;
/// Bytes that are read at once.
const PIECE_BYTES: usize = 256 << 10;

/// What a lease's worker proves with that it has a blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Challenge([u8; BYTES]);

/// A proof in the making.
#[derive(Debug)]
pub struct Prover(Box<blake3::Hasher>);

/// What shows that somebody has a content. Two are compared in constant time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Proof(blake3::Hash);

impl Challenge {
    /// A challenge of these bytes.
    pub fn of(bytes: [u8; BYTES]) -> Self {
        Self(bytes)
    }

    /// A challenge on the wire; none if it has another length.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Its bytes.
    pub fn to_wire(&self) -> Vec<u8> {
        self.0.to_vec()
    }

    /// The proof for this content.
    pub fn prove(&self, content: &[u8]) -> Proof {
        Proof(blake3::keyed_hash(&self.0, content))
    }

    /// Begins a proof for a content that comes in pieces.
    pub fn prover(&self) -> Prover {
        Prover(Box::new(blake3::Hasher::new_keyed(&self.0)))
    }

    /// The proof for all that can be read, and how many bytes that was.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn prove_all(&self, mut content: impl Read) -> io::Result<(Proof, u64)> {
        let (mut prover, mut piece, mut bytes) = (self.prover(), vec![0; PIECE_BYTES], 0_u64);
        loop {
            let count = match content.read(&mut piece) {
                Ok(0) => return Ok((prover.finish(), bytes)),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            bytes = bytes.saturating_add(count as u64);
            prover.update(piece.get(..count).unwrap_or_default());
        }
    }
}

impl Prover {
    /// Adds the next bytes of the content.
    pub fn update(&mut self, piece: &[u8]) {
        self.0.update(piece);
    }

    /// The proof for what was added.
    pub fn finish(&self) -> Proof {
        Proof(self.0.finalize())
    }
}

impl Proof {
    /// A proof on the wire; none if it has another length.
    pub fn from_wire(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; BYTES] = bytes.try_into().ok()?;
        Some(Self(bytes.into()))
    }

    /// Its bytes.
    pub fn to_wire(&self) -> Vec<u8> {
        self.0.as_bytes().to_vec()
    }
}

/// What a result names itself, each blob once and in one order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Named {
    /// Files, what was printed, and the list of its calls' keys.
    pub files: Vec<Digest>,
    /// Messages of the type `Tree`.
    pub trees: Vec<Digest>,
    /// Messages of the type `Directory`.
    pub directories: Vec<Digest>,
}

impl Named {
    /// What a result names. What everybody has, the empty blob, is not among it.
    ///
    /// # Errors
    /// If one of its digests is none of this function.
    pub fn of(function: DigestFunction, result: &reapi::ActionResult) -> Result<Self, digest::Error> {
        let mut named = Self::of_outputs(function, result)?;
        let calls = result.execution_metadata.as_ref().and_then(calls::of);
        if let Some(keys) = calls.and_then(|calls| calls.keys) {
            named.files.push(Digest::from_wire(function, &keys)?);
        }
        Ok(named.settled())
    }

    /// The same without what only explains the result: the list of its calls' keys.
    ///
    /// # Errors
    /// If one of its digests is none of this function.
    pub fn of_outputs(function: DigestFunction, result: &reapi::ActionResult) -> Result<Self, digest::Error> {
        let one = |digest: Option<&reapi::Digest>| Digest::required(function, digest);
        let mut named = Self::default();
        for file in &result.output_files {
            named.files.push(one(file.digest.as_ref())?);
        }
        for digest in [&result.stdout_digest, &result.stderr_digest].into_iter().flatten() {
            named.files.push(one(Some(digest))?);
        }
        for directory in &result.output_directories {
            if directory.tree_digest.is_some() {
                named.trees.push(one(directory.tree_digest.as_ref())?);
            }
            if directory.root_directory_digest.is_some() {
                named.directories.push(one(directory.root_directory_digest.as_ref())?);
            }
        }
        Ok(named.settled())
    }

    /// What is named on the wire.
    ///
    /// # Errors
    /// If one of the digests is none of this function.
    pub fn from_wire(function: DigestFunction, named: &v1::NamedBlobs) -> Result<Self, digest::Error> {
        let one = |digest: &reapi::Digest| Digest::from_wire(function, digest);
        let all = |digests: &[reapi::Digest]| digests.iter().map(one).collect::<Result<Vec<_>, _>>();
        let v1::NamedBlobs { files, trees, directories } = named;
        let named = Self { files: all(files)?, trees: all(trees)?, directories: all(directories)? };
        Ok(named.settled())
    }

    /// The same on the wire.
    pub fn to_wire(&self) -> v1::NamedBlobs {
        let all = |digests: &[Digest]| digests.iter().map(Digest::to_wire).collect();
        v1::NamedBlobs { files: all(&self.files), trees: all(&self.trees), directories: all(&self.directories) }
    }

    fn settled(mut self) -> Self {
        for digests in [&mut self.files, &mut self.trees, &mut self.directories] {
            digests.retain(|digest| !digest.is_empty());
            digests.sort_unstable();
            digests.dedup();
        }
        self
    }

    /// Whether it is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.trees.is_empty() && self.directories.is_empty()
    }

    /// What a seal is over: the same bytes for the same names, and for no others.
    pub fn sealed_parts(&self) -> [Vec<u8>; 3] {
        let one = |digest: &Digest| [&digest.hash[..], &digest.size.to_le_bytes()].concat();
        [&self.files, &self.trees, &self.directories].map(|digests| digests.iter().flat_map(one).collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const F: DigestFunction = DigestFunction::Sha256;

    proptest! {
        #[test]
        fn a_proof_is_for_one_challenge_and_one_content(
            content in proptest::collection::vec(any::<u8>(), 0..4096), at in any::<prop::sample::Index>(), key in any::<[u8; BYTES]>()
        ) {
            let challenge = Challenge::of(key);
            let proof = challenge.prove(&content);
            prop_assert_eq!(challenge.prove_all(&content[..]).unwrap(), (proof, content.len() as u64));
            prop_assert_eq!(Proof::from_wire(&proof.to_wire()), Some(proof));
            let mut other = key;
            other[at.index(BYTES)] ^= 1;
            prop_assert_ne!(Challenge::of(other).prove(&content), proof);
            let mut longer = content.clone();
            longer.push(0);
            prop_assert_ne!(challenge.prove(&longer), proof);
            if !content.is_empty() {
                let mut changed = content.clone();
                changed[at.index(content.len())] ^= 1;
                prop_assert_ne!(challenge.prove(&changed), proof);
            }
        }
    }

    #[test]
    fn all_that_a_result_names_is_found_once_and_in_one_order() {
        let (one, two, tree, root, list) =
            (F.digest(b"one"), F.digest(b"two"), F.digest(b"tree"), F.digest(b"root"), F.digest(b"list"));
        let file = |digest: &Digest| reapi::OutputFile { digest: Some(digest.to_wire()), ..Default::default() };
        let mut metadata = reapi::ExecutedActionMetadata::default();
        calls::add(&mut metadata, &v1::SplitCalls { keys: Some(list.to_wire()), ..Default::default() });
        let mut result = reapi::ActionResult {
            output_files: vec![file(&one), file(&two), file(&one), file(&Digest::empty(F))],
            stdout_digest: Some(two.to_wire()),
            output_directories: vec![reapi::OutputDirectory {
                tree_digest: Some(tree.to_wire()),
                root_directory_digest: Some(root.to_wire()),
                ..Default::default()
            }],
            execution_metadata: Some(metadata),
            ..Default::default()
        };
        let named = Named::of(F, &result).unwrap();
        assert_eq!((named.files.len(), &named.trees[..], &named.directories[..]), (3, &[tree][..], &[root][..]));
        assert_eq!(Named::from_wire(F, &named.to_wire()).unwrap(), named);
        result.output_files.reverse();
        assert_eq!(Named::of(F, &result).unwrap().sealed_parts(), named.sealed_parts());
        result.output_files.pop();
        result.output_files.pop();
        result.stdout_digest = None;
        assert_ne!(Named::of(F, &result).unwrap().sealed_parts(), named.sealed_parts());
        result.output_files.push(reapi::OutputFile::default());
        assert!(Named::of(F, &result).is_err(), "expected a file without a digest to be refused");
        assert!(Named::of(F, &reapi::ActionResult::default()).unwrap().is_empty());
    }

    #[test]
    fn what_has_another_length_is_neither_a_challenge_nor_a_proof() {
        for length in [0, BYTES - 1, BYTES + 1] {
            assert_eq!((Challenge::from_wire(&vec![0; length]), Proof::from_wire(&vec![0; length])), (None, None));
        }
    }
}
