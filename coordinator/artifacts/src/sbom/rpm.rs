//! rpm's database: a SQLite file whose table `Packages` has the header of each package.
//!
//! Invariant: the file is untrusted; every offset is checked, and the work is bounded by its size. Sources: SQLite, "Database File
//! Format"; rpm, "Package Format V4", section "Header".

use std::ffi::CStr;

use super::system::Installed;

/// The table of packages.
const TABLE: &str = "Packages";
/// Tags of a header.
const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCHITECTURE: u32 = 1022;
const SOURCE: u32 = 1044;
/// What rpm calls a key that it trusts.
const KEY: &str = "gpg-pubkey";
/// Bytes of the file's own header, which the first page begins with.
const FILE_HEADER: usize = 100;

/// The installed packages.
pub(super) fn installed(data: &[u8]) -> Vec<Installed> {
    let Some(file) = File::open(data) else { return Vec::new() };
    let root = file.rows(1).into_iter().find_map(|row| match &columns(&row)?[..] {
        [Value::Text(kind), Value::Text(name), _, Value::Number(root), ..] if kind == "table" && name == TABLE => {
            u32::try_from(*root).ok()
        }
        _ => None,
    });
    let rows = root.map(|root| file.rows(root)).unwrap_or_default();
    let header = |row: &Vec<u8>| match columns(row)?.into_iter().nth(1)? {
        Value::Blob(header) => package(&header),
        _ => None,
    };
    rows.iter().filter_map(header).collect()
}

/// A database.
struct File<'a> {
    data: &'a [u8],
    page: usize,
    room: Room,
}

/// How much of a record is on a page, in bytes. Source: "Cell payload overflow pages" in SQLite's file format.
struct Room {
    /// A record of more is continued elsewhere.
    most: usize,
    /// The least that is on the cell's own page of one that is continued.
    least: usize,
    /// What is on each page that continues one.
    next: usize,
}

impl Room {
    /// Of pages of which so many bytes are used.
    fn of(usable: usize) -> Option<Self> {
        let least = usable.checked_sub(12)?.checked_mul(32)?.checked_div(255)?.checked_sub(23)?;
        Some(Self { most: usable.checked_sub(35)?, least, next: usable.checked_sub(4)? })
    }

    /// How much of a record of this size is on its cell's own page.
    fn local(&self, size: usize) -> Option<usize> {
        if size <= self.most {
            return Some(size);
        }
        let wanted = size.checked_sub(self.least)?.checked_rem(self.next)?.checked_add(self.least)?;
        Some(if wanted <= self.most { wanted } else { self.least })
    }
}

impl<'a> File<'a> {
    fn open(data: &'a [u8]) -> Option<Self> {
        if !data.starts_with(b"SQLite format 3\0") {
            return None;
        }
        let page = match u16_at(data, 16)? {
            1 => 65_536,
            size => usize::from(size),
        };
        let usable = page.checked_sub(usize::from(*data.get(20)?))?;
        let room = Room::of(usable)?;
        (page >= 512 && usable >= 480).then_some(Self { data, page, room })
    }

    fn page(&self, number: u32) -> Option<&'a [u8]> {
        let start = usize::try_from(number.checked_sub(1)?).ok()?.checked_mul(self.page)?;
        self.data.get(start..start.checked_add(self.page)?)
    }

    /// The rows of a table, as records.
    fn rows(&self, root: u32) -> Vec<Vec<u8>> {
        let mut rows = Vec::new();
        // Each page at most once, so that a cycle ends.
        let mut seen = std::collections::BTreeSet::new();
        let mut waiting = vec![root];
        let mut bytes = 0_usize;
        while let Some(number) = waiting.pop() {
            if !seen.insert(number) {
                continue;
            }
            let Some(page) = self.page(number) else { continue };
            let Some(tree) = page.get(if number == 1 { FILE_HEADER } else { 0 }..) else { continue };
            let (Some(kind), Some(cells)) = (tree.first().copied(), u16_at(tree, 3)) else { continue };
            let pointers = tree.get(if kind == 5 { 12 } else { 8 }..).unwrap_or_default().chunks_exact(2);
            for cell in pointers.take(usize::from(cells)) {
                let Some(cell) = u16_at(cell, 0).map(usize::from) else { break };
                match kind {
                    5 => waiting.extend(u32_at(page, cell)),
                    13 => {
                        let Some(row) = self.record(page, cell) else { continue };
                        bytes = bytes.saturating_add(row.len());
                        // Records overlap only in a file that is made to be large when it is read.
                        if bytes > self.data.len() {
                            return rows;
                        }
                        rows.push(row);
                    }
                    _ => {}
                }
            }
            if kind == 5 {
                waiting.extend(u32_at(tree, 8));
            }
        }
        rows
    }

    /// The record of a cell, put together from the pages that it is on.
    fn record(&self, page: &[u8], cell: usize) -> Option<Vec<u8>> {
        let (size, cell) = varint(page, cell)?;
        let (_row, cell) = varint(page, cell)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= self.data.len())?;
        let (local, rest) = page.get(cell..)?.split_at_checked(self.room.local(size)?)?;
        let mut record = local.to_vec();
        let mut next = if local.len() < size { u32_at(rest, 0)? } else { 0 };
        while let Some(left) = size.checked_sub(record.len()).filter(|left| *left > 0) {
            let page = self.page(next)?;
            record.extend(page.get(4..)?.get(..left.min(self.room.next))?);
            next = u32_at(page, 0)?;
        }
        Some(record)
    }
}

/// A value of a row.
enum Value {
    Number(i64),
    Text(String),
    Blob(Vec<u8>),
    Other,
}

/// The values of a record.
fn columns(record: &[u8]) -> Option<Vec<Value>> {
    let (size, mut at) = varint(record, 0)?;
    let header = usize::try_from(size).ok()?;
    let mut body = record.get(header..)?;
    let mut values = Vec::new();
    while at < header {
        let (kind, next) = varint(record, at)?;
        at = next;
        let length = match kind {
            0 | 8 | 9 => 0,
            1..=4 => usize::try_from(kind).ok()?,
            5 => 6,
            6 | 7 => 8,
            kind => usize::try_from(kind.checked_sub(12)? / 2).ok()?,
        };
        let data;
        (data, body) = body.split_at_checked(length)?;
        values.push(match kind {
            8 => Value::Number(0),
            9 => Value::Number(1),
            1..=6 => Value::Number(data.iter().fold(0, |number, byte| (number << 8) | i64::from(*byte))),
            kind if kind >= 12 && kind % 2 == 0 => Value::Blob(data.to_vec()),
            kind if kind >= 13 => Value::Text(String::from_utf8_lossy(data).into_owned()),
            _ => Value::Other,
        });
    }
    Some(values)
}

/// The package of a header.
fn package(header: &[u8]) -> Option<Installed> {
    let (entries, size) = (u32_at(header, 0)? as usize, u32_at(header, 4)? as usize);
    let (index, data) = header.get(8..)?.split_at_checked(entries.checked_mul(16)?)?;
    let data = data.get(..size.min(data.len()))?;
    let find = |tag: u32| {
        let entry = index.chunks_exact(16).find(|entry| u32_at(entry, 0) == Some(tag))?;
        Some((u32_at(entry, 4)?, u32_at(entry, 8)? as usize))
    };
    let text = |tag: u32| {
        let (_, offset) = find(tag).filter(|(kind, _)| *kind == 6)?;
        Some(CStr::from_bytes_until_nul(data.get(offset..)?).ok()?.to_string_lossy().into_owned())
    };
    let name = text(NAME).filter(|name| name != KEY)?;
    let epoch = find(EPOCH).filter(|(kind, _)| *kind == 4).and_then(|(_, offset)| u32_at(data, offset));
    Some(Installed {
        kind: "rpm".into(),
        name,
        version: format!("{}-{}", text(VERSION)?, text(RELEASE)?),
        architecture: text(ARCHITECTURE).unwrap_or_default(),
        source: text(SOURCE).unwrap_or_default(),
        epoch: epoch.map(|epoch| epoch.to_string()).unwrap_or_default(),
        ..Installed::default()
    })
}

fn u16_at(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at.checked_add(2)?)?.try_into().ok().map(u16::from_be_bytes)
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    data.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_be_bytes)
}

/// A number of one to nine bytes, and what is after it.
fn varint(data: &[u8], at: usize) -> Option<(u64, usize)> {
    let mut number = 0_u64;
    for (count, byte) in data.get(at..)?.iter().take(9).enumerate() {
        let next = at.checked_add(count)?.checked_add(1)?;
        if count == 8 {
            return Some(((number << 8) | u64::from(*byte), next));
        }
        number = (number << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, next));
        }
    }
    None
}
