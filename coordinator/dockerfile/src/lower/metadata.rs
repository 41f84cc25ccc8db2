//! Instructions that change the configuration.

use super::display;
use super::display::Titles;
use super::operation::Operator;
use super::stage::{Lowering, Place, absolute};
use super::state::State;
use super::{expose, signal};
use crate::config::{Empty, Healthcheck};
use crate::error::{Problem, shown, suggestion};
use crate::golang;
use crate::instruction::{Arg, CommandLine, Kind};
use crate::lint::Rule;
use crate::source::Word;
use crate::text::Pair;
use crate::words::Lexer;

/// Maximum number of ports of an image.
const MAX_PORTS: usize = 65_536 * 3;

impl Lowering<'_> {
    /// Lowers an instruction.
    pub(super) fn instruction(
        &mut self,
        state: &mut State,
        place: &Place<'_>,
        titles: &mut Titles,
    ) -> Result<(), Problem> {
        match &place.instruction.kind {
            Kind::Add(copy) => self.copy(state, place, copy, true, titles),
            Kind::Copy(copy) => self.copy(state, place, copy, false, titles),
            Kind::Run(run) => self.run(state, place, run, titles),
            Kind::Workdir(path) => self.workdir(state, place, path, titles),
            Kind::Arg(args) => self.arg(state, place, args),
            Kind::Env(pairs) => self.env(state, place, pairs),
            Kind::Label(pairs) => self.label(state, place, pairs),
            Kind::Cmd(command) => {
                self.once("CMD", state, place);
                let argv = self.command(state, place, command);
                state.commit(format!("CMD {}", golang::quote_list(&argv)), false);
                state.image.config.cmd = argv;
                state.image.config.args_escaped = true;
                Ok(())
            }
            Kind::Entrypoint(command) => {
                self.once("ENTRYPOINT", state, place);
                let argv = self.command(state, place, command);
                state.commit(format!("ENTRYPOINT {}", golang::quote_list(&argv)), false);
                state.image.config.entrypoint = argv;
                if !state.seen.contains_key("CMD") {
                    state.image.config.cmd.clear();
                }
                Ok(())
            }
            Kind::Healthcheck(check) => {
                self.once("HEALTHCHECK", state, place);
                let times = [check.interval, check.timeout, check.start_period, check.start_interval];
                let [interval, timeout, start_period, start_interval] = times.map(golang::duration);
                let test = golang::plain_list(&check.test);
                state.commit(
                    format!(
                        "HEALTHCHECK {{Test:{test} Interval:{interval} Timeout:{timeout} StartPeriod:{start_period} \
                         StartInterval:{start_interval} Retries:{}}}",
                        check.retries
                    ),
                    false,
                );
                state.image.config.healthcheck = Some(Healthcheck {
                    test: check.test.clone(),
                    interval: check.interval,
                    timeout: check.timeout,
                    start_period: check.start_period,
                    start_interval: check.start_interval,
                    retries: check.retries,
                });
                Ok(())
            }
            Kind::Expose(ports) => self.expose(state, place, ports),
            Kind::Maintainer(name) => {
                state.commit(format!("MAINTAINER {}", name.value), false);
                state.image.author.clone_from(&name.value);
                Ok(())
            }
            Kind::Onbuild(text, _) => {
                state.image.config.on_build.push(text.clone());
                Ok(())
            }
            Kind::Shell(words) => {
                state.image.config.shell = words.iter().map(|word| word.value.clone()).collect();
                state.commit(format!("SHELL {}", golang::plain_list(&state.image.config.shell)), false);
                Ok(())
            }
            Kind::Stopsignal(word) => {
                let name = self.text(state, place, word)?;
                if !signal::is_signal(&name) {
                    let known: Vec<String> = signal::names().collect();
                    let near = suggestion(&name.to_uppercase(), known.iter().map(String::as_str));
                    let problem = Problem::new(word.span, format!("{} is not a signal", shown(&name)));
                    return Err(problem.help(near.unwrap_or_else(|| "write for example `SIGTERM` or `15`".to_owned())));
                }
                state.commit(format!("STOPSIGNAL {name}"), false);
                state.image.config.stop_signal = name;
                Ok(())
            }
            Kind::User(word) => {
                let user = self.text(state, place, word)?;
                state.commit(format!("USER {user}"), false);
                state.image.config.user = user;
                Ok(())
            }
            Kind::Volume(words) => {
                let mut volumes = Vec::new();
                for word in words {
                    let volume = self.text(state, place, word)?;
                    if volume.is_empty() {
                        return Err(Problem::new(
                            word.span,
                            format!("the path {} of VOLUME is empty", shown(&word.value)),
                        ));
                    }
                    volumes.push(volume);
                }
                state.commit(format!("VOLUME {}", golang::plain_list(&volumes)), false);
                state.image.config.volumes.extend(volumes.into_iter().map(|volume| (volume, Empty {})));
                Ok(())
            }
            // A stage's `FROM` is no instruction of it.
            Kind::From(_) => Ok(()),
        }
    }

    fn once(&mut self, name: &'static str, state: &mut State, place: &Place<'_>) {
        if let Some(earlier) = state.seen.insert(name, place.instruction.span) {
            self.lints.report(Rule::MultipleInstructionsDisallowed, earlier, &place.instruction.comments, || {
                format!("a later {name} of the stage replaces this one")
            });
        }
    }

    /// A command line, in the stage's shell if it is not in the JSON form.
    fn command(&mut self, state: &State, place: &Place<'_>, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(words) => words.iter().map(|word| word.value.clone()).collect(),
            CommandLine::Shell(text) => {
                if state.image.config.shell.is_empty() {
                    let instruction = place.instruction;
                    self.lints.report(Rule::JsonArgsRecommended, instruction.span, &instruction.comments, || {
                        format!(
                            "{} runs in a shell, which does not pass signals on; write a JSON array",
                            instruction.keyword.value.to_uppercase()
                        )
                    });
                }
                state.shell(&text.value)
            }
        }
    }

    fn arg(&mut self, state: &mut State, place: &Place<'_>, args: &[Arg]) -> Result<(), Problem> {
        let mut written = Vec::new();
        for arg in args {
            let name = &arg.name.value;
            self.secret(place, "ARG", name);
            let value = match (self.options.build_args.get(name), &arg.default) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(default)) => Some(self.text(state, place, default)?),
                (None, None) => self.graph.args.values.get(name).cloned(),
            };
            if let Some(value) = value.as_ref().filter(|_| !Self::is_no_variable(name)) {
                self.budget.spend(value.len(), arg.name.span)?;
                state.set(name, value, arg.name.span)?;
            }
            written.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            state.declare(name, value, arg.name.span)?;
        }
        state.commit(format!("ARG {}", written.join(" ")), false);
        Ok(())
    }

    fn env(&mut self, state: &mut State, place: &Place<'_>, pairs: &[Pair]) -> Result<(), Problem> {
        // All values are expanded with the variables before the instruction.
        let expanded = self.pairs(state, place, pairs)?;
        let mut written = "ENV".to_owned();
        for (pair, (name, value)) in pairs.iter().zip(expanded) {
            self.secret(place, "ENV", &name);
            written.push_str(&format!(" {name}={value}"));
            state.set(&name, &value, pair.name.span)?;
            let whole = format!("{name}={value}");
            let env = &mut state.image.config.env;
            match env.iter_mut().find(|known| known.split('=').next() == Some(&name)) {
                Some(known) => *known = whole,
                None => env.push(whole),
            }
        }
        state.commit(written, false);
        Ok(())
    }

    fn label(&mut self, state: &mut State, place: &Place<'_>, pairs: &[Pair]) -> Result<(), Problem> {
        let mut written = "LABEL".to_owned();
        for (name, value) in self.pairs(state, place, pairs)? {
            written.push_str(&format!(" {name}={value}"));
            state.image.config.labels.insert(name, value);
        }
        state.commit(written, false);
        Ok(())
    }

    fn pairs(&mut self, state: &State, place: &Place<'_>, pairs: &[Pair]) -> Result<Vec<(String, String)>, Problem> {
        let mut expanded = Vec::new();
        for pair in pairs {
            if pair.is_legacy {
                let keyword = place.instruction.keyword.value.clone();
                self.lints.report(
                    Rule::LegacyKeyValueFormat,
                    place.instruction.span,
                    &place.instruction.comments,
                    || format!("write `{keyword} name=value`, not `{keyword} name value`"),
                );
            }
            expanded.push((self.text(state, place, &pair.name)?, self.text(state, place, &pair.value)?));
        }
        Ok(expanded)
    }

    /// A variable whose name looks like a secret's.
    fn secret(&mut self, place: &Place<'_>, keyword: &str, name: &str) {
        const SECRETS: [&str; 10] =
            ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
        let words: Vec<String> = name.split('_').map(str::to_lowercase).collect();
        let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
        if has(&SECRETS) && !has(&["public", "file", "version"]) {
            self.lints.report(Rule::SecretsUsedInArgOrEnv, place.instruction.span, &place.instruction.comments, || {
                format!("{keyword} {name} is visible in the image; use `RUN --mount=type=secret`")
            });
        }
    }

    fn expose(&mut self, state: &mut State, place: &Place<'_>, words: &[Word]) -> Result<(), Problem> {
        let instruction = place.instruction;
        let mut ports = Vec::new();
        for word in words {
            // Words are split after variables are expanded.
            for text in self.expand(state, place, Lexer::new(self.file.directives.escape), word)?.words {
                let found = expose::read(&text).map_err(|message| {
                    let problem = Problem::new(word.span, format!("invalid port {}: {message}", shown(&text)));
                    problem.help("write for example `8080`, `53/udp` or `8000-8010`")
                })?;
                if found.is_upper {
                    self.lints.report(Rule::ExposeProtoCasing, instruction.span, &instruction.comments, || {
                        format!("the protocol of `{text}` is not in lower case")
                    });
                }
                if found.has_host {
                    self.lints.report(Rule::ExposeInvalidFormat, instruction.span, &instruction.comments, || {
                        format!("`{text}` names an address or a port of the host, which has no effect")
                    });
                }
                ports.extend((found.range.0..=found.range.1).map(|port| format!("{port}/{}", found.protocol)));
                if ports.len() > MAX_PORTS {
                    return Err(Problem::new(word.span, format!("more than {MAX_PORTS} ports")));
                }
            }
        }
        self.budget.spend(ports.len().saturating_mul(32), instruction.span)?;
        state.commit(format!("EXPOSE {}", golang::plain_list(&ports)), false);
        state.image.config.exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }

    fn workdir(
        &mut self,
        state: &mut State,
        place: &Place<'_>,
        word: &Word,
        titles: &mut Titles,
    ) -> Result<(), Problem> {
        let instruction = place.instruction;
        let written = self.text(state, place, word)?;
        if !state.has_workdir && !written.starts_with('/') && !self.is_guess {
            self.lints.report(Rule::WorkdirRelativePath, instruction.span, &instruction.comments, || {
                format!("the relative directory {} depends on the base image", shown(&written))
            });
        }
        state.has_workdir = true;
        let current = if state.image.config.working_dir.is_empty() { "/" } else { &state.image.config.working_dir };
        let path = absolute(current, &written);
        state.image.config.working_dir.clone_from(&path);
        state.cwd.clone_from(&path);
        if path != "/" {
            let line = display::line(Lexer::new(self.file.directives.escape), &instruction.line, &state.env);
            let name = titles.next(&line, place.is_trigger, &state.env);
            let user = state.image.config.user.clone();
            let kind = Operator::Workdir { root: state.root, path: path.clone(), user };
            state.root = self.push(place.at, instruction.span, kind, name, &state.platform);
        }
        state.commit(format!("WORKDIR {path}"), path != "/");
        Ok(())
    }
}
