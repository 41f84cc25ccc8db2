//! Whether the symbolic links of an artifact are those that were built.

use std::collections::BTreeMap;

use crate::evidence::Target;
use crate::report::Check;

/// How many links are named.
const NAMED: usize = 10;

/// Compares the links that are stated with those that are there; `stated` is `None` if the statement covers none.
pub(crate) fn check(stated: Option<&BTreeMap<&str, &str>>, target: &Target) -> Option<Check> {
    let there = target.links.as_ref()?;
    let Some(stated) = stated else {
        let words =
            || format!("the statement covers none of {}; build it again to have them covered", count(there.len()));
        return (!there.is_empty()).then(|| Check::stated("links", words()));
    };
    let missing = stated.iter().filter(|(path, _)| !there.contains_key(**path));
    let missing = missing.map(|(path, to)| format!("`{path}`, a symbolic link to `{to}`, is missing"));
    let other = there.iter().filter_map(|(path, to)| match stated.get(path.as_str()) {
        Some(expected) if expected == to => None,
        Some(expected) => Some(format!("`{path}` leads to `{to}`, and the statement has `{expected}`")),
        None => Some(format!("`{path}`, a symbolic link to `{to}`, is not part of the artifact")),
    });
    let mut wrong: Vec<String> = missing.chain(other).collect();
    let more = wrong.len().saturating_sub(NAMED);
    wrong.truncate(NAMED);
    if more > 0 {
        wrong.push(format!("{more} more differ"));
    }
    match wrong.is_empty() {
        false => Some(Check::refused("links", wrong.join("; "))),
        true => (!there.is_empty()).then(|| Check::ok("links", count(there.len()))),
    }
}

fn count(links: usize) -> String {
    if links == 1 { "1 symbolic link".to_owned() } else { format!("{links} symbolic links") }
}
