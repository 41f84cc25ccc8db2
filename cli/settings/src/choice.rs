//! Which farm a command uses.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use clap::{CommandFactory, FromArgMatches};
use kiln_args as args;
use kiln_scan::git;
use serde::Deserialize;

use super::file::{Error, Farm, File, replace};
use super::flags::{self, Added};

/// A project's choice, in its root.
const OF_PROJECT: &str = ".kiln/config.toml";

/// What a project may say: only which of the user's farms.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Project {
    farm: Option<String>,
}

/// A command, as it was given and with what the configuration adds to it.
#[derive(Debug)]
pub struct Command {
    /// The whole command line.
    pub cli: args::Cli,
    /// The flags that the configuration added.
    pub added: Vec<Added>,
    /// The configuration.
    pub file: PathBuf,
}

/// Parses a command line, and adds the flags that the configuration has for the command and its farm.
///
/// # Errors
/// If clap refuses the command line, alone or with these flags, or the configuration cannot be used.
pub fn read(line: &[OsString]) -> Result<Command, Error> {
    let root = args::Cli::command();
    let matches = root.clone().try_get_matches_from(line).map_err(Error::Line)?;
    let cli = args::Cli::from_arg_matches(&matches).map_err(Error::Line)?;
    let unchanged = |cli| Ok(Command { cli, added: Vec::new(), file: PathBuf::new() });
    let Some((project, path)) = cli.command.project().zip(File::path()) else { return unchanged(cli) };
    let file = File::read(&path)?;
    if file.flags.is_empty() && file.farms.values().all(|farm| farm.flags.is_empty()) {
        return unchanged(cli);
    }
    let name = chosen(cli.farm.farm.as_deref(), project, &file)?;
    let of_farm = name.as_ref().and_then(|name| Some((format!("farms.{name}.flags"), &file.farms.get(name)?.flags)));
    let tables: Vec<_> = of_farm.into_iter().chain([("flags".to_owned(), &file.flags)]).collect();
    let added = flags::added(&root, &matches, &tables, &path)?;
    if added.is_empty() {
        return unchanged(cli);
    }
    let whole = flags::with(&root, line, &added);
    let parsed = root.try_get_matches_from(whole).and_then(|matches| args::Cli::from_arg_matches(&matches));
    let cli = parsed.map_err(|error| {
        let line = error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let all: Vec<&str> = added.iter().flat_map(|added| &added.arguments).map(String::as_str).collect();
        let reason = format!("with its flags (`{}`), the command is refused: {line}", all.join(" "));
        Error::Invalid { path: path.clone(), reason }
    })?;
    Ok(Command { cli, added, file: path })
}

/// Whether all flags in a configuration are flags of their commands.
///
/// # Errors
/// The first that is not, or why the file cannot be read.
pub fn check_flags(path: &Path) -> Result<(), Error> {
    let file = File::read(path)?;
    let of_farms = file.farms.iter().map(|(name, farm)| (format!("farms.{name}.flags"), &farm.flags));
    let tables: Vec<_> = of_farms.chain([("flags".to_owned(), &file.flags)]).collect();
    flags::check(&args::Cli::command(), &tables, path)
}

/// The name of the farm of the configuration that is used: the one that is given, that of the project, or the configuration's own.
pub(crate) fn chosen(given: Option<&str>, directory: &Path, file: &File) -> Result<Option<String>, Error> {
    match given.map(str::trim).filter(|given| !given.is_empty()) {
        Some(given) if given.contains(':') => Ok(None),
        // A host's name alone is an address, too. One without a domain or a port is more likely a name that is written wrong.
        Some(given) if !file.farms.contains_key(given) && (file.farms.is_empty() || given.contains('.')) => Ok(None),
        Some(given) => Ok(Some(given.to_owned())),
        None => Ok(of_project(directory)?.or_else(|| file.farm.clone())),
    }
}

/// Completes what flags and variables say of the farm by what the configuration does.
///
/// A name in place of a URL is a farm of the configuration. Where no farm is given, that is the one that the project in `directory` chooses, or the
/// checkout that it is in, else the configuration's own.
///
/// # Errors
/// If a farm that is named is not there, a file cannot be used, or a token command fails.
pub fn apply(farm: &mut args::Farm, directory: &Path) -> Result<(), Error> {
    if farm.farm.as_deref().is_some_and(|given| given.contains(':')) {
        return Ok(());
    }
    let Some(path) = File::path() else { return Ok(()) };
    let file = File::read(&path)?;
    let Some(name) = chosen(farm.farm.as_deref(), directory, &file)? else { return Ok(()) };
    let chosen = file.farm(&name)?;
    farm.farm = Some(chosen.url.clone());
    let at = path.parent().unwrap_or(Path::new("."));
    let absolute = |path: &Option<PathBuf>| path.as_ref().map(|path| at.join(path));
    let access = &mut farm.access;
    if access.ca.is_none() {
        access.ca = absolute(&chosen.ca);
    }
    let has_token = std::env::var("KILN_TOKEN").is_ok_and(|token| !token.trim().is_empty());
    let has_own = access.token_file.is_some() || access.cert.is_some() || has_token;
    if !has_own {
        (access.cert, access.key) = (absolute(&chosen.cert), absolute(&chosen.key));
        access.token_file = match chosen.token_command.is_empty() {
            true => absolute(&chosen.token_file),
            false => Some(by_command(&name, chosen, at)?),
        };
    }
    Ok(())
}

/// Makes another farm the one that is used; returns a line for each command that gets flags there.
///
/// # Errors
/// If there is none of that name, or the configuration cannot be written.
pub fn choose(name: &str) -> Result<Vec<String>, Error> {
    let path = File::path().ok_or(Error::Nowhere)?;
    let mut file = File::read(&path)?;
    let shown = flags::lines(&file.farm(name)?.flags, Some(name));
    file.farm = Some(name.to_owned());
    file.write(&path)?;
    Ok([shown, flags::lines(&file.flags, None)].concat())
}

fn of_project(directory: &Path) -> Result<Option<String>, Error> {
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    // Whatever lies above the checkout may be another user's.
    let checkout = git::work_tree(&directory).unwrap_or_else(|| directory.clone());
    for above in directory.ancestors().take_while(|above| above.starts_with(&checkout)) {
        let path = above.join(OF_PROJECT);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let project: Project = toml::from_str(&text).map_err(|error| {
            let reason = format!("{}; a project chooses one of your farms: `farm = \"NAME\"`", error.message());
            Error::Invalid { path, reason }
        })?;
        return Ok(project.farm);
    }
    Ok(None)
}

/// The file with what a farm's token command prints now.
pub(crate) fn by_command(name: &str, farm: &Farm, at: &Path) -> Result<PathBuf, Error> {
    let command = farm.token_command.join(" ");
    let failed = |reason: String| Error::Command { farm: name.to_owned(), command: command.clone(), reason };
    let Some((program, arguments)) = farm.token_command.split_first() else { return Err(failed("it is empty".into())) };
    let output =
        std::process::Command::new(program).args(arguments).stdin(Stdio::inherit()).stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| failed(error.to_string()))?;
    if !output.status.success() {
        return Err(failed(output.status.to_string()));
    }
    let path = at.join(format!("{name}.made-token"));
    replace(&path, output.stdout.trim_ascii()).map_err(|source| Error::File {
        doing: "write",
        path: path.clone(),
        source,
    })?;
    Ok(path)
}
