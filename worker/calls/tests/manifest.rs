//! Manifests: how they are encoded, and when a variant matches.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use kiln_calls::manifest::{
    Difference, Error, MAX_BYTES, MAX_VARIANTS, Manifest, Match, Present, Read, Toolchain, Variant, key,
};
use kiln_proto::digest::{Digest, DigestFunction};
use proptest::prelude::*;
use support::{call, invocation};

/// A step's files: with content, or as directories with a digest of their names.
#[derive(Debug, Default, Clone)]
struct World {
    files: BTreeMap<PathBuf, Read>,
    directories: BTreeMap<PathBuf, Digest>,
}

impl Present for World {
    fn digest(&self, path: &Path) -> Option<Read> {
        self.files.get(path).copied()
    }

    fn absent(&self, path: &Path) -> bool {
        !self.files.contains_key(path) && !self.directories.contains_key(path)
    }

    fn listing(&self, path: &Path) -> Option<Digest> {
        self.directories.get(path).copied()
    }
}

fn read(content: &str) -> Read {
    Read { digest: DigestFunction::Sha256.digest(content.as_bytes()), executable: false }
}

fn paths() -> impl Strategy<Value = PathBuf> {
    "(/[ab]{1,2}){1,3}".prop_map(PathBuf::from)
}

fn digests() -> impl Strategy<Value = Digest> {
    (0..4u8, any::<bool>()).prop_map(|(content, blake)| {
        let function = if blake { DigestFunction::Blake3 } else { DigestFunction::Sha256 };
        function.digest(&[content])
    })
}

fn variants() -> impl Strategy<Value = Variant> {
    let read = (digests(), any::<bool>()).prop_map(|(digest, executable)| Read { digest, executable });
    (
        proptest::collection::btree_map(paths(), read, 0..6),
        proptest::collection::btree_set(paths(), 0..6),
        proptest::collection::btree_map(paths(), digests(), 0..3),
    )
        .prop_map(|(read, absent, listed)| Variant { read, absent, listed })
}

fn manifest(variants: &[Variant]) -> Manifest {
    let mut manifest = Manifest::default();
    for variant in variants.iter().rev() {
        manifest.add(variant.clone()).unwrap();
    }
    manifest
}

/// A world in which a variant matches, if there can be one: nothing is both read and absent.
fn world(variant: &Variant) -> World {
    World { files: variant.read.clone(), directories: variant.listed.clone() }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(variants in proptest::collection::vec(variants(), 0..12)) {
        let manifest = manifest(&variants);
        let bytes = manifest.encode();
        prop_assert!(bytes.len() <= MAX_BYTES);
        prop_assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
        if let Ok(manifest) = Manifest::decode(&bytes) {
            prop_assert_eq!(Manifest::decode(&manifest.encode()).unwrap(), manifest);
        }
    }

    #[test]
    fn damaged_manifests_do_not_panic(variants in proptest::collection::vec(variants(), 1..4), at: proptest::sample::Index, to: u8) {
        let mut bytes = manifest(&variants).encode();
        if !bytes.is_empty() {
            let at = at.index(bytes.len());
            bytes[at] = to;
        }
        let _ = Manifest::decode(&bytes);
    }

    #[test]
    fn a_variant_matches_if_and_only_if_everything_is_as_it_was(variant in variants(), other in variants()) {
        let world = world(&other);
        let same = variant.read.iter().all(|(path, read)| world.files.get(path) == Some(read))
            && variant.absent.iter().all(|path| !world.files.contains_key(path) && !world.directories.contains_key(path))
            && variant.listed.iter().all(|(path, digest)| world.directories.get(path) == Some(digest));
        prop_assert_eq!(variant.matches(&world), same);
        prop_assert_eq!(variant.differences(&world).next().is_none(), same);
    }

    #[test]
    fn the_newest_variant_that_matches_is_found(variants in proptest::collection::vec(variants(), 0..9), other in variants()) {
        let world = world(&other);
        let manifest = manifest(&variants);
        let expected = manifest.variants().iter().find(|variant| variant.matches(&world));
        match manifest.find(&world) {
            Match::Hit(variant) => prop_assert_eq!(Some(variant), expected),
            Match::Miss(nearest) => {
                prop_assert_eq!(expected, None);
                let fewest = manifest.variants().iter().map(|variant| variant.differences(&world).count()).min();
                prop_assert_eq!(nearest.map(|(_, differences)| differences.len()), fewest);
            }
        }
    }

    #[test]
    fn adding_keeps_the_newest_and_each_once(variants in proptest::collection::vec(variants(), 0..20)) {
        let mut manifest = Manifest::default();
        let mut expected: Vec<Variant> = Vec::new();
        for variant in variants {
            manifest.add(variant.clone()).unwrap();
            expected.retain(|other| *other != variant);
            expected.insert(0, variant);
            expected.truncate(MAX_VARIANTS);
            prop_assert_eq!(manifest.variants(), &expected[..]);
        }
    }
}

#[test]
fn a_change_a_removal_and_a_new_header_that_shadows_are_told_apart() {
    let variant = Variant {
        read: [("/a", read("1")), ("/b", read("2"))].map(|(path, read)| (path.into(), read)).into(),
        absent: BTreeSet::from(["/inc/b".into()]),
        listed: [("/dir".into(), read("names").digest)].into(),
    };
    let mut now = world(&variant);
    assert!(variant.matches(&now));
    now.files.insert("/a".into(), read("3"));
    now.files.remove(Path::new("/b"));
    now.files.insert("/inc/b".into(), read("2"));
    now.directories.insert("/dir".into(), read("other").digest);
    let manifest = manifest(&[variant]);
    let Match::Miss(Some((_, differences))) = manifest.find(&now) else { panic!("expected a miss") };
    assert_eq!(
        differences,
        [
            Difference::Changed("/a".into()),
            Difference::Missing("/b".into()),
            Difference::Appeared("/inc/b".into()),
            Difference::Listing("/dir".into())
        ]
    );
}

#[test]
fn a_variant_that_does_not_fit_is_refused_and_changes_nothing() {
    let large = |seed: u32| Variant {
        read: (0..1400).map(|n| (format!("/{}", n ^ seed).into(), read(&format!("{n}{seed}")))).collect(),
        ..Variant::default()
    };
    let mut manifest = manifest(&[Variant::default()]);
    let before = manifest.clone();
    assert!(matches!(manifest.add(large(0)), Err(Error::TooLarge { bytes }) if bytes > MAX_BYTES));
    assert_eq!(manifest, before);
}

#[test]
fn the_oldest_variants_go_where_all_do_not_fit() {
    let half = |seed: &str| Variant {
        read: (0..700).map(|n| (format!("/{n}").into(), read(&format!("{n}{seed}")))).collect(),
        ..Variant::default()
    };
    let mut manifest = Manifest::default();
    manifest.add(half("a")).unwrap();
    manifest.add(half("b")).unwrap();
    manifest.add(half("c")).unwrap();
    assert_eq!(manifest.variants(), [half("c")]);
    assert!(manifest.encode().len() <= MAX_BYTES);
}

#[test]
fn eight_variants_of_a_usual_call_fit() {
    // What a file of protobuf reads and probes: 290 headers, 600 absent paths, one of them changed at a time.
    let variant = |changed: usize| Variant {
        read: (0..290)
            .map(|n| {
                let content = if n == 17 { format!("{changed}") } else { "same".to_owned() };
                (format!("/usr/include/c++/12/bits/some_header_{n}.h").into(), read(&format!("{n}{content}")))
            })
            .collect(),
        absent: (0..600).map(|n| format!("/build/third_party/include/google/header_{n}.h").into()).collect(),
        listed: BTreeMap::new(),
    };
    let all: Vec<Variant> = (0..8).map(variant).collect();
    assert_eq!(manifest(&all).variants().len(), 8);
}

#[test]
fn equal_calls_have_one_key_and_different_calls_another() {
    let toolchain = Toolchain(read("gcc 12").digest);
    let first = key(&call("gcc -c a.c -DA -DB"), &toolchain);
    assert_eq!(key(&call("gcc -c a.c -DA -DB"), &toolchain), first);
    let others = [
        "gcc -c a.c -DB -DA",
        "gcc -c a.c -DA-DB",
        "gcc -c a.c -DA -DB -g",
        "gcc -c b.c -DA -DB",
        "gcc-12 -c a.c -DA -DB",
    ];
    let mut keys = BTreeSet::from([first, key(&call("gcc -c a.c -DA -DB"), &Toolchain(read("gcc 13").digest))]);
    keys.extend(others.iter().map(|line| key(&call(line), &toolchain)));
    let mut elsewhere = invocation("gcc -c /build/a.c -DA -DB");
    for directory in ["/build", "/build/d"] {
        elsewhere.directory = directory.into();
        keys.insert(key(&kiln_calls::understand(&elsewhere, &support::Memory::default()).unwrap(), &toolchain));
    }
    let mut coloured = call("gcc -c a.c -DA -DB");
    coloured.environment.insert("GCC_COLORS".into(), "x".into());
    keys.insert(key(&coloured, &toolchain));
    assert_eq!(keys.len(), 2 + others.len() + 2 + 1);
}
