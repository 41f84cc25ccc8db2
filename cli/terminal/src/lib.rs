//! Output for people: sizes, times, colours, tables, and sanitised text.

mod escape;
mod table;

use std::error::Error;
use std::time::Duration;

use console::Style;

pub use escape::{harmless, shown, without_escapes};
pub use table::{Column, Table, fixed, flexible, stdout_width};

/// Decides once whether this process uses colours: on a terminal, unless `NO_COLOR`, `CLICOLOR=0` or `TERM=dumb` is
/// set.
pub fn choose_colours() {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let is = |name: &str, value: &str| set(name).is_some_and(|found| found == value);
    let wanted = |is_terminal: bool| {
        let forced = set("CLICOLOR_FORCE").is_some() && !is("CLICOLOR_FORCE", "0");
        set("NO_COLOR").is_none() && (forced || is_terminal && !is("CLICOLOR", "0") && !is("TERM", "dumb"))
    };
    use std::io::IsTerminal;
    console::set_colors_enabled_stderr(wanted(std::io::stderr().is_terminal()));
    console::set_colors_enabled(wanted(std::io::stdout().is_terminal()));
}

/// Whether to use colours on standard error.
pub fn colours() -> bool {
    console::colors_enabled_stderr()
}

/// The appearance of Kiln's own messages on standard error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A success.
    Good,
    /// A failure.
    Bad,
    /// A warning.
    Warning,
    /// A step's name.
    Name,
}

/// Text with this appearance, if standard error uses colours.
pub fn paint(look: Look, text: &str) -> String {
    let style = Style::new().for_stderr();
    let style = match look {
        Look::Good => style.green(),
        Look::Bad => style.red().bold(),
        Look::Warning => style.yellow(),
        Look::Name => style.cyan(),
    };
    style.apply_to(text).to_string()
}

/// Prints an error to standard error.
pub fn say_error(text: &str) {
    say(&format!("{} {text}", paint(Look::Bad, "error:")));
}

/// Prints a warning to standard error.
pub fn say_warning(text: &str) {
    say(&format!("{} {text}", paint(Look::Warning, "warning:")));
}

/// An error with its causes, one per line.
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

/// Prints to standard error. Failures, such as a closed pipe or a full disk, are ignored: a build continues even if
/// nobody can read it.
pub fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// A number with its noun, such as `1 step` and `2 steps`.
pub fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// What a terminal would finally show of a line that a progress bar has overwritten.
pub fn last_overwrite(line: &str) -> &str {
    line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default()
}

/// A size in the most readable unit.
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

/// A duration in the most readable units.
pub fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{:.1} s", duration.as_secs_f64()),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
    }
}

/// The time since something happened, in the most readable unit.
pub fn ago(age: Duration) -> String {
    let seconds = age.as_secs();
    match seconds {
        0..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} d ago", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
