//! Names of drivers: `cc`, `g++-12`, `x86_64-linux-gnu-gcc`, `clang++-14`.

use std::ffi::OsStr;

use crate::paths::file_name;

/// How a driver differs from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Driver {
    /// It treats sources in C as C++.
    pub(crate) cxx: bool,
    /// It is named as Clang. `cc` may be either; what differs between the two is then taken from gcc.
    pub(crate) clang: bool,
}

/// The driver that a program is by its name; `None` if it is another program.
pub(crate) fn driver(program: &OsStr) -> Option<Driver> {
    let name = without_version(file_name(program));
    let kinds: [(&[u8], bool, bool); 6] = [
        (b"clang++", true, true),
        (b"clang", false, true),
        (b"g++", true, false),
        (b"gcc", false, false),
        (b"c++", true, false),
        (b"cc", false, false),
    ];
    let (prefix, cxx, clang) =
        kinds.iter().find_map(|(kind, cxx, clang)| Some((name.strip_suffix(*kind)?, *cxx, *clang)))?;
    is_target(prefix).then_some(Driver { cxx, clang })
}

/// Without `-12` or `-12.2.0`.
fn without_version(name: &[u8]) -> &[u8] {
    let mut parts = name.rsplitn(2, |c| *c == b'-');
    match (parts.next(), parts.next()) {
        (Some(version), Some(name)) if is_version(version) => name,
        _ => name,
    }
}

fn is_version(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_digit) && text.iter().all(|c| c.is_ascii_digit() || *c == b'.')
}

/// Whether a prefix is empty or a target such as `aarch64-linux-gnu-`. Those of one word (`musl-gcc`, `c89-gcc`, `afl-gcc`) are
/// scripts and wrappers with options of their own.
fn is_target(prefix: &[u8]) -> bool {
    prefix.is_empty()
        || prefix.last() == Some(&b'-')
            && prefix.iter().filter(|c| **c == b'-').count() >= 2
            && prefix.iter().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drivers_are_known_with_target_and_version() {
        let kind = |name: &str| driver(OsStr::new(name)).map(|driver| (driver.cxx, driver.clang));
        for name in ["cc", "gcc", "/usr/bin/gcc", "gcc-12", "x86_64-linux-gnu-gcc-12.2.0", "arm-none-eabi-gcc"] {
            assert_eq!(kind(name), Some((false, false)), "{name}");
        }
        for name in ["c++", "g++", "g++-12", "aarch64-linux-gnu-g++", "x86_64-w64-mingw32-g++"] {
            assert_eq!(kind(name), Some((true, false)), "{name}");
        }
        assert_eq!(kind("clang-14"), Some((false, true)));
        assert_eq!(kind("x86_64-pc-linux-gnu-clang++"), Some((true, true)));
    }

    #[test]
    fn other_programs_are_not_drivers() {
        for name in [
            "",
            "/",
            "ld",
            "cpp",
            "ccache",
            "musl-gcc",
            "c89-gcc",
            "gcc-ar",
            "gcc-12-ranlib",
            "clang-cl",
            "nvcc",
            "g++x",
        ] {
            assert_eq!(driver(OsStr::new(name)), None, "{name}");
        }
    }
}
