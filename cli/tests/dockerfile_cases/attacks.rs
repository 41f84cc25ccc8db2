//! Bases, archives, registries and contexts that are not what they should be, on a farm of real processes.

use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use kiln_harness::bases::{busybox_tar, layout_of, layout_of_several, own_architecture};
use kiln_harness::registry::{Registry, Setup};
use kiln_harness::{Built, Farm, find, project, write};

use crate::image::{Image, Kind};

/// An archive with these entries, whose paths and links may be anything.
fn archive(entries: &[(tar::EntryType, &str, &str)]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut archive = tar::Builder::new(std::fs::File::create(file.path()).unwrap());
    for (kind, path, link) in entries {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(0);
        if *kind == tar::EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(5).unwrap();
        }
        header.set_cksum();
        archive.append(&header, std::io::empty()).unwrap();
    }
    archive.into_inner().unwrap();
    file
}

/// A project on a base with these layers.
fn on_layers(dockerfile: &str, layers: &[&Path], architecture: &str) -> tempfile::TempDir {
    let config = "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\ncontext = \"context\"\n\
                  contexts = { base = \"oci-layout://base\" }\n";
    let dir = project(&[("kiln.toml", config), ("Dockerfile", dockerfile), ("context/a", "1\n")]);
    layout_of(layers, architecture, &dir.path().join("base"));
    dir
}

#[track_caller]
fn refused(built: &Built, words: &str) {
    assert_eq!(built.0.code, 1, "{built:?}");
    assert!(built.message().contains(words), "expected `{words}` in: {}", built.message());
}

#[test]
fn a_base_that_leads_out_of_its_root_is_refused() {
    use tar::EntryType::{Link, Regular, Symlink};
    let farm = Farm::shared();
    for (entries, words) in [
        (&[(Regular, "../evil", "")][..], "layer 2 of `base` cannot be read"),
        (&[(Regular, "a/../../evil", "")], "layer 2 of `base` cannot be read"),
        (&[(Symlink, "etc/x", "/etc"), (Regular, "etc/x/evil", "")], "which is not a directory"),
        (&[(Link, "shadow", "/etc/shadow")], "a hard link to `etc/shadow`, which is not before it"),
        (&[(Link, "shadow", "../../etc/shadow")], "layer 2 of `base` cannot be read"),
    ] {
        let Some(first) = busybox_tar() else { return };
        let evil = archive(entries);
        let dir = on_layers("FROM base\nRUN true\n", &[first.path(), evil.path()], own_architecture());
        refused(&farm.build(dir.path(), &[]), words);
    }
}

#[test]
fn a_device_of_a_base_is_kept_and_cannot_be_opened() {
    let Some(first) = busybox_tar() else { return };
    let device = archive(&[(tar::EntryType::Char, "zero", "")]);
    let text = "FROM base\nRUN test -c /zero && ! head -c 1 /zero && echo closed > /out\n";
    let dir = on_layers(text, &[first.path(), device.path()], own_architecture());
    Farm::shared().build(dir.path(), &[]).well();
    let image = Image::of_layout(find(&dir.path().join("kiln-out"), "index.json").unwrap().parent().unwrap());
    let (files, changes) = image.files();
    assert_eq!(files["zero"].kind, Kind::Character);
    assert_eq!(changes[2], ["out"], "opening it changed nothing");
}

#[test]
fn a_base_without_the_platform_names_those_that_it_has() {
    let Some(first) = busybox_tar() else { return };
    let other = if own_architecture() == "amd64" { "arm64" } else { "amd64" };
    let dir = on_layers("FROM base\nRUN true\n", &[first.path()], other);
    std::fs::remove_dir_all(dir.path().join("base")).unwrap();
    layout_of_several(&[(other, &[first.path()]), ("riscv64", &[first.path()])], &dir.path().join("base"));
    let built = Farm::shared().build(dir.path(), &[]);
    refused(&built, &format!("linux/{other}"));
    refused(&built, "linux/riscv64");
    assert!(built.message().contains(&format!("linux/{}", own_architecture())), "{}", built.message());
}

#[test]
fn wrong_credentials_of_a_registry_are_named() {
    let Some(registry) = Registry::with(&Setup { login: Some(("me", "right")), ..Setup::default() }) else { return };
    let text = format!("FROM {}/team/base:1\nRUN true\n", registry.name);
    let dir = project(&[("Dockerfile", &text)]);
    let farm = Farm::with(&["--allow-registry", &registry.name], &["one"]);
    let built = farm.build(dir.path(), &[]);
    assert_ne!(built.0.code, 0);
    for words in [registry.name.as_str(), "credentials"] {
        assert!(built.message().contains(words), "expected `{words}` in: {}", built.message());
    }
}

#[test]
fn a_context_that_changes_is_one_state_of_it_or_said_to_change() {
    const SIZE: usize = 4 << 20;
    let dir = project(&[("Dockerfile", "FROM scratch\nCOPY big /big\n")]);
    write(dir.path(), "big", &"a".repeat(SIZE));
    let farm = Farm::shared();
    let ends = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for letter in ["b", "c", "d"].iter().cycle().take_while(|_| !ends.load(Ordering::Relaxed)) {
                std::fs::write(dir.path().join("big"), letter.repeat(SIZE)).unwrap();
            }
        });
        for _ in 0..3 {
            let built = farm.build(dir.path(), &[]);
            if built.0.code != 0 {
                let said = format!("{}{}", built.0.out, built.0.err);
                assert!(said.contains("changes while it is read"), "{built:?}");
                continue;
            }
            let found = find(&dir.path().join("kiln-out"), "index.json").unwrap();
            let content = Image::of_layout(found.parent().unwrap()).files().0["big"].content.clone();
            // While it is written anew, a shorter file is one of its states.
            assert!(content.windows(2).all(|pair| pair[0] == pair[1]), "expected one letter");
        }
        ends.store(true, Ordering::Relaxed);
    });
}

mod long {
    use super::*;

    #[test]
    #[ignore = "takes half a minute"]
    fn an_archive_with_too_many_entries_is_refused() {
        // What half a million equal headers take, compressed, is nothing.
        let one = archive(&[(tar::EntryType::Regular, "a", "")]);
        let header = std::fs::read(one.path()).unwrap()[..512].to_vec();
        let config = "version = \"1\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\n";
        let dir = project(&[("kiln.toml", config), ("Dockerfile", "FROM scratch\nADD many.tar.zst /x/\n")]);
        let mut many = zstd::Encoder::new(std::fs::File::create(dir.path().join("many.tar.zst")).unwrap(), 1).unwrap();
        let thousand = header.repeat(1_000);
        (0..501).for_each(|_| many.write_all(&thousand).unwrap());
        many.finish().unwrap();
        let built = Farm::shared().build(dir.path(), &[]);
        refused(&built, "`many.tar.zst` is not an archive that can be unpacked");
        assert!(built.message().contains("more than 500000 entries"), "{}", built.message());
    }

    #[test]
    #[ignore = "takes half a minute"]
    fn an_image_of_600_layers_is_built_on() {
        let Some(first) = busybox_tar() else { return };
        let names: Vec<String> = (0..599).map(|at| format!("layer-{at}")).collect();
        let layers: Vec<_> = names.iter().map(|name| archive(&[(tar::EntryType::Regular, name, "")])).collect();
        let layers: Vec<&Path> = std::iter::once(first.path()).chain(layers.iter().map(|layer| layer.path())).collect();
        let dir = on_layers("FROM base\nCOPY a /a\nRUN ls -d /layer-* | wc -l > /out\n", &layers, own_architecture());
        Farm::shared().build(dir.path(), &[]).well();
        let image = Image::of_layout(find(&dir.path().join("kiln-out"), "index.json").unwrap().parent().unwrap());
        assert_eq!(image.layers.len(), 602);
        assert_eq!(String::from_utf8_lossy(&image.files().0["out"].content).trim(), "599");
    }
}
