//! Why options cannot be used.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::Place;

/// Why options cannot be used. All of it is the operator's to fix.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("cannot read the configuration `{}`", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{place}: {reason}")]
    Invalid { place: Place, reason: String },
    #[error("the configuration `{}` {reason}; `chmod {fix} {}` corrects that", .path.display(), .path.display())]
    Open { path: PathBuf, reason: &'static str, fix: &'static str },
    /// clap's own words, and which options the file has.
    #[error("{error}{}", .file.as_ref().map(|file| format!("\nnote: {file}")).unwrap_or_default())]
    Options {
        #[source]
        error: clap::Error,
        file: Option<String>,
    },
}

impl Error {
    /// clap's error about the command line alone.
    pub(crate) fn line(error: clap::Error) -> Self {
        Self::Options { error, file: None }
    }

    /// Prints it, or the help that was asked for, and answers the exit code of the program.
    pub fn print(&self) -> ExitCode {
        match self {
            Self::Options { error, file } => {
                let _ = error.print();
                if let Some(file) = file.as_ref().filter(|_| error.use_stderr()) {
                    eprintln!("\nnote: {file}");
                }
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(1))
            }
            error => {
                let cause = std::error::Error::source(error).map(|cause| format!(": {cause}"));
                eprintln!("error: {error}{}", cause.unwrap_or_default());
                ExitCode::FAILURE
            }
        }
    }

    /// In one line, for a log.
    pub fn in_one_line(&self) -> String {
        let text = match std::error::Error::source(self) {
            Some(cause) if !matches!(self, Self::Options { .. }) => format!("{self}: {cause}"),
            _ => self.to_string(),
        };
        let lines =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more information"));
        lines.map(|line| line.trim_start_matches("error: ")).collect::<Vec<_>>().join("; ")
    }
}
