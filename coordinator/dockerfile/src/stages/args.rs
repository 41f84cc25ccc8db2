//! Arguments before the first `FROM`, and the values of `FROM` that name them.

use std::collections::BTreeSet;

use crate::error::{Problem, nearest, shown, suggestion};
use crate::file::{Dockerfile, Stage};
use crate::image::ImageName;
use crate::lint::{Lints, Rule};
use crate::options::{GlobalArgs, Options};
use crate::platform::Platform;
use crate::source::Word;
use crate::words::{Expanded, Lexer};

/// The values of the global arguments. `overridden` says whether build arguments count.
pub(super) fn global(
    file: &Dockerfile,
    options: &Options,
    target: &str,
    overridden: bool,
) -> Result<GlobalArgs, Problem> {
    let mut args = options.automatic_args(target);
    let lexer = Lexer::new(file.directives.escape);
    for arg in &file.arguments {
        let given = options.build_args.get(&arg.name.value).filter(|_| overridden);
        let value = match (given, &arg.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => {
                let expanded = lexer.expand(&default.value, &args);
                Some(expanded.map_err(|error| Problem::new(default.span, error.to_string()))?.text)
            }
            (None, None) => None,
        };
        if let Some(value) = value {
            args.values.insert(arg.name.value.clone(), value);
        }
    }
    Ok(args)
}

/// What a stage is based on, and the platform that it names.
pub(super) struct From {
    pub(super) base: String,
    pub(super) platform: Option<Platform>,
}

/// Expands the values of a `FROM`.
pub(super) fn from(
    file: &Dockerfile,
    stage: &Stage,
    args: &GlobalArgs,
    options: &Options,
    lints: &mut Lints,
) -> Result<From, Problem> {
    let lexer = Lexer::new(file.directives.escape);
    let expand =
        |word: &Word| lexer.expand(&word.value, args).map_err(|error| Problem::new(word.span, error.to_string()));
    let base = expand(&stage.from.base)?;
    undeclared(file, stage, &base, args, lints);
    if base.text.is_empty() {
        let message = format!("the base {} is empty", shown(&stage.from.base.value));
        let near = base.unset.iter().find_map(|name| suggestion(name, args.values.keys().map(String::as_str)));
        let help =
            near.unwrap_or_else(|| "give its argument a default before the first FROM, or a `--build-arg`".to_owned());
        return Err(Problem::new(stage.from.base.span, message).help(help));
    }
    let platform = match &stage.from.platform {
        None => None,
        Some(word) => {
            let expanded = expand(word)?;
            undeclared(file, stage, &expanded, args, lints);
            platform_rules(stage, word, &expanded, args, options, lints);
            let near = expanded.unset.iter().find_map(|name| suggestion(name, args.values.keys().map(String::as_str)));
            if expanded.text.is_empty() {
                let message = format!("the platform {} is empty", shown(&word.value));
                return Err(Problem::new(word.span, message).maybe_help(near));
            }
            let platform = Platform::read(&expanded.text, &options.build_platform);
            Some(platform.map_err(|message| Problem::new(word.span, message).maybe_help(near))?)
        }
    };
    Ok(From { base: base.text, platform })
}

fn undeclared(file: &Dockerfile, stage: &Stage, expanded: &Expanded, args: &GlobalArgs, lints: &mut Lints) {
    let declared = file.arguments.iter().map(|arg| arg.name.value.as_str());
    let known: BTreeSet<&str> = declared.chain(args.values.keys().map(String::as_str)).collect();
    for name in expanded.unset.iter().filter(|name| !known.contains(name.as_str())) {
        lints.report(Rule::UndefinedArgInFrom, stage.instruction.span, &stage.instruction.comments, || {
            let near = nearest(name, known.iter().copied()).map(|near| format!("; did you mean `{near}`?"));
            format!("FROM uses the argument `{name}`, which is not declared{}", near.unwrap_or_default())
        });
    }
}

fn platform_rules(
    stage: &Stage,
    word: &Word,
    expanded: &Expanded,
    args: &GlobalArgs,
    options: &Options,
    lints: &mut Lints,
) {
    let (span, comments) = (stage.instruction.span, &stage.instruction.comments);
    let is_target = expanded.used.iter().eq(["TARGETPLATFORM"]) && expanded.unset.is_empty();
    if is_target && args.values.get("TARGETPLATFORM") == Some(&expanded.text) {
        lints.report(Rule::RedundantTargetPlatform, span, comments, || {
            format!("`--platform={}` says what is the default", word.value)
        });
    }
    if expanded.used.is_empty() && expanded.unset.is_empty() {
        let name = stage.name.as_deref().unwrap_or_default();
        let platform = Platform::read(&expanded.text, &options.build_platform);
        if platform.is_ok_and(|platform| !name.contains(&platform.os) && !name.contains(&platform.architecture)) {
            lints.report(Rule::FromPlatformFlagConstDisallowed, span, comments, || {
                format!("`--platform={}` is a constant; the stage is not built for other platforms", expanded.text)
            });
        }
    }
}

/// With the defaults of its arguments, every `FROM` names an image.
pub(super) fn defaults(file: &Dockerfile, options: &Options, target: &str, lints: &mut Lints) {
    let Ok(args) = global(file, options, target, false) else { return };
    let lexer = Lexer::new(file.directives.escape);
    for stage in &file.stages {
        let Ok(base) = lexer.expand(&stage.from.base.value, &args) else { return };
        if ImageName::read(&base.text).is_err() {
            lints.report(Rule::InvalidDefaultArgInFrom, stage.instruction.span, &[], || {
                format!("with the defaults of its arguments, `{}` is not an image's name", stage.from.base.value)
            });
        }
    }
}
