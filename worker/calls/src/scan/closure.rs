//! All that a call may include.

use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Scanner;
use super::chain::Chain;
use super::directives::{Body, Directives, Name, Use};
use super::known::Known;
use super::macros::{self, Macros};
use super::sources::{Fallback, MAX_FILES, Sources};
use crate::call::{CDetails, Call, Forced, Language, SystemSearch};
use crate::manifest::Variant;

/// Where an included file was found: what comes next for `#include_next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Place {
    /// It is the source, or was named by an absolute path.
    Unsearched,
    /// Beside the file that includes it.
    Beside,
    /// In a directory of the chain.
    Chain(usize),
}

/// A file to be read.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Found {
    path: PathBuf,
    place: Place,
}

/// All that a call may include.
pub(super) fn closure(
    scanner: &Scanner,
    call: &Call,
    details: &CDetails,
    system: &SystemSearch,
    sources: &dyn Sources,
) -> Result<Variant, Fallback> {
    let chain = Chain::new(&details.search, system, sources);
    let mut walk = Walk {
        scanner,
        sources,
        known: Known::new(sources),
        is_assembler: call.language == Language::AssemblerWithCpp,
        is_cxx: call.language.is_cxx(),
        resolved: vec![HashMap::new(); chain.directories.len().saturating_add(1)],
        chain,
        seen: HashSet::new(),
        open: Vec::new(),
        read: Vec::new(),
        macros: Macros::default(),
        computed: Vec::new(),
    };
    for defined in &details.defined {
        if let Some(value) = &defined.value {
            let is_plain = defined.name.iter().all(|c| *c != b'(');
            let name = defined.name.split(|c| *c == b'(').next().unwrap_or_default();
            if let Some(body) = if is_plain { macros::body(value) } else { Some(Body::Opaque) } {
                walk.macros.add(name, &body);
            }
        }
    }
    for input in &call.inputs {
        walk.known.file(&input.path);
    }
    walk.predefined();
    // Only the first include of all may be of a precompiled header.
    for (at, forced) in details.forced.iter().enumerate() {
        walk.forced(forced, &call.directory, at == 0)?;
    }
    walk.source(&call.source, details.forced.is_empty())?;
    walk.everything()?;
    Ok(walk.known.into_variant(walk.chain.missing))
}

struct Walk<'a> {
    scanner: &'a Scanner,
    sources: &'a dyn Sources,
    /// Whether the source is assembler, which has an include of its own.
    is_assembler: bool,
    is_cxx: bool,
    chain: Chain,
    known: Known<'a>,
    seen: HashSet<Found>,
    open: Vec<Found>,
    /// What the files say that were read.
    read: Vec<Arc<Directives>>,
    /// Names that were looked for along the chain, by where that began.
    resolved: Vec<HashMap<Vec<u8>, Option<Found>>>,
    /// Filled only if an include needs it.
    macros: Macros,
    /// Includes of macros, whose definitions may still come.
    computed: Vec<(Found, Use, Name)>,
}

impl Walk<'_> {
    /// gcc includes this before everything else, if the C library has it.
    fn predefined(&mut self) {
        if let Some(found) = self.along_chain(self.chain.bracket, b"stdc-predef.h") {
            self.visit(found);
        }
    }

    /// `-include`: first in the working directory, then as by `#include "x"`.
    fn forced(&mut self, forced: &Forced, directory: &Path, is_first: bool) -> Result<(), Fallback> {
        let name = forced.path.as_os_str().as_bytes();
        let path = self.known.path(directory, name);
        if is_first {
            self.precompiled(&path, &[".pch", ".gch"])?;
        }
        let found = match self.known.file(&path) {
            Some(_) => Some(Found { path, place: Place::Beside }),
            None if is_first => self.precompiled_along_chain(0, name)?,
            None => self.along_chain(0, name),
        };
        found.into_iter().for_each(|found| self.visit(found));
        Ok(())
    }

    fn source(&mut self, source: &Path, has_first: bool) -> Result<(), Fallback> {
        let found = Found { path: source.to_owned(), place: Place::Unsearched };
        let Some(read) = self.known.file(source) else { return Err(Fallback::Unreadable { path: source.to_owned() }) };
        let directives = self.scanner.directives(source, &read.digest, self.is_cxx, self.sources)?;
        let first = if has_first { directives.first } else { 0 };
        for (used, name) in directives.uses.iter().take(first) {
            let (name, quoted) = match (used, name) {
                (Use::Include, Name::Quoted(name)) => (name, true),
                (Use::Include, Name::Angled(name)) => (name, false),
                _ => continue,
            };
            if quoted {
                let beside = self.known.path(source.parent().unwrap_or(Path::new("/")), name);
                self.precompiled(&beside, &[".gch"])?;
                if self.known.file(&beside).is_some() {
                    continue;
                }
            }
            let start = if quoted { 0 } else { self.chain.bracket };
            self.precompiled_along_chain(start, name)?;
        }
        self.visit(found);
        Ok(())
    }

    /// Looks for precompiled forms of a header.
    fn precompiled(&mut self, header: &Path, suffixes: &[&str]) -> Result<(), Fallback> {
        for suffix in suffixes {
            let mut path = header.as_os_str().to_owned();
            path.push(suffix);
            let path = PathBuf::from(path);
            if self.known.is_directory(&path) {
                return Err(Fallback::PrecompiledHeaders { path });
            }
        }
        Ok(())
    }

    /// Looks for a header along the chain, and for its precompiled form in each directory up to the one that has it.
    fn precompiled_along_chain(&mut self, start: usize, name: &[u8]) -> Result<Option<Found>, Fallback> {
        let found = self.along_chain(start, name);
        let end = match found.as_ref().map(|found| found.place) {
            Some(Place::Chain(at)) => at.saturating_add(1),
            _ => self.chain.directories.len(),
        };
        for at in start..end {
            let Some(directory) = self.chain.directories.get(at) else { break };
            let header = self.known.path(directory, name);
            self.precompiled(&header, &[".gch"])?;
        }
        Ok(found)
    }

    fn visit(&mut self, found: Found) {
        if self.seen.insert(found.clone()) {
            self.open.push(found);
        }
    }

    /// Reads files until there are no more.
    fn everything(&mut self) -> Result<(), Fallback> {
        loop {
            while let Some(file) = self.open.pop() {
                self.file(&file)?;
            }
            if self.computed.is_empty() {
                return Ok(());
            }
            // Definitions may have come after the includes that use them.
            for directives in std::mem::take(&mut self.read) {
                for (name, body) in &directives.macros {
                    self.macros.add(name, body);
                }
            }
            let before = (self.known.len(), self.seen.len());
            for (file, used, name) in self.computed.clone() {
                self.computed(&file, used, &name)?;
            }
            if self.open.is_empty() && before == (self.known.len(), self.seen.len()) {
                return Ok(());
            }
        }
    }

    fn file(&mut self, file: &Found) -> Result<(), Fallback> {
        if self.seen.len() > MAX_FILES {
            return Err(Fallback::TooMany);
        }
        let Some(read) = self.known.file(&file.path) else { return Ok(()) };
        let directives = self.scanner.directives(&file.path, &read.digest, self.is_cxx, self.sources)?;
        if directives.has_incbin || self.is_assembler && directives.has_include {
            return Err(Fallback::Assembler { file: file.path.clone() });
        }
        self.read.push(directives.clone());
        for (used, name) in &directives.uses {
            match name {
                Name::Quoted(_) | Name::Angled(_) => self.named(file, *used, name),
                Name::Macro(_) => self.computed.push((file.clone(), *used, name.clone())),
                Name::Expression(operand) => return Err(computed(file, operand)),
            }
        }
        Ok(())
    }

    fn computed(&mut self, file: &Found, used: Use, name: &Name) -> Result<(), Fallback> {
        let Name::Macro(name) = name else { return Ok(()) };
        let names = self.macros.names(name).ok_or_else(|| computed(file, name))?;
        for name in &names {
            self.named(file, used, name);
        }
        Ok(())
    }

    /// Takes a directive that names a file into account.
    fn named(&mut self, file: &Found, used: Use, name: &Name) {
        let (name, quoted) = match name {
            Name::Quoted(name) => (name, true),
            Name::Angled(name) => (name, false),
            Name::Macro(_) | Name::Expression(_) => return,
        };
        if name.is_empty() {
            return;
        }
        let beside = |walk: &mut Self| {
            let path = walk.known.path(file.path.parent().unwrap_or(Path::new("/")), name);
            walk.known.file(&path).map(|_| Found { path, place: Place::Beside })
        };
        let found = match used {
            _ if name.starts_with(b"/") => {
                let path = self.known.path(Path::new("/"), name);
                self.known.file(&path).map(|_| Found { path, place: Place::Unsearched })
            }
            Use::Embed => {
                if quoted {
                    beside(self);
                }
                return;
            }
            Use::IncludeNext | Use::ProbeNext if file.place != Place::Unsearched => {
                let start = if let Place::Chain(at) = file.place { at.saturating_add(1) } else { 0 };
                self.along_chain(start, name)
            }
            _ if quoted => beside(self).or_else(|| self.along_chain(0, name)),
            _ => self.along_chain(self.chain.bracket, name),
        };
        if let (Some(found), Use::Include | Use::IncludeNext) = (found, used) {
            self.visit(found);
        }
    }

    /// Looks for a name in the chain's directories from `start` on.
    fn along_chain(&mut self, start: usize, name: &[u8]) -> Option<Found> {
        if let Some(known) = self.resolved.get(start)?.get(name) {
            return known.clone();
        }
        let found = self.chain.directories.iter().enumerate().skip(start).find_map(|(at, directory)| {
            let path = self.known.path(directory, name);
            self.known.file(&path)?;
            Some(Found { path, place: Place::Chain(at) })
        });
        self.resolved.get_mut(start)?.insert(name.to_vec(), found.clone());
        found
    }
}

fn computed(file: &Found, operand: &[u8]) -> Fallback {
    Fallback::Computed {
        file: file.path.clone(),
        operand: String::from_utf8_lossy(operand).chars().take(200).collect(),
    }
}
