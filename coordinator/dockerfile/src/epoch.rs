//! `SOURCE_DATE_EPOCH`: the time that a reproducible build uses in place of the clock.

use crate::error::{Error, Problem, shown, suggestion};
use crate::file::{Dockerfile, Stage};
use crate::git::GitSource;
use crate::instruction::Kind;
use crate::options::{Context, GlobalArgs, Options};
use crate::source::Span;
use crate::words::Lexer;

/// The name of the argument.
pub(crate) const NAME: &str = "SOURCE_DATE_EPOCH";

/// Where the time comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Epoch {
    /// Seconds since 1970.
    Seconds(i64),
    /// The time of a context: a repository's commit, or the newest file of an archive.
    Context(Context),
    /// The time of what is at a URL.
    Url(String),
    /// The time of a commit.
    Git(GitSource),
}

/// Where the time of a build comes from, by its argument, or by the file's. If it is not [`Epoch::Seconds`], resolve it and put it
/// into [`Options::epoch`].
///
/// # Errors
/// If the argument is none of these.
pub fn epoch(file: &Dockerfile, options: &Options) -> Result<Option<Epoch>, Error> {
    find(file, options).map_err(|problem| problem.of(&file.source))
}

/// The options of a build whose time is resolved, and the time.
pub(crate) fn resolved(file: &Dockerfile, options: &Options) -> Result<(Options, Option<i64>), Problem> {
    let mut options = options.clone();
    let seconds = match find(file, &options)? {
        None => None,
        Some(Epoch::Seconds(seconds)) => Some(seconds),
        Some(_) => options.epoch,
    };
    if options.build_args.contains_key(NAME) {
        match seconds {
            Some(seconds) => options.build_args.insert(NAME.to_owned(), seconds.to_string()),
            None => options.build_args.remove(NAME),
        };
    }
    Ok((options, seconds))
}

fn find(file: &Dockerfile, options: &Options) -> Result<Option<Epoch>, Problem> {
    let args = crate::stages::global_args(file, options)?;
    let value = options.build_args.get(NAME).or_else(|| args.values.get(NAME)).map_or("", String::as_str);
    if value.is_empty() {
        return Ok(None);
    }
    if let Ok(seconds) = value.parse() {
        return Ok(Some(Epoch::Seconds(seconds)));
    }
    if value == "context" {
        return Ok(Some(Epoch::Context(Context::Main)));
    }
    if let Some((name, _)) = options.contexts.find(value, options.target_platform()) {
        return Ok(Some(Epoch::Context(Context::Named(name.to_owned()))));
    }
    let named = |stage: &&Stage| stage.name.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(value));
    match file.stages.iter().find(named) {
        Some(stage) => of_stage(file, stage, &args, options).map(Some),
        None => {
            let argument = file.arguments.iter().find(|arg| arg.name.value == NAME);
            let problem = Problem::new(
                argument.map_or(Span::default(), |arg| arg.name.span),
                format!("`{NAME}` is not a time: {}", shown(value)),
            );
            let near = suggestion(value, file.stages.iter().filter_map(|stage| stage.name.as_deref()));
            Err(problem
                .help("write seconds since 1970, `context`, or the name of a stage or a context")
                .maybe_help(near))
        }
    }
}

/// The time of a stage that consists of one `ADD` of something remote.
fn of_stage(file: &Dockerfile, stage: &Stage, args: &GlobalArgs, options: &Options) -> Result<Epoch, Problem> {
    let lexer = Lexer::new(file.directives.escape);
    let problem = |span| {
        Problem::new(span, format!("the stage of `{NAME}` is more than a source"))
            .help("write `FROM scratch`, and one ADD of a URL or a repository")
    };
    let mut args = args.clone();
    args.values.remove(NAME);
    let mut found = None;
    if stage.from.base.value != "scratch" {
        return Err(problem(stage.from.base.span));
    }
    for instruction in &stage.instructions {
        match &instruction.kind {
            Kind::Arg(declared) => {
                for arg in declared {
                    let given = options.build_args.get(&arg.name.value).cloned();
                    let default = arg.default.as_ref().map(|word| lexer.expand(&word.value, &args));
                    let default =
                        default.transpose().map_err(|error| Problem::new(arg.name.span, error.to_string()))?;
                    if let Some(value) = given.or(default.map(|expanded| expanded.text)) {
                        args.values.insert(arg.name.value.clone(), value);
                    }
                }
            }
            Kind::Add(add) if found.is_none() && add.inline.is_empty() => {
                let [source] = add.sources.as_slice() else { return Err(problem(instruction.span)) };
                let expanded = lexer.expand(&source.value, &args);
                let source = expanded.map_err(|error| Problem::new(source.span, error.to_string()))?.text;
                found = Some(match GitSource::read(&source) {
                    Some(git) => Epoch::Git(git.map_err(|message| Problem::new(instruction.span, message))?),
                    None if source.starts_with("http://") || source.starts_with("https://") => Epoch::Url(source),
                    None => return Err(problem(instruction.span)),
                });
            }
            _ => return Err(problem(instruction.span)),
        }
    }
    found.ok_or_else(|| problem(stage.instruction.span))
}
