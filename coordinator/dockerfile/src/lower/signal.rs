//! Names of signals, for `STOPSIGNAL`.

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether a text is a signal: a number other than 0, or a name with or without `SIG`, in any case.
pub(super) fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str, most: u32| {
        let number = name.strip_prefix(prefix).filter(|rest| !rest.starts_with('0'));
        number.and_then(|rest| rest.parse::<u32>().ok()).is_some_and(|number| (1..=most).contains(&number))
    };
    NAMES.contains(&name) || real_time("RTMIN+", 15) || real_time("RTMAX-", 14)
}

/// The names, for a suggestion.
pub(super) fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|name| format!("SIG{name}"))
}

#[cfg(test)]
mod tests {
    use super::is_signal;

    #[test]
    fn numbers_and_names() {
        for text in ["9", "SIGTERM", "term", "RTMIN+15", "SIGRTMAX-14", "-1", "100"] {
            assert!(is_signal(text), "{text}");
        }
        for text in ["0", "", "SIGFOO", "RTMIN+16", "RTMAX-0", "RTMIN+01", "SIG"] {
            assert!(!is_signal(text), "{text}");
        }
    }
}
