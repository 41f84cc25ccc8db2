//! Blobs of the store as a visitor may read them: messages, files that tools name, and trees that one walks into by name.

use std::collections::HashMap;

use kiln_proto::bytestream::ReadRequest;
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi::{self, Directory, Tree};
use kiln_proto::resource_name::{Compression, ReadName};
use kiln_proto::v1;
use prost::Message;

use crate::answer::Failure;
use crate::calls::Client;

/// Largest blob that is read into memory.
const MAX_READ: i64 = 32 << 20;

/// Where the blobs of a build or an artifact are: in which instance, and named by which function.
#[derive(Debug, Clone)]
pub(crate) struct Space {
    pub(crate) instance: String,
    pub(crate) function: DigestFunction,
}

impl Space {
    /// That of a build.
    pub(crate) fn of(build: &v1::Build) -> Self {
        Self::new(&build.instance, build.digest_function)
    }

    /// That of an artifact.
    pub(crate) fn of_artifact(artifact: &v1::Artifact) -> Self {
        Self::new(&artifact.instance, artifact.digest_function)
    }

    fn new(instance: &str, function: i32) -> Self {
        Self { instance: instance.to_owned(), function: DigestFunction::from_wire(function).unwrap_or_default() }
    }

    /// The resource name of a blob.
    pub(crate) fn name(&self, digest: &reapi::Digest) -> String {
        let before = if self.instance.is_empty() { String::new() } else { format!("{}/", self.instance) };
        let function = self.function.segment().map(|segment| format!("{segment}/")).unwrap_or_default();
        format!("{before}blobs/{function}{}/{}", digest.hash, digest.size_bytes)
    }
}

/// A whole blob.
pub(crate) async fn read(client: &Client, space: &Space, digest: &reapi::Digest) -> Result<Vec<u8>, Failure> {
    if digest.size_bytes > MAX_READ {
        return Err(Failure::bad("That is too large to be shown; download it."));
    }
    let request = ReadRequest { resource_name: space.name(digest), ..ReadRequest::default() };
    let mut pieces = client.bytes().read(request).await?.into_inner();
    let mut data = Vec::new();
    while let Some(piece) = pieces.message().await? {
        data.extend_from_slice(&piece.data);
    }
    Ok(data)
}

/// What a tool names by a `bytestream://` URI, whatever host it has; none if it is nothing that a farm could have.
pub(crate) fn named(uri: &str) -> Option<ReadName> {
    let (_host, name) = uri.strip_prefix("bytestream://")?.split_once('/')?;
    ReadName::parse(name).ok().filter(|name| name.compression == Compression::Identity)
}

/// So many bytes of a file, from an offset.
pub(crate) async fn part(client: &Client, name: &ReadName, from: u64, most: u64) -> Result<Vec<u8>, Failure> {
    let request = ReadRequest {
        resource_name: name.to_string(),
        read_offset: i64::try_from(from).unwrap_or(i64::MAX),
        read_limit: i64::try_from(most).unwrap_or(i64::MAX),
    };
    let mut pieces = client.bytes().read(request).await?.into_inner();
    let mut data = Vec::new();
    while let Some(piece) = pieces.message().await? {
        data.extend_from_slice(&piece.data);
        if data.len() as u64 > most {
            break;
        }
    }
    data.truncate(usize::try_from(most).unwrap_or(usize::MAX));
    Ok(data)
}

/// A message that is stored as a blob.
pub(crate) async fn message<M: Message + Default>(
    client: &Client,
    space: &Space,
    digest: &reapi::Digest,
) -> Result<M, Failure> {
    let data = read(client, space, digest).await?;
    M::decode(data.as_slice()).map_err(|_| Failure::bad("That blob is not what it should be."))
}

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Found {
    Directory(Box<Directory>),
    File(reapi::FileNode),
}

/// A tree whose directories are blobs of their own, or all in one message.
#[derive(Debug)]
pub(crate) struct Files<'a> {
    client: &'a Client,
    space: Space,
    root: Directory,
    inline: HashMap<String, Directory>,
}

impl<'a> Files<'a> {
    /// The tree below a directory.
    pub(crate) async fn of(client: &'a Client, space: Space, root: &reapi::Digest) -> Result<Self, Failure> {
        let root = message(client, &space, root).await?;
        Ok(Self { client, space, root, inline: HashMap::new() })
    }

    /// The outputs of an action: its files, and its directories as they are stored.
    pub(crate) async fn of_result(
        client: &'a Client,
        space: Space,
        result: &reapi::ActionResult,
    ) -> Result<Self, Failure> {
        let mut files = Self { client, space, root: Directory::default(), inline: HashMap::new() };
        for file in &result.output_files {
            let (name, digest, is_executable) = (file.path.clone(), file.digest.clone(), file.is_executable);
            files.root.files.push(reapi::FileNode { name, digest, is_executable, ..Default::default() });
        }
        for directory in &result.output_directories {
            let digest = match (&directory.root_directory_digest, &directory.tree_digest) {
                (Some(root), _) => root.clone(),
                (None, Some(tree)) => files.take(message(client, &files.space, tree).await?),
                (None, None) => continue,
            };
            let name = directory.path.clone();
            files.root.directories.push(reapi::DirectoryNode { name, digest: Some(digest) });
        }
        let link = |link: &reapi::OutputSymlink| reapi::SymlinkNode {
            name: link.path.clone(),
            target: link.target.clone(),
            ..Default::default()
        };
        files.root.symlinks = result.output_symlinks.iter().map(link).collect();
        Ok(files)
    }

    /// Keeps the directories of a tree. Returns the digest of its root.
    fn take(&mut self, tree: Tree) -> reapi::Digest {
        let root = tree.root.unwrap_or_default();
        let function = self.space.function;
        let digest = |directory: &Directory| function.digest_message(directory).to_wire();
        let of_root = digest(&root);
        for directory in tree.children.into_iter().chain([root]) {
            self.inline.insert(digest(&directory).hash, directory);
        }
        of_root
    }

    async fn directory(&self, digest: &reapi::Digest) -> Result<Directory, Failure> {
        match self.inline.get(&digest.hash) {
            Some(directory) => Ok(directory.clone()),
            None => message(self.client, &self.space, digest).await,
        }
    }

    /// What a path leads to; the root for an empty one.
    pub(crate) async fn find(&self, path: &str) -> Result<Found, Failure> {
        let absent = || Failure::not_found("There is no such file.");
        let mut at = self.root.clone();
        let mut rest = path.trim_matches('/');
        while !rest.is_empty() {
            // The names of an action's outputs are paths themselves.
            let begins = |name: &str| rest == name || rest.strip_prefix(name).is_some_and(|more| more.starts_with('/'));
            if let Some(file) = at.files.iter().find(|file| file.name == rest) {
                return Ok(Found::File(file.clone()));
            }
            let next = at.directories.iter().find(|directory| begins(&directory.name)).ok_or_else(absent)?;
            rest = rest[next.name.len()..].trim_start_matches('/');
            at = self.directory(next.digest.as_ref().ok_or_else(absent)?).await?;
        }
        Ok(Found::Directory(Box::new(at)))
    }

    /// The largest files below the root, among the first so many directories.
    pub(crate) async fn largest(&self, most: usize) -> Result<Vec<(String, i64)>, Failure> {
        const LOOKED_AT: usize = 500;
        let mut open = vec![(String::new(), self.root.clone())];
        let (mut found, mut looked_at) = (Vec::new(), 0);
        while let Some((path, directory)) = open.pop() {
            looked_at += 1;
            let size = |file: &reapi::FileNode| file.digest.as_ref().map_or(0, |digest| digest.size_bytes);
            found.extend(directory.files.iter().map(|file| (format!("{path}{}", file.name), size(file))));
            for below in directory.directories.iter().filter(|_| looked_at < LOOKED_AT) {
                let Some(digest) = &below.digest else { continue };
                open.push((format!("{path}{}/", below.name), self.directory(digest).await?));
            }
        }
        found.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
        found.truncate(most);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_farm_could_have_is_read() {
        let hash = "0".repeat(64);
        for (uri, expected) in [
            (format!("bytestream://farm:8980/blobs/{hash}/7"), Some(format!("blobs/{hash}/7"))),
            (format!("bytestream://farm/a/b/blobs/{hash}/7"), Some(format!("a/b/blobs/{hash}/7"))),
            (format!("bytestream:///blobs/blake3/{hash}/7"), Some(format!("blobs/blake3/{hash}/7"))),
            (format!("bytestream://farm/compressed-blobs/zstd/{hash}/7"), None),
            (format!("bytestream://farm/blobs/{hash}/-7"), None),
            (format!("https://farm/blobs/{hash}/7"), None),
            ("file:///etc/passwd".to_owned(), None),
            ("bytestream://farm".to_owned(), None),
            ("bytestream://farm/logs/1/2".to_owned(), None),
        ] {
            assert_eq!(named(&uri).map(|name| name.to_string()), expected, "{uri}");
        }
    }
}
