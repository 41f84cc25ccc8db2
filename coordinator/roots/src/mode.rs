//! `--chmod`.

use kiln_dockerfile::Chmod;

use crate::Error;

/// A mode to set.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    /// Of 12 bits.
    To(u32),
    /// Changes, one after the other.
    By(Vec<Clause>),
}

/// One change, such as `go+rX`.
#[derive(Debug, Clone)]
pub(crate) struct Clause {
    /// The permission bits of those that it is for.
    who: u32,
    operator: u8,
    /// As if it were for everybody.
    bits: u32,
    /// `X`: execution for directories, and for files that somebody may execute.
    conditional: bool,
    /// Bits that are copied from those of `u`, `g` or `o`.
    copied: Option<u8>,
}

impl Change {
    /// Reads the value of `--chmod`.
    pub(crate) fn read(mode: &Chmod) -> Result<Self, Error> {
        match mode {
            Chmod::Octal(mode) => Ok(Self::To(mode & 0o7777)),
            Chmod::Symbolic(text) => clauses(text).map(Self::By).ok_or_else(|| Error::Mode(text.clone())),
        }
    }

    /// The mode that a node with this one gets.
    pub(crate) fn of(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::To(mode) => *mode,
            Self::By(clauses) => clauses.iter().fold(mode, |mode, clause| clause.of(mode, is_directory)),
        }
    }
}

/// Source: POSIX.1-2017, `chmod`, "Extended description".
fn clauses(text: &str) -> Option<Vec<Clause>> {
    let mut found = Vec::new();
    for part in text.split(',') {
        let end = part.find(['+', '-', '='])?;
        let (names, mut rest) = part.split_at(end);
        let mut who = 0;
        for name in names.bytes() {
            who |= match name {
                b'u' => 0o4700,
                b'g' => 0o2070,
                b'o' => 0o1007,
                b'a' => 0o7777,
                _ => return None,
            };
        }
        let who = if names.is_empty() { 0o7777 } else { who };
        while let Some(operator) = rest.bytes().next() {
            let after = rest.get(1..)?;
            let (letters, next) = after.split_at(after.find(['+', '-', '=']).unwrap_or(after.len()));
            let mut clause = Clause { who, operator, bits: 0, conditional: false, copied: None };
            for letter in letters.bytes() {
                match letter {
                    b'r' => clause.bits |= 0o444,
                    b'w' => clause.bits |= 0o222,
                    b'x' => clause.bits |= 0o111,
                    b'X' => clause.conditional = true,
                    b's' => clause.bits |= 0o6000,
                    b't' => clause.bits |= 0o1000,
                    b'u' | b'g' | b'o' if letters.len() == 1 => clause.copied = Some(letter),
                    _ => return None,
                }
            }
            found.push(clause);
            rest = next;
        }
    }
    Some(found)
}

impl Clause {
    fn of(&self, mode: u32, is_directory: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional && (is_directory || mode & 0o111 != 0) {
            bits |= 0o111;
        }
        if let Some(from) = self.copied {
            let shift = match from {
                b'u' => 6,
                b'g' => 3,
                _ => 0,
            };
            let own = mode >> shift & 7;
            bits |= own << 6 | own << 3 | own;
        }
        // `t` alone is nobody's in particular.
        let who = if bits & 0o1000 != 0 { self.who | 0o1000 } else { self.who };
        match self.operator {
            b'+' => mode | bits & who,
            b'-' => mode & !(bits & who),
            _ => mode & !(self.who & 0o777) & !(self.who & 0o6000) | bits & who,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_chmod_changes_them() {
        for (text, before, is_directory, after) in [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,o-rwx", 0o755, true, 0o2750),
            ("+t", 0o777, true, 0o1777),
            ("go=u", 0o640, false, 0o666),
            ("u=rw-w", 0o777, false, 0o477),
            ("o=", 0o777, false, 0o770),
        ] {
            let change = Change::read(&Chmod::Symbolic(text.to_owned())).unwrap();
            let found = change.of(before, is_directory);
            assert_eq!(found, after, "{text} of {before:o}: expected {after:o}, found {found:o}");
        }
        for invalid in ["rwx", "z+r", "u+q", "", "u", "u=g,x"] {
            assert!(Change::read(&Chmod::Symbolic(invalid.to_owned())).is_err(), "{invalid}");
        }
        assert_eq!(Change::read(&Chmod::Octal(0o4755)).unwrap().of(0, false), 0o4755);
    }
}
