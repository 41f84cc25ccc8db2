//! Text to instructions: lines, directives, continuations, heredocs, flags and the form of arguments.
//!
//! What an instruction's arguments mean is not known here.

mod arguments;
mod directives;
mod heredoc;
mod lines;
mod logical;
mod read;
mod split;

pub use arguments::{Arguments, Pair};
pub use directives::assignment;
pub use directives::{Directives, syntax};
pub use heredoc::{Heredoc, heredoc_word, without_leading_tabs};
pub use read::{Node, Text, read, read_trigger};

/// Maximum number of bytes of a Dockerfile.
pub const MAX_BYTES: usize = 4 << 20;
/// Maximum number of bytes of a line, with its line break.
pub const MAX_LINE: usize = 64 << 10;
/// Maximum number of instructions.
pub const MAX_INSTRUCTIONS: usize = 10_000;

/// The instructions, in alphabetical order.
pub const INSTRUCTIONS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];
