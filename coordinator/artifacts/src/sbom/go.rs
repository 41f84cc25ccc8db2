//! `go.sum`.

use super::Package;

/// Modules with a content hash; modules of which only the `go.mod` is listed are omitted.
pub(super) fn sums(text: &str) -> Vec<Package> {
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let (module, version) = (words.next()?, words.next()?);
        words.next().filter(|hash| hash.starts_with("h1:"))?;
        (!version.ends_with("/go.mod")).then(|| Package::new("golang", module, version))
    };
    text.lines().filter_map(read).collect()
}
