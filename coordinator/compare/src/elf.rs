//! ELF files: the sections that differ.

use std::collections::HashMap;

use object::{Object, ObjectSection};

use super::place::{Found, Place};
use super::{Kind, binary};

/// Sections of a file, at most.
const MAX_SECTIONS: usize = 20_000;
const BUILD_ID: &str = ".note.gnu.build-id";
/// The name and type before the id in its note.
const NOTE_HEADER: usize = 16;

pub(super) fn compare(found: &mut Found<'_>, place: &Place, first: &[u8], second: &[u8]) {
    let (Some(one), Some(other)) = (sections(first), sections(second)) else { return };
    let mut known: HashMap<(&str, usize), &[u8]> =
        other.iter().map(|(name, nth, data)| ((name.as_str(), *nth), *data)).collect();
    for (name, nth, a) in &one {
        let section = place.part(format!("section `{name}`"));
        match known.remove(&(name.as_str(), *nth)) {
            None => found.add(&section, Kind::Missing, "only the first run has it"),
            Some(b) if b == *a => {}
            Some(b) if name == BUILD_ID => {
                let id = |data: &[u8]| hex(data.get(NOTE_HEADER..).unwrap_or(data));
                let words = format!("build id {} against {}: it follows from the rest of the file", id(a), id(b));
                found.add(&section, Kind::BuildId, words);
            }
            Some(b) => binary::compare(found, &section, a, b),
        }
    }
    let mut left: Vec<&str> = known.into_keys().map(|(name, _)| name).collect();
    left.sort_unstable();
    for name in left {
        found.add(&place.part(format!("section `{name}`")), Kind::Missing, "only the second run has it");
    }
}

/// The sections by name, those of one name numbered.
fn sections(data: &[u8]) -> Option<Vec<(String, usize, &[u8])>> {
    let file = object::File::parse(data).ok()?;
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut all = Vec::new();
    for section in file.sections().take(MAX_SECTIONS) {
        let name = section.name_bytes().map(|name| String::from_utf8_lossy(name).into_owned()).ok()?;
        let nth = counts.entry(name.clone()).or_default();
        *nth = nth.saturating_add(1);
        all.push((name, *nth, section.data().ok()?));
    }
    Some(all)
}

fn hex(data: &[u8]) -> String {
    data.iter().take(20).map(|byte| format!("{byte:02x}")).collect()
}
