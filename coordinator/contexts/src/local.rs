//! A directory of this machine, its `.dockerignore` and its Dockerfile.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_dockerfile::patterns::Ignore;
use kiln_scan::{Keeps, Kept};

use crate::layout::{self, Layout};
use crate::{DOCKERFILE, Error, STDIN, Wanted, http, stdin};

/// The file that says what a context lacks.
pub(crate) const IGNORE: &str = ".dockerignore";

/// A `.dockerignore`: its name, text, and what it says.
pub(crate) struct Ignored {
    name: String,
    text: String,
    ignore: Ignore,
}

/// Adds the context and the Dockerfile.
pub(crate) fn main(wanted: &Wanted, directory: &Path, layout: &mut Layout) -> Result<(), Error> {
    let (path, dockerfile) = dockerfile(wanted, directory)?;
    layout.dockerfile(&path.to_string_lossy(), dockerfile);
    let own = path.file_name().map(|name| path.with_file_name(format!("{}{IGNORE}", name.to_string_lossy())));
    let ignored = match own.map(|own| read(&own)).transpose()?.flatten() {
        Some(ignored) => Some(ignored),
        None => ignore_of(directory)?,
    };
    layout.directory(layout::MAIN, directory, keeps(ignored.as_ref()))?;
    layout.ignore = ignored.map(|ignored| (ignored.name, ignored.text));
    let directory = kiln_scan::directory(directory)?;
    layout.name =
        directory.file_name().map_or_else(|| "context".to_owned(), |name| name.to_string_lossy().into_owned());
    layout.root = Some(directory);
    Ok(())
}

/// The Dockerfile of a directory, and its path.
fn dockerfile(wanted: &Wanted, directory: &Path) -> Result<(PathBuf, Vec<u8>), Error> {
    let path = match wanted.file.as_deref() {
        Some(STDIN) => return Ok((PathBuf::new(), stdin()?)),
        Some(url) if http::is_url(url) => {
            let (_kept, file) = http::fetch(url)?;
            let content = std::fs::read(&file).map_err(|source| Error::Read { path: file, source })?;
            return Ok((PathBuf::from(DOCKERFILE), content));
        }
        Some(path) => PathBuf::from(path),
        None => {
            let usual = directory.join(DOCKERFILE);
            let lower = directory.join("dockerfile");
            if !usual.exists() && lower.exists() { lower } else { usual }
        }
    };
    match std::fs::read(&path) {
        Ok(content) => Ok((path, content)),
        Err(source) => {
            let within = directory.join(&path);
            let hint = match (&wanted.file, path.is_relative() && within.is_file()) {
                (Some(_), true) => {
                    format!(", which is relative to the current directory; did you mean `{}`?", within.display())
                }
                (None, _) => "; name it by `--file`".to_owned(),
                _ => String::new(),
            };
            Err(Error::Dockerfile { path, hint, source })
        }
    }
}

/// The `.dockerignore` of a directory.
pub(crate) fn ignore_of(directory: &Path) -> Result<Option<Ignored>, Error> {
    read(&directory.join(IGNORE))
}

/// A `.dockerignore`, if it is there.
pub(crate) fn read(path: &Path) -> Result<Option<Ignored>, Error> {
    let content = match std::fs::read(path) {
        Ok(content) => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Read { path: path.to_owned(), source }),
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let text = kiln_dockerfile::decode(&name, content)?;
    let ignore = Ignore::read(&name, &text)?;
    Ok(Some(Ignored { name, text, ignore }))
}

/// What a `.dockerignore` leaves.
pub(crate) fn keeps(ignored: Option<&Ignored>) -> Keeps {
    let Some(ignored) = ignored else { return Keeps::default() };
    let ignore = Arc::new(ignored.ignore.clone());
    Keeps::new(move |path, is_directory| match ignore.excludes(path) {
        false => Kept::Yes,
        true if is_directory && ignore.patterns().has_exceptions() && !ignore.patterns().covers(path) => Kept::IfNeeded,
        true => Kept::No,
    })
}
