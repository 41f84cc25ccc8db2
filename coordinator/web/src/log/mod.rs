//! The output of steps, as lines that a page can show: of what was logged as it appeared, or of the whole output in the store.

mod read;
mod stored;

pub(crate) use kiln_web_lines::{Line, Splitter};
pub(crate) use read::{Log, Which};
pub(crate) use stored::Indexes;
