//! Who is told of the end of a build.

/// A webhook of the project's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notify {
    /// What is called; without a user and a password.
    pub url: String,
    /// Which ends it is told of.
    pub events: Vec<Ending>,
    /// Globs of the branches; empty for all, and for sources without one.
    pub branches: Vec<String>,
    /// The key in the coordinator's configuration that signs the calls.
    pub key: Option<String>,
    /// Also told of builds of sources with changes that are not committed.
    pub uncommitted: bool,
}

/// How a build ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// In any way.
    Finished,
    /// It did not succeed, and nobody cancelled it.
    Failed,
    /// It succeeded, and the one before it on the same branch had failed.
    Fixed,
}

impl Ending {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Finished, Self::Failed, Self::Fixed];
    /// Those that are told of unless something else is said.
    pub const DEFAULT: [Self; 2] = [Self::Failed, Self::Fixed];
    /// What is expected where one is read.
    pub const EXPECTED: &str = "`finished`, `failed` or `fixed`";

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Fixed => "fixed",
        }
    }

    /// Reads one.
    pub fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|ending| ending.name() == text)
    }
}
