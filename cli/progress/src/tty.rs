//! The terminal display: a live line for each running step, one for the whole build below them, and a permanent line
//! for each finished step.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use super::again::step_lines;
use super::plain::{counts_words, delivered_words, finished_words, started_words, target_words};
use super::told::counted;
use super::waiting::waiting_words;
use super::{Board, Happening, Key, Show, Work, compared_words, summary};
use kiln_terminal::{Look, colours, duration, harmless, last_overwrite, paint, say, shown};

const TICK: Duration = Duration::from_millis(120);

/// Draws to standard error.
pub(super) struct Tty {
    bars: MultiProgress,
    running: HashMap<Key, ProgressBar>,
    /// The progress of the build, below its steps.
    whole: Option<ProgressBar>,
    /// The progress of a scan or a transfer.
    work: Option<ProgressBar>,
    began: Instant,
}

/// A line's style: a spinner and `template`, in which `time` is the age of the line.
fn style(template: &str) -> ProgressStyle {
    let time = |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let _ = out.write_str(&duration(state.elapsed()));
    };
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner()).with_key("time", time)
}

impl Tty {
    pub(super) fn new(began: Instant) -> Self {
        let bars = MultiProgress::with_draw_target(ProgressDrawTarget::stderr());
        Self { bars, running: HashMap::new(), whole: None, work: None, began }
    }

    fn line(&self, text: &str) {
        self.bars.suspend(|| say(text));
    }

    fn bar(&mut self, board: &Board, key: &Key) -> &ProgressBar {
        self.running.entry(key.clone()).or_insert_with(|| {
            let bar = ProgressBar::new_spinner().with_style(style("{spinner:.cyan} {prefix:.cyan} {time} {wide_msg}"));
            let bar = match &self.whole {
                Some(whole) => self.bars.insert_before(whole, bar),
                None => self.bars.add(bar),
            };
            bar.set_prefix(harmless(&board.label(key)));
            bar.enable_steady_tick(TICK);
            bar
        })
    }

    /// Updates the progress of the build.
    fn count(&mut self, board: &Board) {
        if board.steps.is_empty() && board.copies == 0 {
            return;
        }
        let whole = self.whole.get_or_insert_with(|| {
            let bar = ProgressBar::new_spinner().with_elapsed(self.began.elapsed());
            let bar = self.bars.add(bar.with_style(style("{spinner:.cyan} {wide_msg}")));
            bar.enable_steady_tick(TICK);
            bar
        });
        whole.set_message(counts_words(board));
    }

    fn remove(&self, bar: &ProgressBar) {
        bar.finish_and_clear();
        self.bars.remove(bar);
    }

    fn clear(&mut self) {
        let bars: Vec<ProgressBar> = self.running.drain().map(|(_, bar)| bar).chain(self.whole.take()).collect();
        bars.iter().for_each(|bar| self.remove(bar));
    }
}

impl Show for Tty {
    fn happening(&mut self, board: &Board, happening: &Happening) -> std::io::Result<()> {
        match happening {
            Happening::Started(started) => {
                self.clear();
                self.line(&harmless(&started_words(started)));
            }
            Happening::StepStarted { key, worker, expected } => {
                let about = expected.map_or(String::new(), |expected| format!(", about {}", duration(expected)));
                let prefix = harmless(&format!("{} on {worker}{about}", board.label(key)));
                let bar = self.bar(board, key);
                bar.reset_elapsed();
                bar.set_prefix(prefix);
            }
            Happening::StepCalls { key, calls } => {
                if let (Some(words), Some(step)) = (counted(calls), board.steps.get(key)) {
                    let prefix = harmless(&format!("{} on {} ({words})", board.label(key), step.worker));
                    self.bar(board, key).set_prefix(prefix);
                }
            }
            Happening::Log { key, text, .. } => {
                if let Some(line) =
                    text.lines().rev().map(last_overwrite).find(|line| !harmless(line).trim().is_empty())
                {
                    let line = shown(line, colours()).replace('\t', " ");
                    self.bar(board, key).set_message(line);
                }
            }
            Happening::StepFinished { key, finished } => {
                if let Some(bar) = self.running.remove(key) {
                    self.remove(&bar);
                }
                let (look, sign) = if finished.ok { (Look::Good, "✓") } else { (Look::Bad, "✗") };
                let (sign, label) = (paint(look, sign), harmless(&board.label(key)));
                self.line(&format!("{sign} {label}  {}", harmless(&finished_words(finished))));
            }
            Happening::StepAgain(again) => {
                step_lines(board, again).iter().for_each(|line| self.line(&harmless(line)));
            }
            Happening::Compared(compared) => {
                let found = compared.result.clone().unwrap_or_default();
                self.line(&harmless(&compared_words(&compared.artifact, &found)));
            }
            Happening::Artifact { artifact, path } => {
                self.line(&format!("artifact {}", harmless(&artifact.id)));
                self.bars.suspend(|| writeln!(std::io::stdout().lock(), "{}", path.display()))?;
            }
            Happening::TargetFinished(finished) => {
                if let Some(text) = target_words(board, finished) {
                    self.line(&harmless(&text));
                }
            }
            Happening::Delivered(delivered) => {
                self.line(&harmless(&delivered_words(delivered)));
                let named = format!("{}@{}", delivered.reference, delivered.digest);
                self.bars.suspend(|| writeln!(std::io::stdout().lock(), "{named}"))?;
            }
            Happening::Waiting(waiting) => {
                if let Some(text) = waiting_words(board, waiting) {
                    self.line(&harmless(&text));
                }
            }
            Happening::Gate(_) => {}
            Happening::Warning(text) => {
                self.line(&format!("{} {}", paint(Look::Warning, "warning:"), harmless(text)));
            }
            Happening::Finished { finished, moved } => {
                self.clear();
                let text = summary(board, finished, moved);
                self.bars.suspend(|| say(text.trim_end()));
            }
        }
        if !matches!(happening, Happening::Finished { .. }) {
            self.count(board);
        }
        Ok(())
    }

    fn note(&mut self, text: &str) {
        self.line(&harmless(text));
    }

    fn work(&mut self, work: Option<&Work>) {
        let Some(work) = work else {
            if let Some(bar) = self.work.take() {
                self.remove(&bar);
            }
            return;
        };
        let bar = self.work.get_or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(0));
            bar.enable_steady_tick(TICK);
            bar
        });
        bar.set_style(match work.is_counted() {
            true => style("{prefix:.cyan} {wide_bar:.cyan/dim} {msg}").progress_chars("━━╌"),
            false => style("{spinner:.cyan} {prefix:.cyan} {msg}"),
        });
        bar.set_prefix(harmless(&work.what));
        bar.set_message(work.amounts());
        bar.set_length(work.total);
        bar.set_position(work.done);
    }

    fn tick(&mut self, board: &Board) {
        self.count(board);
    }
}
