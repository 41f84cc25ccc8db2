//! Terminal output as text with styles: SGR sequences (ECMA-48, 8.3.117) become styles, everything else that a terminal would obey is left
//! out.
//!
//! Invariants: what comes out has no control character but the tabulator, and is never markup. A line is cut at [`MAX_SHOWN`].

use maud::{Markup, PreEscaped, Render};

/// Characters of a line that are shown.
pub const MAX_SHOWN: usize = 4_000;
/// Longest sequence that is looked at; a longer one is none.
const MAX_SEQUENCE: usize = 256;
/// The colours of terminals, as red, green and blue, for the choice of the nearest.
const COLOURS: [(u8, u8, u8); 16] = [
    (0, 0, 0),
    (187, 0, 0),
    (0, 187, 0),
    (187, 187, 0),
    (0, 0, 187),
    (187, 0, 187),
    (0, 187, 187),
    (187, 187, 187),
    (85, 85, 85),
    (255, 85, 85),
    (85, 255, 85),
    (255, 255, 85),
    (85, 85, 255),
    (255, 85, 255),
    (85, 255, 255),
    (255, 255, 255),
];

/// How text looks at some place of an output.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    /// One of sixteen colours.
    foreground: Option<u8>,
    background: Option<u8>,
    bold: bool,
    dim: bool,
    italic: bool,
    underlined: bool,
    struck: bool,
    inverse: bool,
}

impl Style {
    /// Its classes; empty for plain text.
    fn classes(&self) -> String {
        let mut classes = Vec::new();
        let (foreground, background) =
            if self.inverse { (self.background, self.foreground) } else { (self.foreground, self.background) };
        classes.extend(foreground.map(|colour| format!("f{colour}")));
        classes.extend(background.map(|colour| format!("b{colour}")));
        let marks = [
            (self.bold, "bo"),
            (self.dim, "di"),
            (self.italic, "it"),
            (self.underlined, "un"),
            (self.struck, "st"),
            (self.inverse && foreground.is_none() && background.is_none(), "in"),
        ];
        classes.extend(marks.iter().filter(|(is, _)| *is).map(|(_, class)| (*class).to_owned()));
        classes.join(" ")
    }

    /// Applies the parameters of an SGR sequence.
    fn apply(&mut self, parameters: &str) {
        // A colon separates the parts of one parameter; they are read like parameters of their own.
        let mut numbers = parameters.split([';', ':']).map(|number| number.parse::<u16>().unwrap_or(0));
        while let Some(number) = numbers.next() {
            match number {
                0 => *self = Self::default(),
                1 => self.bold = true,
                2 => self.dim = true,
                3 => self.italic = true,
                4 => self.underlined = true,
                7 => self.inverse = true,
                9 => self.struck = true,
                22 => (self.bold, self.dim) = (false, false),
                23 => self.italic = false,
                24 => self.underlined = false,
                27 => self.inverse = false,
                29 => self.struck = false,
                30..=37 => self.foreground = Some(number.saturating_sub(30) as u8),
                40..=47 => self.background = Some(number.saturating_sub(40) as u8),
                90..=97 => self.foreground = Some(number.saturating_sub(82) as u8),
                100..=107 => self.background = Some(number.saturating_sub(92) as u8),
                38 => self.foreground = colour(&mut numbers).or(self.foreground),
                48 => self.background = colour(&mut numbers).or(self.background),
                39 => self.foreground = None,
                49 => self.background = None,
                _ => {}
            }
        }
    }
}

/// A colour out of 256 or of red, green and blue, as the nearest of sixteen: those fit light and dark pages.
fn colour(numbers: &mut impl Iterator<Item = u16>) -> Option<u8> {
    match numbers.next()? {
        5 => match numbers.next()?.min(255) as u8 {
            number @ 0..16 => Some(number),
            number @ 16..232 => {
                let level = |number: u8| if number == 0 { 0 } else { 55_u8.saturating_add(number.saturating_mul(40)) };
                let number = number.saturating_sub(16);
                Some(nearest(level(number / 36), level(number / 6 % 6), level(number % 6)))
            }
            number => {
                let grey = 8_u8.saturating_add(number.saturating_sub(232).saturating_mul(10));
                Some(nearest(grey, grey, grey))
            }
        },
        2 => {
            let mut part = || numbers.next().map(|number| number.min(255) as u8);
            Some(nearest(part()?, part()?, part()?))
        }
        _ => None,
    }
}

fn nearest(red: u8, green: u8, blue: u8) -> u8 {
    let distance = |(r, g, b): &(u8, u8, u8)| {
        let part = |one: u8, other: u8| u32::from(one.abs_diff(other)).saturating_pow(2);
        part(red, *r).saturating_add(part(green, *g)).saturating_add(part(blue, *b))
    };
    let nearest = (0..).zip(&COLOURS).min_by_key(|(_, colour)| distance(colour));
    nearest.map_or(0, |(number, _)| number)
}

/// One piece of output.
#[derive(Debug, PartialEq, Eq)]
enum Piece<'a> {
    Text(&'a str),
    Sgr(&'a str),
}

/// Splits a line into text and SGR sequences, without all other sequences and control characters.
fn pieces(line: &str) -> Vec<Piece<'_>> {
    let mut rest = line;
    let mut out = Vec::new();
    let is_text = |c: char| c == '\t' || !c.is_control();
    while !rest.is_empty() {
        let control = rest.find(|c: char| !is_text(c));
        let (text, after) = control.and_then(|at| rest.split_at_checked(at)).unwrap_or((rest, ""));
        if !text.is_empty() {
            out.push(Piece::Text(text));
            rest = after;
            continue;
        }
        let (after, sgr) = sequence(rest);
        out.extend(sgr.map(Piece::Sgr));
        rest = after;
    }
    out
}

/// What follows the control at the beginning of a text, and the parameters if it is SGR.
fn sequence(text: &str) -> (&str, Option<&str>) {
    let after = |bytes: usize| text.get(bytes..).unwrap_or_default();
    let first = text.chars().next().map_or(0, char::len_utf8);
    let (body, kind) = match text.as_bytes() {
        [0x1b, b'[', ..] => (after(2), b'['),
        [0x1b, kind @ (b']' | b'P' | b'^' | b'_' | b'X'), ..] => (after(2), *kind),
        // The same as single characters.
        [0xc2, 0x9b, ..] => (after(2), b'['),
        [0xc2, 0x90 | 0x98 | 0x9d | 0x9e | 0x9f, ..] => (after(2), b']'),
        // `ESC ( B` chooses a character set; others have one character.
        [0x1b, b'(' | b')' | b'*' | b'+' | b'#' | b' ', next, ..] if next.is_ascii() => return (after(3), None),
        [0x1b, next, ..] if (0x30..0x7f).contains(next) => return (after(2), None),
        _ => return (after(first), None),
    };
    let bytes = body.as_bytes().get(..MAX_SEQUENCE).unwrap_or(body.as_bytes());
    if kind == b'[' {
        let end = bytes.iter().position(|byte| !(0x20..0x40).contains(byte));
        let Some((parameters, rest)) = end.and_then(|end| body.split_at_checked(end)) else {
            // It is broken off at the line's end, or is none.
            return (if body.len() < MAX_SEQUENCE { "" } else { body }, None);
        };
        let mut after = rest.chars();
        let Some(last @ '@'..='~') = after.next() else {
            // It is broken off: what follows is text again.
            return (rest, None);
        };
        let is_sgr = last == 'm' && parameters.bytes().all(|byte| byte.is_ascii_digit() || b";:".contains(&byte));
        return (after.as_str(), is_sgr.then_some(parameters));
    }
    // A string, such as a title or a link, up to BEL or ESC \.
    let end = bytes.iter().position(|byte| *byte == 7 || *byte == 0x1b);
    let Some((_, end)) = end.and_then(|end| body.split_at_checked(end)) else { return (body, None) };
    (end.strip_prefix('\u{7}').or_else(|| end.strip_prefix("\u{1b}\\")).unwrap_or(end), None)
}

/// What a terminal would show of a line in which the cursor goes back to the beginning: the text after the last return that overwrites.
fn overwritten(line: &str) -> (&str, &str) {
    let line = line.strip_suffix('\r').unwrap_or(line);
    line.rsplit_once('\r').unwrap_or(("", line))
}

/// A line as text with styles; `style` is how it begins, and afterwards how it ends.
pub fn rendered(line: &str, style: &mut Style) -> Markup {
    let (gone, line) = overwritten(line);
    for piece in pieces(gone) {
        if let Piece::Sgr(parameters) = piece {
            style.apply(parameters);
        }
    }
    let mut out = String::with_capacity(line.len().min(MAX_SHOWN).saturating_add(16));
    let mut room = MAX_SHOWN;
    let mut cut = 0_usize;
    for piece in pieces(line) {
        match piece {
            Piece::Sgr(parameters) => style.apply(parameters),
            Piece::Text(text) => {
                let end = text.char_indices().nth(room).map(|(end, _)| end);
                let (text, rest) = end.and_then(|end| text.split_at_checked(end)).unwrap_or((text, ""));
                room = room.saturating_sub(text.chars().count());
                cut = cut.saturating_add(rest.len());
                push(&mut out, text, &style.classes());
            }
        }
    }
    if cut > 0 {
        let words = format!("… {} more on this line", crate::size(cut as u64));
        push(&mut out, &words, "more");
    }
    PreEscaped(out)
}

fn push(out: &mut String, text: &str, classes: &str) {
    if text.is_empty() {
        return;
    }
    if classes.is_empty() {
        text.render_to(out);
        return;
    }
    out.push_str("<span class=\"");
    classes.render_to(out);
    out.push_str("\">");
    text.render_to(out);
    out.push_str("</span>");
}

/// A line as plain text, as one searches it.
pub fn plain(line: &str) -> String {
    let (_, line) = overwritten(line);
    let texts =
        pieces(line).into_iter().filter_map(|piece| if let Piece::Text(text) = piece { Some(text) } else { None });
    texts.collect()
}

/// Only what a line changes in the style.
pub fn pass(line: &str, style: &mut Style) {
    if line.contains(['\u{1b}', '\u{9b}']) {
        for piece in pieces(line) {
            if let Piece::Sgr(parameters) = piece {
                style.apply(parameters);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn html(line: &str) -> String {
        rendered(line, &mut Style::default()).into_string()
    }

    #[test]
    fn colours_become_classes_and_last_until_they_are_reset() {
        assert_eq!(html("a \u{1b}[1;31mred\u{1b}[0m b"), "a <span class=\"f1 bo\">red</span> b");
        let mut style = Style::default();
        rendered("\u{1b}[32m", &mut style);
        assert_eq!(rendered("next", &mut style).into_string(), "<span class=\"f2\">next</span>");
        assert_eq!(html("\u{1b}[38;5;196mx"), "<span class=\"f1\">x</span>");
        assert_eq!(html("\u{1b}[38;2;255;255;255;4mx"), "<span class=\"f15 un\">x</span>");
        assert_eq!(html("\u{1b}[97;41;7mx"), "<span class=\"f1 b15\">x</span>");
        assert_eq!(html("\u{1b}[7mx\u{1b}[27my"), "<span class=\"in\">x</span>y");
    }

    #[test]
    fn output_is_never_markup() {
        assert_eq!(html("<script>alert(1)</script>&\"'"), "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;'");
        assert_eq!(html("\u{1b}[31m\"><img src=x>"), "<span class=\"f1\">&quot;&gt;&lt;img src=x&gt;</span>");
    }

    #[test]
    fn what_a_terminal_obeys_is_left_out() {
        for (line, text) in [
            ("a\0b\u{7}c\u{8}d", "abcd"),
            ("\u{1b}]0;title\u{7}x", "x"),
            ("\u{1b}]8;;https://evil.example\u{1b}\\link\u{1b}]8;;\u{1b}\\", "link"),
            ("\u{1b}[2J\u{1b}[1;1Hx\u{1b}[K", "x"),
            ("\u{1b}(Bx\u{1b}=y\u{1b}c", "xy"),
            ("\u{9b}31mx\u{9d}title\u{7}y", "xy"),
            ("\u{1b}[31", ""),
            ("\u{1b}", ""),
            ("\u{1b}[\u{e9}x", "\u{e9}x"),
            ("50%\r100%", "100%"),
            ("done\r", "done"),
            ("a\tb\u{202e}c", "a\tb\u{202e}c"),
        ] {
            assert_eq!(plain(line), text, "for {line:?}");
        }
    }

    #[test]
    fn a_long_line_is_cut_and_says_by_how_much() {
        let long = "é".repeat(10 << 20);
        let shown = html(&long);
        assert!(shown.len() < 3 * MAX_SHOWN && shown.contains("more on this line"), "{}", shown.len());
    }

    proptest! {
        #[test]
        fn whatever_is_printed_no_tag_but_spans_comes_out(line in "[\\x00-\\x7f\u{80}-\u{9f}é<>&\\[\\]m;0-9\u{1b}]{0,80}") {
            let out = html(&line);
            let rest = out.replace("</span>", "");
            for tag in rest.split('<').skip(1) {
                prop_assert!(tag.starts_with("span class=\""), "{out}");
            }
            prop_assert!(!out.chars().any(|c| c.is_control() && c != '\t'), "{out:?}");
        }
    }
}
