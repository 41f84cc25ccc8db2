//! What an executor runs.

use std::collections::BTreeMap;

use super::command::{Run, RunMount};
use super::copied::{Copy, CopySource};
use crate::bases::BaseImage;
use crate::config::Image;
use crate::git::GitSource;
use crate::lint::Lint;
use crate::options::Context;
use crate::platform::Platform;
use crate::source::Span;

/// A build: operations in an order in which each comes after those that it needs, and the image of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Build {
    /// The operations. Each is named by its index.
    pub operations: Vec<Operation>,
    /// The operation whose files the image has.
    pub result: usize,
    /// The image's configuration and history. Its layers, and the times of new entries, are the exporter's.
    pub image: Image,
    /// How many entries of the history are the base image's.
    pub inherited_history: usize,
    /// The time in place of the clock's, in seconds since 1970, if the build has one (`SOURCE_DATE_EPOCH`).
    pub epoch: Option<i64>,
    /// What of contexts is read, so that nothing else need be.
    pub context_paths: BTreeMap<Context, Paths>,
    /// What the rules found.
    pub lints: Vec<Lint>,
}

impl Build {
    /// The operation that the result's files begin with: its base, or no files.
    pub fn first(&self) -> usize {
        let mut at = self.result;
        while let Some(below) = self.operations.get(at).and_then(Operation::below) {
            at = below;
        }
        at
    }
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operation {
    /// What it does.
    pub kind: Operator,
    /// Its name for people: `[build 2/5] RUN make`.
    pub name: String,
    /// The instruction that it belongs to.
    pub span: Span,
    /// The first and the last line of the instruction.
    pub lines: (usize, usize),
    /// The stage that it belongs to, by its name or its index.
    pub stage: String,
    /// The platform that it is for.
    pub platform: Platform,
    /// Whether results of earlier builds are not used.
    pub no_cache: bool,
}

/// What an operation does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operator {
    /// The files of an image.
    Base {
        /// The image.
        image: BaseImage,
        /// The digest of its manifest, or of the index that names it, if the caller has given one.
        digest: Option<String>,
    },
    /// No files.
    Scratch,
    /// The files of a context.
    Context(Context),
    /// The file at a URL.
    Fetch(Fetch),
    /// The files of a repository.
    Git(GitSource),
    /// Runs a command.
    Run(Run),
    /// Copies files.
    Copy(Copy),
    /// Makes a directory, with those above it, unless it exists.
    Workdir {
        /// The files that it is made in.
        root: usize,
        /// Its path.
        path: String,
        /// Whom it belongs to: the stage's user. Empty for root.
        user: String,
    },
}

/// What of a context is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Paths {
    /// Everything.
    All,
    /// These paths and patterns, from the root on, with what is below them.
    Some(Vec<String>),
}

/// `ADD` of a URL. Its file has the mode 0600, and the time that the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The URL.
    pub url: String,
    /// The name of the file.
    pub file: String,
    /// The digest that is expected.
    pub checksum: Option<String>,
}

impl Operation {
    /// The operation whose files it changes.
    pub fn below(&self) -> Option<usize> {
        match &self.kind {
            Operator::Run(run) => Some(run.root),
            Operator::Copy(copy) => Some(copy.root),
            Operator::Workdir { root, .. } => Some(*root),
            _ => None,
        }
    }

    /// The operations that it needs.
    pub fn inputs(&self) -> Vec<usize> {
        match &self.kind {
            Operator::Base { .. }
            | Operator::Scratch
            | Operator::Context(_)
            | Operator::Fetch(_)
            | Operator::Git(_) => Vec::new(),
            Operator::Workdir { root, .. } => vec![*root],
            Operator::Run(run) => {
                std::iter::once(run.root).chain(run.mounts.iter().filter_map(RunMount::from)).collect()
            }
            Operator::Copy(copy) => {
                std::iter::once(copy.root).chain(copy.sources.iter().filter_map(CopySource::from)).collect()
            }
        }
    }
}
