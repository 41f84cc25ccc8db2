//! What a page names as the evidence for a claim is there.

use std::path::Path;

/// The tests that a page names, as `FILE`: `TEST`, with their files.
fn named(page: &str) -> Vec<(String, String)> {
    let words: Vec<&str> = page.split('`').collect();
    let pairs = words.windows(3).filter(|three| three[0].ends_with(".rs") && three[1] == ": ");
    pairs.map(|three| (three[0].to_owned(), three[2].to_owned())).collect()
}

#[test]
fn each_requirement_of_isolation_names_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let page = std::fs::read_to_string(root.join("coordinator/README.md")).unwrap();
    let begin = page.find("## What builds are isolated from").unwrap();
    let section = page[begin..].split("\n## ").next().unwrap();
    let rows = section.lines().filter(|line| line.starts_with("| ")).skip(2);
    let mut requirements = 0;
    for row in rows {
        requirements += 1;
        let evidence = named(row.rsplit(" | ").next().unwrap());
        assert!(!evidence.is_empty(), "expected a test in this row: {row}");
        for (file, test) in evidence {
            let text = std::fs::read_to_string(root.join(&file));
            let text = text.unwrap_or_else(|error| panic!("`{file}`, which the page names: {error}"));
            let defined = text.find(&format!("fn {test}(")).unwrap_or_else(|| panic!("`{file}` has no test `{test}`"));
            let before = text[..defined].trim_end_matches("async ");
            let attribute = before.trim_end().lines().last().unwrap_or_default();
            assert!(attribute.contains("test"), "`{test}` in `{file}` is no test: {attribute}");
        }
    }
    assert!(requirements >= 10, "expected the table of requirements, found {requirements} rows");
}
