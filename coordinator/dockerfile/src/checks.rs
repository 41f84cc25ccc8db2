//! The rules that need nothing but the file.

use std::collections::BTreeSet;

use crate::file::Dockerfile;
use crate::instruction::{Instruction, Kind};
use crate::lint::{Lints, Rule};
use crate::source::Span;

/// Runs them.
pub(crate) fn run(file: &Dockerfile, lints: &mut Lints) {
    for span in &file.empty_lines {
        // The finding is about the line that the instruction ends with.
        let last = Span::new(span.end.saturating_sub(1).max(span.start), span.end);
        lints.report(Rule::NoEmptyContinuation, last, &[], || "empty line within an instruction".to_owned());
    }
    for instruction in &file.argument_instructions {
        described(instruction, lints);
    }
    for stage in &file.stages {
        from_casing(&stage.instruction, lints);
        described(&stage.instruction, lints);
        for instruction in &stage.instructions {
            described(instruction, lints);
            if matches!(instruction.kind, Kind::Maintainer(_)) {
                lints.report(Rule::MaintainerDeprecated, instruction.span, &instruction.comments, || {
                    "MAINTAINER is deprecated; write `LABEL org.opencontainers.image.authors=…`".to_owned()
                });
            }
        }
    }
    names(file, lints);
    casing(file, lints);
}

/// `FROM … AS …`: the name in lower case, both words in one case.
fn from_casing(from: &Instruction, lints: &mut Lints) {
    let Kind::From(kind) = &from.kind else { return };
    let Some((keyword, name)) = &kind.name else { return };
    if name.value != name.value.to_lowercase() {
        lints.report(Rule::StageNameCasing, from.span, &from.comments, || {
            format!("the stage's name `{}` is not in lower case", name.value)
        });
    }
    let (own, other) = (&from.keyword.value, &keyword.value);
    let differs = if *own == own.to_lowercase() {
        *other != other.to_lowercase()
    } else {
        *own == own.to_uppercase() && *other != other.to_uppercase()
    };
    if differs {
        lints.report(Rule::FromAsCasing, from.span, &from.comments, || {
            format!("`{other}` is not in the same case as `{own}`")
        });
    }
}

/// The comment before a stage or an argument begins with its name.
fn described(instruction: &Instruction, lints: &mut Lints) {
    let (keyword, names): (_, Vec<String>) = match &instruction.kind {
        Kind::From(from) => ("FROM", from.name.iter().map(|(_, name)| name.value.to_lowercase()).collect()),
        Kind::Arg(args) => ("ARG", args.iter().map(|arg| arg.name.value.clone()).collect()),
        _ => return,
    };
    let Some(comment) = instruction.comments.last().filter(|_| !names.is_empty()) else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.iter().any(|name| name == first) {
        return;
    }
    let example = if let [name] = names.as_slice() { name.as_str() } else { "<name>" };
    lints.report(Rule::InvalidDefinitionDescription, instruction.span, &instruction.comments, || {
        format!("the comment before {keyword} is not of the form `# {example} <description>`")
    });
}

/// Names of stages are unique, and not reserved.
fn names(file: &Dockerfile, lints: &mut Lints) {
    let mut seen = BTreeSet::new();
    for stage in &file.stages {
        let Some(name) = stage.name.as_deref() else { continue };
        let span = stage.instruction.span;
        if matches!(name, "context" | "scratch") {
            lints.report(Rule::ReservedStageName, span, &[], || format!("the stage's name `{name}` is reserved"));
        }
        if !seen.insert(name) {
            lints.report(Rule::DuplicateStageName, span, &[], || format!("another stage has the name `{name}`"));
        }
    }
}

/// Instructions are all in upper case, or all in lower case.
fn casing(file: &Dockerfile, lints: &mut Lints) {
    let instructions =
        || file.stages.iter().flat_map(|stage| std::iter::once(&stage.instruction).chain(&stage.instructions));
    let count = |cased: fn(&str) -> String| {
        instructions().filter(|instruction| cased(&instruction.keyword.value) == instruction.keyword.value).count()
    };
    let is_lower = count(|name| name.to_lowercase()) > count(|name| name.to_uppercase());
    for instruction in instructions() {
        let name = &instruction.keyword.value;
        let (expected, case) =
            if is_lower { (name.to_lowercase(), "lower case") } else { (name.to_uppercase(), "upper case") };
        if *name != expected {
            lints.report(Rule::ConsistentInstructionCasing, instruction.span, &[], || {
                format!("`{name}` is not in {case}, as most instructions are")
            });
        }
    }
}
