//! What is known on this machine without a farm, and where its output goes.

use std::path::PathBuf;

use crate::{Code, Error};
pub use kiln_projects::{Project, directory_name, host};

/// The local user's name.
pub fn user() -> String {
    kiln_system::user()
}

/// Kiln's cache directory: `$XDG_CACHE_HOME/kiln`, else `~/.cache/kiln`.
pub fn cache_dir() -> Result<PathBuf, Error> {
    kiln_system::cache().map(|dir| dir.join("kiln")).ok_or_else(|| {
        Error::Usage("neither `XDG_CACHE_HOME` nor `HOME` is an absolute path; set one, for Kiln's cache".to_owned())
    })
}

/// Writes data to standard output. A closed pipe is not an error.
pub fn print(data: &[u8]) -> Result<Code, Error> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(data).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::Stdout(error)),
        _ => Ok(Code::Success),
    }
}

/// Prints a value as JSON on standard output.
pub fn print_json(value: &serde_json::Value) -> Result<Code, Error> {
    print(format!("{value:#}\n").as_bytes())
}
