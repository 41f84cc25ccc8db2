//! Owners, modes and extended attributes.

use std::collections::BTreeMap;

/// What a node has beside its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Attributes {
    /// The 12 permission bits; 0777 for a symbolic link.
    pub mode: u32,
    /// The owner's id inside of the root.
    pub uid: u32,
    /// The group's id inside of the root.
    pub gid: u32,
    /// Extended attributes by name, such as `security.capability`.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

impl Attributes {
    /// Those of a node of root's with this mode.
    pub fn of_root(mode: u32) -> Self {
        Self { mode: mode & 0o7777, uid: 0, gid: 0, xattrs: BTreeMap::new() }
    }

    /// Those of a directory that nothing is said about: root's, 0755.
    pub fn directory() -> Self {
        Self::of_root(0o755)
    }
}
