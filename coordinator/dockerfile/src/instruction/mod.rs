//! What instructions mean: every instruction and flag of the Dockerfile frontend 1.26.
//!
//! Variables are not expanded here.

mod copy;
mod csv;
mod flags;
mod health;
mod mounts;
mod read;
mod run;
mod size;

pub use copy::{Copy, InlineFile};
pub use health::Healthcheck;
pub use mounts::{Mount, MountKind, Sharing, mount_source, read_mount};
pub use read::read;
pub use run::{CommandLine, Network, Run};

use crate::source::{Span, Word};
use crate::text::Pair;

/// An instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// Its name as it is written.
    pub keyword: Word,
    /// Its line, with continuations joined.
    pub line: String,
    /// The comments before it, without `#`.
    pub comments: Vec<String>,
    /// Where it is, with its heredocs.
    pub span: Span,
    /// What it does.
    pub kind: Kind,
}

/// What an instruction does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// `ADD`.
    Add(Copy),
    /// `ARG`.
    Arg(Vec<Arg>),
    /// `CMD`.
    Cmd(CommandLine),
    /// `COPY`.
    Copy(Copy),
    /// `ENTRYPOINT`.
    Entrypoint(CommandLine),
    /// `ENV`.
    Env(Vec<Pair>),
    /// `EXPOSE`: ports, sorted.
    Expose(Vec<Word>),
    /// `FROM`.
    From(From),
    /// `HEALTHCHECK`.
    Healthcheck(Healthcheck),
    /// `LABEL`.
    Label(Vec<Pair>),
    /// `MAINTAINER`.
    Maintainer(Word),
    /// `ONBUILD`: the instruction as it is stored, and as it was read.
    Onbuild(String, Box<Instruction>),
    /// `RUN`.
    Run(Run),
    /// `SHELL`.
    Shell(Vec<Word>),
    /// `STOPSIGNAL`.
    Stopsignal(Word),
    /// `USER`.
    User(Word),
    /// `VOLUME`.
    Volume(Vec<Word>),
    /// `WORKDIR`.
    Workdir(Word),
}

/// A variable that `ARG` declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: Word,
    /// Its default value, if there is one, with its quotes.
    pub default: Option<Word>,
}

/// `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// What the stage is based on: an image, a stage, or a named context.
    pub base: Word,
    /// The word `AS` as it is written, and the stage's name as it is written.
    pub name: Option<(Word, Word)>,
    /// `--platform`.
    pub platform: Option<Word>,
}
