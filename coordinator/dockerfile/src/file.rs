//! A whole Dockerfile: directives, global arguments, and stages.

use crate::error::{Error, Problem, shown};
use crate::image::ImageName;
use crate::instruction::{self, Arg, From, Instruction, Kind};
use crate::source::{Source, Span};
use crate::text::{self, Directives};

/// Maximum number of stages.
pub const MAX_STAGES: usize = 1_000;
/// Frontends whose language is read here.
const FRONTENDS: [&str; 2] = ["docker/dockerfile", "docker/dockerfile-upstream"];

/// A Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// Its text.
    pub source: Source,
    /// The directives on its first lines.
    pub directives: Directives,
    /// The arguments before the first `FROM`, in order.
    pub arguments: Vec<Arg>,
    /// The instructions that declare them.
    pub argument_instructions: Vec<Instruction>,
    /// The stages, in order; at least one.
    pub stages: Vec<Stage>,
    /// Instructions with an empty line in them.
    pub empty_lines: Vec<Span>,
}

/// A stage: `FROM` and the instructions up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// `FROM`.
    pub from: From,
    /// The name, in lower case.
    pub name: Option<String>,
    /// The instruction `FROM`.
    pub instruction: Instruction,
    /// The instructions that follow.
    pub instructions: Vec<Instruction>,
}

/// The text of a file.
///
/// # Errors
/// If it is not UTF-8.
pub fn decode(name: &str, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let bytes = error.as_bytes();
        let valid = bytes.get(..at).map(String::from_utf8_lossy).unwrap_or_default();
        let source = Source::new(name, &format!("{valid}{}", char::REPLACEMENT_CHARACTER));
        let end = at.saturating_add(char::REPLACEMENT_CHARACTER.len_utf8());
        let is_utf16 = bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]);
        let found = if is_utf16 { "the file is UTF-16" } else { "the file is not UTF-8 here" };
        Problem::new(Span::new(at, end), found).help("save it as UTF-8").of(&source)
    })
}

/// Reads a Dockerfile. `name` is for messages.
///
/// # Errors
/// If it is invalid, with the first place where it is.
pub fn parse(name: &str, text: &str) -> Result<Dockerfile, Error> {
    let source = Source::new(name, text);
    read(&source).map_err(|problem| problem.of(&source))
}

fn read(source: &Source) -> Result<Dockerfile, Problem> {
    if source.text().len() <= text::MAX_BYTES
        && let Some(frontend) = text::syntax(source.text())
    {
        check_frontend(frontend, source.text())?;
    }
    let text = text::read(source.text())?;
    let mut file = Dockerfile {
        source: source.clone(),
        directives: text.directives,
        arguments: Vec::new(),
        argument_instructions: Vec::new(),
        stages: Vec::new(),
        empty_lines: text.nodes.iter().filter(|node| node.has_empty_line).map(|node| node.line_span).collect(),
    };
    for node in &text.nodes {
        let instruction = instruction::read(node)?;
        match (&instruction.kind, file.stages.last_mut()) {
            (Kind::From(from), _) => {
                let name = from.name.as_ref().map(|(_, name)| name.value.to_lowercase());
                let from = from.clone();
                file.stages.push(Stage { from, name, instruction, instructions: Vec::new() });
                if file.stages.len() > MAX_STAGES {
                    return Err(Problem::new(node.line_span, format!("more than {MAX_STAGES} stages")));
                }
            }
            (Kind::Arg(args), None) => {
                file.arguments.extend(args.iter().cloned());
                file.argument_instructions.push(instruction);
            }
            (_, None) => {
                let name = node.keyword.value.to_ascii_uppercase();
                let problem = Problem::new(node.keyword.span, format!("{name} is before the first FROM"));
                return Err(problem.help("begin with `FROM IMAGE`; only ARG can be before it"));
            }
            (_, Some(stage)) => stage.instructions.push(instruction),
        }
    }
    if file.stages.is_empty() {
        return Err(Problem::new(Span::new(0, 0), "the file has no stage").help("add `FROM IMAGE`"));
    }
    Ok(file)
}

/// Only one language is read here: others are programs, which are not run.
fn check_frontend(frontend: &str, text: &str) -> Result<(), Problem> {
    if is_known_frontend(frontend) {
        return Ok(());
    }
    // The frontend is a part of the text, so its place is where it points to, unless it was unescaped.
    let start = text.find(frontend).unwrap_or_default();
    let span = Span::new(start, start.saturating_add(frontend.len()));
    Err(Problem::new(span, format!("the frontend {} is not supported", shown(frontend)))
        .help("only the Dockerfile syntax of `docker/dockerfile` is"))
}

/// Whether a frontend, as in `# syntax=`, is Docker's own, in any version and from any mirror.
pub fn is_known_frontend(frontend: &str) -> bool {
    let Ok(name) = ImageName::read(frontend) else { return false };
    let path = name.repository();
    FRONTENDS.iter().any(|known| path == *known || path.ends_with(&format!("/{known}")))
}
