//! `RUN`.

use std::collections::BTreeMap;

use super::command::Run;
use super::display;
use super::display::Titles;
use super::operation::Operator;
use super::stage::{Lowering, Place};
use super::state::State;
use crate::error::{Problem, shown};
use crate::instruction::{self, CommandLine, Network};
use crate::text::heredoc_word;
use crate::words::{Lexer, Variables};

/// Where scripts of heredocs are.
const SCRIPTS: &str = "/dev/pipes";

/// The environment, where the values of secrets are not shown.
struct Masked<'a>(&'a super::state::Env, Vec<String>);

impl Variables for Masked<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        if self.1.iter().any(|secret| secret == name) { Some("****") } else { self.0.get(name) }
    }
}

/// A command as it is executed.
struct Command {
    argv: Vec<String>,
    script: Option<(String, String)>,
    /// What is added to the operation's name.
    summary: Option<String>,
}

impl Lowering<'_> {
    pub(super) fn run(
        &mut self,
        state: &mut State,
        place: &Place<'_>,
        run: &instruction::Run,
        titles: &mut Titles,
    ) -> Result<(), Problem> {
        let instruction = place.instruction;
        let command = command(state, place, run)?;
        let (mounts, secrets) = self.mounts(state, place, &run.mounts)?;
        let line = match &command.summary {
            Some(summary) => format!("{} ({summary})", instruction.line),
            None => instruction.line.clone(),
        };
        let lexer = Lexer { keep_quotes: true, keep_unset: true, ..Lexer::new(self.file.directives.escape) };
        let line = display::line(lexer, &line, &Masked(&state.env, secrets));
        let name = titles.next(&line, place.is_trigger, &state.env);
        let env: Vec<(String, String)> =
            state.env.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let sizes = env.iter().flat_map(|(name, value)| [name.len(), value.len(), 48]);
        let proxies = self.options.proxies().into_iter().filter(|(name, _)| state.env.get(name).is_none());
        let written = history(state, &command.argv);
        let size = sizes.chain([name.len(), written.len()]).fold(0, usize::saturating_add);
        self.budget.spend(size, instruction.span)?;
        let network = if run.network == Network::Default { self.options.network } else { run.network };
        let kind = Operator::Run(Run {
            root: state.root,
            argv: command.argv,
            env,
            proxies: proxies.collect(),
            user: state.image.config.user.clone(),
            cwd: state.cwd.clone(),
            hostname: self.options.build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned(),
            network,
            mounts,
            script: command.script,
        });
        state.root = self.push(place.at, instruction.span, kind, name, &state.platform);
        state.commit(written, true);
        Ok(())
    }
}

/// What is executed: a shell with a text, or a program, or the script in a heredoc.
fn command(state: &State, place: &Place<'_>, run: &instruction::Run) -> Result<Command, Problem> {
    let text = match &run.command {
        CommandLine::Exec(words) => {
            let argv = words.iter().map(|word| word.value.clone()).collect();
            return Ok(Command { argv, script: None, summary: None });
        }
        CommandLine::Shell(text) => text,
    };
    let shell = |text: &str| state.shell(text);
    let Some(first) = run.heredocs.first() else {
        return Ok(Command { argv: shell(&text.value), script: None, summary: None });
    };
    if heredoc_word(&text.value).is_none() {
        // The shell reads the heredocs itself.
        let mut whole = text.value.clone();
        for heredoc in &run.heredocs {
            whole.push_str(&format!("\n{}{}", heredoc.content, heredoc.name));
        }
        return Ok(Command { argv: shell(&whole), script: None, summary: None });
    }
    let data = first.data();
    let summary = Some(display::summary(&first.content));
    if !data.starts_with("#!") || state.image.os == "windows" {
        return Ok(Command { argv: shell(&data), script: None, summary });
    }
    if first.name.contains('/') || matches!(first.name.as_str(), "." | "..") {
        let problem =
            Problem::new(place.instruction.span, format!("the heredoc {} is no file name", shown(&first.name)));
        return Err(problem.help("a heredoc that begins with `#!` is a file of its name; choose a name such as `EOF`"));
    }
    let path = format!("{SCRIPTS}/{}", first.name);
    Ok(Command { argv: shell(&path), script: Some((path, data)), summary })
}

/// The entry of the history: the declared arguments, and what is executed.
fn history(state: &State, argv: &[String]) -> String {
    let mut args: Vec<(&str, String)> = Vec::new();
    let mut places = BTreeMap::new();
    for (name, declared) in &state.args {
        let value = state.env.get(name).map(str::to_owned).or_else(|| declared.clone()).unwrap_or_default();
        let place = *places.entry(name.as_str()).or_insert(args.len());
        match args.get_mut(place) {
            Some((_, known)) => *known = value,
            None => args.push((name, value)),
        }
    }
    let mut words = Vec::new();
    if !args.is_empty() {
        words.push(format!("|{}", args.len()));
        words.extend(args.into_iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend(argv.iter().cloned());
    format!("RUN {} # buildkit", words.join(" "))
}
