//! Directories: blocks of entries, sorted by name.

use super::{BLOCK, Error};

/// Bytes of an entry (`struct erofs_dirent`), without its name.
const ENTRY: usize = 12;
/// Longest name.
const MAX_NAME: usize = 255;

/// An entry: a name, the type of its node, and where that is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: u8,
    pub(super) node: usize,
}

impl Entry<'_> {
    /// What it takes of a block.
    fn bytes(&self) -> usize {
        ENTRY.saturating_add(self.name.len())
    }
}

/// A directory's entries with `.` and `..`, in the order in which they are looked for.
pub(super) fn entries<'a>(
    own: usize,
    parent: usize,
    names: impl Iterator<Item = Entry<'a>>,
) -> Result<Vec<Entry<'a>>, Error> {
    let itself = |name: &'static [u8], node| Entry { name, kind: 2, node };
    let mut entries: Vec<Entry<'a>> = names.chain([itself(b".", own), itself(b"..", parent)]).collect();
    entries.sort_unstable_by_key(|entry| entry.name);
    let is_unique = entries.is_sorted_by(|one, next| one.name < next.name);
    let is_wrong = |name: &[u8]| name.is_empty() || name.contains(&b'/') || name.contains(&0);
    if entries.iter().any(|entry| is_wrong(entry.name)) || !is_unique {
        return Err(Error::NotTree);
    }
    match entries.iter().find(|entry| entry.name.len() > MAX_NAME) {
        Some(entry) => Err(Error::Long(entry.name.len())),
        None => Ok(entries),
    }
}

/// The entries of each block.
fn blocks<'e, 'a>(entries: &'e [Entry<'a>]) -> impl Iterator<Item = &'e [Entry<'a>]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut bytes = 0_usize;
        let fits = |entry: &&Entry<'_>| {
            bytes = bytes.saturating_add(entry.bytes());
            bytes <= BLOCK
        };
        let count = rest.iter().take_while(fits).count();
        let (block, more) = rest.split_at(count);
        rest = more;
        (!block.is_empty()).then_some(block)
    })
}

/// Bytes of a directory.
pub(super) fn size(entries: &[Entry<'_>]) -> u64 {
    blocks(entries).fold(0, |before: u64, block| {
        let own = block.iter().map(|entry| entry.bytes() as u64).fold(0, u64::saturating_add);
        before.next_multiple_of(BLOCK as u64).saturating_add(own)
    })
}

/// The directory's content. `number`: where a node's inode is; `None` if there is no such node.
pub(super) fn encode(entries: &[Entry<'_>], number: impl Fn(usize) -> Option<u64>) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    for block in blocks(entries) {
        data.resize(data.len().next_multiple_of(BLOCK), 0);
        let mut name_at = u16::try_from(block.len().checked_mul(ENTRY)?).ok()?;
        for entry in block {
            data.extend_from_slice(&number(entry.node)?.to_le_bytes());
            data.extend_from_slice(&name_at.to_le_bytes());
            data.extend_from_slice(&[entry.kind, 0]);
            name_at = name_at.checked_add(u16::try_from(entry.name.len()).ok()?)?;
        }
        block.iter().for_each(|entry| data.extend_from_slice(entry.name));
    }
    Some(data)
}
