//! Which crates a call of rustc reads, besides those that its arguments name.
//!
//! cargo names the direct dependencies, and the directory in which rustc finds the others. To take that whole directory would make a
//! call depend on whatever else was compiled before it. What the other calls of a build were is known to who ran them.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use crate::call::{Call, CrateType, Details, OutputKind};

/// The crates of a build, as the calls that made them say.
#[derive(Debug, Clone, Default)]
pub struct Crates {
    /// By a crate's path without its suffix, as `.rmeta`, `.rlib` and `.so` of a crate are one.
    known: HashMap<PathBuf, Made>,
}

/// What a crate was made of.
#[derive(Debug, Clone)]
struct Made {
    /// The direct dependencies, without their suffixes.
    externs: Vec<PathBuf>,
    /// A procedural macro has its dependencies in it; rustc does not read them.
    is_closed: bool,
}

impl Crates {
    /// Remembers what a call makes. Calls of other compilers are ignored.
    pub fn add(&mut self, call: &Call) {
        let Details::Rust(details) = &call.details else { return };
        let externs = direct(call);
        let is_closed = details.crate_types == [CrateType::ProcMacro];
        for output in &call.outputs {
            if matches!(output.kind, OutputKind::Link | OutputKind::Metadata) {
                let made = Made { externs: externs.clone(), is_closed };
                self.known.insert(without_suffix(&output.absolute), made);
            }
        }
    }

    /// All crates that a call reads: their absolute paths without the suffix (`/build/target/deps/libserde-1a2b`). Of each there may be
    /// `.rmeta`, `.rlib` and `.so`.
    ///
    /// `None` if one of them was made by a call that is not known, or if the call is not one of rustc.
    pub fn read_by(&self, call: &Call) -> Option<BTreeSet<PathBuf>> {
        let Details::Rust(_) = &call.details else { return None };
        let mut found = BTreeSet::new();
        let mut open = direct(call);
        while let Some(next) = open.pop() {
            let made = self.known.get(&next)?;
            if found.insert(next) && !made.is_closed {
                open.extend(made.externs.iter().cloned());
            }
        }
        Some(found)
    }
}

/// The crates that a call's arguments name with a path.
fn direct(call: &Call) -> Vec<PathBuf> {
    match &call.details {
        Details::Rust(details) => {
            details.externs.iter().filter_map(|one| one.path.as_deref()).map(without_suffix).collect()
        }
        Details::C(_) => Vec::new(),
    }
}

fn without_suffix(path: &Path) -> PathBuf {
    path.with_extension("")
}
