//! `.dockerignore`, and the patterns of `COPY`.

use kiln_dockerfile::patterns::{Glob, Ignore, Parents, Patterns, has_wildcards};

fn ignore(text: &str) -> Ignore {
    Ignore::read(".dockerignore", text).unwrap_or_else(|error| panic!("{}", error.render(false)))
}

#[test]
fn a_pattern_is_from_the_root_on_and_covers_what_is_below() {
    for (pattern, yes, no) in [
        ("a", &["a", "a/b", "a/b/c"][..], &["b/a", "ab", "A"][..]),
        ("/a/", &["a", "a/b"], &["b/a"]),
        ("./a//b/../c", &["a/c", "a/c/d"], &["a/b", "a"]),
        ("*.o", &["x.o", ".o", "x.o/y"], &["a/x.o", "x.oo"]),
        ("*/b", &["a/b", "a/b/c"], &["b", "a/a/b"]),
        ("a/*", &["a/b", "a/b/c"], &["a"]),
        ("?", &["a", "ä", "a/b"], &["ab"]),
        ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
        ("[^a]x", &["bx"], &["ax"]),
        ("a[b\\]]", &["ab", "a]"], &["ac"]),
        ("\\*", &["*"], &["a"]),
        ("**", &["a", "a/b", ".git"], &[]),
        ("**/x", &["x", "a/x", "a/b/x", "a/x/y"], &["ax", "a/bx"]),
        ("**x", &["x", "ax", "a/bx"], &["xa"]),
        ("a/**", &["a/b", "a/b/c"], &["a", "b"]),
        ("a/**/b", &["a/b", "a/x/b", "a/x/y/b"], &["a/xb", "b"]),
        ("**/*.o", &["x.o", "a/b/x.o"], &["x.oo"]),
        ("**/a/*", &["a/x", "b/a/x"], &["a"]),
        (".", &[], &["a"]),
        ("a b", &["a b"], &["a"]),
        ("a+(b).c$", &["a+(b).c$"], &["aab.c"]),
    ] {
        let ignore = ignore(pattern);
        yes.iter().for_each(|path| assert!(ignore.excludes(path), "expected `{pattern}` to match `{path}`"));
        no.iter().for_each(|path| assert!(!ignore.excludes(path), "expected `{pattern}` not to match `{path}`"));
    }
}

#[test]
fn the_last_match_counts() {
    let found = ignore("*\n!src\nsrc/*.o\n!src/keep.o\n");
    for (path, excluded) in [
        ("README", true),
        ("src", false),
        ("src/a.c", false),
        ("src/a.o", true),
        ("src/keep.o", false),
        ("src/a/b.o", false),
    ] {
        assert_eq!(found.excludes(path), excluded, "{path}");
    }
    assert!(found.patterns().has_exceptions());
    assert!(ignore("!a\na").excludes("a") && !ignore("a\n!a").excludes("a"));
    assert!(!ignore("a\n! /a/b").excludes("a/b/c"));
}

#[test]
fn comments_are_at_the_beginning_of_a_line_only() {
    let ignore = ignore("\u{feff}# one\n # two\n\n  a  \r\n#a\nb");
    assert!(ignore.excludes("a") && ignore.excludes("b") && ignore.excludes("# two") && !ignore.excludes("# one"));
}

#[test]
fn a_walk_gives_what_each_path_alone_gives() {
    let patterns = Patterns::new(["a/*", "!a/b", "**/x", "!a/b/c/x"]).unwrap();
    for path in ["a/b/c/x", "a/b/c/y", "a/d/e", "q/x/z", "a/b/x", "x/a"] {
        let mut parents = Parents::default();
        let mut found = false;
        for end in path.match_indices('/').map(|(at, _)| at).chain([path.len()]) {
            (found, parents) = patterns.matches_below(&path[..end], &parents);
        }
        assert_eq!(found, patterns.matches(path), "{path}");
    }
}

#[test]
fn a_directory_is_skipped_unless_something_in_it_may_be_kept() {
    let patterns = Patterns::new(["node_modules", "src", "!src/lib/*.js", "*.tmp", "!**/keep"]).unwrap();
    assert!(!patterns.covers("src") && !patterns.covers("node_modules"), "`**/keep` may be anywhere");
    let patterns = Patterns::new(["node_modules", "src", "!src/lib/*.js"]).unwrap();
    assert!(patterns.covers("node_modules") && !patterns.covers("src") && patterns.covers("src/doc"));
    assert!(!patterns.covers("src/lib") && !patterns.covers("other"));
}

#[test]
fn invalid_patterns_name_their_line() {
    for (text, message) in [
        ("a\n[", ".dockerignore:2: invalid pattern `[`: `[` must be followed by characters and `]`"),
        ("!", ".dockerignore:1: invalid pattern `!`: `!` is not followed by a pattern"),
        ("x\\", ".dockerignore:1: invalid pattern `x\\`: it ends with `\\`"),
        ("[]a]", ".dockerignore:1: invalid pattern `[]a]`: `[` must be followed by characters and `]`"),
        ("[a-]", ".dockerignore:1: invalid pattern `[a-]`: `[` must be followed by characters and `]`"),
    ] {
        assert_eq!(Ignore::read(".dockerignore", text).unwrap_err().to_string(), message);
    }
}

#[test]
fn sources_are_matched_as_a_whole() {
    let matches = |pattern: &str, path: &str| Glob::new(pattern).unwrap().matches(path);
    assert!(matches("*.c", "a.c") && !matches("*.c", "b/a.c") && matches("*/*.c", "b/a.c"));
    assert!(matches("a**c", "abc") && !matches("**", "a/b"), "`**` is `*`");
    assert!(matches("[a-z]?", "ab") && !matches("?", "/") && matches("\\?", "?"));
    assert!(!matches("a", "a/b"));
    for pattern in ["[", "a[", "[a", "[^]", "\\", "[\\"] {
        assert!(Glob::new(pattern).is_err(), "{pattern}");
    }
    assert!(has_wildcards("a*") && has_wildcards("[a]") && !has_wildcards("a\\*b") && has_wildcards("\\a?"));
}

#[test]
fn many_stars_take_no_time() {
    let pattern = "*a".repeat(1_000);
    assert!(!Glob::new(&pattern).unwrap().matches(&"a".repeat(999)));
    assert!(Glob::new(&"*".repeat(5_000)).is_err());
}
