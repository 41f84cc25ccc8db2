//! The values of `--chmod`.

use super::Chmod;
use crate::error::{Problem, shown};
use crate::source::Span;

/// Reads a mode: octal, or symbolic such as `u=rwX,go=rX`.
pub(super) fn read(text: &str, span: Span) -> Result<Chmod, Problem> {
    let problem = || {
        Problem::new(span, format!("`--chmod` is not a mode: {}", shown(text)))
            .help("write an octal number up to 07777, or for example `u=rwX,go=rX`")
    };
    if text.chars().all(|c| c.is_ascii_digit()) {
        let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
        return mode.map(Chmod::Octal).ok_or_else(problem);
    }
    if text.split(',').all(is_clause) { Ok(Chmod::Symbolic(text.to_owned())) } else { Err(problem()) }
}

/// `WHO` and one or more changes: an operator, and either permissions or one of `u`, `g` and `o`.
fn is_clause(clause: &str) -> bool {
    let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
    if rest.is_empty() {
        return false;
    }
    while let Some(change) = rest.strip_prefix(['=', '+', '-']) {
        rest = match change.strip_prefix(['u', 'g', 'o']) {
            Some(after) => after,
            None => change.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']),
        };
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic() {
        assert_eq!(read("0755", Span::default()), Ok(Chmod::Octal(0o755)));
        assert_eq!(read("7777", Span::default()), Ok(Chmod::Octal(0o7777)));
        for text in ["u=rwX,go=rX", "+x", "a-w", "g=u", "u+s,o-t", "=", "u=rw-x"] {
            assert_eq!(read(text, Span::default()), Ok(Chmod::Symbolic(text.to_owned())), "{text}");
        }
        for text in ["", "888", "10000", "rwx", "u", "u=rz", "u=rw,", "0x1", "-1"] {
            assert!(read(text, Span::default()).is_err(), "{text}");
        }
    }
}
