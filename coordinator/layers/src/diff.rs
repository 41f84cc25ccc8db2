//! The differences between the ingredients of two actions, apart from their files. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kiln_proto::property;
use kiln_proto::v1::difference::Kind;
use kiln_proto::v1::{Difference, Ingredients};

/// Characters of a value that are shown.
const SHOWN: usize = 200;
/// Characters shown before the place where two long values differ.
const LEAD: usize = 40;

/// All differences except those of input files.
pub(super) fn differences(before: &Ingredients, after: &Ingredients) -> Vec<Difference> {
    let mut found = Vec::new();
    maps(&mut found, Kind::Need, &before.needs, &after.needs);
    maps(&mut found, Kind::Variable, &before.variables, &after.variables);
    if before.command != after.command {
        let (before, after) = excerpts(&before.command, &after.command);
        found.push(difference(Kind::Command, "run", Some(before), Some(after)));
    }
    let named = found.len();
    maps(&mut found, Kind::System, &before.system, &after.system);
    maps(&mut found, Kind::Tool, &before.tools, &after.tools);
    let environment_is_named = found.len() > named;
    let mut properties = Vec::new();
    maps(&mut properties, Kind::Platform, &before.properties, &after.properties);
    for mut one in properties {
        match one.name.as_str() {
            property::CONTAINER_IMAGE => one.kind = Kind::Image as i32,
            // The fingerprint only sums up differences that were listed already.
            property::ENVIRONMENT if environment_is_named => continue,
            _ => {}
        }
        found.push(one);
    }
    maps(&mut found, Kind::Setting, &before.settings, &after.settings);
    found
}

fn maps(found: &mut Vec<Difference>, kind: Kind, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for name in names {
        let (before, after) = match (before.get(name), after.get(name)) {
            (before, after) if before == after => continue,
            (Some(before), Some(after)) => {
                let (before, after) = excerpts(before, after);
                (Some(before), Some(after))
            }
            (before, after) => (before.map(|one| excerpts(one, "").0), after.map(|one| excerpts(one, "").0)),
        };
        found.push(difference(kind, name, before, after));
    }
}

fn difference(kind: Kind, name: &str, before: Option<String>, after: Option<String>) -> Difference {
    Difference { kind: kind as i32, name: name.to_owned(), before, after }
}

/// Two values as they are shown: long ones start shortly before the place where they differ.
fn excerpts(before: &str, after: &str) -> (String, String) {
    let short = |text: &str| text.chars().count() <= SHOWN;
    if short(before) && short(after) {
        return (before.to_owned(), after.to_owned());
    }
    let same = before.chars().zip(after.chars()).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(LEAD);
    let cut = |text: &str| {
        let mut shown: String = if from > 0 { "…".to_owned() } else { String::new() };
        shown.extend(text.chars().skip(from).take(SHOWN));
        if text.chars().count() > from.saturating_add(SHOWN) {
            shown.push('…');
        }
        shown
    };
    (cut(before), cut(after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn plain() -> Ingredients {
        Ingredients {
            command: "make".into(),
            variables: map(&[("CC", "gcc"), ("GONE", "1")]),
            properties: map(&[("kiln.environment", "f1"), ("kiln.cpus", "1")]),
            system: map(&[("os", "debian:12"), ("libc", "glibc:2.36")]),
            tools: map(&[("cc", "cc 12.2")]),
            needs: map(&[("deps: vendor", "aa/1")]),
            settings: map(&[("timeout", "60 s")]),
            ..Default::default()
        }
    }

    fn found(change: impl FnOnce(&mut Ingredients)) -> Vec<(Kind, String, Option<String>, Option<String>)> {
        let mut after = plain();
        change(&mut after);
        let found = differences(&plain(), &after);
        found.into_iter().map(|one| (one.kind(), one.name.clone(), one.before, one.after)).collect()
    }

    fn one(kind: Kind, name: &str, before: &str, after: &str) -> Vec<(Kind, String, Option<String>, Option<String>)> {
        vec![(kind, name.into(), Some(before.into()), Some(after.into()))]
    }

    #[test]
    fn equal_ingredients_do_not_differ() {
        assert!(found(|_| {}).is_empty());
    }

    #[test]
    fn each_kind_of_difference_is_named_with_before_and_after() {
        let put = |map: &mut BTreeMap<String, String>, name: &str, value: &str| {
            map.insert(name.to_owned(), value.to_owned());
        };
        let cases = [
            (found(|i| put(&mut i.variables, "CC", "clang")), one(Kind::Variable, "CC", "gcc", "clang")),
            (found(|i| i.command = "make all".into()), one(Kind::Command, "run", "make", "make all")),
            (found(|i| put(&mut i.tools, "cc", "cc 13.1")), one(Kind::Tool, "cc", "cc 12.2", "cc 13.1")),
            (found(|i| put(&mut i.system, "os", "debian:13")), one(Kind::System, "os", "debian:12", "debian:13")),
            (
                found(|i| put(&mut i.system, "libc", "glibc:2.41")),
                one(Kind::System, "libc", "glibc:2.36", "glibc:2.41"),
            ),
            (found(|i| put(&mut i.properties, "kiln.cpus", "2")), one(Kind::Platform, "kiln.cpus", "1", "2")),
            (found(|i| put(&mut i.needs, "deps: vendor", "bb/2")), one(Kind::Need, "deps: vendor", "aa/1", "bb/2")),
            (found(|i| put(&mut i.settings, "timeout", "90 s")), one(Kind::Setting, "timeout", "60 s", "90 s")),
        ];
        for (found, expected) in cases {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn what_came_and_what_went_is_told_from_what_changed() {
        let gone = found(|i| drop(i.variables.remove("GONE")));
        assert_eq!(gone, [(Kind::Variable, "GONE".into(), Some("1".into()), None)]);
        let label = found(|i| drop(i.properties.insert("kiln.label.zone".into(), "a".into())));
        assert_eq!(label, [(Kind::Platform, "kiln.label.zone".into(), None, Some("a".into()))]);
    }

    #[test]
    fn an_image_in_place_of_the_worker_is_an_image_and_a_fingerprint_is_named_only_where_nothing_else_says_why() {
        let image = found(|i| {
            i.properties.remove("kiln.environment");
            i.properties.insert("container-image".into(), "alpine:3".into());
        });
        assert_eq!(image[0], (Kind::Image, "container-image".into(), None, Some("alpine:3".into())));
        let tool = found(|i| {
            i.tools.insert("cc".into(), "cc 13".into());
            i.properties.insert("kiln.environment".into(), "f2".into());
        });
        assert_eq!(tool, one(Kind::Tool, "cc", "cc 12.2", "cc 13"));
        let bare = found(|i| drop(i.properties.insert("kiln.environment".into(), "f2".into())));
        assert_eq!(bare, one(Kind::Platform, "kiln.environment", "f1", "f2"));
    }

    #[test]
    fn long_values_are_cut_to_where_they_differ() {
        let long = "ä".repeat(1000);
        let (before, after) = excerpts(&format!("{long}x{long}"), &format!("{long}y{long}"));
        assert!(before.starts_with('…') && before.ends_with('…') && before.contains("äx"), "{before}");
        assert!(after.contains("äy"), "{after}");
        assert!(before.chars().count() <= SHOWN + 2);
    }
}
