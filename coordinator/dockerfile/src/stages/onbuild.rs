//! Instructions that a base has stored for what is built on it (`ONBUILD`).

use crate::error::{Problem, shown};
use crate::instruction::{self, Instruction, Kind};
use crate::source::Span;
use crate::text;

/// Reads stored instructions. They stand for the `FROM` that brings them.
pub(super) fn read(stored: &[String], from: Span) -> Result<Vec<Instruction>, Problem> {
    stored
        .iter()
        .map(|stored| {
            let read = text::read_trigger(stored, from).and_then(|node| instruction::read(&node));
            let trigger = read.map_err(|problem| Problem {
                message: format!("the base's `ONBUILD` instruction {} is invalid: {}", shown(stored), problem.message),
                ..problem.at(from)
            })?;
            match trigger.kind {
                Kind::From(_) | Kind::Onbuild(..) | Kind::Maintainer(_) => {
                    let name = trigger.keyword.value.to_ascii_uppercase();
                    Err(Problem::new(
                        from,
                        format!("the base stores {name} as an ONBUILD instruction, which cannot be"),
                    ))
                }
                _ => Ok(trigger),
            }
        })
        .collect()
}

/// The instructions that a stage of the file stores.
pub(super) fn stored(steps: &[super::Step]) -> Vec<String> {
    let text = |step: &super::Step| match &step.instruction.kind {
        Kind::Onbuild(text, _) => Some(text.clone()),
        _ => None,
    };
    steps.iter().filter_map(text).collect()
}
