//! Reports of one test or event a line, among whatever else a command printed.

use crate::found::{Found, lines};
use crate::text::{cut, end_of, first_line, reason};
use crate::{Error, Limits, Outcome, Test, ctest, golang, libtest, nextest, tap, unittest};

/// Reads lines of an output, and of the standard error beside it.
pub(crate) fn read(out: &[u8], err: &[u8], limits: &Limits) -> Result<Vec<Test>, Error> {
    let mut found = Found { limits, tests: Vec::new(), is_report: false };
    let mut libtest = libtest::Reading::new(err);
    let mut go = golang::Reading::default();
    let mut ctest = ctest::Reading::default();
    let mut nextest = nextest::Reading::default();
    let mut tap = tap::Reading::default();
    let mut unittest = unittest::Reading::default();
    for line in lines(out) {
        // What a test printed can look like another runner's line: who is in the middle of something has it.
        let _ = nextest.line(&line, &mut found)?
            || libtest.line(&line, &mut found)?
            || ctest.line(&line, &mut found)?
            || tap.line(&line, &mut found)?
            || unittest.line(&line, &mut found)?
            || go.line(&line, &mut found)?;
    }
    libtest.end(&mut found)?;
    go.end(&mut found)?;
    // cargo-nextest and `unittest` print their results on the standard error.
    for line in lines(err) {
        let _ = nextest.line(&line, &mut found)? || unittest.line(&line, &mut found)?;
    }
    for test in found.tests.iter_mut().filter(|test| test.outcome == Outcome::Failed || test.is_flaky) {
        test.output = end_of(test.output.trim_matches(['\n', '\r']), limits.text).to_owned();
        if test.message.is_empty() {
            test.message = cut(&reason(&test.output), limits.name);
        }
    }
    if found.is_report || out.trim_ascii().is_empty() {
        return Ok(found.tests);
    }
    let text = String::from_utf8_lossy(out.get(..200).unwrap_or(out));
    let first = first_line(&text);
    Err(Error::Unknown { found: cut(first, 60.min(limits.name)) })
}
