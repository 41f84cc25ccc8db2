//! Errors of commands, and the exit codes that tell whose fault they are.

use std::path::PathBuf;

use crate::{deliver, download, farm};

/// Exit codes, which scripts rely on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Code {
    /// Success.
    Success,
    /// The build failed, or a check did not pass.
    Failed,
    /// The command line or the project's configuration is wrong.
    Usage,
    /// The farm failed: it is unreachable or was lost, or no worker matches.
    Farm,
    /// Docker's exit code for invalid flags.
    Flags,
    /// Cancelled.
    Cancelled,
    /// That of a command that ran elsewhere.
    Passed(u8),
}

impl Code {
    /// As a number.
    pub fn number(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Farm => 3,
            Self::Flags => 125,
            Self::Cancelled => 130,
            Self::Passed(code) => code,
        }
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error(transparent)]
    Scan(#[from] kiln_scan::Error),
    #[error(transparent)]
    Plan(#[from] kiln_planner::plan::Error),
    #[error(transparent)]
    Farm(#[from] farm::Error),
    #[error(transparent)]
    Download(#[from] download::Error),
    #[error(transparent)]
    Deliver(#[from] deliver::Error),
    #[error(transparent)]
    Docker(#[from] kiln_buildx::Error),
    #[error(transparent)]
    Contexts(#[from] kiln_contexts::Error),
    #[error(transparent)]
    Settings(#[from] kiln_settings::Error),
    #[error(transparent)]
    Verify(#[from] kiln_verify::Error),
    #[error(transparent)]
    ToolCache(#[from] kiln_toolcache::Error),
    /// With Docker's exit code.
    #[error(transparent)]
    AsDocker(Box<Error>),
    #[error("{0}")]
    Usage(String),
    #[error("cannot write `{}`", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("cannot write to standard output")]
    Stdout(#[source] std::io::Error),
    #[error("cannot start")]
    Runtime {
        #[source]
        source: std::io::Error,
    },
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whose fault it is, as an exit code.
    pub fn code(&self) -> Code {
        match self {
            Self::Scan(_) | Self::Plan(_) | Self::Usage(_) | Self::Write { .. } | Self::Stdout(_) => Code::Usage,
            Self::Docker(error) if error.exit_code() == Code::Flags.number() => Code::Flags,
            Self::Docker(_) | Self::AsDocker(_) => Code::Failed,
            Self::Contexts(_) | Self::ToolCache(_) | Self::Settings(_) => Code::Usage,
            Self::Farm(error) => error.code(),
            Self::Download(error) => error.code(),
            Self::Deliver(error) => error.code(),
            Self::Verify(error) if error.is_refusal() => Code::Failed,
            Self::Verify(error) if error.is_unreachable() => Code::Farm,
            Self::Verify(_) => Code::Usage,
            Self::Runtime { .. } => Code::Farm,
            Self::Cancelled => Code::Cancelled,
        }
    }
}

impl From<kiln_secrets::Error> for Error {
    fn from(kiln_secrets::Error(words): kiln_secrets::Error) -> Self {
        Self::Usage(words)
    }
}
