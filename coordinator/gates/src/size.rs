//! A budget for an artifact's size.

use crate::{Level, Verdict};

/// Checks a size against the most that is allowed, both in bytes.
pub fn check(artifact: &str, bytes: u64, max_bytes: u64) -> Verdict {
    let mut verdict = Verdict::default();
    match bytes.checked_sub(max_bytes).filter(|over| *over > 0) {
        Some(over) => {
            let words = format!("{bytes} bytes, which is {over} more than its budget of {max_bytes}");
            verdict.add(Level::Forbidden, artifact, words);
        }
        None => verdict.add(Level::Note, artifact, format!("{bytes} bytes of at most {max_bytes}")),
    }
    verdict
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    #[test]
    fn a_budget_may_be_used_up_and_not_exceeded() {
        assert_eq!(check("shop", 100, 100).outcome(), Outcome::Passed);
        let over = check("shop", 101, 100);
        assert_eq!(over.outcome(), Outcome::Failed);
        assert_eq!(over.message().as_deref(), Some("shop: 101 bytes, which is 1 more than its budget of 100"));
    }
}
