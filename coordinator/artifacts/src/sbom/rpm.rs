//! rpm's database: a SQLite file whose table `Packages` has the header of each package.
//!
//! Invariant: the file is untrusted; every offset is checked, and the work is bounded by its size. Sources: SQLite, "Database File
//! Format"; rpm, "Package Format V4", section "Header".

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
    /// Bytes of a page that are used.
    usable: usize,
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
        (page >= 512 && usable >= 480).then_some(Self { data, page, usable })
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
        let mut bytes = 0;
        while let Some(number) = waiting.pop() {
            if !seen.insert(number) {
                continue;
            }
            let Some(page) = self.page(number) else { continue };
            let at = if number == 1 { FILE_HEADER } else { 0 };
            let (Some(kind), Some(cells)) = (page.get(at).copied(), u16_at(page, at + 3)) else { continue };
            let pointers = at + if kind == 5 { 12 } else { 8 };
            for cell in 0..usize::from(cells) {
                let Some(cell) = u16_at(page, pointers + 2 * cell).map(usize::from) else { break };
                match kind {
                    5 => waiting.extend(u32_at(page, cell)),
                    13 => {
                        let Some(row) = self.record(page, cell) else { continue };
                        bytes += row.len();
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
                waiting.extend(u32_at(page, at + 8));
            }
        }
        rows
    }

    /// The record of a cell, put together from the pages that it is on.
    fn record(&self, page: &[u8], cell: usize) -> Option<Vec<u8>> {
        let (size, cell) = varint(page, cell)?;
        let (_row, cell) = varint(page, cell)?;
        let size = usize::try_from(size).ok().filter(|size| *size <= self.data.len())?;
        let most = self.usable - 35;
        let local = if size <= most {
            size
        } else {
            let least = (self.usable - 12) * 32 / 255 - 23;
            let wanted = least + (size - least) % (self.usable - 4);
            if wanted <= most { wanted } else { least }
        };
        let mut record = page.get(cell..cell.checked_add(local)?)?.to_vec();
        let mut next = if local < size { u32_at(page, cell + local)? } else { 0 };
        while record.len() < size {
            let page = self.page(next)?;
            let wanted = (size - record.len()).min(self.usable - 4);
            record.extend(page.get(4..4 + wanted)?);
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
    let mut body = header;
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
        let data = record.get(body..body.checked_add(length)?)?;
        body += length;
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
    let index = header.get(8..8_usize.checked_add(entries.checked_mul(16)?)?)?;
    let data = header.get(8 + index.len()..)?;
    let data = data.get(..size.min(data.len()))?;
    let find = |tag: u32| {
        let entry = index.chunks_exact(16).find(|entry| u32_at(entry, 0) == Some(tag))?;
        Some((u32_at(entry, 4)?, u32_at(entry, 8)? as usize))
    };
    let text = |tag: u32| {
        let (_, offset) = find(tag).filter(|(kind, _)| *kind == 6)?;
        let rest = data.get(offset..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        Some(String::from_utf8_lossy(&rest[..end]).into_owned())
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
    for count in 0..9 {
        let byte = *data.get(at.checked_add(count)?)?;
        if count == 8 {
            return Some(((number << 8) | u64::from(byte), at + 9));
        }
        number = (number << 7) | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, at + count + 1));
        }
    }
    None
}
