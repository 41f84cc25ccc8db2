//! What a user sees of a build while it runs.
//!
//! The [`Board`] turns a build's events into happenings and keeps what a summary needs; a [`Show`] puts them on a
//! terminal, in a pipe or into JSON.

mod board;
mod json;
mod lines;
mod plain;
mod summary;
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

pub use board::{Board, Key, Step};
pub use summary::{cache_word, status_word, summary};
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

/// Something to show.
#[derive(Debug, Clone)]
pub enum Happening {
    /// The build began, or was taken up again by a restarted coordinator.
    Started(v1::BuildStarted),
    /// A step runs.
    StepStarted {
        /// Which.
        key: Key,
        /// Where.
        worker: String,
    },
    /// Output of a step, in whole lines where it has any.
    Log {
        /// Which.
        key: Key,
        /// `stdout` or `stderr`.
        stream: String,
        /// The text, with its line ends.
        text: String,
    },
    /// A step has its result.
    StepFinished {
        /// Which.
        key: Key,
        /// The result.
        finished: v1::StepFinished,
    },
    /// An artifact is there, at its place on this machine.
    Artifact {
        /// The artifact.
        artifact: v1::Artifact,
        /// Its place.
        path: PathBuf,
    },
    /// A target came to its end.
    TargetFinished(v1::TargetFinished),
    /// Artifacts were taken to where they are used from.
    Delivered(Delivered),
    /// A target stands still.
    Waiting(v1::Waiting),
    /// A warning.
    Warning(String),
    /// The end.
    Finished {
        /// How it ended.
        finished: v1::BuildFinished,
        /// What was sent for it.
        moved: Moved,
    },
}

/// What was taken where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The artifact's name.
    pub name: String,
    /// `pushed`, `loaded`, or `joined` to one layout for all platforms.
    pub how: &'static str,
    /// Under which name it is there.
    pub reference: String,
    /// The digest that names it there.
    pub digest: String,
    /// Bytes that were sent, and bytes that were there.
    pub bytes: (u64, u64),
}

/// Shows a build.
pub trait Show: Send {
    /// Shows what happened; `board` knows of it already. An error is of standard output, which is data: what nobody hears on
    /// standard error is none.
    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()>;
    /// Words beside the build, such as that it is being cancelled.
    fn note(&mut self, text: &str);
    /// Shows how far a scan or a transfer is that takes longer than a moment; `None` once it has ended.
    fn work(&mut self, work: Option<&Work>);
    /// Called once a second while a build is followed, for whoever says that it still runs.
    fn tick(&mut self, board: &Board);
}

/// The show that was asked for. `auto` is a terminal's where standard error is one. The command began at `began`.
pub fn show(progress: Progress, began: Instant) -> Box<dyn Show> {
    match progress {
        Progress::Json => Box::new(json::Json::default()),
        Progress::Tty => Box::new(tty::Tty::new(began)),
        Progress::Auto if std::io::stderr().is_terminal() => Box::new(tty::Tty::new(began)),
        Progress::Plain | Progress::Auto => Box::new(plain::Plain::default()),
    }
}
