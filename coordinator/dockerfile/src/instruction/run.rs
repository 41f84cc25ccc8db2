//! `RUN`, and the command lines of `CMD` and `ENTRYPOINT`.

use super::flags::{Flags, Known, Takes};
use super::mounts;
use crate::error::{Problem, list, shown, suggestion};
use crate::source::Word;
use crate::text::{Arguments, Heredoc, Node};

const RUN: Known =
    &[("mount", Takes::Many), ("network", Takes::One), ("security", Takes::One), ("device", Takes::Many)];

/// A command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// A text for the stage's shell.
    Shell(Word),
    /// A program and its arguments.
    Exec(Vec<Word>),
}

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// The heredocs of the command.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, with variables.
    pub mounts: Vec<Word>,
    /// `--network`.
    pub network: Network,
}

/// The network of a `RUN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Network {
    /// The one that builds have.
    #[default]
    Default,
    /// None.
    None,
    /// The machine's.
    Host,
}

pub(super) fn command_line(arguments: &Arguments) -> CommandLine {
    match arguments {
        Arguments::Json(words) => CommandLine::Exec(words.clone()),
        Arguments::Text(text) => CommandLine::Shell(text.clone()),
        Arguments::Words(_) | Arguments::Pairs(_) => CommandLine::Shell(Word::default()),
    }
}

pub(super) fn read(node: &Node) -> Result<Run, Problem> {
    let flags = Flags::read("RUN", &node.flags, RUN)?;
    let command = command_line(&node.arguments);
    if command == CommandLine::Exec(Vec::new()) {
        return Err(Problem::new(node.line_span, "RUN has no command").help("write `RUN [\"PROGRAM\", \"ARGUMENT\"]`"));
    }
    let mounts = flags.many("mount");
    mounts.iter().try_for_each(mounts::check)?;
    if let Some(device) = flags.one("device") {
        let problem = Problem::new(device.span, "devices are not supported");
        return Err(problem.help("remove `--device`; a step cannot use the devices of a worker"));
    }
    if let Some(security) = flags.one("security") {
        match security.value.as_str() {
            "sandbox" => {}
            "insecure" => {
                let problem = Problem::new(security.span, "`--security=insecure` is not supported");
                return Err(problem.help("remove it; steps run in a sandbox, as root of their own file system"));
            }
            other => return Err(choice(&security, "security mode", other, &["sandbox"])),
        }
    }
    let network = match flags.one("network") {
        None => Network::Default,
        Some(network) => match network.value.as_str() {
            "default" => Network::Default,
            "none" => Network::None,
            "host" => Network::Host,
            other => return Err(choice(&network, "network", other, &["default", "none", "host"])),
        },
    };
    Ok(Run { command, heredocs: node.heredocs.clone(), mounts, network })
}

/// An error for a value that is none of those that are known.
pub(super) fn choice(word: &Word, what: &str, found: &str, known: &[&str]) -> Problem {
    let near = suggestion(found, known.iter().copied());
    Problem::new(word.span, format!("unknown {what} {}", shown(found)))
        .help(near.unwrap_or_else(|| format!("expected {}", list(known.iter().copied()))))
}
