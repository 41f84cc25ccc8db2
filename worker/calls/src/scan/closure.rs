//! All that a call may include.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::Scanner;
use super::chain::Chain;
use super::directives::{Body, Name, Use};
use super::macros::{self, Macros};
use crate::call::{CDetails, Call, Forced, Language, SystemSearch};
use crate::manifest::{Present, Read, Variant};
use crate::paths::absolute;

/// The files of a step, and what is in them. All paths are absolute.
pub trait Sources: Present {
    /// The content of a regular file.
    fn content(&self, path: &Path) -> Option<Vec<u8>>;

    /// The path of a directory without symbolic links, which tells it from others; `None` if there is no directory.
    fn directory(&self, path: &Path) -> Option<PathBuf>;
}

/// Why what a call includes cannot be told without the preprocessor. Ask the compiler (`-M`), or run the call and record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Fallback {
    #[error("`{}` includes `{operand}`, which only the preprocessor can expand", file.display())]
    Computed { file: PathBuf, operand: String },
    #[error("`{}` has the assembler read a file", file.display())]
    Assembler { file: PathBuf },
    #[error("`{}` is a directory of precompiled headers", path.display())]
    PrecompiledHeaders { path: PathBuf },
    #[error("`{}` vanished while it was read", path.display())]
    Unreadable { path: PathBuf },
    #[error("more than {MAX_FILES} files are included")]
    TooMany,
    #[error("the call is not one of a C or C++ compiler")]
    Language,
}

/// How many files a call may include.
const MAX_FILES: usize = 20_000;

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
        assembler: call.language == Language::AssemblerWithCpp,
        found: Variant { absent: chain.missing.iter().cloned().collect(), ..Variant::default() },
        chain,
        seen: HashSet::new(),
        open: Vec::new(),
        resolved: HashMap::new(),
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
        walk.look(&input.path);
    }
    walk.predefined();
    // Only the first include of all may be of a precompiled header.
    for (at, forced) in details.forced.iter().enumerate() {
        walk.forced(forced, &call.directory, at == 0)?;
    }
    walk.source(&call.source, details.forced.is_empty())?;
    walk.everything()?;
    Ok(walk.found)
}

struct Walk<'a> {
    scanner: &'a Scanner,
    sources: &'a dyn Sources,
    /// Whether the source is assembler, which has an include of its own.
    assembler: bool,
    chain: Chain,
    found: Variant,
    seen: HashSet<Found>,
    open: Vec<Found>,
    /// Names that were looked for along the chain, each with where to begin.
    resolved: HashMap<(usize, Vec<u8>), Option<Found>>,
    macros: Macros,
    /// Includes of macros, whose definitions may still come.
    computed: Vec<(Found, Use, Name)>,
}

impl Walk<'_> {
    /// Looks at a path: it is read, a directory, or absent.
    fn look(&mut self, path: &Path) -> Option<Read> {
        if let Some(read) = self.found.read.get(path) {
            return Some(*read);
        }
        if self.found.absent.contains(path) {
            return None;
        }
        if let Some(read) = self.sources.digest(path) {
            self.found.read.insert(path.to_owned(), read);
            return Some(read);
        }
        match self.sources.listing(path) {
            Some(names) => {
                self.found.listed.insert(path.to_owned(), names);
            }
            None => {
                self.found.absent.insert(path.to_owned());
            }
        }
        None
    }

    /// gcc includes this before everything else, if the C library has it.
    fn predefined(&mut self) {
        if let Some(found) = self.along_chain(self.chain.bracket, b"stdc-predef.h") {
            self.visit(found);
        }
    }

    /// `-include`: first in the working directory, then as by `#include "x"`.
    fn forced(&mut self, forced: &Forced, directory: &Path, is_first: bool) -> Result<(), Fallback> {
        let name = forced.path.as_os_str().as_bytes();
        let path = self.path(directory, name);
        if is_first {
            self.precompiled(&path, &[".pch", ".gch"])?;
        }
        let found = match self.look(&path) {
            Some(_) => Some(Found { path, place: Place::Beside }),
            None if is_first => self.precompiled_along_chain(0, name)?,
            None => self.along_chain(0, name),
        };
        found.into_iter().for_each(|found| self.visit(found));
        Ok(())
    }

    fn source(&mut self, source: &Path, has_first: bool) -> Result<(), Fallback> {
        let found = Found { path: source.to_owned(), place: Place::Unsearched };
        let Some(read) = self.look(source) else { return Err(Fallback::Unreadable { path: source.to_owned() }) };
        let directives = self.scanner.directives(source, &read.digest, self.sources)?;
        let first = if has_first { directives.first } else { 0 };
        for (used, name) in directives.uses.iter().take(first) {
            let (name, quoted) = match (used, name) {
                (Use::Include, Name::Quoted(name)) => (name, true),
                (Use::Include, Name::Angled(name)) => (name, false),
                _ => continue,
            };
            if quoted {
                let beside = self.path(source.parent().unwrap_or(Path::new("/")), name);
                self.precompiled(&beside, &[".gch"])?;
                if self.look(&beside).is_some() {
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
            self.look(&path);
            if self.found.listed.contains_key(&path) {
                return Err(Fallback::PrecompiledHeaders { path });
            }
        }
        Ok(())
    }

    /// Looks for a header along the chain, and for its precompiled form in each directory up to the one that has it.
    fn precompiled_along_chain(&mut self, start: usize, name: &[u8]) -> Result<Option<Found>, Fallback> {
        let found = self.along_chain(start, name);
        let end = match found.as_ref().map(|found| found.place) {
            Some(Place::Chain(at)) => at + 1,
            _ => self.chain.directories.len(),
        };
        for at in start..end {
            if let Some(directory) = self.chain.directory(at).map(Path::to_owned) {
                let header = self.path(&directory, name);
                self.precompiled(&header, &[".gch"])?;
            }
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
            // Definitions may have come after the includes that use them.
            let before = (self.found.read.len(), self.found.absent.len(), self.seen.len());
            for (file, used, name) in self.computed.clone() {
                self.computed(&file, used, &name)?;
            }
            if self.open.is_empty() && before == (self.found.read.len(), self.found.absent.len(), self.seen.len()) {
                return Ok(());
            }
        }
    }

    fn file(&mut self, file: &Found) -> Result<(), Fallback> {
        if self.seen.len() > MAX_FILES {
            return Err(Fallback::TooMany);
        }
        let Some(read) = self.look(&file.path) else { return Ok(()) };
        let directives = self.scanner.directives(&file.path, &read.digest, self.sources)?;
        if directives.has_incbin || self.assembler && directives.has_include {
            return Err(Fallback::Assembler { file: file.path.clone() });
        }
        for (name, body) in &directives.macros {
            self.macros.add(name, body);
        }
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
            let path = walk.path(file.path.parent().unwrap_or(Path::new("/")), name);
            walk.look(&path).map(|_| Found { path, place: Place::Beside })
        };
        let found = match used {
            _ if name.starts_with(b"/") => {
                let path = self.path(Path::new("/"), name);
                self.look(&path).map(|_| Found { path, place: Place::Unsearched })
            }
            Use::Embed => {
                if quoted {
                    beside(self);
                }
                return;
            }
            Use::IncludeNext | Use::ProbeNext if file.place != Place::Unsearched => {
                let start = if let Place::Chain(at) = file.place { at + 1 } else { 0 };
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
        if let Some(known) = self.resolved.get(&(start, name.to_vec())) {
            return known.clone();
        }
        let mut found = None;
        for at in start..self.chain.directories.len() {
            let Some(directory) = self.chain.directory(at).map(Path::to_owned) else { break };
            let path = self.path(&directory, name);
            if self.look(&path).is_some() {
                found = Some(Found { path, place: Place::Chain(at) });
                break;
            }
        }
        self.resolved.insert((start, name.to_vec()), found.clone());
        found
    }

    /// The path of a name in a directory. Where it has `..`, the kernel is followed: the directory before it must exist, and may
    /// be a symbolic link.
    fn path(&self, directory: &Path, name: &[u8]) -> PathBuf {
        let name = Path::new(OsStr::from_bytes(name));
        let climbs = name.components().any(|component| component == std::path::Component::ParentDir);
        if let (true, Some(parent), Some(file)) = (climbs, name.parent(), name.file_name())
            && let Some(real) = self.sources.directory(&directory.join(parent))
        {
            return real.join(file);
        }
        absolute(directory, name)
    }
}

fn computed(file: &Found, operand: &[u8]) -> Fallback {
    Fallback::Computed {
        file: file.path.clone(),
        operand: String::from_utf8_lossy(operand).chars().take(200).collect(),
    }
}
