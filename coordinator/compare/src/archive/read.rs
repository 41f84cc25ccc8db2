//! Reads archives into members, as far as limits allow.

use std::io::{Cursor, Read};

use object::read::archive::ArchiveFile;

use super::{Format, Member};

/// The members of an archive; `None` if it is malformed, or larger than this.
pub(super) fn members(format: Format, data: &[u8], room: u64, most: usize) -> Option<Vec<Member>> {
    match format {
        Format::Ar => ar(data, most),
        Format::Tar => tar(data, room, most),
        Format::Zip => zip(data, room, most),
    }
}

fn ar(data: &[u8], most: usize) -> Option<Vec<Member>> {
    let archive = ArchiveFile::parse(data).ok()?;
    let mut all = Vec::new();
    for member in archive.members() {
        let member = member.ok()?;
        if all.len() >= most {
            return None;
        }
        let owner = (member.uid(), member.gid());
        all.push(Member {
            name: String::from_utf8_lossy(member.name()).into_owned(),
            time: member.date().and_then(|date| i64::try_from(date).ok()),
            mode: member.mode(),
            owner: Some(format!("{}:{}", owner.0.unwrap_or_default(), owner.1.unwrap_or_default())),
            content: member.data(data).ok()?.to_vec(),
            ..Member::default()
        });
    }
    Some(all)
}

fn tar(data: &[u8], mut room: u64, most: usize) -> Option<Vec<Member>> {
    let mut archive = tar::Archive::new(data);
    let mut all = Vec::new();
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let size = entry.size();
        // Each costs something even if it is empty.
        room = room.checked_sub(size.saturating_add(512))?;
        if all.len() >= most {
            return None;
        }
        let header = entry.header().clone();
        let number = |value: std::io::Result<u64>| value.ok();
        let name = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        let owner = format!(
            "{}:{} ({}:{})",
            number(header.uid()).unwrap_or_default(),
            number(header.gid()).unwrap_or_default(),
            name(header.username_bytes()),
            name(header.groupname_bytes())
        );
        let mut member = Member {
            name: String::from_utf8_lossy(&entry.path_bytes()).into_owned(),
            time: number(header.mtime()).and_then(|time| i64::try_from(time).ok()),
            mode: header.mode().ok().map(u64::from),
            owner: Some(owner),
            link: entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned()),
            rest: extensions(&mut entry),
            content: Vec::new(),
        };
        entry.by_ref().take(size).read_to_end(&mut member.content).ok()?;
        all.push(member);
    }
    Some(all)
}

/// What a PAX header says besides.
fn extensions(entry: &mut tar::Entry<'_, &[u8]>) -> Vec<u8> {
    let mut all = Vec::new();
    if let Ok(Some(extensions)) = entry.pax_extensions() {
        for extension in extensions.flatten().take(100) {
            all.extend_from_slice(extension.key_bytes());
            all.push(b'=');
            all.extend_from_slice(extension.value_bytes());
            all.push(b'\n');
        }
    }
    all
}

fn zip(data: &[u8], mut room: u64, most: usize) -> Option<Vec<Member>> {
    let mut archive = zip::ZipArchive::new(Cursor::new(data)).ok()?;
    if archive.len() > most {
        return None;
    }
    let mut all = Vec::new();
    for index in 0..archive.len() {
        let mut member = described(&archive.by_index_raw(index).ok()?);
        if let Ok(content) = archive.by_index(index) {
            content.take(room.saturating_add(1)).read_to_end(&mut member.content).ok()?;
        }
        room = room.checked_sub(u64::try_from(member.content.len()).ok()?)?;
        all.push(member);
    }
    Some(all)
}

fn described<R: Read>(file: &zip::read::ZipFile<'_, R>) -> Member {
    let mut rest = file.extra_data().unwrap_or_default();
    rest.extend_from_slice(file.comment().as_bytes());
    rest.extend_from_slice(format!("{:?}", file.compression()).as_bytes());
    Member {
        name: String::from_utf8_lossy(file.name_raw()).into_owned(),
        time: file.last_modified().and_then(seconds),
        mode: file.unix_mode().map(u64::from),
        rest,
        ..Member::default()
    }
}

/// A time of MS-DOS, which names no zone: as if it were UTC.
fn seconds(at: zip::DateTime) -> Option<i64> {
    let text = format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second().min(59)
    );
    let time = humantime::parse_rfc3339(&text).ok()?;
    i64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs()).ok()
}
