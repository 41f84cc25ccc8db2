//! One instruction's meaning.

use super::{Arg, From, Instruction, Kind, copy, flags::Flags, flags::Takes, health, run};
use crate::error::{Problem, shown, suggestion};
use crate::source::Word;
use crate::text::{Arguments, INSTRUCTIONS, Node};

/// Reads an instruction.
///
/// # Errors
/// If it is unknown, or has arguments or flags that it does not take.
pub fn read(node: &Node) -> Result<Instruction, Problem> {
    let name = node.keyword.value.to_ascii_uppercase();
    let no_flags = || Flags::read(&name, &node.flags, &[]);
    let kind = match name.as_str() {
        "ADD" => Kind::Add(copy::read(node, true)?),
        "ARG" => Kind::Arg(args(node)?),
        "CMD" => {
            no_flags()?;
            Kind::Cmd(run::command_line(&node.arguments))
        }
        "COPY" => Kind::Copy(copy::read(node, false)?),
        "ENTRYPOINT" => {
            no_flags()?;
            Kind::Entrypoint(run::command_line(&node.arguments))
        }
        "ENV" | "LABEL" => {
            no_flags()?;
            let Arguments::Pairs(pairs) = &node.arguments else { return Err(needs_one(node, &name)) };
            if pairs.is_empty() {
                return Err(needs_one(node, &name));
            }
            if let Some(pair) = pairs.iter().find(|pair| pair.name.value.is_empty()) {
                return Err(Problem::new(pair.name.span, format!("a name of {name} is empty"))
                    .help(format!("write `{name} NAME=VALUE`")));
            }
            if name == "ENV" { Kind::Env(pairs.clone()) } else { Kind::Label(pairs.clone()) }
        }
        "EXPOSE" => {
            no_flags()?;
            let mut ports = words(node);
            if ports.is_empty() {
                return Err(needs_one(node, &name));
            }
            ports.sort_by(|a, b| a.value.cmp(&b.value));
            Kind::Expose(ports)
        }
        "FROM" => Kind::From(from(node)?),
        "HEALTHCHECK" => Kind::Healthcheck(health::read(node)?),
        "MAINTAINER" => Kind::Maintainer(one(node, &name)?),
        "ONBUILD" => onbuild(node)?,
        "RUN" => Kind::Run(run::read(node)?),
        "SHELL" => {
            no_flags()?;
            match &node.arguments {
                Arguments::Json(words) if !words.is_empty() => Kind::Shell(words.clone()),
                _ => {
                    let problem = Problem::new(node.line_span, "SHELL takes a JSON array of strings");
                    return Err(problem.help("write for example `SHELL [\"/bin/bash\", \"-c\"]`"));
                }
            }
        }
        // Flags of STOPSIGNAL and ARG have no effect.
        "STOPSIGNAL" => Kind::Stopsignal(text(node, &name)?),
        "USER" => Kind::User(one(node, &name)?),
        "VOLUME" => {
            no_flags()?;
            Kind::Volume(volumes(node)?)
        }
        "WORKDIR" => Kind::Workdir(one(node, &name)?),
        _ => return Err(unknown(node)),
    };
    Ok(Instruction {
        keyword: node.keyword.clone(),
        line: node.line.trim().to_owned(),
        comments: node.comments.clone(),
        span: node.span,
        kind,
    })
}

fn unknown(node: &Node) -> Problem {
    let problem = Problem::new(node.keyword.span, format!("unknown instruction {}", shown(&node.keyword.value)));
    match suggestion(&node.keyword.value, INSTRUCTIONS) {
        Some(near) => problem.help(near),
        None => problem.help("if it belongs to the line before, end that line with the escape character"),
    }
}

fn needs_one(node: &Node, name: &str) -> Problem {
    Problem::new(node.line_span, format!("{name} needs an argument"))
}

/// The text of an instruction that takes one value.
fn text(node: &Node, name: &str) -> Result<Word, Problem> {
    match &node.arguments {
        Arguments::Text(text) if !text.value.is_empty() => Ok(text.clone()),
        _ => Err(needs_one(node, name)),
    }
}

fn one(node: &Node, name: &str) -> Result<Word, Problem> {
    let text = text(node, name)?;
    Flags::read(name, &node.flags, &[])?;
    Ok(text)
}

fn words(node: &Node) -> Vec<Word> {
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.clone(),
        Arguments::Text(_) | Arguments::Pairs(_) => Vec::new(),
    }
}

fn volumes(node: &Node) -> Result<Vec<Word>, Problem> {
    let volumes = words(node);
    if volumes.is_empty() {
        return Err(needs_one(node, "VOLUME"));
    }
    let volumes = volumes.into_iter().map(|word| Word { value: word.value.trim().to_owned(), ..word });
    volumes
        .map(
            |word| {
                if word.value.is_empty() { Err(Problem::new(word.span, "a path of VOLUME is empty")) } else { Ok(word) }
            },
        )
        .collect()
}

fn args(node: &Node) -> Result<Vec<Arg>, Problem> {
    let words = words(node);
    if words.is_empty() {
        return Err(needs_one(node, "ARG").help("write `ARG NAME` or `ARG NAME=DEFAULT`"));
    }
    let part = |word: &Word, value: &str| Word { value: value.to_owned(), span: word.span };
    words
        .iter()
        .map(|word| match word.value.split_once('=') {
            Some(("", _)) => Err(Problem::new(word.span, "a name of ARG is empty").help("write `ARG NAME=DEFAULT`")),
            Some((name, default)) => Ok(Arg { name: part(word, name), default: Some(part(word, default)) }),
            None => Ok(Arg { name: word.clone(), default: None }),
        })
        .collect()
}

fn from(node: &Node) -> Result<From, Problem> {
    let words = words(node);
    let (base, name) = match words.as_slice() {
        [base] => (base, None),
        [base, keyword, name] if keyword.value.eq_ignore_ascii_case("as") => (base, Some((keyword, name))),
        _ => {
            let problem = Problem::new(node.line_span, "FROM takes one argument, or three");
            return Err(problem.help("write `FROM IMAGE` or `FROM IMAGE AS NAME`"));
        }
    };
    if let Some((_, name)) = name
        && !is_stage_name(&name.value.to_lowercase())
    {
        let problem = Problem::new(name.span, format!("invalid name of a stage: {}", shown(&name.value)));
        return Err(problem.help("begin it with a letter, and use letters, digits, `-`, `_` and `.` only"));
    }
    let flags = Flags::read("FROM", &node.flags, &[("platform", Takes::One)])?;
    let name = name.map(|(keyword, name)| (keyword.clone(), name.clone()));
    let platform = flags.one("platform").filter(|platform| !platform.value.is_empty());
    Ok(From { base: base.clone(), name, platform })
}

fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'))
}

fn onbuild(node: &Node) -> Result<Kind, Problem> {
    let Some(trigger) = &node.trigger else {
        return Err(needs_one(node, "ONBUILD").help("write the instruction that images based on this one begin with"));
    };
    Flags::read("ONBUILD", &node.flags, &[])?;
    let name = trigger.keyword.value.to_ascii_uppercase();
    if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
        return Err(Problem::new(trigger.keyword.span, format!("ONBUILD cannot store {name}")));
    }
    let mut trigger = (**trigger).clone();
    trigger.heredocs.clone_from(&node.heredocs);
    trigger.span = node.span;
    let instruction = read(&trigger)?;
    let mut text = trigger.line.trim_start().to_owned();
    for heredoc in &node.heredocs {
        text.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
    }
    Ok(Kind::Onbuild(text, Box::new(instruction)))
}
