//! How Go writes strings and durations and cleans paths, which images show: histories are compared byte for byte.

/// Go's `%q`: a string in quotes.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\u{7}' => quoted.push_str("\\a"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{b}' => quoted.push_str("\\v"),
            c if is_printable(c) => quoted.push(c),
            c if (c as u32) < 0x80 => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c if (c as u32) < 0x1_0000 => quoted.push_str(&format!("\\u{:04x}", c as u32)),
            c => quoted.push_str(&format!("\\U{:08x}", c as u32)),
        }
    }
    quoted.push('"');
    quoted
}

fn is_printable(c: char) -> bool {
    // After a letter, only what cannot be printed is escaped.
    let debug: String = ['a', c].iter().collect::<String>().escape_debug().collect();
    c == '\'' || (!debug.contains('\\') && (c == ' ' || !c.is_whitespace()))
}

/// Go's `%q` of a list.
pub fn quote_list<S: AsRef<str>>(texts: &[S]) -> String {
    format!("[{}]", texts.iter().map(|text| quote(text.as_ref())).collect::<Vec<_>>().join(" "))
}

/// Go's `%v` of a list.
pub fn plain_list<S: AsRef<str>>(texts: &[S]) -> String {
    format!("[{}]", texts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(" "))
}

const UNITS: [(&str, i64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// A duration as Go writes it, in nanoseconds: `1m30s`, `1.5h`, `-2ms`.
pub fn read_duration(text: &str) -> Option<i64> {
    let (is_negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0_i64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let (number, more) = rest.split_at(end);
        let unit_end = more.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(more.len());
        let (unit, more) = more.split_at(unit_end);
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if whole.is_empty() && part.is_empty() || part.contains('.') {
            return None;
        }
        let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        let part: String = part.chars().take(15).collect();
        let fraction = if part.is_empty() {
            0
        } else {
            let scale = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
            let scaled = i128::from(part.parse::<i64>().ok()?).checked_mul(i128::from(*unit))?;
            i64::try_from(scaled.checked_div(scale)?).ok()?
        };
        total = total.checked_add(whole.checked_mul(*unit)?)?.checked_add(fraction)?;
        rest = more;
    }
    if is_negative { total.checked_neg() } else { Some(total) }
}

/// A duration as Go shows it: `0s`, `1.5s`, `1m0s`, `250ms`.
pub fn duration(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let decimal = |whole: u64, rest: u64, digits: usize| {
        let fraction = format!("{rest:0digits$}");
        let fraction = fraction.trim_end_matches('0');
        if rest == 0 { whole.to_string() } else { format!("{whole}.{fraction}") }
    };
    let text = match total {
        0 => "0s".to_owned(),
        1..1_000 => format!("{total}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(total / 1_000, total % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", decimal(total / 1_000_000, total % 1_000_000, 6)),
        _ => {
            let minutes = total / 60_000_000_000;
            let rest = total % 60_000_000_000;
            let seconds = decimal(rest / 1_000_000_000, rest % 1_000_000_000, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    };
    format!("{sign}{text}")
}

/// A path without `.`, `..` and repeated slashes, as far as that is possible without a file system; `.` if nothing is left.
pub fn clean(path: &str) -> String {
    let is_absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if is_absolute => {}
            part => parts.push(part),
        }
    }
    match (is_absolute, parts.is_empty()) {
        (true, _) => format!("/{}", parts.join("/")),
        (false, true) => ".".to_owned(),
        (false, false) => parts.join("/"),
    }
}

/// Two paths one after the other, cleaned.
pub fn join(directory: &str, path: &str) -> String {
    match (directory, path) {
        ("", "") => String::new(),
        ("", path) => clean(path),
        (directory, "") => clean(directory),
        _ => clean(&format!("{directory}/{path}")),
    }
}

/// The last part of a path.
pub fn base(path: &str) -> &str {
    match path.trim_end_matches('/') {
        "" if path.is_empty() => ".",
        "" => "/",
        path => path.rsplit('/').next().unwrap_or(path),
    }
}
