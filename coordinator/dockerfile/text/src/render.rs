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
    let line = source.text().get(bytes.clone()).unwrap_or_default();
    let start = floor(line, place.start.saturating_sub(bytes.start));
    let end = floor(line, place.end.saturating_sub(bytes.start)).max(start);
    let (before, rest) = line.split_at_checked(start).unwrap_or_default();
    let (place, after) = rest.split_at_checked(end.saturating_sub(start)).unwrap_or_default();
    let near = tail(before, BEFORE);
    let shown = head(place, AFTER);
    let next = head(after, AFTER.saturating_sub(shown.chars().count()));
    let left = if near.len() < before.len() { "…" } else { "" };
    let right = if shown.len() < place.len() || next.len() < after.len() { "…" } else { "" };
    let clean = |text: &str| -> String {
        text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
    };
    let mut excerpt = format!("{left}{}", clean(near));
    let from = excerpt.len();
    excerpt.push_str(&clean(shown));
    let to = excerpt.len();
    excerpt.push_str(&clean(next));
    excerpt.push_str(right);
    (excerpt, (from, to))
}

/// The first `count` characters.
fn head(text: &str, count: usize) -> &str {
    text.char_indices().nth(count).and_then(|(at, _)| text.get(..at)).unwrap_or(text)
}

/// The last `count` characters.
fn tail(text: &str, count: usize) -> &str {
    text.char_indices().rev().nth(count.saturating_sub(1)).and_then(|(at, _)| text.get(at..)).unwrap_or(text)
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

    #[test]
    fn a_shortened_line_of_control_characters_shows_that_it_was() {
        let text = format!("{}X{}", "\u{1}".repeat(90), "\u{1}".repeat(180));
        let (shown, (start, end)) = excerpt(&Source::new("Dockerfile", &text), Span::new(90, 91));
        assert!(shown.starts_with('…') && shown.ends_with('…'), "{shown}");
        assert_eq!(shown.get(start..end), Some("X"));
    }
}
