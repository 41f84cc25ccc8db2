//! Which files a C or C++ source may include: a superset of what any of its branches includes.
//!
//! More inputs than needed cost misses, never correctness, so conditions are not evaluated. Each file is read once a process,
//! whatever the number of calls that include it ([`Scanner`]).

mod chain;
mod closure;
mod cursor;
mod directives;
mod known;
mod lexer;
mod macros;
mod scanner;
mod sources;

pub use scanner::Scanner;
pub use sources::{Fallback, Sources};
