//! Directories that outlive steps.

use super::{options, planned, refused, tree};
use crate::plan::{Cache, Sharing, plan, to_kiln_toml};

fn file(caches: &str, more: &str) -> String {
    format!(
        "name = \"p\"\nversion = \"1\"\n[steps.a]\nrun = \"x\"\noutputs = [\"out/bin\"]\nfiles = {{ \"gen/x\" = \"\" }}\ncaches = {caches}\n{more}"
    )
}

fn words(caches: &str, more: &str) -> String {
    refused(&[("kiln.toml", &file(caches, more))])
}

#[test]
fn a_steps_caches_are_read_and_written_alike() {
    let text = file("{ \".c\" = { key = \"gradle\" }, \"~/.m2/\" = { key = \"maven\", sharing = \"locked\" } }", "");
    let first = planned(&[("kiln.toml", &text)]);
    let cache = |key: &str, sharing| Cache { key: key.to_owned(), sharing };
    let expected = [(".c", cache("gradle", Sharing::Shared)), ("~/.m2", cache("maven", Sharing::Locked))];
    assert!(first.steps[0].caches.iter().map(|(path, cache)| (path.as_str(), cache.clone())).eq(expected));
    let written = to_kiln_toml(&first);
    assert_eq!(planned(&[("kiln.toml", &written)]).steps, first.steps, "{written}");
}

#[test]
fn the_caches_of_a_project_in_a_directory_are_in_that_directory() {
    let text = file("{ \".c\" = { key = \"a\" }, \"/tmp/d\" = { key = \"b\" } }", "");
    let moved = crate::plan::Options { directory: "sub".into(), ..options() };
    let plan = plan(&tree(&[("sub/kiln.toml", &text), ("top", "")]), &moved).unwrap();
    assert_eq!(plan.steps[0].caches.keys().collect::<Vec<_>>(), ["/tmp/d", "sub/.c"]);
}

#[test]
fn a_cache_that_cannot_be_is_refused_with_what_to_do() {
    let many = (0..17).map(|n| format!("\"c{n}\" = {{ key = \"k{n}\" }}")).collect::<Vec<_>>().join(", ");
    for (caches, more, expected) in [
        ("{ \".c\" = { key = \"\" } }", "", "line 7: `key` is ``: expected a name of at most 64"),
        ("{ \".c\" = { key = \"a b\" } }", "", "`key` is `a b`"),
        (&format!("{{ \".c\" = {{ key = \"{}\" }} }}", "k".repeat(65)), "", "at most 64 letters"),
        ("{ \".c\" = {} }", "", "has no `key`: add one"),
        ("{ \".c\" = { key = \"a\", sharing = \"mine\" } }", "", "expected `shared`, `private` or `locked`"),
        ("{ \".c\" = { key = \"a\", size = \"1GiB\" } }", "", "unknown key `size`"),
        ("{ \"../c\" = { key = \"a\" } }", "", "expected one below the project"),
        ("{ \"/proc/x\" = { key = \"a\" } }", "", "the sandbox's own: choose"),
        ("{ \"out\" = { key = \"a\" } }", "", "overlaps with `out/bin` of its `outputs`"),
        ("{ \"out/bin/c\" = { key = \"a\" } }", "", "overlaps with `out/bin` of its `outputs`"),
        ("{ \"gen\" = { key = \"a\" } }", "", "overlaps with `gen/x` of its `files`"),
        ("{ \"/build/out\" = { key = \"a\" } }", "", "overlaps with `out/bin`"),
        (
            "{ \"w\" = { key = \"a\" } }",
            "working_directory = \"w/x\"",
            "overlaps with `w/x` of its `working_directory`",
        ),
        (
            "{ \"a\" = { key = \"a\" }, \"a/b\" = { key = \"b\" } }",
            "",
            "one of which is in the other: keep the outer one",
        ),
        ("{ \"a\" = { key = \"a\" }, \"b\" = { key = \"a\" } }", "", "give each directory a `key` of its own"),
        ("{ \"/var/cache/x\" = { key = \"a\" } }", "", "or set `image` of the step"),
        (&format!("{{ {many} }}"), "", "has 17 caches; expected at most 16"),
    ] {
        let found = words(caches, more);
        assert!(found.contains(expected), "expected `{expected}` in: {found}");
    }
    let in_image = file("{ \"/var/cache/x\" = { key = \"a\" } }", "image = \"debian:12\"");
    assert_eq!(planned(&[("kiln.toml", &in_image)]).steps[0].caches.len(), 1);
    let within = file("{ \"w/c\" = { key = \"a\" } }", "working_directory = \"w\"");
    assert_eq!(planned(&[("kiln.toml", &within)]).steps[0].caches.len(), 1);
}
