//! Directories of roots and layers as REAPI `Directory` messages.
//!
//! Each node has its `unix_mode`. Its other properties, where they are not the default: `kiln.uid`, `kiln.gid`;
//! `kiln.xattr.NAME`, base64; `kiln.links`, the group of hard links, hexadecimal; `kiln.type`, on a file with the empty digest, one of
//! `fifo`, `char:MAJOR:MINOR`, `block:MAJOR:MINOR` and `whiteout`; `kiln.target`, base64, of a link whose target is not UTF-8. A
//! directory's own properties stand in its own message: `kiln.opaque`, `kiln.implied`, and `kiln.names` with the value `escaped` where
//! a name in it is not UTF-8. Then all its names have `%` and other bytes than UTF-8 as `%XX`: a `DirectoryNode` has no properties
//! that could carry its true name.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::reapi;
use prost::Message;

use super::{Attributes, Content, Directory, InvalidName, Leaf, Name, Node};
use crate::shape;
use crate::walk::{self, Malformed};

const UID: &str = "kiln.uid";
const GID: &str = "kiln.gid";
const XATTR: &str = "kiln.xattr.";
const LINKS: &str = "kiln.links";
const TYPE: &str = "kiln.type";
const TARGET: &str = "kiln.target";
const OPAQUE: &str = "kiln.opaque";
const IMPLIED: &str = "kiln.implied";
const NAMES: &str = "kiln.names";
const ESCAPED: &str = "escaped";
const YES: &str = "true";

/// A message that is not a directory of a root or layer.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[allow(missing_docs)]
pub(super) enum Invalid {
    #[error(transparent)]
    Name(#[from] InvalidName),
    #[error(transparent)]
    Digest(#[from] kiln_proto::digest::Error),
    #[error("it is not written in the one form that such a directory has")]
    Form,
}

struct Properties(Vec<reapi::NodeProperty>);

impl Properties {
    fn push(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.push(reapi::NodeProperty { name: name.into(), value: value.into() });
    }

    fn of(attributes: &Attributes) -> Self {
        let mut properties = Self(Vec::new());
        for (name, id) in [(UID, attributes.uid), (GID, attributes.gid)] {
            if id != 0 {
                properties.push(name, id.to_string());
            }
        }
        for (name, value) in &attributes.xattrs {
            properties.push(format!("{XATTR}{name}"), BASE64.encode(value));
        }
        properties
    }

    fn message(mut self, mode: Option<u32>) -> reapi::NodeProperties {
        self.0.sort_by(|a, b| a.name.cmp(&b.name));
        let unix_mode = mode.map(|value| kiln_proto::protobuf::UInt32Value { value });
        reapi::NodeProperties { properties: self.0, unix_mode, ..Default::default() }
    }
}

impl Directory {
    /// The directory's one encoding.
    pub fn encode(&self, function: DigestFunction) -> Vec<u8> {
        let mut own = self.attributes.as_ref().map_or(Properties(Vec::new()), Properties::of);
        if self.attributes.is_none() {
            own.push(IMPLIED, YES);
        }
        if self.opaque {
            own.push(OPAQUE, YES);
        }
        let escape = self.entries.keys().any(|name| name.as_str().is_none());
        if escape {
            own.push(NAMES, ESCAPED);
        }
        let mode = self.attributes.as_ref().map(|attributes| attributes.mode);
        let mut message = reapi::Directory { node_properties: Some(own.message(mode)), ..Default::default() };
        for (name, node) in &self.entries {
            let name = if escape { name.escaped() } else { name.as_str().unwrap_or_default().to_owned() };
            match node {
                Node::Directory(digest) => {
                    message.directories.push(reapi::DirectoryNode { name, digest: Some(digest.to_wire()) });
                }
                Node::Whiteout => message.files.push(special(name, "whiteout", function, Properties(Vec::new()), None)),
                Node::Leaf(leaf) => push_leaf(&mut message, name, leaf, function),
            }
        }
        // Escaping changes the order of names.
        message.files.sort_by(|a, b| a.name.cmp(&b.name));
        message.directories.sort_by(|a, b| a.name.cmp(&b.name));
        message.symlinks.sort_by(|a, b| a.name.cmp(&b.name));
        message.encode_to_vec()
    }

    fn from_message(function: DigestFunction, message: reapi::Directory) -> Result<Self, Invalid> {
        let mut own = Read::new(message.node_properties)?;
        let escaped = own.take(NAMES).is_some();
        let name = |text: String| if escaped { Name::unescaped(&text) } else { Name::new(text) }.map_err(Invalid::from);
        let opaque = own.take(OPAQUE).is_some();
        let attributes = if own.take(IMPLIED).is_some() { None } else { Some(own.attributes()?) };
        let mut directory = Self { attributes, opaque, ..Self::default() };
        for node in message.directories {
            let digest = Digest::required(function, node.digest.as_ref())?;
            directory.entries.insert(name(node.name)?, Node::Directory(digest));
        }
        for node in message.files {
            let digest = Digest::required(function, node.digest.as_ref())?;
            let mut read = Read::new(node.node_properties)?;
            let content = match read.take(TYPE).as_deref() {
                None => Content::File(digest),
                Some("whiteout") => {
                    directory.entries.insert(name(node.name)?, Node::Whiteout);
                    continue;
                }
                Some(kind) => device(kind).ok_or(Invalid::Form)?,
            };
            directory.entries.insert(name(node.name)?, Node::Leaf(read.leaf(content)?));
        }
        for node in message.symlinks {
            let mut read = Read::new(node.node_properties)?;
            let target = match read.take(TARGET) {
                Some(text) => BASE64.decode(text).map_err(|_| Invalid::Form)?,
                None => node.target.into_bytes(),
            };
            if target.is_empty() || target.contains(&0) {
                return Err(Invalid::Form);
            }
            directory.entries.insert(name(node.name)?, Node::Leaf(read.leaf(Content::Symlink(target))?));
        }
        Ok(directory)
    }
}

impl walk::Directory for Directory {
    fn decode(digest: &Digest, data: &bytes::Bytes) -> Result<Self, Malformed> {
        let message = shape::decode(digest, data)?;
        let malformed = |reason: &dyn ToString| Malformed::Root { digest: *digest, reason: reason.to_string() };
        let directory = Self::from_message(digest.function, message).map_err(|error| malformed(&error))?;
        // Another form of the same directory would have another digest. Whatever was passed over in reading shows here too.
        if directory.encode(digest.function) != **data {
            return Err(malformed(&Invalid::Form));
        }
        Ok(directory)
    }

    fn below(&self) -> Vec<Digest> {
        self.entries
            .values()
            .filter_map(|node| if let Node::Directory(digest) = node { Some(*digest) } else { None })
            .collect()
    }

    fn entries(&self) -> u64 {
        self.entries.len() as u64
    }
}

fn push_leaf(message: &mut reapi::Directory, name: String, leaf: &Leaf, function: DigestFunction) {
    let mut properties = Properties::of(&leaf.attributes);
    let mode = leaf.attributes.mode;
    if let Some(group) = leaf.links {
        properties.push(LINKS, format!("{group:016x}"));
    }
    let kind = match &leaf.content {
        Content::File(digest) => {
            message.files.push(reapi::FileNode {
                name,
                digest: Some(digest.to_wire()),
                is_executable: mode & 0o100 != 0,
                node_properties: Some(properties.message(Some(mode))),
            });
            return;
        }
        Content::Symlink(target) => {
            let text = String::from_utf8_lossy(target);
            if text.as_bytes() != target {
                properties.push(TARGET, BASE64.encode(target));
            }
            message.symlinks.push(reapi::SymlinkNode {
                name,
                target: text.into_owned(),
                node_properties: Some(properties.message(Some(mode))),
            });
            return;
        }
        Content::Fifo => "fifo".to_owned(),
        Content::Character(major, minor) => format!("char:{major}:{minor}"),
        Content::Block(major, minor) => format!("block:{major}:{minor}"),
    };
    message.files.push(special(name, &kind, function, properties, Some(mode)));
}

fn special(
    name: String,
    kind: &str,
    function: DigestFunction,
    mut properties: Properties,
    mode: Option<u32>,
) -> reapi::FileNode {
    properties.push(TYPE, kind);
    reapi::FileNode {
        name,
        digest: Some(function.digest(b"").to_wire()),
        is_executable: false,
        node_properties: Some(properties.message(mode)),
    }
}

fn device(kind: &str) -> Option<Content> {
    let mut parts = kind.split(':');
    let kind = parts.next()?;
    let mut number = || parts.next()?.parse().ok();
    match kind {
        "fifo" => Some(Content::Fifo),
        "char" => Some(Content::Character(number()?, number()?)),
        "block" => Some(Content::Block(number()?, number()?)),
        _ => None,
    }
}

/// A node's properties as they are read. What is left over makes the directory's form wrong.
struct Read {
    mode: Option<u32>,
    properties: Vec<reapi::NodeProperty>,
}

impl Read {
    fn new(properties: Option<reapi::NodeProperties>) -> Result<Self, Invalid> {
        let properties = properties.ok_or(Invalid::Form)?;
        Ok(Self { mode: properties.unix_mode.map(|mode| mode.value), properties: properties.properties })
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.properties.iter().position(|property| property.name == name)?;
        Some(self.properties.swap_remove(at).value)
    }

    fn id(&mut self, name: &str) -> Result<u32, Invalid> {
        self.take(name).map_or(Ok(0), |text| text.parse().map_err(|_| Invalid::Form))
    }

    fn attributes(&mut self) -> Result<Attributes, Invalid> {
        let mode = self.mode.filter(|mode| *mode <= 0o7777).ok_or(Invalid::Form)?;
        let (uid, gid) = (self.id(UID)?, self.id(GID)?);
        let mut attributes = Attributes { uid, gid, ..Attributes::of_root(mode) };
        for property in &self.properties {
            let name = property.name.strip_prefix(XATTR).ok_or(Invalid::Form)?;
            let value = BASE64.decode(&property.value).map_err(|_| Invalid::Form)?;
            attributes.xattrs.insert(name.to_owned(), value);
        }
        Ok(attributes)
    }

    fn leaf(&mut self, content: Content) -> Result<Leaf, Invalid> {
        let links =
            self.take(LINKS).map(|text| u64::from_str_radix(&text, 16).map_err(|_| Invalid::Form)).transpose()?;
        Ok(Leaf { content, attributes: self.attributes()?, links })
    }
}
