//! A terminal: a live line for each running step, and a line that stays for each that ended.

use std::collections::HashMap;
use std::io::Write;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::plain::{delivered_words, finished_words, started_words, target_words};
use super::waiting::waiting_words;
use super::{Board, Happening, Key, Show, summary};
use crate::terminal::{harmless, last_overwrite, say};

const TICK: Duration = Duration::from_millis(120);

/// Draws on standard error.
pub(super) struct Tty {
    bars: MultiProgress,
    running: HashMap<Key, ProgressBar>,
}

impl Tty {
    pub(super) fn new() -> Self {
        Self { bars: MultiProgress::with_draw_target(ProgressDrawTarget::stderr()), running: HashMap::new() }
    }

    fn line(&self, text: &str) {
        let text = harmless(text);
        self.bars.suspend(|| say(&text));
    }

    fn bar(&mut self, board: &Board, key: &Key) -> &ProgressBar {
        self.running.entry(key.clone()).or_insert_with(|| {
            let style = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_spinner());
            let bar = self.bars.add(ProgressBar::new_spinner().with_style(style));
            bar.set_prefix(harmless(&board.label(key)));
            bar.enable_steady_tick(TICK);
            bar
        })
    }

    fn clear(&mut self) {
        for (_, bar) in self.running.drain() {
            bar.finish_and_clear();
            self.bars.remove(&bar);
        }
    }
}

impl Show for Tty {
    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()> {
        match happening {
            Happening::Started(started) => {
                self.clear();
                self.line(&started_words(started));
            }
            Happening::StepStarted { key, worker } => {
                let prefix = harmless(&format!("{} on {worker}", board.label(key)));
                let bar = self.bar(board, key);
                bar.reset_elapsed();
                bar.set_prefix(prefix);
            }
            Happening::Log { key, text, .. } => {
                if let Some(line) = text.lines().rev().map(last_overwrite).find(|line| !line.trim().is_empty()) {
                    self.bar(board, key).set_message(harmless(line).replace('\t', " "));
                }
            }
            Happening::StepFinished { key, finished } => {
                if let Some(bar) = self.running.remove(key) {
                    bar.finish_and_clear();
                    self.bars.remove(&bar);
                }
                let sign = if finished.ok { "✓" } else { "✗" };
                self.line(&format!("{sign} {}  {}", board.label(key), finished_words(finished)));
            }
            Happening::Artifact { artifact, path } => {
                self.line(&format!("artifact {}", artifact.id));
                self.bars.suspend(|| writeln!(std::io::stdout().lock(), "{}", path.display()))?;
            }
            Happening::TargetFinished(finished) => {
                if let Some(text) = target_words(board, finished) {
                    self.line(&text);
                }
            }
            Happening::Delivered(delivered) => {
                self.line(&delivered_words(delivered));
                let named = format!("{}@{}", delivered.reference, delivered.digest);
                self.bars.suspend(|| writeln!(std::io::stdout().lock(), "{named}"))?;
            }
            Happening::Waiting(waiting) => {
                if let Some(text) = waiting_words(board, waiting) {
                    self.line(&text);
                }
            }
            Happening::Warning(text) => self.line(&format!("warning: {text}")),
            Happening::Finished { finished, moved } => {
                self.clear();
                let text = summary(board, finished, moved);
                self.bars.suspend(|| say(text.trim_end()));
            }
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        self.line(text);
    }
}
