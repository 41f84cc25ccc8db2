//! `kiln completions` and the manual pages, from the command line's own description.

use std::path::Path;

use clap::CommandFactory;

use crate::args::Cli;
use crate::{Code, Error, local};

pub(super) fn completions(shell: clap_complete::Shell) -> Result<Code, Error> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "kiln", &mut script);
    local::print(&script)
}

pub(super) fn manual_pages(dir: &Path) -> Result<Code, Error> {
    let failed = |source| Error::Write { path: dir.to_owned(), source };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), dir).map_err(failed)?;
    Ok(Code::Success)
}
