//! A call that is understood: what it reads, what it writes, and how it runs.

mod c;
mod file;
mod language;
mod rust;
mod whole;

pub use c::{CDetails, Defined, Directory, DirectoryKind, Forced, Search, SystemSearch};
pub use file::{Input, Output, OutputKind, Role};
pub use language::Language;
pub use rust::{CrateType, Extern, RustDetails};
pub use whole::{Call, Details};
