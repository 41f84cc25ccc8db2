//! Words for people: tables, sizes, times, and text from elsewhere made harmless.

use std::error::Error;
use std::time::Duration;

/// An error with its causes, on lines of their own.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.ends_with(&words) {
            text.push_str("\n  because: ");
            text.push_str(&words);
        }
        cause = error.source();
    }
    harmless(&text)
}

/// Says something on standard error. A build goes on when nobody can hear it: a closed pipe and a full disk are no failures.
pub fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A number with its noun, as in `1 step` and `2 steps`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Text from a log without what could steer a terminal: colour sequences are dropped, other control characters and
/// those that turn the direction of text are shown as signs.
pub fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\n' | '\t' => out.push(char),
            '\u{1b}' if chars.next_if_eq(&'[').is_some() => {
                // A control sequence: parameters, then one final byte (ECMA-48, 5.4).
                while chars.next_if(|char| matches!(char, '\u{20}'..='\u{3f}')).is_some() {}
                chars.next_if(|char| matches!(char, '\u{40}'..='\u{7e}'));
            }
            '\u{1b}' if chars.next_if_eq(&']').is_some() => {
                // An operating system command: up to BEL or ESC, and not beyond the line.
                while chars.next_if(|char| !matches!(char, '\u{7}' | '\u{1b}' | '\n')).is_some() {}
                if chars.next_if_eq(&'\u{1b}').is_some() {
                    chars.next_if_eq(&'\\');
                } else {
                    chars.next_if_eq(&'\u{7}');
                }
            }
            '\r' if chars.peek() == Some(&'\n') => {}
            '\0'..='\u{1f}' => out.push(char::from_u32(0x2400 + u32::from(char)).unwrap_or('\u{fffd}')),
            '\u{7f}' => out.push('\u{2421}'),
            '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                out.push('\u{fffd}');
            }
            _ => out.push(char),
        }
    }
    out
}

/// What a terminal would still show of a line that a progress bar wrote over and over.
pub fn last_overwrite(line: &str) -> &str {
    line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default()
}

/// A size in the unit that reads best.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A duration in the unit that reads best.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// How long ago something was, in the one unit that reads best.
pub fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

/// Rows with aligned columns; nothing trails.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        out.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        out.push('\n');
    }
    harmless(&out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_cannot_steer_the_terminal() {
        for (text, expected) in [
            ("\u{1b}[1;31merror\u{1b}[0m: x", "error: x"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link", "link"),
            ("a\u{8}b\u{1b}cc", "a\u{2408}b\u{241b}cc"),
            ("tab\tline\r\nnext", "tab\tline\nnext"),
            ("\u{9b}2J\u{202e}x", "\u{fffd}2J\u{fffd}x"),
            ("\u{1b}[", ""),
        ] {
            assert_eq!(harmless(text), expected);
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_steers_is_left(text in "\\PC*|[\\x00-\\x9f\\[\\]a-z;0-9]*") {
            let shown = harmless(&text);
            proptest::prop_assert!(shown.chars().all(|char| !char.is_control() || char == '\n' || char == '\t'));
        }
    }

    #[test]
    fn sizes_and_times_read_well() {
        let sizes = [0, 1023, 1024, 1536, 1 << 20, (1 << 30) - 1].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "1.0 MiB", "1.0 GiB"]);
        let times = [40, 61_000, 3_661_000].map(|ms| duration(Duration::from_millis(ms)));
        assert_eq!(times, ["0.0 s", "1 min 01 s", "1 h 01 min"]);
        let ages = [3, 61, 7_300, 172_800].map(|seconds| ago(Duration::from_secs(seconds)));
        assert_eq!(ages, ["3 s ago", "1 min ago", "2 h ago", "2 d ago"]);
        assert_eq!(last_overwrite("10%\r20%\r"), "20%");
    }
}
