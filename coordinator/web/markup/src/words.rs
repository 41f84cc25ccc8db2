//! Times, sizes and names as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

use kiln_proto::clock;
use kiln_proto::protobuf::Timestamp;
use kiln_proto::v1::Status;
pub use kiln_web_lines::size;
pub use kiln_web_model::milliseconds;
use maud::{Markup, html};

/// A duration with its two largest units.
pub fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match seconds {
        0 if milliseconds < 1000 => format!("{milliseconds} ms"),
        0..10 => format!("{:.1} s", milliseconds as f64 / 1000.0),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {:02} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {:02} m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// CPUs, from thousandths.
pub fn cpus(milli: u64) -> String {
    match milli {
        1000 => "1 CPU".to_owned(),
        _ if milli.is_multiple_of(1000) => format!("{} CPUs", milli / 1000),
        _ => format!("{:.1} CPUs", milli as f64 / 1000.0),
    }
}

/// A number with its noun.
pub fn count(number: u64, one: &str, many: &str) -> String {
    format!("{} {}", grouped(number), if number == 1 { one } else { many })
}

/// A number with its thousands set apart.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Part of a whole, in per cent; nothing of nothing is nothing.
pub fn percent(part: u64, whole: u64) -> u64 {
    (part * 100).checked_div(whole).unwrap_or(0)
}

/// Milliseconds since 1970, now.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}

/// When something was, in milliseconds since 1970, to the minute and in UTC.
pub fn minute(milliseconds: i64) -> String {
    let exact = clock::rfc3339(&Timestamp { seconds: milliseconds.div_euclid(1000), nanos: 0 });
    exact.get(..16).map_or(exact.clone(), |minute| minute.replace('T', " "))
}

fn ago_words(milliseconds: i64) -> String {
    let seconds = milliseconds.max(0) / 1000;
    match seconds {
        0..45 => "just now".to_owned(),
        45..3600 => format!("{} min ago", (seconds + 30).max(60) / 60),
        3600..86_400 => format!("{} h ago", seconds / 3600),
        86_400..172_800 => "yesterday".to_owned(),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// When something was, in words; the exact time shows when one points at it. The script keeps it up to date.
pub fn ago(at: &Timestamp) -> Markup {
    let exact = clock::rfc3339(&Timestamp { nanos: 0, ..*at });
    html! { time datetime=(exact) title=(exact) { (ago_words(now() - milliseconds(at))) } }
}

/// A sentence in which backticks are around names.
pub fn quoted(text: &str) -> Markup {
    let parts: Vec<&str> = text.split('`').collect();
    // One that is alone is a backtick.
    if parts.len().is_multiple_of(2) {
        return html! { (text) };
    }
    html! { @for (at, part) in parts.iter().enumerate() { @if at.is_multiple_of(2) { (part) } @else { code { (part) } } } }
}

/// The first characters of a hash or an id.
pub fn short(id: &str, length: usize) -> &str {
    id.get(..length).unwrap_or(id)
}

/// A status as a word, which is also its class.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Unspecified => "unknown",
        Status::Running => "running",
        Status::Succeeded => "succeeded",
        Status::Failed => "failed",
        Status::FarmFailed => "farm failed",
        Status::Cancelled => "cancelled",
    }
}

/// The class of a status.
pub fn class(status: Status) -> &'static str {
    match status {
        Status::FarmFailed => "farm-failed",
        other => self::status(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_backticks_are_code_and_nothing_is_markup() {
        assert_eq!(quoted("step `a<b>` failed").into_string(), "step <code>a&lt;b&gt;</code> failed");
        assert_eq!(quoted("it`s <b>").into_string(), "it`s &lt;b&gt;");
    }

    #[test]
    fn durations_and_sizes_have_few_digits() {
        let durations = [0, 999, 1_000, 9_949, 59_999, 60_000, 3_599_000, 3_600_000, 90_000_000].map(duration);
        assert_eq!(
            durations,
            ["0 ms", "999 ms", "1.0 s", "9.9 s", "59 s", "1 m 00 s", "59 m 59 s", "1 h 00 m", "1 d 01 h"]
        );
        let sizes = [0, 1023, 1024, 10_239, 1 << 20, (1 << 30) - 1, 5 << 40].map(size);
        assert_eq!(sizes, ["0 B", "1023 B", "1.0 KiB", "10.0 KiB", "1.0 MiB", "1.0 GiB", "5.0 TiB"]);
        assert_eq!([0, 40, 1_000, 1_250, 16_000].map(cpus), ["0 CPUs", "0.0 CPUs", "1 CPU", "1.2 CPUs", "16 CPUs"]);
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!((percent(1, 3), percent(5, 0)), (33, 0));
    }
}
