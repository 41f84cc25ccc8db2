//! Why a project's files do not say how to build it.

/// Why a project's files do not say how to build it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no file at all.
    #[error("the project is empty: there is no file to build from")]
    Empty,
}
