//! Converts a log's bytes into text in complete lines.
//!
//! Invariant: the concatenated texts equal the bytes, with invalid UTF-8 replaced; no character is split.

/// Longer lines are shown in pieces.
const LONGEST_BYTES: usize = 16 * 1024;

/// The beginning of a line that has not ended yet.
#[derive(Debug, Default)]
pub(super) struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// Adds bytes; returns the complete lines.
    pub(super) fn push(&mut self, data: &[u8]) -> Option<String> {
        self.rest.extend_from_slice(data);
        let end = match self.rest.iter().rposition(|byte| *byte == b'\n') {
            Some(at) => at + 1,
            None if self.rest.len() > LONGEST_BYTES => whole_characters(&self.rest),
            None => return None,
        };
        let after = self.rest.split_off(end);
        let lines = std::mem::replace(&mut self.rest, after);
        (!lines.is_empty()).then(|| String::from_utf8_lossy(&lines).into_owned())
    }

    /// The rest at the end, without a line end.
    pub(super) fn finish(self) -> Option<String> {
        (!self.rest.is_empty()).then(|| String::from_utf8_lossy(&self.rest).into_owned())
    }
}

/// The number of bytes of `data` before an incomplete character.
fn whole_characters(data: &[u8]) -> usize {
    let tail = data.len().saturating_sub(3);
    let start = (tail..data.len()).rev().find(|at| data[*at] & 0b1100_0000 != 0b1000_0000);
    match start {
        Some(at) if std::str::from_utf8(&data[at..]).is_err_and(|error| error.error_len().is_none()) => at,
        _ => data.len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn any_cut_of_the_bytes_gives_the_same_text(
            text in "[a-zé€𝄞\n]{0,60}",
            noise in proptest::collection::vec(proptest::num::u8::ANY, 0..4),
            cuts in proptest::collection::vec(0usize..200, 0..6),
        ) {
            let mut bytes = text.repeat(300).into_bytes();
            bytes.extend(noise);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut * bytes.len() / 200).collect();
            cuts.sort_unstable();
            let mut lines = Lines::default();
            let mut out = String::new();
            let mut from = 0;
            for cut in cuts.into_iter().chain([bytes.len()]) {
                out.extend(lines.push(&bytes[from..cut]));
                from = cut;
            }
            out.extend(lines.finish());
            proptest::prop_assert_eq!(out, String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn lines_come_whole() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\ntw"), Some("one\n".into()));
        assert_eq!(lines.push(b"o"), None);
        assert_eq!(lines.push(b"\n"), Some("two\n".into()));
        assert_eq!(lines.finish(), None);
    }
}
