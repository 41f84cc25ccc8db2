//! The display of `kiln docker build`: as of other builds, but only its own result goes to standard output.

use std::io;
use std::time::Instant;

use kiln_buildx::Progress;

use crate::rawjson::RawJson;
use crate::{Board, Happening, Show, Work, show, summary};
use kiln_proto::v1;
use kiln_terminal::{harmless, say};

/// The requested display. The command started at `began`.
pub fn show_for_docker(progress: Progress, began: Instant) -> Box<dyn Show> {
    let inner = match progress {
        Progress::Quiet => return Box::new(Quiet),
        Progress::RawJson => return Box::new(RawJson::default()),
        Progress::Auto => crate::Progress::Auto,
        Progress::Plain => crate::Progress::Plain,
        Progress::Tty => crate::Progress::Tty,
    };
    Box::new(Loud(show(inner, began)))
}

/// Everything but where artifacts are on this machine, because they are not.
struct Loud(Box<dyn Show>);

impl Show for Loud {
    fn happening(&mut self, board: &Board, happening: &Happening) -> io::Result<()> {
        match happening {
            Happening::Artifact { .. } => Ok(()),
            Happening::Delivered(delivered) => {
                let digest = if delivered.digest.is_empty() { String::new() } else { format!("@{}", delivered.digest) };
                self.0.note(&format!("{} {}{digest}", delivered.how, delivered.reference));
                Ok(())
            }
            other => self.0.happening(board, other),
        }
    }

    fn note(&mut self, text: &str) {
        self.0.note(text);
    }

    fn work(&mut self, work: Option<&Work>) {
        self.0.work(work);
    }

    fn tick(&mut self, board: &Board) {
        self.0.tick(board);
    }
}

/// Nothing but why the build failed.
struct Quiet;

impl Show for Quiet {
    fn happening(&mut self, board: &Board, happening: &Happening) -> io::Result<()> {
        if let Happening::Finished { finished, moved } = happening
            && finished.status() != v1::Status::Succeeded
        {
            say(summary(board, finished, moved).trim_end_matches('\n'));
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        say(&harmless(text));
    }

    fn work(&mut self, _work: Option<&Work>) {}

    fn tick(&mut self, _board: &Board) {}
}
