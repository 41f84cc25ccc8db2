//! Errors as a terminal shows them: the line, and a caret below.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};

use crate::source::{Source, Span};

/// Maximum number of characters of a line that are shown before and after the place.
const BEFORE: usize = 60;
const AFTER: usize = 120;

/// What is wrong, with the line that it is about. The size is bounded, whatever the source.
pub(crate) fn error(source: &Source, span: Span, message: &str, help: Option<&str>, colours: bool) -> String {
    let line = source.line(span.start);
    let (excerpt, (start, end)) = excerpt(source, span);
    let snippet = Snippet::source(&excerpt)
        .line_start(line)
        .path(source.name())
        .annotation(AnnotationKind::Primary.span(start..end));
    let mut report = vec![Level::ERROR.primary_title(message).element(snippet)];
    report.extend(help.map(|help| Group::with_title(Level::HELP.secondary_title(help))));
    let renderer = if colours { Renderer::styled() } else { Renderer::plain() };
    renderer.render(&report)
}

/// A part of the line, and where in it the place is. Control characters are replaced, so that a file cannot control the terminal.
fn excerpt(source: &Source, place: Span) -> (String, (usize, usize)) {
    let bytes = source.line_bytes(source.line(place.start));
    let line = &source.text()[bytes.clone()];
    let start = floor(line, place.start.saturating_sub(bytes.start));
    let end = floor(line, place.end.saturating_sub(bytes.start)).max(start);
    let clean = |text: &str| text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect();
    let before: String = clean(&line[start - tail(&line[..start], BEFORE)..start]);
    let place: String = clean(&line[start..start + head(&line[start..end], AFTER)]);
    let after: String = clean(&line[end..end + head(&line[end..], AFTER.saturating_sub(place.chars().count()))]);
    let left = if before.chars().count() == BEFORE && start > before.len() { "…" } else { "" };
    let right = if start + place.len() < end || end + after.len() < line.len() { "…" } else { "" };
    let from = left.len() + before.len();
    (format!("{left}{before}{place}{after}{right}"), (from, from + place.len()))
}

/// The number of bytes of the first `count` characters.
fn head(text: &str, count: usize) -> usize {
    text.char_indices().nth(count).map_or(text.len(), |(at, _)| at)
}

/// The number of bytes of the last `count` characters.
fn tail(text: &str, count: usize) -> usize {
    text.char_indices().rev().nth(count.saturating_sub(1)).map_or(text.len(), |(at, _)| text.len() - at)
}

/// The greatest character boundary that is not beyond a byte.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caret_is_below_the_place() {
        let source = Source::new("app/Dockerfile", "FROM a\n\tRUNN make\n");
        let help = Some("did you mean `RUN`?");
        let shown = error(&source, Span::new(8, 12), "unknown instruction `RUNN`", help, false);
        insta::assert_snapshot!(shown, @r"
        error: unknown instruction `RUNN`
         --> app/Dockerfile:2:2
          |
        2 |     RUNN make
          |     ^^^^
          |
        help: did you mean `RUN`?
        ");
    }

    #[test]
    fn long_lines_and_control_characters_are_shortened_and_replaced() {
        let text = format!("RUN {}\u{1b}[31m{}", "ä".repeat(9_000), "b".repeat(9_000));
        let source = Source::new("Dockerfile", &text);
        let at = text.find('\u{1b}').unwrap_or_default();
        for span in [Span::new(at, at + 5), Span::new(at, text.len()), Span::new(5, 6), Span::new(text.len(), 90_000)] {
            let shown = error(&source, span, "bad", None, false);
            assert!(shown.len() < 2_000 && !shown.contains('\u{1b}'), "{shown}");
        }
    }
}
