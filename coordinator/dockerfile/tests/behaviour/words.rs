//! Words: quotes, escapes, variables and their operators.

use std::collections::BTreeMap;

use kiln_dockerfile::words::{Lexer, NoVariables};

fn variables() -> BTreeMap<String, String> {
    [
        ("HOME", "/home/me"),
        ("EMPTY", ""),
        ("FILE", "archive.tar.gz"),
        ("WIDE", "größe"),
        ("SPACED", "a  b c"),
        ("STARS", "x*y?z\\"),
        ("LINES", "one\ntwo"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// Each text, and what it expands to; `None` if it is invalid.
#[track_caller]
fn check(escape: char, table: &[(&str, Option<&str>)]) {
    for (text, expected) in table {
        let found = Lexer::new(escape).expand(text, &variables());
        match (expected, &found) {
            (Some(expected), Ok(found)) => assert_eq!(found.text, *expected, "{text}"),
            (None, Err(_)) => {}
            _ => panic!("expected {expected:?}, found {found:?} for `{text}`"),
        }
    }
}

#[test]
fn quotes_and_escapes_are_removed() {
    check(
        '\\',
        &[
            ("plain", Some("plain")),
            ("it'is' quoted", Some("itis quoted")),
            ("it's", None),
            (r"it\'s", Some("it's")),
            (r"it\\'s", None),
            (r"a\tb", Some("atb")),
            (r#""a\tb""#, Some(r"a\tb")),
            (r#""a\\b""#, Some(r"a\b")),
            (r#""a\"b""#, Some(r#"a"b"#)),
            (r#""a\$HOME""#, Some("a$HOME")),
            (r"'a\tb'", Some(r"a\tb")),
            (r"'a\'", Some(r"a\")),
            (r#""unbalanced"#, None),
            ("'unbalanced", None),
            (r#""unbalanced\""#, None),
            (r#""it's""#, Some("it's")),
            (r#"'say "x"'"#, Some(r#"say "x""#)),
            (r"end\", Some("end")),
            (r"end\\", Some(r"end\")),
            ("größe'ä'", Some("größeä")),
            ("a < b << c", Some("a < b << c")),
            ("", Some("")),
        ],
    );
}

#[test]
fn the_other_escape_character_takes_its_place() {
    check(
        '`',
        &[
            ("C:\\dir\\$HOME", Some("C:\\dir\\/home/me")),
            ("`$HOME", Some("$HOME")),
            ("a`'b", Some("a'b")),
            ("\"`\"\"", Some("\"")),
            ("\"``\"", Some("`")),
            ("\"`n\"", Some("`n")),
            ("a\\'", None),
            ("end`", Some("end")),
        ],
    );
}

#[test]
fn variables_are_expanded_but_not_in_single_quotes() {
    check(
        '\\',
        &[
            ("$HOME", Some("/home/me")),
            ("${HOME}", Some("/home/me")),
            ("a$HOME.b", Some("a/home/me.b")),
            ("a${HOME}b", Some("a/home/meb")),
            ("$HOMEb", Some("")),
            ("$home", Some("")),
            (r"\$HOME", Some("$HOME")),
            (r"\\$HOME", Some(r"\/home/me")),
            (r"\${HOME}", Some("${HOME}")),
            ("\"$HOME\"", Some("/home/me")),
            ("\"'$HOME'\"", Some("'/home/me'")),
            ("'$HOME'", Some("$HOME")),
            ("$UNSET", Some("")),
            ("a$", Some("a$")),
            ("a$.", Some("a$.")),
            ("$$", Some("")),
            ("$?x", Some("x")),
            ("$1x", Some("x")),
            ("$12x", Some("x")),
            ("${10}", Some("")),
            ("${@}", Some("")),
            ("${HOME", None),
            ("${", None),
            ("${}", None),
            ("${{HOME}}", None),
            ("${:x}", None),
            ("${.}", None),
            ("${HOME}}", Some("/home/me}")),
        ],
    );
}

#[test]
fn operators_choose_between_value_and_word() {
    check(
        '\\',
        &[
            ("${UNSET:-x}", Some("x")),
            ("${UNSET-x}", Some("x")),
            ("${EMPTY:-x}", Some("x")),
            ("${EMPTY-x}", Some("")),
            ("${HOME:-x}", Some("/home/me")),
            ("${UNSET:-}", Some("")),
            ("${UNSET:-$HOME}", Some("/home/me")),
            ("${UNSET:-${ALSO:-x}}", Some("x")),
            ("${UNSET:-\\$HOME}", Some("$HOME")),
            ("${UNSET:-'a}b'}", Some("a}b")),
            ("${UNSET:-a b}", Some("a b")),
            ("${UNSET:+x}", Some("")),
            ("${UNSET+x}", Some("")),
            ("${EMPTY:+x}", Some("")),
            ("${EMPTY+x}", Some("x")),
            ("${HOME:+x}", Some("x")),
            ("${HOME+$FILE}", Some("archive.tar.gz")),
            ("${HOME:?x}", Some("/home/me")),
            ("${EMPTY?x}", Some("")),
            ("${EMPTY:?x}", None),
            ("${UNSET?x}", None),
            ("${HOME:=x}", None),
            ("${HOME:x}", None),
            ("${HOME=x}", None),
            ("${HOME:", None),
            ("${UNSET:-x", None),
            ("${UNSET:-${x}", None),
        ],
    );
}

#[test]
fn a_required_variable_says_what_is_missing() {
    let message = |text: &str| Lexer::new('\\').expand(text, &variables()).unwrap_err().to_string();
    assert_eq!(message("${VERSION:?set it with --build-arg}"), "VERSION: set it with --build-arg");
    assert_eq!(message("${VERSION?}"), "VERSION: must not be unset");
    assert_eq!(message("${EMPTY:?}"), "EMPTY: must not be empty");
}

#[test]
fn patterns_remove_from_the_beginning_and_the_end() {
    check(
        '\\',
        &[
            ("${FILE#*.}", Some("tar.gz")),
            ("${FILE##*.}", Some("gz")),
            ("${FILE%.*}", Some("archive.tar")),
            ("${FILE%%.*}", Some("archive")),
            ("${FILE#x}", Some("archive.tar.gz")),
            ("${FILE#?}", Some("rchive.tar.gz")),
            ("${FILE%??}", Some("archive.tar.")),
            ("${FILE#archive.tar.gz}", Some("")),
            ("${FILE##*}", Some("")),
            ("${FILE#*}", Some("archive.tar.gz")),
            ("${WIDE%?e}", Some("grö")),
            ("${WIDE#gr?}", Some("ße")),
            ("${STARS#x\\*}", Some("y?z\\")),
            ("${STARS%\\?z\\\\}", Some("x*y")),
            ("${UNSET#x}", Some("")),
            ("${HOME#/home/}", Some("me")),
            ("${HOME%$EMPTY}", Some("/home/me")),
            ("${FILE#[a]}", Some("archive.tar.gz")),
            ("${FILE%.g.}", Some("archive.tar.gz")),
            ("${LINES#*o}", Some("ne\ntwo")),
            ("${LINES##*o}", Some("ne\ntwo")),
            ("${FILE:#x}", None),
            ("${FILE#\\x}", None),
            ("${FILE#x", None),
        ],
    );
}

#[test]
fn patterns_are_replaced_once_or_everywhere() {
    check(
        '\\',
        &[
            ("${FILE/a/A}", Some("Archive.tar.gz")),
            ("${FILE//a/A}", Some("Archive.tAr.gz")),
            ("${FILE/.*/}", Some("archive")),
            ("${FILE//./-}", Some("archive-tar-gz")),
            ("${HOME//\\//_}", Some("_home_me")),
            ("${FILE/x/y}", Some("archive.tar.gz")),
            ("${FILE/tar/$EMPTY}", Some("archive..gz")),
            ("${SPACED// /}", Some("abc")),
            ("${UNSET/a/b}", Some("")),
            ("${FILE/a}", None),
            ("${FILE/a/b", None),
        ],
    );
}

#[test]
fn words_are_separated_by_white_space_outside_quotes() {
    let words = |text: &str| Lexer::new('\\').expand(text, &variables()).unwrap().words;
    assert_eq!(words("  a  b\tc "), ["a", "b", "c"]);
    assert_eq!(words("'a b' \"c d\" e\\ f"), ["a b", "c d", "e f"]);
    assert_eq!(words("a$SPACED-x"), ["aa", "b", "c-x"]);
    assert_eq!(words("\"$SPACED\""), ["a  b c"]);
    assert_eq!(words("80${UNSET:-0} 1"), ["800", "1"]);
    assert!(words("'' \"\" $UNSET").is_empty());
    assert_eq!(words("<< EOF x"), ["<< EOF", "x"]);
}

#[test]
fn names_that_are_used_are_known() {
    let found = Lexer::new('\\').expand("$HOME ${A:-$B} ${EMPTY}", &variables()).unwrap();
    assert_eq!(found.used.into_iter().collect::<Vec<_>>(), ["EMPTY", "HOME"]);
    assert_eq!(found.unset.into_iter().collect::<Vec<_>>(), ["A", "B"]);
}

#[test]
fn quotes_escapes_and_unset_variables_can_be_kept() {
    let keep = Lexer { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Lexer::new('\\') };
    let kept = |text: &str| keep.expand(text, &NoVariables).unwrap().text;
    for text in ["'a' \"b\"", "a\\ b", "$A ${A} ${A:-x} ${A#x} ${A/a/b} ${A//a/b} ${A?x}"] {
        assert_eq!(kept(text), text);
    }
    let ignore = Lexer { ignore_quotes: true, ..Lexer::new('\\') };
    assert_eq!(ignore.expand("it's \"$HOME\" \\$X", &variables()).unwrap().text, "it's \"/home/me\" $X");
}

#[test]
fn what_a_text_expands_to_and_its_depth_are_bounded() {
    let big = BTreeMap::from([("A".to_owned(), "x".repeat(1 << 19))]);
    let expand = |text: &str| Lexer::new('\\').expand(text, &big).map(|found| found.text.len());
    assert_eq!(expand("$A").unwrap(), 1 << 19);
    for text in ["$A$A$A", "\"$A$A$A\"", "${A//x/xxx}", "${U:-$A$A$A}"] {
        assert_eq!(expand(text).unwrap_err().to_string(), "the text expands to more than 1048576 bytes", "{text}");
    }
    let deep = format!("{}x{}", "${A:-".repeat(50_000), "}".repeat(50_000));
    assert!(expand(&deep).unwrap_err().to_string().contains("64 levels"));
    assert!(expand(&format!("${{A#{}}}", "?".repeat(5_000))).unwrap_err().to_string().contains("longer than"));
}
