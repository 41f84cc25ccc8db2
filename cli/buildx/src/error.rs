//! What is wrong with a command line.

/// What is wrong with a command line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)]
pub enum Error {
    #[error("unknown flag `{flag}`{hint}; `kiln docker build --help` lists all")]
    UnknownFlag { flag: String, hint: String },
    #[error("flag `{flag}` needs a value")]
    NoValue { flag: String },
    #[error("invalid value `{value}` of `{flag}`: {reason}")]
    Malformed { flag: String, value: String, reason: String },
    #[error("expected one argument, the context (a directory, a URL or `-`); found {0}")]
    Arguments(usize),
    #[error("`{flag}`: {reason}")]
    Value { flag: &'static str, reason: String },
    #[error("`{flag}` is not supported: {reason}")]
    Refused { flag: String, reason: String },
    #[error("{0}")]
    Together(String),
    #[error("`kiln docker {command}` does not exist{hint}: Kiln only builds; use Docker for everything else")]
    Command { command: String, hint: String },
}

impl Error {
    /// The exit code that Docker has for it.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::UnknownFlag { .. } | Self::NoValue { .. } | Self::Malformed { .. } => 125,
            _ => 1,
        }
    }

    /// An error about the value of a flag.
    pub(crate) fn value(flag: &'static str, reason: impl Into<String>) -> Self {
        Self::Value { flag, reason: reason.into() }
    }

    /// A flag, or a field of one, that is not supported.
    pub(crate) fn refused(flag: &str, reason: impl Into<String>) -> Self {
        Self::Refused { flag: flag.to_owned(), reason: reason.into() }
    }
}

/// `; did you mean …?` if a known name is near.
pub(crate) fn hint<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    kiln_dockerfile::error::suggestion(name, known).map(|near| format!("; {near}")).unwrap_or_default()
}
