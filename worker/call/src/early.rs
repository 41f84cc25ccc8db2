//! What was handed out before a call had ended, and what happens if the call has no result after all.
//!
//! A build tool goes on with what depends on an output as soon as it is announced, so it cannot be taken back. If the call then turns out
//! to have no result, the compiler runs in the step as a child: its words are passed on except those that were said before, and what was
//! handed out must be what it makes now. Anything else could have got into what depends on it, and fails the call.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_call::Early;

use super::outputs;

/// What is said if the compiler makes something else when it runs again.
const CHANGED: &str = "the compiler made another file when it ran again, and what depends on the first may have been compiled by now. \
    Either a file that it reads changes during the build, or a macro does not always expand to the same. \
    Build again, or set `split = false` for this step in `kiln.toml`";

/// What was handed out.
#[derive(Default)]
pub(crate) struct Given {
    early: Early,
    contents: Vec<File>,
}

impl Given {
    /// Puts what is announced in place, and then says the words that announce it.
    pub(crate) fn hand_out(early: Early, contents: Vec<File>) -> io::Result<Self> {
        let mut given = Self { early, contents };
        outputs::place(&given.early.outputs, &mut given.contents)?;
        // Whoever does not listen does not go on early.
        let _ = io::stderr().write_all(&given.early.stderr);
        Ok(given)
    }

    /// Whether nothing was.
    pub(crate) fn is_none(&self) -> bool {
        self.early.outputs.is_empty() && self.early.stderr.is_empty()
    }

    /// Runs the compiler, and answers its exit code, or another if it does not make what was handed out.
    pub(crate) fn run_again(&mut self, mut compiler: Command) -> io::Result<i32> {
        let mut child = compiler.stderr(Stdio::piped()).spawn()?;
        if let Some(said) = child.stderr.take() {
            self.pass_on(BufReader::new(said), &mut io::stderr())?;
        }
        let status = child.wait()?;
        let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
        if code != 0 {
            return Ok(code);
        }
        for (output, content) in self.early.outputs.iter().zip(&mut self.contents) {
            content.rewind()?;
            if !File::open(&output.path).and_then(|now| is_equal(content, now)).unwrap_or_default() {
                eprintln!("kiln: `{}` had been handed out: {CHANGED}", Path::new(&output.path).display());
                return Ok(1);
            }
        }
        Ok(0)
    }

    /// Passes on the lines that have not been said before.
    fn pass_on(&self, mut from: impl BufRead, to: &mut impl Write) -> io::Result<()> {
        let mut said: Vec<&[u8]> = self.early.stderr.split_inclusive(|byte| *byte == b'\n').collect();
        let mut line = Vec::new();
        while from.read_until(b'\n', &mut line)? > 0 {
            match said.iter().position(|said| *said == line) {
                Some(at) => drop(said.remove(at)),
                None => drop(to.write_all(&line)),
            }
            line.clear();
        }
        Ok(())
    }
}

fn is_equal(one: impl Read, other: impl Read) -> io::Result<bool> {
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let both = left.len().min(right.len());
        if left[..both] != right[..both] {
            return Ok(false);
        }
        if both == 0 {
            return Ok(left.len() == right.len());
        }
        one.consume(both);
        other.consume(both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_said_is_not_said_again_and_everything_else_is() {
        let early = Early { stderr: b"warning: one\nwarning: two\nwarning: one\n".to_vec(), outputs: Vec::new() };
        let given = Given { early, contents: Vec::new() };
        let mut said = Vec::new();
        let again = b"warning: one\nwarning: new\nwarning: one\nwarning: two\nwarning: one\nend";
        given.pass_on(&again[..], &mut said).expect("expected memory to be read");
        assert_eq!(said, b"warning: new\nwarning: one\nend");
    }

    #[test]
    fn files_are_equal_only_if_all_of_them_is() {
        let long = vec![7; 100_000];
        let equal = |one: &[u8], other: &[u8]| is_equal(one, other).expect("expected memory to be read");
        assert!(equal(&long, &long) && equal(b"", b""));
        assert!(!equal(&long, &long[1..]) && !equal(&long[1..], &long) && !equal(b"a", b"b"));
    }
}
