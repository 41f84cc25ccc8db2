//! The names of operations for people.

use crate::platform::Platform;
use crate::words::{Lexer, Variables};

/// What the names of a stage's operations begin with.
pub(super) struct Titles {
    pub(super) title: String,
    /// The platform of the stage, where builds are for several.
    pub(super) platform: Option<Platform>,
    pub(super) next: usize,
    pub(super) total: usize,
}

impl Titles {
    /// The name of the next operation: `[linux/arm64 build 2/5] RUN make`.
    pub(super) fn next(&mut self, text: &str, is_trigger: bool, env: &dyn Variables) -> String {
        let Some(last_digit) = self.total.checked_ilog10() else { return text.to_owned() };
        self.next = self.next.saturating_add(1);
        let platform =
            self.platform.as_ref().map(|own| format!("{own}{} ", other_target(own, env))).unwrap_or_default();
        let title = if self.title.is_empty() { String::new() } else { format!("{} ", self.title) };
        let width = last_digit.saturating_add(1) as usize;
        let trigger = if is_trigger { "ONBUILD " } else { "" };
        format!("[{platform}{title}{:>width$}/{}] {trigger}{text}", self.next, self.total)
    }
}

/// The platform that a stage compiles for, if its arguments say that it is another than its own: `->arm64`.
fn other_target(own: &Platform, env: &dyn Variables) -> String {
    let target = match env.get("TARGETPLATFORM").map(|text| Platform::read(text, own)) {
        Some(Ok(target)) => target,
        _ => {
            let parts = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].map(|name| env.get(name));
            if parts.iter().all(Option::is_none) {
                return String::new();
            }
            let [os, architecture, variant] = parts.map(|part| part.filter(|part| !part.is_empty()));
            Platform {
                os: os.unwrap_or(&own.os).to_owned(),
                architecture: architecture.unwrap_or(&own.architecture).to_owned(),
                variant: variant.unwrap_or_default().to_owned(),
                os_version: String::new(),
            }
        }
    };
    let target = target.normalized();
    if target.os != own.os {
        return format!("->{target}");
    }
    if target.architecture == own.architecture {
        return String::new();
    }
    let variant = if target.variant.is_empty() { String::new() } else { format!("/{}", target.variant) };
    format!("->{}{variant}", target.architecture)
}

/// An instruction's line as its operation shows it: variables expanded as `lexer` does, and its name in upper case.
pub(super) fn line(lexer: Lexer, line: &str, env: &dyn Variables) -> String {
    let line = lexer.expand(line, env).map_or_else(|_| line.to_owned(), |expanded| expanded.text);
    match line.split_once(' ') {
        Some((name, rest)) => format!("{} {rest}", name.to_uppercase()),
        None => line.to_uppercase(),
    }
}

/// The first line of a heredoc, which stands for all of them.
pub(super) fn summary(heredoc: &str) -> String {
    let mut lines = heredoc.trim().lines();
    let first = lines.next().unwrap_or_default();
    if lines.next().is_some() { format!("{first}...") } else { first.to_owned() }
}
