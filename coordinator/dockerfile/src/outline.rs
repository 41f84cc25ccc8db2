//! What a file offers: its stages and its arguments, with the comments that describe them.

use crate::file::Dockerfile;
use crate::instruction::{Instruction, Kind};

/// A stage that can be built with `--target`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// Its name, if it has one.
    pub name: Option<String>,
    /// What a comment `# NAME …` before it says.
    pub description: Option<String>,
    /// What it is based on, as it is written.
    pub base: String,
    /// `--platform`, as it is written.
    pub platform: Option<String>,
    /// Whether it is built by default.
    pub is_default: bool,
    /// The line of its `FROM`.
    pub line: usize,
}

/// An argument that can be given with `--build-arg`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// What a comment `# NAME …` before it says.
    pub description: Option<String>,
    /// Its default, as it is written.
    pub default: Option<String>,
    /// The stage that declares it, by index; `None` before the first one.
    pub stage: Option<usize>,
    /// The line of its `ARG`.
    pub line: usize,
}

/// The stages of a file.
pub fn targets(file: &Dockerfile) -> Vec<Target> {
    let last = file.stages.last();
    let target = |stage: &crate::file::Stage| Target {
        description: stage.name.as_deref().and_then(|name| description(&stage.instruction, name)),
        name: stage.name.clone(),
        base: stage.from.base.value.clone(),
        platform: stage.from.platform.as_ref().map(|word| word.value.clone()),
        is_default: last.is_some_and(|last| std::ptr::eq(last, stage)),
        line: file.source.line(stage.instruction.span.start),
    };
    file.stages.iter().map(target).collect()
}

/// The arguments of a file.
pub fn arguments(file: &Dockerfile) -> Vec<Argument> {
    let global = file.argument_instructions.iter().map(|instruction| (None, instruction));
    let stages = file.stages.iter().enumerate();
    let own = stages.flat_map(|(at, stage)| stage.instructions.iter().map(move |instruction| (Some(at), instruction)));
    let mut found = Vec::new();
    for (stage, instruction) in global.chain(own) {
        let Kind::Arg(args) = &instruction.kind else { continue };
        found.extend(args.iter().map(|arg| Argument {
            name: arg.name.value.clone(),
            description: description(instruction, &arg.name.value),
            default: arg.default.as_ref().map(|word| word.value.clone()),
            stage,
            line: file.source.line(instruction.span.start),
        }));
    }
    found
}

fn description(instruction: &Instruction, name: &str) -> Option<String> {
    let text = |comment: &String| comment.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    instruction.comments.iter().find_map(text)
}
