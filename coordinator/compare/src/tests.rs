#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice, clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;
use std::io::Write;

use proptest::prelude::*;

use super::*;

const FIRST: i64 = 1_796_032_931;

fn first() -> Conditions {
    Conditions { began: FIRST, ended: FIRST + 1, cpus: 2, host_name: "kiln".into() }
}

fn second() -> Conditions {
    Conditions { began: FIRST + 60, ended: FIRST + 61, cpus: 1, host_name: "kiln-again".into() }
}

fn all(path: &str, a: &[u8], b: &[u8]) -> Vec<(Kind, String)> {
    let (first, second) = (first(), second());
    let runs = Runs { first: &first, second: &second };
    let found = contents(path, a, b, runs, &Limits::default());
    found.into_iter().map(|one| (one.kind, one.words)).collect()
}

fn kinds(a: &str, b: &str) -> Vec<Kind> {
    all("out.txt", a.as_bytes(), b.as_bytes()).into_iter().map(|(kind, _)| kind).collect()
}

#[test]
fn a_line_is_named_after_what_differs_in_it() {
    let (a, b) = (FIRST.to_string(), (FIRST + 60).to_string());
    assert_eq!(kinds(&format!("built {a}\n"), &format!("built {b}\n")), [Kind::Time]);
    assert_eq!(kinds(&format!("{a}123456789"), &format!("{b}123456780")), [Kind::Time], "nanoseconds");
    assert_eq!(kinds("Mon Nov 30 10:02:11 UTC 2026\n", "Mon Nov 30 10:03:11 UTC 2026\n"), [Kind::Time]);
    assert_eq!(kinds("built on 2026-11-30", "built on 2026-12-01"), [Kind::Time]);
    assert_eq!(kinds("jobs: 2\n", "jobs: 1\n"), [Kind::Cpus]);
    assert_eq!(kinds("make -j2", "make -j1"), [Kind::Cpus]);
    assert_eq!(kinds("jobs: 3\n", "jobs: 5\n"), [Kind::Content], "neither is a number of CPUs");
    assert_eq!(kinds("on kiln\n", "on kiln-again\n"), [Kind::HostName]);
    assert_eq!(kinds("<object at 0x7f3a12c0d5e0>", "<object at 0x7f9912c0d5e0>"), [Kind::Address]);
    assert_eq!(kinds("hash 4870254217461395720", "hash -882123217461395720"), [Kind::Address]);
    assert_eq!(kinds("from /tmp/tmp.aXb1/x.c", "from /tmp/tmp.Qw2z/x.c"), [Kind::Path]);
    assert_eq!(
        kinds("id 0f8fad5b-d9cb-469f-a165-70867728950e", "id 7c9e6679-7425-40de-944b-e07fc1f90ae7"),
        [Kind::BuildId]
    );
    assert_eq!(kinds("b\na\nc\n", "a\nb\nc\n"), [Kind::Order]);
    assert_eq!(kinds("{'b', 'a', 'c'}", "{'a', 'c', 'b'}"), [Kind::Order]);
    assert_eq!(kinds(r#"{"b": 1, "a": [1, 2]}"#, r#"{"a": [1, 2], "b": 1}"#), [Kind::Order]);
    assert_eq!(kinds(r#"{"a": [1, 2]}"#, r#"{"a": [2, 1]}"#), [Kind::Order]);
    assert_eq!(kinds("one", "other"), [Kind::Content]);
    assert_eq!(kinds("same\n", "same\nand more\n"), [Kind::Content]);
}

#[test]
fn several_kinds_in_one_text_are_told_of_once_each_with_their_lines() {
    let text = |time: i64, jobs: u32| format!("x\ntime {time}\njobs {jobs}\ntime {time}\n");
    let found = all("log", text(FIRST, 2).as_bytes(), text(FIRST + 60, 1).as_bytes());
    let [(Kind::Time, time), (Kind::Cpus, cpus)] = &found[..] else { panic!("{found:?}") };
    assert!(time.starts_with("line 2: ") && cpus == "line 3: number of CPUs `2` against `1`", "{found:?}");
}

fn tarred(members: &[(&str, &[u8], u64, u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content, time, mode) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mtime(*time);
        header.set_mode(*mode);
        header.set_cksum();
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzipped(data: &[u8], time: u32) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().mtime(time).write(Vec::new(), flate2::Compression::default());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

fn zipped(members: &[(&str, &[u8])], second: u8) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let at = zip::DateTime::from_date_and_time(2026, 11, 30, 10, 2, second).unwrap();
    for (name, content) in members {
        let options = zip::write::SimpleFileOptions::default()
            .last_modified_time(at)
            .compression_method(zip::CompressionMethod::Deflated);
        writer.start_file(*name, options).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

#[test]
fn members_of_archives_are_named_with_what_their_headers_say() {
    let time = FIRST as u64;
    let a = tarred(&[("a", b"1", time, 0o644), ("b", b"2", time, 0o644)]);
    let b = tarred(&[("b", b"2", time + 60, 0o755), ("a", b"1", time, 0o644)]);
    let found = all("x.tar", &a, &b);
    let found: Vec<Kind> = found.into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(found, [Kind::Order, Kind::Time, Kind::Permission]);

    let found = all(
        "lib/app.jar",
        &zipped(&[("META-INF/MANIFEST.MF", b"x")], 12),
        &zipped(&[("META-INF/MANIFEST.MF", b"x")], 14),
    );
    let words = "member `META-INF/MANIFEST.MF`: time stamp 2026-11-30 10:02:12 against 2026-11-30 10:02:14 (zip entry)";
    assert_eq!(found, [(Kind::Time, words.to_owned())]);

    let found =
        all("x.tar", &tarred(&[("a", b"1", 1, 0o644)]), &tarred(&[("a", b"1", 1, 0o644), ("b", b"", 1, 0o644)]));
    assert_eq!(found, [(Kind::Missing, "only the second run has the member `b`".to_owned())]);
}

#[test]
fn what_is_packed_in_one_another_is_looked_into() {
    let jar = |second| zipped(&[("A.class", b"\0\xca\xfe")], second);
    let whole = |second| gzipped(&tarred(&[("lib/app.jar", &jar(second), 0, 0o644)]), 0);
    let found = all("app.tar.gz", &whole(2), &whole(4));
    let words = "member `lib/app.jar`: member `A.class`: time stamp 2026-11-30 10:02:02 against 2026-11-30 10:02:04 (zip entry)";
    assert_eq!(found, [(Kind::Time, words.to_owned())]);

    let found = all("x.gz", &gzipped(b"x", FIRST as u32), &gzipped(b"x", FIRST as u32 + 60));
    assert!(found[0].0 == Kind::Time && found[0].1.ends_with("(gzip header)"), "{found:?}");
    let packed = |text: &str| zstd::encode_all(text.as_bytes(), 1).unwrap();
    assert_eq!(all("x.zst", &packed("jobs 2"), &packed("jobs 1"))[0].0, Kind::Cpus);
    let other = zstd::encode_all(&b"jobs 2"[..], 19).unwrap();
    let again = all("x.zst", &packed("jobs 2"), &other);
    assert!(again.is_empty() == (packed("jobs 2") == other), "{again:?}");
}

#[test]
fn compiled_python_tells_of_the_time_of_its_source() {
    let pyc = |time: u32, body: &[u8]| {
        [&[0xa7, 0x0d, 0x0d, 0x0a, 0, 0, 0, 0][..], &time.to_le_bytes(), &[9, 0, 0, 0], body].concat()
    };
    let found = all("a.pyc", &pyc(FIRST as u32, b"x"), &pyc(FIRST as u32 + 60, b"x"));
    let [(Kind::Time, words)] = &found[..] else { panic!("{found:?}") };
    assert!(words.contains("compiled Python module"), "{words}");
}

#[test]
fn an_archive_of_objects_and_an_elf_file_name_member_and_section() {
    let ar = |time: &str| {
        format!("!<arch>\n{:<16}{time:<12}{:<6}{:<6}{:<8}{:<10}`\nhi", "a.o/", 0, 0, 100_644, 2).into_bytes()
    };
    let found = all("libx.a", &ar(&FIRST.to_string()), &ar(&(FIRST + 60).to_string()));
    assert!(found[0].0 == Kind::Time && found[0].1.starts_with("member `a.o`: time stamp 20"), "{found:?}");

    let program = std::fs::read("/proc/self/exe").unwrap();
    let text = format!("{}", all as fn(&str, &[u8], &[u8]) -> Vec<(Kind, String)> as usize).len();
    assert!(text > 0);
    let needle = b"only the second run has the member";
    let at = program.windows(needle.len()).position(|window| window == needle).unwrap();
    let mut other = program.clone();
    other[at] = b'O';
    let found = all("kiln", &program, &other);
    assert!(found[0].1.starts_with("section `.rodata"), "{found:?}");
}

#[test]
fn bytes_name_the_texts_and_times_in_them() {
    let bytes = |time: i64| [&b"\0\x01\x02\x03"[..], &(time as u32).to_le_bytes(), &[0xff; 8]].concat();
    let found = all("x.bin", &bytes(FIRST), &bytes(FIRST + 60));
    assert_eq!(found[0].0, Kind::Time, "{found:?}");
    let found = all("x.bin", b"\0\0made on kiln\0", b"\0\0made on kiln-again\0");
    assert_eq!(found[0].0, Kind::HostName, "{found:?}");
    let found = all("x.bin", b"\0name one\0name two\0", b"\0name two\0name one\0");
    assert!(found.iter().any(|(kind, _)| *kind == Kind::Order), "{found:?}");
    assert_eq!(all("x.bin", &[0, 200], &[0, 201])[0].1, "1 of 2 bytes differ, the first at 1");
}

#[test]
fn lists_name_what_only_one_run_made_and_whose_permissions_differ() {
    let file = |content: &str, mode| Node::File { content: content.into(), mode, attributes: String::new() };
    let list = |nodes: Vec<(&str, Node)>| {
        nodes.into_iter().map(|(path, node)| (path.to_owned(), node)).collect::<BTreeMap<_, _>>()
    };
    let (one, two) = (first(), second());
    let runs = Runs { first: &one, second: &two };
    let a = list(vec![
        ("a", file("1", 0o644)),
        ("b", file("2", 0o644)),
        ("l", Node::Link("/tmp/x1".into())),
        ("gone", Node::Directory),
    ]);
    let b = list(vec![("a", file("1", 0o755)), ("b", file("3", 0o644)), ("l", Node::Link("/tmp/x2".into()))]);
    let found = listings(&a, &b, runs);
    let kinds: Vec<(&str, Kind)> = found.differences.iter().map(|one| (one.path.as_str(), one.kind)).collect();
    assert_eq!(kinds, [("a", Kind::Permission), ("gone", Kind::Missing), ("l", Kind::Path)]);
    assert_eq!(found.changed, [("b".to_owned(), "b".to_owned())]);

    let a = list(vec![("log-1796032931", file("1", 0o644))]);
    let b = list(vec![("log-1796032991", file("1", 0o644))]);
    assert_eq!(listings(&a, &b, runs).differences[0].kind, Kind::Time, "the name has the time");
}

#[test]
fn what_unpacks_to_more_than_allowed_is_compared_as_it_is() {
    let bomb = |last: u8| {
        let mut data = vec![0; 8 << 20];
        data.push(last);
        gzipped(&data, 0)
    };
    let (first, second) = (first(), second());
    let runs = Runs { first: &first, second: &second };
    let limits = Limits { unpacked: 1 << 20, ..Limits::default() };
    let found = contents("x.gz", &bomb(1), &bomb(2), runs, &limits);
    assert_eq!(found.len(), 1);
    let mut nested = gzipped(b"a", 0);
    let mut other = gzipped(b"b", 0);
    for _ in 0..20 {
        nested = tarred(&[("x", &nested, 0, 0o644)]);
        other = tarred(&[("x", &other, 0, 0o644)]);
    }
    let found = contents("x.tar", &nested, &other, runs, &Limits::default());
    assert_eq!(found.len(), 1, "{found:?}");
}

#[test]
fn a_line_that_is_too_long_is_read_where_it_differs() {
    let line = |time: i64| format!("{}{time} é{}", "x ".repeat(1 << 20), "y ".repeat(1 << 20));
    let found = all("min.js", line(FIRST).as_bytes(), line(FIRST + 60).as_bytes());
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].0, Kind::Time, "{found:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_differs_is_told_of_and_nothing_else(
        magic in prop::sample::select(vec![&b""[..], b"\x7fELF\x02\x01\x01", b"!<arch>\n", b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ\0", b"BZh9", b"{", b"[", b"\xa7\x0d\x0d\x0a\0\0\0\0"]),
        name in prop::sample::select(vec!["x", "x.pyc", "x.tar", "x.json"]),
        a in prop::collection::vec(any::<u8>(), 0..400),
        b in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        let (a, b) = ([magic, &a].concat(), [magic, &b].concat());
        let found = all(name, &a, &b);
        prop_assert_eq!(found.is_empty(), a == b);
        prop_assert!(found.len() <= Limits::default().differences);
    }

    #[test]
    fn a_damaged_archive_is_still_compared(at in 0..2_000_usize, to in any::<u8>(), which in 0..4_usize) {
        let time = FIRST as u64;
        let whole = match which {
            0 => tarred(&[("a", b"one", time, 0o644), ("dir/b", b"two", time, 0o755)]),
            1 => zipped(&[("a", b"one"), ("b", b"two")], 2),
            2 => gzipped(&tarred(&[("a", b"one", time, 0o644)]), 7),
            _ => format!("!<arch>\n{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\nhi", "a.o/", 7, 0, 0, 100_644, 2).into_bytes(),
        };
        let mut other = whole.clone();
        let at = at % other.len();
        other[at] = to;
        prop_assert_eq!(all("x", &whole, &other).is_empty(), whole == other);
    }

    #[test]
    fn texts_of_any_lines_are_compared(a in "([a-f0-9x/:. -]{0,20}\n){0,6}", b in "([a-f0-9x/:. -]{0,20}\n){0,6}") {
        prop_assert_eq!(all("x", a.as_bytes(), b.as_bytes()).is_empty(), a == b);
    }
}
