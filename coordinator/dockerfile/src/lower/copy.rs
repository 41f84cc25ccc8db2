//! `COPY` and `ADD`.

use super::copied::{Copy, CopySource, WithParents};
use super::display::{self, Titles};
use super::operation::{Fetch, Operator};
use super::stage::{Lowering, Place};
use super::state::State;
use super::{mode, remote};
use crate::error::{Problem, shown};
use crate::git::GitSource;
use crate::golang;
use crate::instruction;
use crate::lint::Rule;
use crate::options::Context;
use crate::patterns::{Glob, Patterns, has_wildcards};
use crate::source::{Span, Word};
use crate::words::Lexer;

/// What an instruction's flags say, expanded.
struct Flags {
    owner: Option<String>,
    mode: Option<String>,
    checksum: Option<String>,
}

impl Lowering<'_> {
    pub(super) fn copy(
        &mut self,
        state: &mut State,
        place: &Place<'_>,
        copy: &instruction::Copy,
        is_add: bool,
        titles: &mut Titles,
    ) -> Result<(), Problem> {
        let instruction = place.instruction;
        let flags = Flags {
            owner: self.optional(state, place, copy.chown.as_ref())?,
            mode: self.optional(state, place, copy.chmod.as_ref())?,
            checksum: self.optional(state, place, copy.checksum.as_ref())?,
        };
        let mut sources = Vec::new();
        for source in &copy.sources {
            sources.push(Word { value: self.text(state, place, source)?, span: source.span });
        }
        let written_destination = self.text(state, place, &copy.destination)?;
        let chmod_span = copy.chmod.as_ref().map_or(instruction.span, |word| word.span);
        let chmod = flags.mode.as_ref().map(|text| mode::read(text, chmod_span)).transpose()?;
        if let (Some(checksum), Some(word)) = (&flags.checksum, &copy.checksum) {
            check_checksum(&sources, checksum, word.span)?;
        }
        if let Err((at, error)) = Patterns::new(copy.excludes.iter().map(|word| &word.value))
            && let Some(word) = copy.excludes.get(at)
        {
            return Err(Problem::new(word.span, format!("invalid pattern {}: {error}", shown(&word.value))));
        }
        let mut history = if is_add { "ADD".to_owned() } else { "COPY".to_owned() };
        history.push_str(if copy.parents { " --parents" } else { "" });
        history.extend(flags.owner.iter().map(|owner| format!(" --chown={owner}")));
        history.extend(flags.mode.iter().map(|mode| format!(" --chmod={mode}")));

        let line = display::line(Lexer::new(self.file.directives.escape), &instruction.line, &state.env);
        let name = titles.next(&line, place.is_trigger, &state.env);
        let mut copied = Vec::new();
        for source in &sources {
            history.push_str(&format!(" {}", source.value));
            copied.push(self.source(state, place, copy, source, &flags, is_add, &name)?);
        }
        for file in &copy.inline {
            history.push_str(&format!(" <<{}", file.name.value));
            if file.name.value.contains('/') || matches!(file.name.value.as_str(), "." | "..") {
                let problem =
                    Problem::new(file.name.span, format!("the heredoc {} is no file name", shown(&file.name.value)));
                return Err(problem.help("the file has the heredoc's name; write the path as the destination"));
            }
            let data = match file.expands {
                false => file.data.clone(),
                true => {
                    let lexer = Lexer { ignore_quotes: true, ..Lexer::new('\\') };
                    let word = Word { value: file.data.clone(), span: file.name.span };
                    self.expand(state, place, lexer, &word)?.text
                }
            };
            copied.push(CopySource::Inline { name: file.name.value.clone(), data });
        }
        history.push_str(&format!(" {written_destination} # buildkit"));
        self.budget.spend(history.len().saturating_add(name.len()), instruction.span)?;
        let kind = Operator::Copy(Copy {
            root: state.root,
            sources: copied,
            destination: destination(&state.cwd, &written_destination),
            owner: flags.owner,
            link: copy.link && chmod.is_none(),
            mode: chmod,
            excludes: copy.excludes.iter().map(|word| word.value.clone()).collect(),
        });
        state.root = self.push(place.at, instruction.span, kind, name, &state.platform);
        state.commit(history, true);
        Ok(())
    }

    #[expect(clippy::too_many_arguments, reason = "each is a different thing of one instruction")]
    fn source(
        &mut self,
        state: &State,
        place: &Place<'_>,
        copy: &instruction::Copy,
        source: &Word,
        flags: &Flags,
        is_add: bool,
        name: &str,
    ) -> Result<CopySource, Problem> {
        let span = place.instruction.span;
        let only_add = |what: &str| {
            let problem = Problem::new(source.span, format!("COPY cannot copy {what}: {}", shown(&source.value)));
            Err(problem.help("write ADD"))
        };
        if let Some(git) = GitSource::read(&source.value) {
            if !is_add {
                return only_add("a repository");
            }
            let git = git.map_err(|message| Problem::new(source.span, format!("invalid source of Git: {message}")))?;
            let git = repository(git, copy, flags, source.span)?;
            let from = self.push(place.at, span, Operator::Git(git), name.to_owned(), &state.platform);
            return Ok(CopySource::Repository(from));
        }
        if remote::is_url(&source.value) {
            if !is_add {
                return only_add("a URL");
            }
            let file = remote::file_name(&source.value);
            let fetch = Fetch { url: source.value.clone(), file: file.clone(), checksum: flags.checksum.clone() };
            if let (Some(checksum), Some(word)) = (&fetch.checksum, &copy.checksum)
                && !remote::is_digest(checksum)
            {
                let problem = Problem::new(word.span, format!("invalid checksum {}", shown(checksum)));
                return Err(problem.help("write `sha256:` and 64 hexadecimal digits"));
            }
            let from = self.push(place.at, span, Operator::Fetch(fetch), name.to_owned(), &state.platform);
            return Ok(CopySource::Fetched { from, file, unpack: copy.unpack.unwrap_or(false) });
        }
        let (from, context) = match place.sources.first().copied().flatten() {
            Some(node) => self.files(node, place)?,
            None => (self.context(Context::Main, span), Some(Context::Main)),
        };
        if context == Some(Context::Main) {
            self.ignored(place, source, is_add);
        }
        let (path, parents) = paths(&source.value, copy.parents);
        if parents.is_none()
            && let Err(error) = Glob::new(&path)
        {
            return Err(Problem::new(source.span, format!("invalid pattern {}: {error}", shown(&source.value))));
        }
        if let Some(parents) = &parents
            && let Err((_, error)) = Patterns::new([&parents.pattern])
        {
            return Err(Problem::new(source.span, format!("invalid pattern {}: {error}", shown(&source.value))));
        }
        if let Some(context) = context {
            let whole = parents.as_ref().map_or_else(|| path.clone(), |parents| golang::join(&path, &parents.pattern));
            self.read(&context, &whole);
        }
        Ok(CopySource::Files { from, path, parents, unpack: copy.unpack.unwrap_or(is_add) })
    }

    /// A source that `.dockerignore` leaves out. With exceptions in it, this cannot be known here.
    fn ignored(&mut self, place: &Place<'_>, source: &Word, is_add: bool) {
        let Some(ignore) = self.options.ignore.as_ref().filter(|ignore| !ignore.patterns().has_exceptions()) else {
            return;
        };
        let path = golang::clean(&source.value);
        let is_root = path == "." || path == "/";
        let is_ignored = match is_root {
            true => ignore.patterns().matches_everything(),
            false => ignore.excludes(&path),
        };
        if is_ignored {
            let keyword = if is_add { "ADD" } else { "COPY" };
            let instruction = place.instruction;
            self.lints.report(Rule::CopyIgnoredFile, instruction.span, &instruction.comments, || {
                format!("{keyword} names {}, which `.dockerignore` leaves out", shown(&path))
            });
        }
    }
}

/// What a source's repository is asked for. The URL and the flags must agree.
fn repository(mut git: GitSource, copy: &instruction::Copy, flags: &Flags, span: Span) -> Result<GitSource, Problem> {
    let conflict =
        |flag: &str| Problem::new(span, format!("the URL and `--{flag}` say different things")).help("keep one");
    match (copy.keep_git_dir, git.keep_git_dir) {
        (Some(flag), Some(own)) if flag != own => return Err(conflict("keep-git-dir")),
        (flag, own) => git.keep_git_dir = own.or(flag),
    }
    match &flags.checksum {
        Some(checksum) if !git.checksum.is_empty() && *checksum != git.checksum => return Err(conflict("checksum")),
        Some(checksum) => git.checksum.clone_from(checksum),
        None => {}
    }
    Ok(git)
}

fn check_checksum(sources: &[Word], checksum: &str, span: Span) -> Result<(), Problem> {
    let [source] = sources else {
        return Err(Problem::new(span, "`--checksum` is for one source").help("write one ADD for each source"));
    };
    if !remote::is_url(&source.value) && GitSource::read(&source.value).is_none() {
        let message = format!("`--checksum={checksum}` is for URLs and repositories, not for {}", shown(&source.value));
        return Err(Problem::new(span, message).help("remove it"));
    }
    Ok(())
}

/// A source's path, and what matches below it with `--parents`. `/./` is where the directories that are kept begin.
fn paths(source: &str, parents: bool) -> (String, Option<WithParents>) {
    let rooted = |path: &str| golang::clean(&format!("/{path}"));
    if !parents {
        return (rooted(source), None);
    }
    let (base, pattern) = source.split_once("/./").unwrap_or(("/", source));
    let pattern = rooted(pattern);
    let required = (!has_wildcards(base) && !has_wildcards(&pattern)).then(|| rooted(&golang::join(base, &pattern)));
    (rooted(base), Some(WithParents { pattern: pattern.trim_start_matches('/').to_owned(), required }))
}

/// A destination from the directory on. Whether it must be a directory is still seen.
fn destination(cwd: &str, written: &str) -> String {
    let is_directory = matches!(written, "" | ".") || written.ends_with('/') || written.ends_with("/.");
    let path = match written.starts_with('/') {
        true => golang::clean(written),
        false => golang::clean(&format!("/{cwd}/{written}")),
    };
    if is_directory && path != "/" { format!("{path}/") } else { path }
}
