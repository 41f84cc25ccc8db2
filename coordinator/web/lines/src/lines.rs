//! A step's output as lines: stdout and stderr in the order in which their lines ended.

use maud::{Markup, html};

use super::ansi::{self, Style};

/// Bytes of a line that are kept; the rest of a longer one is counted.
const MAX_KEPT: usize = 64 << 10;

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its text, with the sequences of terminals.
    pub text: String,
    /// Whether it is of standard error.
    pub is_error: bool,
    /// How it begins.
    pub style: Style,
    /// Bytes that are left out: of its end, or, if it has no text, in its place.
    pub left_out: u64,
}

impl Line {
    /// Its row, at its number.
    pub fn row(&self, number: u64, address: &str) -> Markup {
        let mut style = self.style;
        html! {
            li id={ "L" (number) } class=[self.is_error.then_some("err")] {
                a href={ (address) "?line=" (number) "#L" (number) } { (number) }
                code {
                    (ansi::rendered(&self.text, &mut style))
                    @if self.left_out > 0 {
                        span .more { "… " (crate::size(self.left_out)) " left out" }
                    }
                }
            }
        }
    }

    /// With its colours, and no number.
    pub fn code(&self) -> Markup {
        ansi::rendered(&self.text, &mut self.style.clone())
    }

    /// Without styles.
    pub fn plain(&self) -> String {
        ansi::plain(&self.text)
    }
}

/// Puts pieces of output together to lines.
#[derive(Debug, Default)]
pub struct Splitter {
    streams: [Open; 2],
}

/// A line that has not ended.
#[derive(Debug, Default)]
struct Open {
    bytes: Vec<u8>,
    left_out: u64,
    style: Style,
}

impl Open {
    fn push(&mut self, data: &[u8]) {
        let (kept, rest) = data.split_at_checked(MAX_KEPT.saturating_sub(self.bytes.len())).unwrap_or((data, &[]));
        self.bytes.extend_from_slice(kept);
        self.left_out = self.left_out.saturating_add(rest.len() as u64);
    }

    fn end(&mut self, is_error: bool) -> Line {
        let bytes = std::mem::take(&mut self.bytes);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let style = self.style;
        ansi::pass(&text, &mut self.style);
        Line { text, is_error, style, left_out: std::mem::take(&mut self.left_out) }
    }

    fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.left_out == 0
    }
}

impl Splitter {
    /// The lines of an output that begins like this.
    pub fn from(style: Style) -> Self {
        Self { streams: [Open { style, ..Open::default() }, Open::default()] }
    }

    /// Adds output; the lines that it ends come out.
    pub fn push(&mut self, is_error: bool, data: &[u8], skipped: u64, out: &mut Vec<Line>) {
        let [out_stream, error_stream] = &mut self.streams;
        let open = if is_error { error_stream } else { out_stream };
        if skipped > 0 {
            if !open.is_empty() {
                out.push(open.end(is_error));
            }
            out.push(Line { text: String::new(), is_error, style: Style::default(), left_out: skipped });
        }
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            open.push(piece.strip_suffix(b"\n").unwrap_or(piece));
            if piece.ends_with(b"\n") {
                out.push(open.end(is_error));
            }
        }
    }

    /// No more comes: what has no end is a line too.
    pub fn end(&mut self, out: &mut Vec<Line>) {
        for (open, is_error) in self.streams.iter_mut().zip([false, true]) {
            if !open.is_empty() {
                out.push(open.end(is_error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines(pieces: &[(bool, &[u8])]) -> Vec<(bool, String)> {
        let (mut splitter, mut out) = (Splitter::default(), Vec::new());
        pieces.iter().for_each(|(is_error, data)| splitter.push(*is_error, data, 0, &mut out));
        splitter.end(&mut out);
        out.into_iter().map(|line| (line.is_error, line.text)).collect()
    }

    #[test]
    fn streams_do_not_mix_within_a_line() {
        let found = lines(&[(false, b"com"), (true, b"warn"), (false, b"piling\n"), (true, b"ing\n"), (false, b"end")]);
        let expected = [(false, "compiling"), (true, "warning"), (false, "end")];
        assert_eq!(found, expected.map(|(is_error, text)| (is_error, text.to_owned())));
    }

    #[test]
    fn a_line_of_many_megabytes_is_bounded() {
        let (mut splitter, mut out) = (Splitter::default(), Vec::new());
        (0..160).for_each(|_| splitter.push(false, &[b'x'; 64 << 10], 0, &mut out));
        splitter.push(false, b"\nnext\n", 7, &mut out);
        assert_eq!(out.len(), 4, "the line, what was skipped, its empty end, and the next");
        assert_eq!((out[0].text.len(), out[0].left_out), (MAX_KEPT, (10 << 20) - MAX_KEPT as u64));
        assert_eq!((out[1].left_out, out[3].text.as_str()), (7, "next"));
    }

    #[test]
    fn a_style_goes_on_in_the_next_line_of_its_stream() {
        let (mut splitter, mut out) = (Splitter::default(), Vec::new());
        splitter.push(false, b"\x1b[31mred\nstill\n", 0, &mut out);
        splitter.push(true, b"plain\n", 0, &mut out);
        let rows: Vec<String> = out.iter().map(|line| line.row(1, "").into_string()).collect();
        assert!(rows[0].contains("f1") && rows[1].contains("f1") && !rows[2].contains("f1"), "{rows:?}");
    }

    proptest! {
        #[test]
        fn however_output_is_cut_the_lines_are_the_same(text in "[ab\\n\\r\u{1b}é]{0,60}", cuts in proptest::collection::vec(0..60_usize, 0..6)) {
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<(bool, &[u8])> = cuts.windows(2).map(|pair| (false, &bytes[pair[0]..pair[1]])).collect();
            prop_assert_eq!(lines(&pieces), lines(&[(false, bytes)]));
        }
    }
}
