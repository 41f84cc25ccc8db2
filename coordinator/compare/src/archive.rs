//! Archives: `ar`, tar and zip, as lists of members.

mod read;

use std::collections::{HashMap, HashSet};

use super::place::{Found, Place, shown};
use super::{Kind, classify, formats, times};

/// An archive's format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Ar,
    Tar,
    Zip,
}

impl Format {
    fn name(self) -> &'static str {
        match self {
            Self::Ar => "ar",
            Self::Tar => "tar",
            Self::Zip => "zip",
        }
    }
}

/// A member of an archive.
#[derive(Debug, Default)]
struct Member {
    name: String,
    /// In seconds since 1970.
    time: Option<i64>,
    mode: Option<u64>,
    owner: Option<String>,
    /// Where a link leads.
    link: Option<String>,
    /// Anything else that its header says.
    rest: Vec<u8>,
    content: Vec<u8>,
}

/// Whether this begins like a tar archive (POSIX or GNU).
pub(super) fn is_tar(data: &[u8]) -> bool {
    data.get(257..262) == Some(b"ustar")
}

pub(super) fn compare(found: &mut Found<'_>, place: &Place, format: Format, first: &[u8], second: &[u8]) {
    let room = found.room();
    let read = |data| read::members(format, data, room, found.limits.members);
    let (Some(one), Some(other)) = (read(first), read(second)) else { return };
    let bytes = |all: &[Member]| all.iter().fold(0_usize, |sum, one| sum.saturating_add(one.content.len()));
    found.spend(bytes(&one).max(bytes(&other)));
    names(found, place, format, &one, &other);
    let mut known: HashMap<&str, Vec<&Member>> = HashMap::new();
    for member in other.iter().rev() {
        known.entry(&member.name).or_default().push(member);
    }
    for a in &one {
        if let Some(b) = known.get_mut(a.name.as_str()).and_then(Vec::pop) {
            member(found, &place.member(&a.name), format, a, b);
        }
    }
}

/// Members that only one archive has, and the order of those that both have.
fn names(found: &mut Found<'_>, place: &Place, format: Format, one: &[Member], other: &[Member]) {
    let set = |all: &'_ [Member]| all.iter().map(|member| member.name.clone()).collect::<HashSet<_>>();
    let (left, right) = (set(one), set(other));
    let only = |all: &[Member], others: &HashSet<String>| {
        let names = all.iter().map(|member| &member.name).filter(|name| !others.contains(*name));
        names.cloned().collect::<Vec<_>>()
    };
    let (gone, new) = (only(one, &right), only(other, &left));
    for (a, b) in gone.iter().zip(&new) {
        let (kind, ..) = classify::texts(a, b, found.runs);
        let words = format!("a member is called `{}` in one run and `{}` in the other", shown(a), shown(b));
        found.add(place, if kind == Kind::Content { Kind::Missing } else { kind }, words);
    }
    for (name, which) in gone.iter().skip(new.len()).map(|name| (name, "first")) {
        found.add(place, Kind::Missing, format!("only the {which} run has the member `{}`", shown(name)));
    }
    for (name, which) in new.iter().skip(gone.len()).map(|name| (name, "second")) {
        found.add(place, Kind::Missing, format!("only the {which} run has the member `{}`", shown(name)));
    }
    let common = |all: &'_ [Member], others: &HashSet<String>| {
        all.iter().map(|member| member.name.clone()).filter(|name| others.contains(name)).collect::<Vec<_>>()
    };
    let (a, b) = (common(one, &right), common(other, &left));
    if let Some((a, b)) = a.iter().zip(&b).find(|(a, b)| a != b) {
        let (a, b) = (shown(a), shown(b));
        let words =
            format!("its members are in another order: `{a}` where the other run has `{b}` ({})", format.name());
        found.add(place, Kind::Order, words);
    }
}

fn member(found: &mut Found<'_>, place: &Place, format: Format, a: &Member, b: &Member) {
    if a.time != b.time {
        let time = |time: Option<i64>| time.map_or_else(|| "none".to_owned(), times::shown);
        let words = format!("time stamp {} against {} ({} entry)", time(a.time), time(b.time), format.name());
        found.add(place, Kind::Time, words);
    }
    if a.mode != b.mode {
        let mode = |mode: Option<u64>| mode.map_or_else(|| "none".to_owned(), |mode| format!("{mode:o}"));
        found.add(place, Kind::Permission, format!("permissions {} against {}", mode(a.mode), mode(b.mode)));
    }
    if a.owner != b.owner {
        let owner = |owner: &Option<String>| shown(owner.as_deref().unwrap_or("none"));
        found.add(place, Kind::Permission, format!("owner {} against {}", owner(&a.owner), owner(&b.owner)));
    }
    if a.link != b.link {
        let link = |link: &Option<String>| shown(link.as_deref().unwrap_or("nothing"));
        found.add(place, Kind::Path, format!("links to `{}` against `{}`", link(&a.link), link(&b.link)));
    }
    if a.rest != b.rest && a.time == b.time {
        super::binary::compare(found, &place.part("its header".to_owned()), &a.rest, &b.rest);
    }
    formats::compare(found, place, &a.content, &b.content);
}
