//! Texts of bounded length, and never a part of a character.

use std::borrow::Cow;

/// The beginning of a text.
pub(crate) fn cut(text: &str, most: usize) -> String {
    (0..=most.min(text.len())).rev().find_map(|end| text.get(..end)).unwrap_or_default().to_owned()
}

/// The end of a text, which says more than its beginning.
pub(crate) fn end_of(text: &str, most: usize) -> &str {
    (text.len().saturating_sub(most)..=text.len()).find_map(|from| text.get(from..)).unwrap_or_default()
}

/// Adds to a text of which the end is kept.
pub(crate) fn add(to: &mut String, more: &str, most: usize) {
    to.push_str(more);
    // Twice as much, so that not every piece moves all that is kept.
    if to.len() / 2 > most {
        *to = end_of(to, most).to_owned();
    }
}

/// A line without what gives it colours.
pub(crate) fn colourless(line: Cow<'_, str>) -> Cow<'_, str> {
    if !line.contains("\u{1b}[") {
        return line;
    }
    let mut parts = line.split("\u{1b}[");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push_str(part.split_once(|c: char| ('@'..='~').contains(&c)).map_or("", |(_, after)| after));
    }
    Cow::Owned(plain)
}

/// The first line with something in it.
pub(crate) fn first_line(text: &str) -> &str {
    text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default()
}

/// A number of seconds such as `0.01`, or none.
pub(crate) fn seconds(text: &str) -> std::time::Duration {
    text.trim()
        .parse()
        .ok()
        .and_then(|seconds| std::time::Duration::try_from_secs_f64(seconds).ok())
        .unwrap_or_default()
}

/// A duration in milliseconds; zero if it is none.
pub(crate) fn milliseconds(text: &str) -> std::time::Duration {
    seconds(text).checked_div(1000).unwrap_or_default()
}

/// Why a test failed, in a line of what it said: what stands after the place of a panic in Rust, a line with a place in Go, or the first line.
pub(crate) fn reason(output: &str) -> String {
    let mut lines = output.lines().skip_while(|line| !line.contains("panicked at "));
    if let Some((_, at)) = lines.next().and_then(|line| line.split_once("panicked at ")) {
        let said = lines.next().unwrap_or_default().trim();
        // Before Rust 1.73, both stand in one line.
        return match at.starts_with('\'') || said.is_empty() {
            true => at.to_owned(),
            false => format!("{said} ({})", at.trim_end_matches(':')),
        };
    }
    let is_place = |line: &&str| line.split_once(".go:").is_some_and(|(_, rest)| rest.contains(": "));
    let line = output.lines().map(str::trim).find(|line| is_place(line) || line.starts_with("panic: "));
    line.unwrap_or_else(|| first_line(output)).to_owned()
}
