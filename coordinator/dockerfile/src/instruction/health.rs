//! `HEALTHCHECK`.

use super::flags::{Flags, Known, Takes};
use super::run::{CommandLine, command_line};
use crate::error::{Problem, shown, suggestion};
use crate::golang;
use crate::source::Word;
use crate::text::Node;

const FLAGS: Known = &[
    ("interval", Takes::One),
    ("timeout", Takes::One),
    ("start-period", Takes::One),
    ("start-interval", Takes::One),
    ("retries", Takes::One),
];
const MILLISECOND: i64 = 1_000_000;

/// A health check: what an image's configuration has. Times are nanoseconds, and 0 is the default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Healthcheck {
    /// `NONE`, or `CMD` with a program and its arguments, or `CMD-SHELL` with a text.
    pub test: Vec<String>,
    /// `--interval`.
    pub interval: i64,
    /// `--timeout`.
    pub timeout: i64,
    /// `--start-period`.
    pub start_period: i64,
    /// `--start-interval`.
    pub start_interval: i64,
    /// `--retries`.
    pub retries: i64,
}

pub(super) fn read(node: &Node) -> Result<Healthcheck, Problem> {
    let Some(check) = &node.check else {
        let problem = Problem::new(node.line_span, "HEALTHCHECK needs an argument");
        return Err(problem.help("write `HEALTHCHECK CMD COMMAND` or `HEALTHCHECK NONE`"));
    };
    let command = command_line(&node.arguments);
    let is_empty = matches!(&command, CommandLine::Shell(text) if text.value.is_empty())
        || matches!(&command, CommandLine::Exec(words) if words.is_empty());
    match check.value.to_ascii_uppercase().as_str() {
        "NONE" if !is_empty => Err(Problem::new(check.span, "HEALTHCHECK NONE takes no arguments").help("remove them")),
        "NONE" => Ok(Healthcheck { test: vec!["NONE".to_owned()], ..Healthcheck::default() }),
        "CMD" => {
            let flags = Flags::read("HEALTHCHECK", &node.flags, FLAGS)?;
            let test = match command {
                _ if is_empty => {
                    let problem = Problem::new(check.span, "HEALTHCHECK CMD has no command");
                    return Err(problem.help("write `HEALTHCHECK CMD COMMAND`"));
                }
                CommandLine::Shell(text) => vec!["CMD-SHELL".to_owned(), text.value],
                CommandLine::Exec(words) => {
                    std::iter::once("CMD".to_owned()).chain(words.into_iter().map(|word| word.value)).collect()
                }
            };
            let time = |name: &str| flags.one(name).map_or(Ok(0), |word| duration(name, &word));
            Ok(Healthcheck {
                test,
                interval: time("interval")?,
                timeout: time("timeout")?,
                start_period: time("start-period")?,
                start_interval: time("start-interval")?,
                retries: flags.one("retries").map_or(Ok(0), |word| retries(&word))?,
            })
        }
        other => {
            let near = suggestion(other, ["CMD", "NONE"]).unwrap_or_else(|| "expected `CMD` or `NONE`".to_owned());
            Err(Problem::new(check.span, format!("unknown kind of HEALTHCHECK: {}", shown(&check.value))).help(near))
        }
    }
}

fn duration(name: &str, word: &Word) -> Result<i64, Problem> {
    if word.value.is_empty() {
        return Ok(0);
    }
    match golang::read_duration(&word.value) {
        Some(0) => Ok(0),
        Some(time) if time >= MILLISECOND => Ok(time),
        Some(_) => Err(Problem::new(word.span, format!("`--{name}` is less than 1ms")).help("write at least `1ms`")),
        None => {
            let problem = Problem::new(word.span, format!("`--{name}` is not a duration: {}", shown(&word.value)));
            Err(problem.help("write for example `30s`, `1m30s` or `500ms`"))
        }
    }
}

fn retries(word: &Word) -> Result<i64, Problem> {
    match word.value.as_str() {
        "" => Ok(0),
        value => {
            value.parse::<i32>().ok().filter(|count| *count >= 0).map(i64::from).ok_or_else(|| {
                Problem::new(word.span, format!("`--retries` is not a number from 0 on: {}", shown(value)))
            })
        }
    }
}
