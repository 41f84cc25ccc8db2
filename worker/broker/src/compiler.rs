//! What only a compiler's driver knows, such as what `native` stands for.

use std::collections::HashMap;
use std::ffi::OsString;

use kiln_proto::digest::Digest;
use parking_lot::Mutex;

/// Maximum number of answers that are remembered.
const MAX_ANSWERS: usize = 10_000;

/// The answers of drivers, by the driver's digest and the question.
#[derive(Debug, Default)]
pub(super) struct Drivers {
    answers: Mutex<HashMap<(Digest, Vec<OsString>), String>>,
}

impl Drivers {
    /// What a driver has answered before.
    pub(super) fn known(&self, driver: Digest, question: &[OsString]) -> Option<String> {
        self.answers.lock().get(&(driver, question.to_vec())).cloned()
    }

    /// Remembers an answer.
    pub(super) fn remember(&self, driver: Digest, question: Vec<OsString>, answer: String) {
        let mut answers = self.answers.lock();
        if answers.len() >= MAX_ANSWERS {
            answers.clear();
        }
        answers.insert((driver, question), answer);
    }
}
