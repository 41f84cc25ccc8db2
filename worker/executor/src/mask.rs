//! Masks secrets in a command's output.
//!
//! Invariant: however a stream is cut into chunks, every byte of an occurrence of a secret is removed, whether the
//! secret appears as it is or in a form in which programs print it (base64, hexadecimal, percent-encoded, quoted for
//! JSON or a shell). Each run of such bytes becomes one [`MASK`]. Only what may be the start of a secret is held back.

use aho_corasick::AhoCorasick;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use kiln_proto::secret;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::{Zeroize, Zeroizing};

use super::Secrets;

/// Replaces a secret.
const MASK: &[u8] = b"***";
/// Shortest line of a multi-line secret that is masked on its own: the lines of a key are, `{` is not.
const MIN_LINE_BYTES: usize = 8;
/// Line lengths of base64 output: `base64` and MIME, PEM.
const LINE_LENGTHS: [usize; 2] = [76, 64];

/// The patterns to mask, for both streams of a command.
pub struct Patterns {
    patterns: Vec<Zeroizing<Vec<u8>>>,
    finder: AhoCorasick,
    longest: usize,
}

impl Patterns {
    /// All forms of these secrets; `None` if there is nothing to mask.
    ///
    /// Of secret files, only values that also appear in variables are masked; the rest tells where registries are.
    pub fn of(secrets: &Secrets, hidden: &[Zeroizing<String>]) -> Option<Self> {
        let mut patterns: Vec<Zeroizing<Vec<u8>>> = Vec::new();
        for value in secrets.variables().map(|(_, value)| value).chain(hidden.iter().map(|value| value.as_str())) {
            let lines = value.lines().map(str::trim).filter(|line| line.len() >= MIN_LINE_BYTES);
            // Without surrounding white space, which a shell removes; what is left may be too short to mask.
            let trimmed = Some(value.trim()).filter(|text| text.len() >= secret::MIN_BYTES);
            for text in std::iter::once(value).chain(trimmed).chain(lines) {
                patterns.push(Zeroizing::new(text.as_bytes().to_vec()));
                patterns.extend(coded(text.as_bytes()));
                patterns.extend(written(text));
            }
        }
        patterns.sort_by(|one, other| one.as_slice().cmp(other));
        patterns.dedup();
        let longest = patterns.iter().map(|pattern| pattern.len()).max()?;
        // Fails only if there are more patterns than fit in memory.
        let finder = AhoCorasick::new(patterns.iter().map(|pattern| pattern.as_slice())).ok()?;
        Some(Self { patterns, finder, longest })
    }

    /// Start of the first suffix of `data` that may continue to a pattern; `data.len()` if there is none.
    fn undecided(&self, data: &[u8]) -> usize {
        let from = data.len().saturating_sub(self.longest - 1);
        let begins = |at: &usize| {
            let suffix = &data[*at..];
            // Patterns are sorted: those that start with the suffix follow its own position.
            let place = self.patterns.partition_point(|pattern| pattern.as_slice() <= suffix);
            self.patterns.get(place).is_some_and(|pattern| pattern.starts_with(suffix))
        };
        (from..data.len()).find(begins).unwrap_or(data.len())
    }
}

/// The forms of a value within base64, in both alphabets. Three bytes become four characters, so there is one form for
/// each offset of the value. Characters that also encode neighbouring bytes are omitted, except where the value or its
/// line is at the end of the encoded text.
fn coded(value: &[u8]) -> Vec<Zeroizing<Vec<u8>>> {
    let mut forms = Vec::new();
    let mut add = |form: &[u8]| forms.push(Zeroizing::new(form.to_vec()));
    for (engine, before) in
        [&STANDARD, &URL_SAFE].into_iter().flat_map(|engine| (0_usize..3).map(move |before| (engine, before)))
    {
        let first = usize::div_ceil(before * 8, 6);
        let mut data = Zeroizing::new(vec![0; before]);
        data.extend_from_slice(value);
        let inner = data.len() * 8 / 6;
        for last in ["", "\n"] {
            data.extend_from_slice(last.as_bytes());
            let whole = Zeroizing::new(engine.encode(&*data));
            add(&whole.as_bytes()[first..inner]);
            add(&whole.as_bytes()[first..]);
            add(&whole.trim_end_matches('=').as_bytes()[first..]);
            for length in LINE_LENGTHS.into_iter().filter(|length| before == 0 && inner > *length) {
                let lines: Vec<&[u8]> = whole.as_bytes().chunks(length).collect();
                add(&Zeroizing::new(lines.join(&b'\n')));
                let lines: Vec<&[u8]> = whole.as_bytes()[..inner].chunks(length).collect();
                add(&Zeroizing::new(lines.join(&b'\n')));
            }
        }
    }
    forms
}

/// The other forms in which programs print a value: hexadecimal, in a URL or a form, in a JSON string, and in shell
/// quotes.
fn written(value: &str) -> Vec<Zeroizing<Vec<u8>>> {
    let hex = Zeroizing::new(hex::encode(value));
    let url = Zeroizing::new(utf8_percent_encode(value, UNRESERVED).to_string());
    let form = Zeroizing::new(url.replace("%20", "+"));
    let json = Zeroizing::new(serde_json::Value::from(value).to_string());
    let shell = Zeroizing::new(value.replace('\'', r"'\''"));
    let mut forms =
        vec![Zeroizing::new(hex.to_ascii_uppercase().into_bytes()), Zeroizing::new(hex.as_bytes().to_vec())];
    for address in [url, form] {
        forms.push(Zeroizing::new(lower_escapes(address.as_bytes())));
        forms.push(Zeroizing::new(address.as_bytes().to_vec()));
    }
    forms.push(Zeroizing::new(json.as_bytes()[1..json.len() - 1].to_vec()));
    forms.push(Zeroizing::new(shell.as_bytes().to_vec()));
    forms
}

/// Characters that are not percent-encoded (RFC 3986, 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Percent-encoded text with lower-case hexadecimal digits, as some programs write it.
fn lower_escapes(text: &[u8]) -> Vec<u8> {
    let mut lower = text.to_vec();
    for at in (0..lower.len()).filter(|at| text[*at] == b'%') {
        // Both digits exist, because the text was just encoded.
        lower[at + 1..at + 3].make_ascii_lowercase();
    }
    lower
}

/// One stream of a command's output.
pub struct Masked<'a> {
    patterns: Option<&'a Patterns>,
    /// Bytes that may be the start of a secret.
    held: Vec<u8>,
    /// How many bytes of `held` are known to belong to a secret.
    covered: usize,
    /// Whether the last byte sent was part of a mask.
    is_open: bool,
}

impl<'a> Masked<'a> {
    /// Starts a stream.
    pub fn new(patterns: Option<&'a Patterns>) -> Self {
        Self { patterns, held: Vec::new(), covered: 0, is_open: false }
    }

    /// Adds `data` and returns what can be shown.
    pub fn push(&mut self, data: Bytes) -> Bytes {
        let Some(patterns) = self.patterns else { return data };
        self.held.extend_from_slice(&data);
        let decided = patterns.undecided(&self.held);
        self.release(patterns, decided)
    }

    /// Whether something is held back.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    /// Returns the rest at the end of the stream.
    pub fn finish(&mut self) -> Bytes {
        let Some(patterns) = self.patterns else { return Bytes::new() };
        self.release(patterns, self.held.len())
    }

    /// Releases the first `decided` bytes; every pattern that overlaps them is held completely.
    fn release(&mut self, patterns: &Patterns, decided: usize) -> Bytes {
        let hidden = self.hidden(patterns);
        let mut shown = Vec::with_capacity(decided);
        let mut at = 0;
        for (start, end) in hidden.iter().map(|(start, end)| (*start.min(&decided), *end.min(&decided))) {
            if start > at {
                shown.extend_from_slice(&self.held[at..start]);
                self.is_open = false;
            }
            if end > start && !std::mem::replace(&mut self.is_open, true) {
                shown.extend_from_slice(MASK);
            }
            at = at.max(end);
        }
        if decided > at {
            shown.extend_from_slice(&self.held[at..decided]);
            self.is_open = false;
        }
        self.covered = hidden.last().map_or(0, |(_, end)| end.saturating_sub(decided));
        let rest = self.held.split_off(decided);
        std::mem::replace(&mut self.held, rest).zeroize();
        shown.into()
    }

    /// The ranges of held bytes that belong to secrets, in order and disjoint.
    fn hidden(&self, patterns: &Patterns) -> Vec<(usize, usize)> {
        let found = patterns.finder.find_overlapping_iter(&self.held).map(|found| (found.start(), found.end()));
        let mut all: Vec<(usize, usize)> = std::iter::once((0, self.covered)).chain(found).collect();
        all.sort_unstable();
        let mut apart: Vec<(usize, usize)> = Vec::new();
        for (start, end) in all.into_iter().filter(|(start, end)| end > start) {
            match apart.last_mut().filter(|last| start <= last.1) {
                Some(last) => last.1 = last.1.max(end),
                None => apart.push((start, end)),
            }
        }
        apart
    }
}

impl Drop for Masked<'_> {
    fn drop(&mut self) {
        self.held.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use kiln_proto::v1::Secret;
    use proptest::prelude::*;

    use super::*;

    fn patterns(values: &[&str]) -> Patterns {
        let secrets: Vec<Secret> = values
            .iter()
            .enumerate()
            .map(|(index, value)| Secret { name: format!("S{index}"), value: (*value).to_owned() })
            .collect();
        Patterns::of(&Secrets::of(&secrets, &[]), &[]).expect("there is something to hide")
    }

    fn shown<'d>(patterns: &Patterns, chunks: impl IntoIterator<Item = &'d [u8]>) -> String {
        let mut masked = Masked::new(Some(patterns));
        let mut all = Vec::new();
        for chunk in chunks {
            all.extend_from_slice(&masked.push(Bytes::copy_from_slice(chunk)));
        }
        all.extend_from_slice(&masked.finish());
        String::from_utf8(all).expect("text stays text")
    }

    #[test]
    fn a_secret_is_hidden_whole_byte_by_byte_and_twice() {
        let patterns = patterns(&["hunter22"]);
        let text = b"a hunter22, hunter2 hunter2hunter22hunter22!";
        let expected = "a ***, hunter2 hunter2***!";
        assert_eq!(shown(&patterns, [&text[..]]), expected);
        assert_eq!(shown(&patterns, text.chunks(1)), expected);
    }

    #[test]
    fn secrets_that_overlap_leave_nothing_of_each_other() {
        let patterns = patterns(&["abcdef", "defghi", "abcdefghijkl"]);
        for text in ["abcdefghi", "abcdefghijk", "abcdefghijkl"] {
            let rest = text.strip_prefix("abcdefghi").filter(|rest| rest.len() < 3).unwrap_or("");
            assert_eq!(shown(&patterns, text.as_bytes().chunks(1)), format!("***{rest}"), "{text}");
        }
    }

    #[test]
    fn base64_of_a_secret_is_hidden_wherever_it_stands() {
        let value = "s3cr3t~tok?n>0123456789-abcdefghijklmnopqrstuvwxyz-0123456789-ABCDEFGHIJ";
        let patterns = patterns(&[value]);
        for before in ["", "u", "us", "user:", "ann:"] {
            for engine in [&STANDARD, &URL_SAFE] {
                for after in ["", "\n", "xy"] {
                    let coded = engine.encode(format!("{before}{value}{after}"));
                    let out = shown(&patterns, coded.as_bytes().chunks(1));
                    assert!(out.contains("***") && out.len() <= before.len() * 2 + 15, "{before:?} {after:?}: {out}");
                }
            }
        }
        let wrapped = STANDARD.encode(format!("{value}\n")).into_bytes().chunks(76).collect::<Vec<_>>().join(&b'\n');
        let out = shown(&patterns, [wrapped.as_slice()]);
        assert!(out.starts_with("***") && out.len() < 10, "{out}");
    }

    #[test]
    fn every_form_in_which_programs_write_a_secret_is_hidden() {
        let value = "p@ss w/rd'\"\\%é\n";
        let patterns = patterns(&[value]);
        for form in [
            value,
            "p@ss w/rd'\"\\%é",
            &hex::encode(value),
            &hex::encode_upper(value),
            &hex::encode(value.trim_end()),
            "p%40ss%20w%2Frd%27%22%5C%25%C3%A9",
            "p%40ss%20w%2frd%27%22%5c%25%c3%a9",
            "p%40ss+w%2Frd%27%22%5C%25%C3%A9%0A",
            r#"p@ss w/rd'\"\\%é\n"#,
            r#"p@ss w/rd'\''"\%é"#,
        ] {
            let text = format!("a {form} b");
            for cut in [1, 3, 1000] {
                let out = shown(&patterns, text.as_bytes().chunks(cut));
                assert!(["a *** b", "a ***\n b"].contains(&out.as_str()), "expected `{form}` to be hidden: {out}");
            }
        }
        // What is a form of nothing stays.
        for other in ["p@ss w/r", "70407373", "p%40ss", "pass word"] {
            assert_eq!(shown(&patterns, other.as_bytes().chunks(1)), other);
        }
    }

    #[test]
    fn a_short_secret_with_the_end_of_a_line_is_hidden_without_it_too() {
        assert_eq!(shown(&patterns(&["hunt\n"]), b"the hunt is on".chunks(1)), "the *** is on");
    }

    #[test]
    fn each_line_of_a_key_is_hidden() {
        let patterns = patterns(&["-----BEGIN KEY-----\nMIIBVgIBADANBgkqhkiG\n-----END KEY-----"]);
        assert_eq!(shown(&patterns, [&b"> MIIBVgIBADANBgkqhkiG\n"[..]]), "> ***\n");
    }

    proptest! {
        #[test]
        fn no_form_of_a_secret_gets_through_however_it_is_cut(
            value in "[ -~]{4,12}", before in "[ -~]{0,9}", after in "[ -~]{0,9}", form in 0_usize..5, cut in 1_usize..9,
        ) {
            let patterns = patterns(&[&value]);
            let forms = written(&value);
            let form = forms.get(form).map_or(value.as_bytes(), |form| form.as_slice());
            let text = [before.as_bytes(), form, after.as_bytes()].concat();
            let out = shown(&patterns, text.chunks(cut));
            let form = String::from_utf8_lossy(form);
            prop_assert!(out.contains("***"), "`{}` became `{}`", form, out);
            prop_assert!(!out.contains(&*form) || "***".contains(&*form), "`{}` became `{}`", form, out);
        }

        #[test]
        fn how_a_stream_is_cut_changes_nothing(text in "[ab]{0,60}", cuts in prop::collection::vec(1_usize..7, 60)) {
            let patterns = patterns(&["abba", "bbbab", "aaaaaaa"]);
            let mut rest = text.as_bytes();
            let mut chunks = Vec::new();
            for cut in cuts {
                let (chunk, after) = rest.split_at(cut.min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            let out = shown(&patterns, chunks);
            prop_assert_eq!(&out, &shown(&patterns, [text.as_bytes()]));
            prop_assert!(!out.contains("abba") && !out.contains("bbbab"), "{} became {}", text, out);
        }
    }
}
