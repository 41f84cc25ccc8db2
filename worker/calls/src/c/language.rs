//! Languages by option and by a file's suffix.

use std::ffi::OsStr;

use super::driver::Driver;
use crate::call::Language;
use crate::paths::file_name;
use crate::refusal::Refusal;

const NAMES: [Language; 5] =
    [Language::C, Language::Cxx, Language::CHeader, Language::CxxHeader, Language::AssemblerWithCpp];

/// Suffixes of sources. Source: GCC's manual, "Options Controlling the Kind of Output".
const SUFFIXES: [(&[&str], Result<Language, &str>); 11] = [
    (&["c"], Ok(Language::C)),
    (&["cc", "cp", "cxx", "cpp", "CPP", "c++", "C"], Ok(Language::Cxx)),
    (&["h"], Ok(Language::CHeader)),
    (&["hh", "H", "hp", "hxx", "hpp", "HPP", "h++", "tcc"], Ok(Language::CxxHeader)),
    (&["S", "sx"], Ok(Language::AssemblerWithCpp)),
    (&["s", "asm"], Err("assembler")),
    (&["i", "ii", "mi", "mii"], Err("preprocessed text")),
    (&["m", "mm", "M"], Err("Objective-C")),
    (&["cppm", "ccm", "cxxm", "c++m", "ixx", "pcm"], Err("C++ modules")),
    (
        &["f", "for", "ftn", "F", "FOR", "f90", "f95", "f03", "f08", "F90", "F95", "F03", "F08", "fpp", "FPP"],
        Err("Fortran"),
    ),
    (&["adb", "ads", "d", "go", "mod", "cu", "cl", "hip", "ll", "bc"], Err("another language")),
];

/// The language after `-x`; `None` for `none`.
pub(super) fn named(name: &OsStr) -> Result<Option<Language>, Refusal> {
    if name == "none" {
        return Ok(None);
    }
    let language = NAMES.into_iter().find(|language| name == language.name());
    language.map(Some).ok_or_else(|| Refusal::Language { language: name.to_string_lossy().into_owned() })
}

/// The language of a file by its name; `None` if it is for the linker.
pub(super) fn of_file(path: &OsStr, driver: Driver) -> Option<Result<Language, Refusal>> {
    let mut parts = file_name(path).rsplitn(2, |c| *c == b'.');
    let (suffix, _) = (parts.next()?, parts.next()?);
    let (_, language) =
        SUFFIXES.iter().find(|(suffixes, _)| suffixes.iter().any(|known| known.as_bytes() == suffix))?;
    Some(match *language {
        Ok(Language::C) if driver.cxx => Ok(Language::Cxx),
        Ok(Language::CHeader) if driver.cxx => Ok(Language::CxxHeader),
        Ok(language) => Ok(language),
        Err(language) => Err(Refusal::Language { language: language.to_owned() }),
    })
}
