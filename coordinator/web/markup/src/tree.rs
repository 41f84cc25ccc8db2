//! A directory as one browses it.

use kiln_proto::reapi::Directory;
use maud::{Markup, html};

use crate::{encoded, words};

/// Entries of a directory that are shown.
const SHOWN: usize = 2_000;

/// A path as an address: its parts are encoded, its separators are not.
fn address(base: &str, path: &str) -> String {
    let parts: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(encoded).collect();
    format!("{base}/{}", parts.join("/"))
}

/// The directory at a path below an address, with the way to it.
pub fn directory(base: &str, path: &str, directory: &Directory) -> Markup {
    let path = path.trim_matches('/');
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
    let all = directory.directories.len() + directory.files.len() + directory.symlinks.len();
    html! {
        nav .crumbs.path aria-label="Path" {
            a href=(base) { "root" }
            @for (end, part) in parts(path) { span .dim { "/" } a href=(address(base, end)) { (part) } }
        }
        @if all == 0 { p .dim { "An empty directory." } }
        div .scroll {
            table .tree {
                tbody {
                    @for one in directory.directories.iter().take(SHOWN) {
                        tr { td { a href=(address(base, &below(&one.name))) { (one.name) "/" } } td {} td {} }
                    }
                    @for one in directory.files.iter().take(SHOWN) {
                        tr {
                            td { a .plain href=(address(base, &below(&one.name))) download { (one.name) } }
                            td .number { (words::size(one.digest.as_ref().map_or(0, |digest| digest.size_bytes as u64))) }
                            td .dim { @if one.is_executable { "executable" } }
                        }
                    }
                    @for one in directory.symlinks.iter().take(SHOWN) {
                        tr { td { (one.name) span .dim { " → " (one.target) } } td {} td .dim { "link" } }
                    }
                }
            }
        }
        @if all > SHOWN { p .dim { "Only the first " (words::grouped(SHOWN as u64)) " of each kind are shown." } }
    }
}

/// The parts of a path, each with the path up to its end.
fn parts(path: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut begin = 0;
    for part in path.split('/').filter(|part| !part.is_empty()) {
        let end = path[begin..].find(part).map_or(path.len(), |at| begin + at + part.len());
        found.push((&path[..end], part));
        begin = end;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_their_address() {
        assert_eq!(parts("a/b/a"), [("a", "a"), ("a/b", "b"), ("a/b/a", "a")]);
        assert_eq!(address("/x", "a b/../<c>"), "/x/a%20b/../%3Cc%3E");
    }
}
