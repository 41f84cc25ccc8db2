//! Makes text from elsewhere safe for a terminal.
//!
//! Invariant: of all control sequences only colours pass, and only if colours are wanted.

/// Maximum length of a colour sequence, in bytes.
const LONGEST_COLOUR: usize = 40;
const RESET: &str = "\u{1b}[0m";

/// Text without control sequences: escape sequences are removed; other control characters, and those that change the
/// text's direction, are shown as visible characters.
pub fn harmless(text: &str) -> String {
    cleaned(text, false)
}

/// Like [`harmless`], but keeps colours if `colours`. A line that ends coloured is reset, so that later text is not
/// affected.
pub fn shown(text: &str, colours: bool) -> String {
    if !colours || !text.contains('\u{1b}') {
        return harmless(text);
    }
    let lines = text.split_inclusive('\n').map(|line| {
        let cleaned = cleaned(line, true);
        match cleaned.strip_suffix('\n') {
            _ if !cleaned.contains('\u{1b}') => cleaned,
            Some(line) => format!("{line}{RESET}\n"),
            None => cleaned + RESET,
        }
    });
    lines.collect()
}

/// Bytes without escape sequences, otherwise unchanged: for a pipe or a file.
pub fn without_escapes(data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len());
    let mut rest = data;
    while let Some(at) = rest.iter().position(|byte| *byte == 0x1b) {
        out.extend_from_slice(&rest[..at]);
        rest = &rest[at..];
        match sequence(rest) {
            0 => {
                out.push(rest[0]);
                rest = &rest[1..];
            }
            length => rest = &rest[length..],
        }
    }
    out.extend_from_slice(rest);
    out
}

/// The length in bytes of the escape sequence at the start of `data`; 0 if there is none (ECMA-48, 5.4 and 8.3.89).
fn sequence(data: &[u8]) -> usize {
    let length = |rest: &[u8], wanted: fn(u8) -> bool| rest.iter().take_while(|byte| wanted(**byte)).count();
    match data {
        [0x1b, b'[', rest @ ..] => {
            let parameters = length(rest, |byte| (0x20..=0x3f).contains(&byte));
            let last = usize::from(rest.get(parameters).is_some_and(|byte| (0x40..=0x7e).contains(byte)));
            2 + parameters + last
        }
        [0x1b, b']', rest @ ..] => {
            // An operating system command: up to BEL or ESC, and not beyond the line.
            let command = length(rest, |byte| !matches!(byte, 0x07 | 0x1b | b'\n'));
            let end = match rest[command..] {
                [0x07, ..] => 1,
                [0x1b, b'\\', ..] => 2,
                [0x1b, ..] => 1,
                _ => 0,
            };
            2 + command + end
        }
        _ => 0,
    }
}

/// Whether an escape sequence only changes the text's appearance.
fn is_colour(sequence: &str) -> bool {
    let parameters = sequence.strip_prefix("\u{1b}[").and_then(|rest| rest.strip_suffix('m'));
    sequence.len() <= LONGEST_COLOUR
        && parameters.is_some_and(|text| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b';' | b':')))
}

fn cleaned(text: &str, colours: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(char) = rest.chars().next() {
        let length = sequence(rest.as_bytes());
        if length > 0 {
            // A sequence ends with an ASCII byte or a complete character.
            let (escape, after) = rest.split_at(length);
            if colours && is_colour(escape) {
                out.push_str(escape);
            }
            rest = after;
            continue;
        }
        rest = &rest[char.len_utf8()..];
        match char {
            '\n' | '\t' => out.push(char),
            '\r' if rest.starts_with('\n') => {}
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_cannot_steer_the_terminal() {
        for (text, expected) in [
            ("\u{1b}[1;31merror\u{1b}[0m: x", "error: x"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("\u{1b}]8;;http://x\u{1b}\\link", "link"),
            ("\u{1b}]0;tïtle", ""),
            ("a\u{8}b\u{1b}cc", "a\u{2408}b\u{241b}cc"),
            ("tab\tline\r\nnext", "tab\tline\nnext"),
            ("\u{9b}2J\u{202e}x", "\u{fffd}2J\u{fffd}x"),
            ("\u{1b}[", ""),
        ] {
            assert_eq!(harmless(text), expected);
        }
    }

    #[test]
    fn colours_pass_where_they_are_wanted_and_nothing_else_does() {
        let text = "\u{1b}[1;31merror\u{1b}[2J\u{1b}]0;title\u{7}: x\nplain\n";
        assert_eq!(shown(text, true), "\u{1b}[1;31merror: x\u{1b}[0m\nplain\n");
        assert_eq!(shown(text, false), "error: x\nplain\n");
        assert_eq!(shown("\u{1b}[38:5:9mred", true), "\u{1b}[38:5:9mred\u{1b}[0m");
        assert_eq!(shown("\u{1b}[?25l\u{1b}[3A", true), "");
    }

    #[test]
    fn a_pipe_gets_the_bytes_without_escape_sequences() {
        let data = b"\x1b[31mred\x1b[0m \xff\x00\r\n\x1bx\x1b[";
        assert_eq!(without_escapes(data), b"red \xff\x00\r\n\x1bx");
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_steers_is_left(text in "\\PC*|[\\x00-\\x9f\\[\\]a-z;0-9]*") {
            let plain = |char: char| !char.is_control() || char == '\n' || char == '\t';
            proptest::prop_assert!(harmless(&text).chars().all(plain));
            let coloured = shown(&text, true);
            proptest::prop_assert!(harmless(&coloured).chars().all(plain));
            for escape in coloured.split('\u{1b}').skip(1) {
                let parameters = escape.strip_prefix('[').and_then(|rest| rest.split('m').next());
                let digits = parameters.is_some_and(|all| all.bytes().all(|b| b.is_ascii_digit() || b == b';' || b == b':'));
                proptest::prop_assert!(digits, "expected only colours to pass, found `{escape}`");
            }
        }
    }
}
