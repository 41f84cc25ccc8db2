//! Layers as archives, written and read.

use std::collections::HashMap;
use std::io::{self, Read};

use kiln_proto::digest::Digest;
use kiln_trees::root::{Attributes, Content, Forest, Leaf, Time, Times, tar};
use proptest::prelude::*;

use crate::model;
use crate::model::{F, Is, Paths, content, joined, listed, name, planted};

/// Contents of files, by digest.
#[derive(Default)]
struct Files(HashMap<Digest, Vec<u8>>);

impl Files {
    fn of_the_model() -> Self {
        Self((0..4).map(|number| (F.digest(&content(number)), content(number))).collect())
    }

    fn open(&self, digest: &Digest) -> io::Result<Box<dyn Read>> {
        let data = self.0.get(digest).cloned().ok_or_else(|| io::Error::other("no such file"))?;
        Ok(Box::new(io::Cursor::new(data)))
    }

    fn store(&mut self, from: &mut dyn Read) -> io::Result<Digest> {
        let mut data = Vec::new();
        from.read_to_end(&mut data)?;
        let digest = F.digest(&data);
        self.0.insert(digest, data);
        Ok(digest)
    }
}

fn written(forest: &Forest, layer: &Digest, times: &Times) -> Result<Vec<u8>, tar::TarError> {
    let (files, mut data) = (Files::of_the_model(), Vec::new());
    tar::write(forest, layer, times, &mut |digest| files.open(digest), &mut data)?;
    Ok(data)
}

fn read(data: &[u8]) -> Result<(Forest, Digest, Times), tar::TarError> {
    let (mut forest, mut files) = (Forest::new(F), Files::default());
    let (layer, times) = tar::read(&mut forest, data, &mut |from| files.store(from))?;
    Ok((forest, layer, times))
}

/// A time for each node, of which those of a group have one.
fn times(paths: &Paths) -> Times {
    let mut of_groups: HashMap<u64, Time> = HashMap::new();
    let mut times = Times::default();
    for (number, (path, is)) in paths.iter().enumerate() {
        let own = Time { seconds: number as i64 * 1000, nanos: 0 };
        let time = match is {
            Is::Leaf(Leaf { links: Some(group), .. }) => *of_groups.entry(*group).or_insert(own),
            Is::Leaf(_) | Is::Directory(Some(_)) | Is::Opaque(Some(_)) => own,
            Is::Directory(None) | Is::Opaque(None) | Is::Whiteout => continue,
        };
        times.0.insert(joined(path), time);
    }
    times
}

proptest! {
    #[test]
    fn a_layer_is_read_as_it_was_written_and_written_as_it_was_read(paths in prop_oneof![model::root(), model::layer()]) {
        let mut forest = Forest::new(F);
        let (layer, times) = (planted(&mut forest, &paths), times(&paths));
        let data = written(&forest, &layer, &times).unwrap();
        let (found, again, found_times) = read(&data).unwrap();
        prop_assert_eq!(listed(&found, &again), paths);
        prop_assert_eq!(again, layer);
        prop_assert_eq!(&found_times, &times);
        prop_assert_eq!(written(&found, &again, &found_times).unwrap(), data);
    }

    #[test]
    fn a_broken_archive_is_refused_or_read_and_never_more(paths in model::layer(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut forest = Forest::new(F);
        let layer = planted(&mut forest, &paths);
        let mut data = written(&forest, &layer, &Times::default()).unwrap();
        let at = at.index(data.len());
        data[at] = byte;
        let _ = read(&data);
        data.truncate(at);
        let _ = read(&data);
    }
}

/// A path, its kind, and its target.
type Given<'a> = (&'a str, ::tar::EntryType, &'a str);

fn archive(entries: &[Given<'_>]) -> Vec<u8> {
    let mut builder = ::tar::Builder::new(Vec::new());
    for (path, kind, target) in entries {
        let mut header = ::tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(7);
        header.set_size(0);
        let raw = &mut header.as_gnu_mut().unwrap().name;
        raw[..path.len()].copy_from_slice(path.as_bytes());
        if !target.is_empty() {
            header.set_link_name_literal(target).unwrap();
        }
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn an_archive_is_read_as_it_is_unpacked() {
    use ::tar::EntryType::{Directory, Link, Regular, Symlink};
    let entries = [
        ("./a/", Directory, ""),
        ("a/file", Regular, ""),
        ("/a/link", Link, "./a/file"),
        ("a/file", Regular, ""),
        ("was-a-link", Symlink, "x"),
        ("was-a-link/", Directory, ""),
        ("was-a-directory/below", Regular, ""),
        ("was-a-directory", Regular, ""),
        (".wh.gone", Regular, ""),
        ("made-anew/", Directory, ""),
        (".wh.made-anew", Regular, ""),
        ("hidden/.wh..wh..opq", Regular, ""),
    ];
    let (forest, layer, times) = read(&archive(&entries)).unwrap();
    let found = listed(&forest, &layer);
    let own = Attributes::of_root(0o644);
    let leaf = Is::Leaf(Leaf::new(Content::File(F.digest(b"")), own.clone()));
    let expected = [
        ("", Is::Directory(None)),
        ("a", Is::Directory(Some(own.clone()))),
        ("a/file", leaf.clone()),
        // Its other name was replaced, so it is nobody's link.
        ("a/link", leaf.clone()),
        ("was-a-link", Is::Directory(Some(own.clone()))),
        ("was-a-directory", leaf),
        ("gone", Is::Whiteout),
        ("made-anew", Is::Opaque(Some(own))),
        ("hidden", Is::Opaque(None)),
    ];
    let expected = expected.map(|(path, is)| (kiln_trees::root::split(path.as_bytes()).unwrap(), is));
    assert_eq!(found, Paths::from(expected));
    assert!(times.0.keys().all(|path| !path.starts_with(b"was-a-directory/")), "{times:?}");
}

#[test]
fn an_archive_that_leads_elsewhere_is_refused_in_words() {
    use ::tar::EntryType::{GNUSparse, Link, Regular, Symlink};
    let cases: [(&[Given<'_>], &str); 6] = [
        (&[("../out", Regular, "")], "invalid name `..`"),
        (&[("a", Symlink, "/etc"), ("a/passwd", Regular, "")], "below `a`, which is not a directory"),
        (&[("a", Link, "../../etc/passwd")], "invalid name `..`"),
        (&[("a", Link, "b")], "a hard link to `b`, which is not before it"),
        (&[("a", Symlink, "")], "without a target"),
        (&[("a", GNUSparse, "")], "not supported"),
    ];
    for (entries, words) in cases {
        let refused = read(&archive(entries)).map(|_| ()).unwrap_err().to_string();
        assert!(refused.contains(words), "{entries:?}: {refused}");
    }
    // A file whose name is that of a whiteout would remove another when the archive is unpacked.
    let mut forest = Forest::new(F);
    let leaf = Is::Leaf(Leaf::new(Content::Fifo, Attributes::directory()));
    let root = Paths::from([(Vec::new(), Is::Directory(Some(Attributes::directory()))), (vec![name(b".wh.a")], leaf)]);
    let root = planted(&mut forest, &root);
    assert!(written(&forest, &root, &Times::default()).unwrap_err().to_string().contains("whiteout"));
}

#[test]
fn what_an_archive_says_of_an_entry_is_bounded() {
    let mut data = archive(&[]);
    data.clear();
    let mut header = ::tar::Header::new_ustar();
    header.set_entry_type(::tar::EntryType::XHeader);
    header.set_size(1 << 40);
    header.set_cksum();
    data.extend_from_slice(header.as_bytes());
    let endless = data.chain(io::repeat(b'1'));
    let mut forest = Forest::new(F);
    let refused = tar::read(&mut forest, endless, &mut |_| Ok(F.digest(b""))).unwrap_err();
    assert!(refused.to_string().contains("more than 1048576 bytes"), "{refused}");
}
