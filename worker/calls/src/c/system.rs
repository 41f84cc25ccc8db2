//! Where the compiler itself looks for headers.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::table::Meaning;
use super::words::words;
use crate::call::{Call, SystemSearch};
use crate::paths::absolute;

/// The arguments with which the driver is to be asked for its own directories. Run it without `CPATH` and the like; its standard
/// error is the answer that [`search_directories`] takes. Equal arguments have equal answers as long as the toolchain is the same.
pub fn search_query(call: &Call) -> Vec<OsString> {
    let mut query = Vec::new();
    for word in words(&call.arguments).filter_map(Result::ok) {
        let argument = word.first.as_encoded_bytes();
        let counts = match word.meaning() {
            Some(
                Meaning::Sysroot
                | Meaning::HeaderSysroot
                | Meaning::NoStandard
                | Meaning::NoStandardCxx
                | Meaning::Programs
                | Meaning::Specs
                | Meaning::Cpu,
            ) => true,
            Some(Meaning::Family | Meaning::Pass) => {
                [b"-m".as_slice(), b"-stdlib=", b"-target", b"--target="].iter().any(|name| argument.starts_with(name))
            }
            _ => false,
        };
        if counts {
            query.extend(word.arguments.iter().cloned());
        }
    }
    query.extend(["-v", "-E", "-x", call.language.name(), "/dev/null"].map(OsString::from));
    query
}

/// The directories in what `gcc -v -E -x c /dev/null` writes to standard error. Clang writes the same.
pub fn search_directories(answer: &str) -> SystemSearch {
    let mut found = SystemSearch::default();
    let mut list: Option<&mut Vec<PathBuf>> = None;
    for line in answer.lines() {
        if let Some(path) = line.strip_prefix("ignoring nonexistent directory \"") {
            found.missing.extend(path.strip_suffix('"').map(|path| absolute(Path::new("/"), Path::new(path))));
        } else if line.starts_with("#include \"...\"") {
            list = Some(&mut found.quote);
        } else if line.starts_with("#include <...>") {
            list = Some(&mut found.bracket);
        } else if line.starts_with("End of search list") {
            break;
        } else if let (Some(list), Some(path)) = (&mut list, line.strip_prefix(' '))
            && !path.ends_with(" (framework directory)")
        {
            list.push(absolute(Path::new("/"), Path::new(path)));
        }
    }
    found
}
