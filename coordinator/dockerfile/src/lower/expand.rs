//! Values of instructions with their variables expanded.

use super::stage::{Lowering, Place};
use super::state::State;
use crate::error::{Problem, nearest};
use crate::lint::Rule;
use crate::source::Word;
use crate::words::{self, Expanded, Lexer};

/// Arguments that say what an SBOM is made of, and that are in no environment.
const NO_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl Lowering<'_> {
    /// Expands a text with the variables that a stage has at an instruction.
    pub(super) fn expand(
        &mut self,
        state: &State,
        place: &Place<'_>,
        lexer: Lexer,
        word: &Word,
    ) -> Result<Expanded, Problem> {
        // A pattern takes time with its length, whatever it gives.
        let expanded = lexer.expand(&word.value, &state.env).map_err(|error| {
            self.is_guess |= state.is_assumed && matches!(error, words::Error::Required { .. });
            Problem::new(word.span, error.to_string())
        })?;
        self.budget.spend(expanded.text.len().saturating_add(word.value.len()), word.span)?;
        for name in &expanded.unset {
            let is_declared = state.args.iter().any(|(declared, _)| declared == name);
            self.is_guess |= state.is_assumed && !is_declared;
            if is_declared || state.is_assumed || NO_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            self.lints.report(Rule::UndefinedVar, place.instruction.span, &place.instruction.comments, || {
                let near = nearest(name, state.env.0.keys().map(String::as_str));
                let near = near.map(|near| format!("; did you mean `${near}`?")).unwrap_or_default();
                format!("the variable `${name}` is not defined{near}")
            });
        }
        Ok(expanded)
    }

    /// The text that a word expands to.
    pub(super) fn text(&mut self, state: &State, place: &Place<'_>, word: &Word) -> Result<String, Problem> {
        Ok(self.expand(state, place, Lexer::new(self.file.directives.escape), word)?.text)
    }

    /// The text that an optional word expands to; nothing if it is empty.
    pub(super) fn optional(
        &mut self,
        state: &State,
        place: &Place<'_>,
        word: Option<&Word>,
    ) -> Result<Option<String>, Problem> {
        let text = word.map(|word| self.text(state, place, word)).transpose()?;
        Ok(text.filter(|text| !text.is_empty()))
    }

    /// Whether an argument is in no environment.
    pub(super) fn is_no_variable(name: &str) -> bool {
        NO_VARIABLES.contains(&name)
    }
}
