//! The display of a running build.
//!
//! The [`Board`] turns a build's events into happenings and keeps what a summary needs; a [`Show`] displays them on a
//! terminal, in a pipe or as JSON.

mod again;
mod board;
mod docker;
mod joint;
mod json;
mod lines;
mod names;
mod plain;
mod rawjson;
mod summary;
mod tested;
mod told;
mod tty;
mod waiting;
mod work;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

use clap::ValueEnum;
use kiln_proto::transfer::Moved;
use kiln_proto::v1;

pub use again::{compared_object, compared_words};
pub use board::{Board, Key, Step};
pub use docker::show_for_docker;
pub use joint::{Joint, Part};
pub use json::gate_word;
pub use names::{brief, in_shell, is_called};
pub use summary::{cache_word, status_word, summary};
pub use tested::{failures, name as name_of_test};
pub use told::start;
pub use work::{Work, watched};

/// How to show progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Progress {
    /// `tty` on a terminal, otherwise `plain`.
    #[default]
    Auto,
    /// One live line per running step.
    Tty,
    /// One line per line of output.
    Plain,
    /// One JSON object per event, on standard output.
    Json,
}

/// Something to display.
#[derive(Debug, Clone)]
pub enum Happening {
    /// The build started, or was resumed by a restarted coordinator.
    Started(v1::BuildStarted),
    /// A step started running.
    StepStarted {
        /// The action.
        key: Key,
        /// The worker.
        worker: String,
        /// How long it is likely to run, if that is known.
        expected: Option<std::time::Duration>,
    },
    /// Output of a step, in complete lines if possible.
    Log {
        /// The action.
        key: Key,
        /// `stdout` or `stderr`.
        stream: String,
        /// The text, including line ends.
        text: String,
    },
    /// What has become of a running step's compiler calls so far.
    StepCalls {
        /// The action.
        key: Key,
        /// The counts.
        calls: Box<v1::SplitCalls>,
    },
    /// A step finished.
    StepFinished {
        /// The action.
        key: Key,
        /// The result.
        finished: Box<v1::StepFinished>,
    },
    /// A step runs again, or has, to be compared.
    StepAgain(Box<v1::StepAgain>),
    /// An artifact was compared with what was made again.
    Compared(v1::ArtifactCompared),
    /// An artifact was written on this machine.
    Artifact {
        /// The artifact.
        artifact: Box<v1::Artifact>,
        /// Its path.
        path: PathBuf,
    },
    /// A target finished.
    TargetFinished(v1::TargetFinished),
    /// An artifact was delivered to a destination.
    Delivered(Delivered),
    /// A target is waiting.
    Waiting(v1::Waiting),
    /// A warning.
    Warning(String),
    /// A gate of an artifact has ended. What it printed was the output of a step.
    Gate(v1::GateResult),
    /// The build ended.
    Finished {
        /// How it ended.
        finished: v1::BuildFinished,
        /// What was uploaded for it.
        moved: Moved,
    },
}

/// A delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The artifact's name.
    pub name: String,
    /// `pushed`, `loaded`, or `joined` to one layout for all platforms.
    pub how: &'static str,
    /// The artifact's name at the destination.
    pub reference: String,
    /// Its digest at the destination.
    pub digest: String,
    /// Bytes that were sent, and bytes that were already there.
    pub bytes: (u64, u64),
}

/// Displays a build.
pub trait Show: Send {
    /// The directory of the project whose build this displays; empty if it is the only one.
    fn project(&self) -> &str {
        ""
    }
    /// Displays a happening, which `board` already includes. Only standard output, which is data, can cause an error;
    /// failures to write to standard error are ignored.
    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()>;
    /// Displays a message, such as that the build is being cancelled.
    fn note(&mut self, text: &str);
    /// Displays the progress of a scan or a transfer that takes longer than a moment; `None` when it has ended.
    fn work(&mut self, work: Option<&Work>);
    /// Called once per second while a build is followed, to show that it is still running.
    fn tick(&mut self, board: &Board);
}

/// The requested display. `auto` is `tty` if standard error is a terminal. The command started at `began`.
pub fn show(progress: Progress, began: Instant) -> Box<dyn Show> {
    match progress {
        Progress::Json => Box::new(json::Json::default()),
        Progress::Tty => Box::new(tty::Tty::new(began)),
        Progress::Auto if std::io::stderr().is_terminal() => Box::new(tty::Tty::new(began)),
        Progress::Plain | Progress::Auto => Box::new(plain::Plain::default()),
    }
}
