//! The directories in which a call looks for headers, as one chain.

use std::path::PathBuf;

use super::sources::Sources;
use crate::call::{DirectoryKind, Search, SystemSearch};

/// The chain. `#include "x"` begins at its start, after the including file's directory; `#include <x>` at `bracket`.
#[derive(Debug, Default)]
pub(super) struct Chain {
    pub(super) directories: Vec<PathBuf>,
    pub(super) bracket: usize,
    /// Directories that do not exist, and were left out.
    pub(super) missing: Vec<PathBuf>,
}

/// A directory with what identifies it.
type Known = (PathBuf, PathBuf);

impl Chain {
    /// Builds the chain as `remove_duplicates` and `merge_include_chains` of GCC's `incpath.cc` do: of a directory that is in several
    /// lists, that of the system counts.
    pub(super) fn new(search: &Search, system: &SystemSearch, sources: &dyn Sources) -> Self {
        let mut missing = system.missing.clone();
        let mut of_kind = |kind: DirectoryKind, own: &[PathBuf]| -> Vec<Known> {
            let listed =
                search.directories.iter().filter(|directory| directory.kind == kind).map(|directory| &directory.path);
            let mut known = Vec::new();
            for path in listed.chain(own) {
                match sources.directory(path) {
                    Some(real) => known.push((path.clone(), real)),
                    None => missing.push(path.clone()),
                }
            }
            known
        };
        let mut of_system = of_kind(DirectoryKind::System, &system.bracket);
        of_system.extend(of_kind(DirectoryKind::After, &[]));
        let of_system = unique(of_system, &[]);
        let mut bracket = unique(of_kind(DirectoryKind::Normal, &[]), &of_system);
        drop_repeated_end(&mut bracket, &of_system);
        bracket.extend(of_system.iter().cloned());
        let mut quote = unique(of_kind(DirectoryKind::Quote, &system.quote), &of_system);
        drop_repeated_end(&mut quote, &bracket);
        let start = quote.len();
        quote.extend(bracket);
        Self { directories: quote.into_iter().map(|(path, _)| path).collect(), bracket: start, missing }
    }
}

/// Without those that came before, or that are in `others`.
fn unique(list: Vec<Known>, others: &[Known]) -> Vec<Known> {
    let mut kept: Vec<Known> = Vec::with_capacity(list.len());
    for (path, real) in list {
        if !kept.iter().chain(others).any(|(_, other)| *other == real) {
            kept.push((path, real));
        }
    }
    kept
}

/// The end of a list that is the beginning of the next one.
fn drop_repeated_end(list: &mut Vec<Known>, next: &[Known]) {
    if let (Some((_, last)), Some((_, first))) = (list.last(), next.first())
        && last == first
    {
        list.pop();
    }
}
