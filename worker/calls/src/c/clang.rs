//! Options for Clang's compiler proper: each word after a `-Xclang` of its own.

use super::line::Line;
use crate::call::Role;
use crate::refusal::Refusal;

/// Options without a value that change the result and name no file.
const FLAGS: [&str; 12] = [
    "-fno-pch-timestamp",
    "-fno-validate-pch",
    "-fpch-instantiate-templates",
    "-fallow-half-arguments-and-returns",
    "-fnative-half-type",
    "-fexperimental-assignment-tracking",
    "-disable-llvm-passes",
    "-disable-O0-optnone",
    "-no-opaque-pointers",
    "-opaque-pointers",
    "-fno-split-cold-code",
    "-emit-pch",
];

/// Takes one `-Xclang WORD` into account.
pub(super) fn read(line: &mut Line, word: &[u8]) -> Result<(), Refusal> {
    match line.frontend_awaits.take() {
        Some(Awaits::File(role)) => line.reads(role, word),
        Some(Awaits::Include) => line.include(word, false),
        Some(Awaits::Word) => {}
        None => {
            line.frontend_awaits = match word {
                b"-load" => Some(Awaits::File(Role::Plugin)),
                b"-include-pch" => Some(Awaits::File(Role::PrecompiledHeader)),
                b"-include" => Some(Awaits::Include),
                b"-plugin" | b"-add-plugin" | b"-target-cpu" | b"-tune-cpu" | b"-target-feature" => Some(Awaits::Word),
                _ if word.starts_with(b"-plugin-arg-") => Some(Awaits::Word),
                _ if FLAGS.iter().any(|flag| flag.as_bytes() == word) => None,
                _ => {
                    return Err(Refusal::UnknownOption {
                        option: format!("-Xclang {}", String::from_utf8_lossy(word)),
                    });
                }
            };
        }
    }
    Ok(())
}

/// What the next `-Xclang` has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaits {
    /// A file that is read.
    File(Role),
    /// A file that is included.
    Include,
    /// A name.
    Word,
}
