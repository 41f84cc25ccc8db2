//! Names and texts: images, platforms, repositories, and how Go writes strings, durations and paths.

use kiln_dockerfile::golang::{base, clean, duration, join, plain_list, quote, quote_list, read_duration};
use kiln_dockerfile::{GitSource, ImageName, Platform};

#[test]
fn names_are_normalised() {
    for (text, full, context) in [
        ("alpine", "docker.io/library/alpine:latest", "alpine"),
        ("docker.io/library/alpine:latest", "docker.io/library/alpine:latest", "alpine"),
        ("alpine:3.20", "docker.io/library/alpine:3.20", "alpine:3.20"),
        ("team/app", "docker.io/team/app:latest", "team/app"),
        ("localhost:5000/a/b:1", "localhost:5000/a/b:1", "localhost:5000/a/b:1"),
        ("index.docker.io/x", "docker.io/library/x:latest", "x"),
    ] {
        let name = ImageName::read(text).unwrap();
        assert_eq!((name.full(), name.context()), (full.to_owned(), context.to_owned()), "{text}");
    }
    let digest = format!("sha256:{}", "a".repeat(64));
    assert_eq!(ImageName::read("a").unwrap().at_digest(&digest).full(), format!("docker.io/library/a:latest@{digest}"));
    for text in ["", "Alpine", "a:", "a/", "a__-b", "-a", "a@sha256:1", "a b", "a::b", "/a", "ä", "library/"] {
        assert!(ImageName::read(text).is_err(), "{text}");
    }
}

#[test]
fn names_are_the_usual_ones() {
    let default = Platform::linux("amd64");
    for (text, shown) in [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("arm64", "linux/arm64"),
        ("linux", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("linux/arm/v7", "linux/arm/v7"),
        ("linux/arm", "linux/arm"),
        ("linux/armel", "linux/arm/v6"),
        ("armhf", "linux/arm"),
        ("LINUX/AMD64", "linux/amd64"),
        ("macos", "darwin/amd64"),
        ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
        ("linux/aarch64", "linux/arm64"),
    ] {
        assert_eq!(Platform::read(text, &default).unwrap().to_string(), shown, "{text}");
    }
    for text in ["", "foo", "linux/", "linux/a/b/c", "linux/*", "linux(1/amd64", "a b"] {
        assert!(Platform::read(text, &default).is_err(), "{text}");
    }
    assert_eq!(Platform::read("linux/arm64/v8", &default).unwrap().normalized(), Platform::linux("arm64"));
}

fn read(text: &str) -> GitSource {
    GitSource::read(text).unwrap().unwrap()
}

#[test]
fn repositories_references_and_directories() {
    for (text, remote, reference, directory) in [
        ("https://example.com/a/b.git", "https://example.com/a/b.git", "", ""),
        ("https://example.com/b.git#v1:sub/dir", "https://example.com/b.git", "v1", "sub/dir"),
        ("https://example.com/b.git#:../x", "https://example.com/b.git", "", "x"),
        ("git@example.com:a/b#main", "git@example.com:a/b", "main", ""),
        ("ssh://git@example.com/b?ref=x&subdir=%2Fy", "ssh://git@example.com/b", "x", "y"),
        ("git://example.com/b?tag=v1", "git://example.com/b", "refs/tags/v1", ""),
        ("http://example.com/b.git?branch=dev", "http://example.com/b.git", "refs/heads/dev", ""),
    ] {
        let source = read(text);
        let found = (&*source.remote, &*source.reference, &*source.directory);
        assert_eq!(found, (remote, reference, directory), "{text}");
    }
    let source = read("https://example.com/b.git?keep-git-dir&submodules=false&commit=abc&mtime=commit");
    assert_eq!((source.keep_git_dir, source.skips_submodules), (Some(true), true));
    assert!(source.has_commit_times && source.checksum == "abc");
}

#[test]
fn other_sources_are_not_of_git() {
    for text in
        ["https://example.com/b.tar", "./x.git", "b.git", "ftp://example.com/b.git", "user@host", "@a:b", "a b@c:d"]
    {
        assert!(GitSource::read(text).is_none(), "{text}");
    }
}

#[test]
fn queries_that_contradict_or_are_unknown_are_errors() {
    for query in ["reff=x", "ref=", "ref=a&ref=a", "tag=a&branch=b", "mtime=x", "submodules=2", "tag=a#b"] {
        assert!(GitSource::read(&format!("https://example.com/b.git?{query}")).unwrap().is_err(), "{query}");
    }
}

#[test]
fn strings_are_quoted_as_in_a_history() {
    assert_eq!(
        quote_list(&["/bin/sh", "-c", "echo \"a\\b\"\t'é' \u{1}\u{a0}\u{1f600}\n"]),
        "[\"/bin/sh\" \"-c\" \"echo \\\"a\\\\b\\\"\\t'é' \\x01\\u00a0\u{1f600}\\n\"]"
    );
    assert_eq!(quote("e\u{301}"), "\"e\u{301}\"");
    assert_eq!(quote_list::<&str>(&[]), "[]");
    assert_eq!(plain_list(&["/a b", "c"]), "[/a b c]");
}

#[test]
fn durations_are_read_and_shown() {
    for (text, shown) in [
        ("30s", "30s"),
        ("90s", "1m30s"),
        ("1.5s", "1.5s"),
        ("250ms", "250ms"),
        ("0", "0s"),
        ("1h", "1h0m0s"),
        ("1m1ms", "1m0.001s"),
        ("1500us", "1.5ms"),
        ("-2m", "-2m0s"),
        ("1ns", "1ns"),
        (".5s", "500ms"),
        ("2h0.25m", "2h0m15s"),
    ] {
        assert_eq!(duration(read_duration(text).unwrap()), shown, "{text}");
    }
    for text in ["", "5", "s", "1x", "1.2.3s", "-", ".s", "99999999999h", "1s "] {
        assert_eq!(read_duration(text), None, "{text}");
    }
}

#[test]
fn paths_are_cleaned() {
    for (path, cleaned) in [
        ("", "."),
        ("/", "/"),
        ("a//b/./c", "a/b/c"),
        ("/../a", "/a"),
        ("../a/..", ".."),
        ("a/..", "."),
        ("/a/../..", "/"),
        ("a/../../b", "../b"),
    ] {
        assert_eq!(clean(path), cleaned, "{path}");
    }
    assert_eq!((join("/", "a"), join("/w", "../x/"), join("", "")), ("/a".into(), "/x".into(), String::new()));
    assert_eq!((base("/a/b/"), base("/"), base(""), base("x")), ("b", "/", ".", "x"));
}
