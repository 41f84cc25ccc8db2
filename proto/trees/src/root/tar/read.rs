//! An archive becomes a layer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Read};

use ::tar::{Archive, EntryType};
use kiln_proto::digest::Digest;

use super::super::{Attributes, Content, Directory, Forest, Leaf, Name, Node, Time, Times, split};
use super::{OPAQUE, TarError, WHITEOUT, XATTR, entry};
use crate::shape::{self, MAX_DEPTH, MAX_ENTRIES};

/// Bytes of what an archive says of one entry: long names, and attributes.
const MAX_ABOUT_BYTES: u64 = 1 << 20;

/// Reads an archive, in one pass. `store` is given the content of each file, and answers with its digest. The layer's directories are
/// added to `forest`.
///
/// As when the archive is unpacked, an entry replaces an earlier one at its path. An entry and a whiteout at one path are an entry that
/// does not merge with what the root has there.
///
/// # Errors
/// Where the archive is malformed, has an entry that leads out of the root or is below something else than a directory, is larger than
/// [`shape`] allows, or where `store` fails.
pub fn read(
    forest: &mut Forest,
    archive: impl Read,
    store: &mut dyn FnMut(&mut dyn Read) -> io::Result<Digest>,
) -> Result<(Digest, Times), TarError> {
    let mut reader = Reader::default();
    let mut archive = Archive::new(archive);
    let mut about = About::default();
    for found in archive.entries()?.raw(true) {
        let mut found = found?;
        let header = found.header().clone();
        let kind = header.entry_type();
        if let Some(long) = LongField::of(kind) {
            about.read(long, &mut found)?;
            continue;
        }
        let about = std::mem::take(&mut about);
        let path = about.path.clone().unwrap_or_else(|| header.path_bytes().into_owned());
        let names = split(&path)?;
        if names.len() > MAX_DEPTH || path.len() > shape::MAX_PATH_BYTES {
            return Err(entry(&path, "its path is too long"));
        }
        reader.count = reader.count.saturating_add(1);
        if reader.count > MAX_ENTRIES {
            return Err(TarError::Io(io::Error::other(shape::Error::Entries)));
        }
        if let Some((name, above)) = names.split_last()
            && let Some(gone) = name.as_bytes().strip_prefix(WHITEOUT)
        {
            let directory = reader.root.below(above, &path)?;
            if name.as_bytes() == OPAQUE {
                directory.opaque = true;
            } else {
                directory.whiteouts.insert(Name::new(gone)?);
            }
            continue;
        }
        let (attributes, time) = about.attributes(&header, &path)?;
        let content = match kind {
            EntryType::Directory => {
                reader.times.0.insert(joined(&names), time);
                reader.root.below_or_new(&names, &path)?.attributes = Some(attributes);
                continue;
            }
            EntryType::Link => {
                let target = about.target.or_else(|| header.link_name_bytes().map(|target| target.into_owned()));
                let target = split(&target.unwrap_or_default())?;
                reader.link(&names, &target, &path)?;
                continue;
            }
            EntryType::Regular | EntryType::Continuous => {
                if about.size.is_some_and(|size| Ok(size) != header.entry_size().map_err(drop)) {
                    return Err(entry(&path, "it is larger than this reader takes"));
                }
                let size = header.entry_size()?;
                let digest = store(&mut found)?;
                if digest.size != size {
                    return Err(entry(&path, "the archive ends within it"));
                }
                Content::File(digest)
            }
            EntryType::Symlink => {
                let target = about.target.or_else(|| header.link_name_bytes().map(|target| target.into_owned()));
                let target = target.filter(|target| !target.is_empty() && !target.contains(&0));
                Content::Symlink(target.ok_or_else(|| entry(&path, "a symbolic link without a target"))?)
            }
            EntryType::Fifo => Content::Fifo,
            EntryType::Char | EntryType::Block => {
                let (major, minor) = device(&header)?;
                if kind == EntryType::Char { Content::Character(major, minor) } else { Content::Block(major, minor) }
            }
            other => {
                return Err(entry(&path, format!("entries of type `{}` are not supported", other.as_byte() as char)));
            }
        };
        // What a link is said to be beside its target differs between archivers.
        let attributes = match content {
            Content::Symlink(_) => Attributes { mode: 0o777, ..attributes },
            _ => attributes,
        };
        reader.put(&names, Leaf::new(content, attributes), &path)?;
        reader.times.0.insert(joined(&names), time);
    }
    reader.finish(forest)
}

#[derive(Default)]
struct Reader {
    root: Building,
    times: Times,
    /// For each path that is a hard link, the path of the file that it was linked to first.
    links: BTreeMap<Vec<u8>, Vec<u8>>,
    count: u64,
}

/// A directory that is being read.
#[derive(Default)]
struct Building {
    attributes: Option<Attributes>,
    opaque: bool,
    whiteouts: BTreeSet<Name>,
    entries: BTreeMap<Name, Part>,
}

enum Part {
    Directory(Building),
    Leaf(Leaf),
}

impl Building {
    /// The directory at a path, made as an implied one where it is missing.
    fn below(&mut self, names: &[Name], path: &[u8]) -> Result<&mut Self, TarError> {
        let mut at = self;
        for name in names {
            match at.entries.entry(name.clone()).or_insert_with(|| Part::Directory(Self::default())) {
                Part::Directory(below) => at = below,
                Part::Leaf(_) => return Err(entry(path, format!("it is below `{name}`, which is not a directory"))),
            }
        }
        Ok(at)
    }

    /// As [`below`](Self::below), but what else stood at the path itself is replaced.
    fn below_or_new(&mut self, names: &[Name], path: &[u8]) -> Result<&mut Self, TarError> {
        if let Some((name, above)) = names.split_last() {
            let above = self.below(above, path)?;
            if let Some(Part::Leaf(_)) = above.entries.get(name) {
                above.entries.remove(name);
            }
        }
        self.below(names, path)
    }

    fn has(&self, names: &[Name]) -> bool {
        let Some((name, rest)) = names.split_first() else { return self.attributes.is_some() };
        match self.entries.get(name) {
            Some(Part::Directory(below)) => below.has(rest),
            Some(Part::Leaf(_)) => rest.is_empty(),
            None => false,
        }
    }

    fn get(&self, names: &[Name]) -> Option<&Leaf> {
        let (name, rest) = names.split_first()?;
        match self.entries.get(name)? {
            Part::Directory(below) => below.get(rest),
            Part::Leaf(leaf) => Some(leaf).filter(|_| rest.is_empty()),
        }
    }

    fn finish(self, forest: &mut Forest) -> Digest {
        let mut directory = Directory { attributes: self.attributes, opaque: self.opaque, ..Directory::default() };
        for (name, part) in self.entries {
            let node = match part {
                Part::Leaf(leaf) => Node::Leaf(leaf),
                Part::Directory(mut below) => {
                    below.opaque |= self.whiteouts.contains(&name);
                    Node::Directory(below.finish(forest))
                }
            };
            directory.entries.insert(name, node);
        }
        for name in self.whiteouts {
            directory.entries.entry(name).or_insert(Node::Whiteout);
        }
        forest.put(directory)
    }
}

impl Reader {
    fn put(&mut self, names: &[Name], leaf: Leaf, path: &[u8]) -> Result<(), TarError> {
        let Some((name, above)) = names.split_last() else {
            return Err(entry(path, "the root of a layer must be a directory"));
        };
        self.links.remove(&joined(names));
        self.root.below(above, path)?.entries.insert(name.clone(), Part::Leaf(leaf));
        Ok(())
    }

    fn link(&mut self, names: &[Name], target: &[Name], path: &[u8]) -> Result<(), TarError> {
        let Some(leaf) = self.root.get(target).cloned() else {
            return Err(entry(path, format!("a hard link to `{}`, which is not before it", shown(target))));
        };
        let (from, to) = (joined(names), joined(target));
        if from == to {
            return Ok(());
        }
        self.put(names, leaf, path)?;
        let first = self.links.get(&to).cloned().unwrap_or_else(|| to.clone());
        if let Some(time) = self.times.0.get(&to).copied() {
            self.times.0.insert(from.clone(), time);
        }
        self.links.insert(from, first.clone());
        self.links.insert(first.clone(), first);
        Ok(())
    }

    fn finish(mut self, forest: &mut Forest) -> Result<(Digest, Times), TarError> {
        let mut groups: HashMap<Vec<u8>, Vec<Vec<u8>>> = HashMap::new();
        for (path, first) in std::mem::take(&mut self.links) {
            groups.entry(first).or_default().push(path);
        }
        for members in groups.into_values() {
            let mut present = Vec::new();
            for path in members {
                let names = split(&path)?;
                if self.root.get(&names).is_some() {
                    present.push((path, names));
                }
            }
            if present.len() < 2 {
                continue;
            }
            let group = Leaf::group(present.iter().map(|(path, _)| path.as_slice()));
            for (path, names) in &present {
                let Some((name, above)) = names.split_last() else { continue };
                if let Some(Part::Leaf(leaf)) = self.root.below(above, path)?.entries.get_mut(name) {
                    leaf.links = Some(group);
                }
            }
        }
        // Some nodes were replaced by others later in the archive.
        let root = &self.root;
        self.times.0.retain(|path, _| split(path).is_ok_and(|names| root.has(&names)));
        Ok((self.root.finish(forest), self.times))
    }
}

/// An entry that says something of the next one, and is none itself.
enum LongField {
    Path,
    Target,
    Extensions,
    /// Of all entries; none that matters is used so.
    Global,
}

impl LongField {
    fn of(kind: EntryType) -> Option<Self> {
        match kind {
            EntryType::GNULongName => Some(Self::Path),
            EntryType::GNULongLink => Some(Self::Target),
            EntryType::XHeader => Some(Self::Extensions),
            EntryType::XGlobalHeader => Some(Self::Global),
            _ => None,
        }
    }
}

/// What the archive says of an entry beside its header.
#[derive(Default)]
struct About {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    uid: Option<u64>,
    gid: Option<u64>,
    size: Option<u64>,
    time: Option<Time>,
    xattrs: BTreeMap<String, Vec<u8>>,
}

impl About {
    fn read(&mut self, field: LongField, from: &mut impl Read) -> Result<(), TarError> {
        let mut data = Vec::new();
        from.take(MAX_ABOUT_BYTES + 1).read_to_end(&mut data)?;
        if data.len() as u64 > MAX_ABOUT_BYTES {
            let words = format!("what the archive says of one entry takes more than {MAX_ABOUT_BYTES} bytes");
            return Err(TarError::Io(io::Error::new(io::ErrorKind::InvalidData, words)));
        }
        let trimmed = || data.split(|byte| *byte == 0).next().unwrap_or_default().to_vec();
        match field {
            LongField::Path => self.path = Some(trimmed()),
            LongField::Target => self.target = Some(trimmed()),
            LongField::Extensions => self.extensions(&data)?,
            LongField::Global => {}
        }
        Ok(())
    }

    fn extensions(&mut self, data: &[u8]) -> Result<(), TarError> {
        let invalid = || TarError::Io(io::Error::new(io::ErrorKind::InvalidData, "invalid PAX record"));
        let mut rest = data;
        while !rest.is_empty() {
            let ((key, value), after) = record(rest).ok_or_else(invalid)?;
            rest = after;
            let number =
                || std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok()).ok_or_else(invalid);
            match key {
                "path" => self.path = Some(value.to_vec()),
                "linkpath" => self.target = Some(value.to_vec()),
                "uid" => self.uid = Some(number()?),
                "gid" => self.gid = Some(number()?),
                "size" => self.size = Some(number()?),
                "mtime" => self.time = Some(std::str::from_utf8(value).ok().and_then(time).ok_or_else(invalid)?),
                key => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        self.xattrs.insert(name.to_owned(), value.to_vec());
                    }
                }
            }
        }
        Ok(())
    }

    fn attributes(&self, header: &::tar::Header, path: &[u8]) -> Result<(Attributes, Time), TarError> {
        let id = |id: u64| u32::try_from(id).map_err(|_| entry(path, format!("invalid owner {id}")));
        let fields = header.as_old();
        let uid = self.uid.map_or_else(|| number(&fields.uid, || header.uid()), Ok)?;
        let gid = self.gid.map_or_else(|| number(&fields.gid, || header.gid()), Ok)?;
        let mode = number(&fields.mode, || header.mode())? & 0o7777;
        let attributes = Attributes { mode, uid: id(uid)?, gid: id(gid)?, xattrs: self.xattrs.clone() };
        let seconds = i64::try_from(number(&fields.mtime, || header.mtime())?).unwrap_or(i64::MAX);
        Ok((attributes, self.time.unwrap_or(Time { seconds, nanos: 0 })))
    }
}

/// A number of a header. A blank field is 0, as other readers take it.
fn number<T: Default>(field: &[u8], read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    if field.iter().all(|byte| matches!(byte, 0 | b' ')) { Ok(T::default()) } else { read() }
}

/// The major and the minor number of a device.
fn device(header: &::tar::Header) -> io::Result<(u32, u32)> {
    let Some(fields) = header.as_ustar() else {
        return Ok((header.device_major()?.unwrap_or_default(), header.device_minor()?.unwrap_or_default()));
    };
    let major = number(&fields.dev_major, || header.device_major())?;
    let minor = number(&fields.dev_minor, || header.device_minor())?;
    Ok((major.unwrap_or_default(), minor.unwrap_or_default()))
}

/// The key and the value of a PAX record.
type Record<'a> = (&'a str, &'a [u8]);

/// The first of some PAX records, as key and value, and what follows it: `LENGTH KEY=VALUE`, a line feed. The value is any bytes, line
/// feeds among them, so that only the length tells where it ends.
fn record(data: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let (length, _) = split_once(data, b' ')?;
    let (record, after) = data.split_at_checked(std::str::from_utf8(length).ok()?.parse().ok()?)?;
    let (_, record) = split_once(record, b' ')?;
    let (key, value) = split_once(record.strip_suffix(b"\n")?, b'=')?;
    Some(((std::str::from_utf8(key).ok()?, value), after))
}

/// What is before the first of these bytes, and what after it.
fn split_once(data: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let (before, after) = data.split_at_checked(data.iter().position(|byte| *byte == at)?)?;
    Some((before, after.get(1..)?))
}

/// A PAX time: seconds with a fraction.
fn time(text: &str) -> Option<Time> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    // Before the epoch the fraction leads away from it.
    match (text.starts_with('-'), nanos) {
        (true, 1..) => Some(Time { seconds: seconds.checked_sub(1)?, nanos: 1_000_000_000_u32.checked_sub(nanos)? }),
        _ => Some(Time { seconds, nanos }),
    }
}

fn joined(names: &[Name]) -> Vec<u8> {
    names.iter().map(Name::as_bytes).collect::<Vec<_>>().join(&b'/')
}

fn shown(names: &[Name]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join("/")
}
