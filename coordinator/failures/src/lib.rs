//! Finds out why a command failed from its output: the first error of a compiler, a package manager or an interpreter.
//!
//! Tools print errors long before they end: the last lines of a parallel build come from whatever was still running.
//! Pure: text in, lines out.

#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::sync::LazyLock;

use regex::{Regex, RegexSet};

/// Maximum lines of an error that are shown.
const MAX_LINES: usize = 8;
/// Maximum characters of a line that are shown.
const MAX_LINE: usize = 300;

/// What the first line of an error looks like, most reliable patterns first. Within a rank, the first match in the text
/// wins.
const RANKS: [&[&str]; 5] = [
    // Errors of compilers, linkers and configuration, which name a file or an error code.
    &[
        // gcc, clang, javac, ruby -c, kotlinc: FILE:LINE[:COLUMN]: [fatal ]error: …
        r"^(?:e: )?\S[^:]*:\d+(?::\d+)?:? (?:fatal )?error: ",
        r"^error(?:\[E\d+\])?: .+$",
        r"^error TS\d+: |\(\d+,\d+\): error (?:TS|CS)\d+: ",
        r"^CMake Error(?: at [^ ]+:\d+| in [^ ]+:\d+)?(?: \(.+\))?:",
        r"^\S+: ERROR: ",
        r"^\S+\.go:\d+:\d+: ",
        r"^go: .*(?:not found|unknown revision|cannot find|no required module|missing go\.sum|updates to go\.|invalid|requires go|errors parsing|disabled by|lookup |dial tcp)",
        r"undefined reference to [`']",
        r"ld(?:\.\w+)?: (?:cannot find|error: )|: multiple definition of ",
        r"^configure: error: ",
        r"^\[ERROR\] \S*\.(?:java|kt|scala):\[?\d+",
        r"^--- FAIL: |^FAILED? +\S+(?:::\S+| - )|^not ok \d+|^test .+ \.\.\. FAILED$",
    ],
    // Uncaught exceptions. Lower, because tools also print exceptions that they caught and recovered from.
    &[
        r"^Traceback \(most recent call last\):",
        r"^\s*File .+, line \d+$",
        r"^\S+\.rb:\d+:in .+\(\w+(?:::\w+)*\)$",
        r"^(?:\w+\.)*\w*(?:Error|Exception)(?: \[\w+\])?: ",
        r"^(?:Exception in thread .+|panic: .+|thread '.*' panicked at .+)$",
    ],
    // Errors of package managers and build tools.
    &[
        r"^npm (?:ERR!|error) (?:code|missing|notsup|enoent|404|\w*Error:)",
        r"^(?:\[ERROR\]|ERROR:?|Error:|ERR_PNPM_\w+|\s*ERR_PNPM_\w+|error) \S",
        r"^ ?ERR_PNPM_|^➤ YN\d+: .*(?:Error|failed)|^error An unexpected error",
        r"^\* What went wrong:",
        r"^make(?:\[\d+\])?: \*\*\* No rule to make target|^make(?:\[\d+\])?: \*\*\* .*(?:Stop|missing separator)",
        r"^ninja: error: ",
        r"^(?:Could not find |Bundler could not find |Could not resolve |Resolved \w+ failed)",
        r"^No such file or directory|: No such file or directory$",
    ],
    // Generic errors that any program may print.
    &[r"(?i)^(?:\S+: )*(?:fatal )?error: ", r"(?i)^fatal: ", r"(?:command |: )not found$", r": Permission denied$"],
    // Lines that say only that something failed.
    &[r"^make(?:\[\d+\])?: \*\*\* ", r"^npm (?:ERR!|error) "],
];

/// Lines that look like errors but only repeat that there was one, or are not errors.
const NO_ERRORS: &[&str] = &[
    r"^error: (?:could not compile|aborting due to|failed to run custom build command|build failed|Recipe )",
    r"^(?:\[ERROR\]|ERROR:?|Error:) *$",
    r"^fatal: not a git repository",
    r"^error: subprocess-exited-with-error",
    r"^\[ERROR\] (?:COMPILATION ERROR|-> \[Help|Re-run Maven|To see the full|For more information|After correcting)",
    r"^error: command .* failed",
];

static ERRORS: LazyLock<Vec<Regex>> = LazyLock::new(|| {
    let union = |patterns: &&[&str]| {
        let parts: Vec<String> = patterns.iter().map(|pattern| format!("(?:{pattern})")).collect();
        // The patterns are constants, and a test compiles them.
        Regex::new(&parts.join("|")).ok()
    };
    RANKS.iter().filter_map(union).collect()
});
static NONE: LazyLock<RegexSet> = LazyLock::new(|| RegexSet::new(NO_ERRORS).unwrap_or_default());
static ESCAPES: LazyLock<Option<Regex>> =
    LazyLock::new(|| Regex::new("\x1b\\[[0-9;?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)").ok());

/// The first error in a command's output, in a few lines without colours; empty if nothing looks like one. Of two with
/// equal rank, one on standard error comes first.
pub fn first_error(stderr: &str, stdout: &str) -> Vec<String> {
    let texts = [plain(stderr), plain(stdout)];
    let lines = texts.each_ref().map(|text| text.lines().map(str::trim_end).collect::<Vec<_>>());
    for rank in ERRORS.iter() {
        for lines in &lines {
            let is_one = |line: &str| rank.is_match(line) && !NONE.is_match(line);
            if let Some(at) = lines.iter().position(|line| is_one(line)) {
                return excerpt(lines, at);
            }
        }
    }
    Vec::new()
}

fn plain(text: &str) -> String {
    match ESCAPES.as_ref() {
        Some(escapes) => escapes.replace_all(text, "").replace('\r', "\n"),
        None => text.to_owned(),
    }
}

/// The lines that belong to the error that starts at `at`.
fn excerpt(lines: &[&str], at: usize) -> Vec<String> {
    let Some((&first, rest)) = lines.get(at..).and_then(<[&str]>::split_first) else { return Vec::new() };
    let indented = |line: &&&str| line.starts_with([' ', '\t']) && !line.trim().is_empty();
    let (mut found, heads_its_block): (Vec<&str>, bool) =
        if first.starts_with("Traceback (most") || first.contains(", line ") {
            // The exception follows the frames; the last frame names the line.
            let end = rest.iter().position(|line| !line.is_empty() && !line.starts_with([' ', '\t']));
            match end.and_then(|end| Some((rest.get(..end)?, *rest.get(end)?))) {
                Some((frames, exception)) => {
                    let last = frames.iter().rposition(|line| line.trim_start().starts_with("File "));
                    let last = last.and_then(|last| frames.get(last..)).unwrap_or_default();
                    ([&[exception], last].concat(), false)
                }
                None => (vec![first], true),
            }
        } else if first.starts_with("* What went wrong") || first.trim_end().ends_with(':') {
            // CMake and Gradle: the text follows, possibly after an empty line.
            let text = rest.iter().skip_while(|line| line.is_empty()).take_while(|line| !line.is_empty());
            (std::iter::once(&first).chain(text).copied().collect(), false)
        } else {
            (vec![first], true)
        };
    if heads_its_block {
        // Its location, source line and caret: indented lines, or lines drawn as rustc does.
        let block = rest.iter().take_while(|line| {
            indented(line) || line.starts_with(|c: char| c.is_ascii_digit()) && line.contains(" | ")
        });
        found.extend(block.copied());
    }
    let short = |line: &str| line.chars().take(MAX_LINE).collect();
    found.into_iter().take(MAX_LINES).map(short).collect()
}

/// The error in one line: its first line, plus the next one if the first only announces it.
pub fn in_short(error: &[String]) -> Option<String> {
    let first = error.first()?.trim();
    let next = error.get(1).map(|line| line.trim()).filter(|_| first.ends_with(':'));
    Some(match next {
        Some(next) => format!("{first} {next}"),
        None => first.to_owned(),
    })
}

/// An instruction's name in one short line: it may be pages long.
pub fn instruction(name: &str) -> String {
    const LONGEST: usize = 60;
    let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
    match name.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default().trim_end()),
        None => name,
    }
}

/// What an exit code means: a shell adds 128 to the number of the signal that ended its command.
pub fn exit_code(code: i32) -> String {
    let number = code.saturating_sub(128);
    let signal = match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        6 => "SIGABRT",
        7 => "SIGBUS",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        _ => return format!("exit code {code}"),
    };
    format!("exit code {code} (as after signal {}, {signal})", number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(stderr: &str, stdout: &str) -> String {
        in_short(&first_error(stderr, stdout)).unwrap_or_default()
    }

    #[test]
    fn an_instruction_is_named_by_how_it_begins() {
        let name = "[2/5] RUN set -eux; \tapt-get update;\n apt-get install --yes --no-install-recommends gcc make";
        assert_eq!(instruction(name), "[2/5] RUN set -eux; apt-get update; apt-get install --yes --…");
        assert_eq!(instruction("[2/5] RUN true"), "[2/5] RUN true");
    }

    #[test]
    fn every_pattern_compiles() {
        assert_eq!(ERRORS.len(), RANKS.len());
        assert_eq!(NONE.len(), NO_ERRORS.len());
        assert!(ESCAPES.is_some());
    }

    #[test]
    fn the_first_error_of_a_compiler_is_found_among_what_a_parallel_build_prints() {
        let gcc = "cc -c a.c\na.c: In function 'main':\na.c:3:5: error: 'foo' undeclared (first use in this function)\n    \
                   3 |     foo();\n      |     ^~~\nmake: *** [Makefile:2: a.o] Error 1\nb.c:1:1: error: expected ';'\n";
        let error = first_error(gcc, "");
        assert_eq!(error[0], "a.c:3:5: error: 'foo' undeclared (first use in this function)");
        assert_eq!(error.len(), 3, "{error:?}");
        assert_eq!(
            short(
                "/usr/bin/ld: cannot find -lfoo: No such file or directory\ncollect2: error: ld returned 1 exit status",
                ""
            ),
            "/usr/bin/ld: cannot find -lfoo: No such file or directory"
        );
        assert_eq!(
            short("m.c:(.text+0x5): undefined reference to `f'\ncollect2: error: ld returned 1", ""),
            "m.c:(.text+0x5): undefined reference to `f'"
        );
        let cargo = "   Compiling x v1.0.0\n\u{1b}[1m\u{1b}[31merror[E0425]\u{1b}[0m\u{1b}[1m: cannot find value `y` in this scope\u{1b}[0m\n \
                     --> src/main.rs:2:5\n  |\n2 |     y;\n  |     ^ not found\n\nerror: could not compile `x`\n";
        let error = first_error(cargo, "");
        assert_eq!(error[0], "error[E0425]: cannot find value `y` in this scope");
        assert!(error[1].contains("src/main.rs:2:5") && error[3].contains("2 |     y;"), "{error:?}");
        assert_eq!(short("# example.com/x\n./main.go:4:2: undefined: foo\n", ""), "./main.go:4:2: undefined: foo");
        assert_eq!(
            short("A.java:3: error: cannot find symbol\n    foo();\n    ^\n1 error\n", ""),
            "A.java:3: error: cannot find symbol"
        );
        assert_eq!(
            short("", "src/a.ts(3,5): error TS2322: Type 'string' is not assignable.\n"),
            "src/a.ts(3,5): error TS2322: Type 'string' is not assignable."
        );
    }

    #[test]
    fn what_a_tool_caught_and_printed_is_not_taken_for_the_compilers_error() {
        let gradle = "java.lang.ClassNotFoundException: org.example.Plugin\n\tat java.base/X.load(X.java:1)\n\
                      /build/src/main/java/A.java:3: error: cannot find symbol\n    foo();\n    ^\n1 error\n";
        assert_eq!(short(gradle, ""), "/build/src/main/java/A.java:3: error: cannot find symbol");
        assert_eq!(short("java.io.IOException: disk full\n\tat A.b(A.java:3)\n", ""), "java.io.IOException: disk full");
    }

    #[test]
    fn a_text_that_follows_its_heading_comes_along() {
        let cmake = "CMake Error at CMakeLists.txt:5 (find_package):\n  By not providing \"FindFoo.cmake\" in CMAKE_MODULE_PATH\n  this \
                     project has asked.\n\n-- Configuring incomplete, errors occurred!\n";
        assert_eq!(
            short(cmake, ""),
            "CMake Error at CMakeLists.txt:5 (find_package): By not providing \"FindFoo.cmake\" in CMAKE_MODULE_PATH"
        );
        let gradle = "FAILURE: Build failed with an exception.\n\n* What went wrong:\nCould not resolve all files.\n> no x\n\n* Try:\n";
        assert_eq!(short(gradle, ""), "* What went wrong: Could not resolve all files.");
        let python = "Traceback (most recent call last):\n  File \"/build/a.py\", line 1, in <module>\n    import x\nModuleNotFoundError: No module named 'x'\n";
        assert_eq!(
            first_error(python, ""),
            ["ModuleNotFoundError: No module named 'x'", "  File \"/build/a.py\", line 1, in <module>", "    import x"]
        );
    }

    #[test]
    fn package_managers_say_what_they_miss() {
        assert_eq!(short("npm warn x\nnpm error code ENOENT\nnpm error syscall open\n", ""), "npm error code ENOENT");
        assert_eq!(
            short("ERROR: Could not find a version that satisfies the requirement x", ""),
            "ERROR: Could not find a version that satisfies the requirement x"
        );
        let maven = "[INFO] Scanning\n[ERROR] COMPILATION ERROR : \n[ERROR] /build/src/A.java:[3,5] cannot find symbol\n[ERROR] -> [Help 1]\n";
        assert_eq!(short("", maven), "[ERROR] /build/src/A.java:[3,5] cannot find symbol");
        assert_eq!(
            short("make: *** No rule to make target 'x', needed by 'all'.  Stop.\n", ""),
            "make: *** No rule to make target 'x', needed by 'all'.  Stop."
        );
    }

    #[test]
    fn what_only_looks_like_an_error_is_none() {
        assert_eq!(short("fatal: not a git repository\nconfigure: error: no zlib\n", ""), "configure: error: no zlib");
        assert!(first_error("all is well\nerrors: 0\n", "checking for error... no\n").is_empty());
        assert_eq!(short("", "make: *** [all] Error 2\n"), "make: *** [all] Error 2");
    }

    #[test]
    fn only_a_code_that_a_signal_gives_is_told_as_one() {
        assert_eq!(exit_code(254), "exit code 254");
        assert_eq!(exit_code(137), "exit code 137 (as after signal 9, SIGKILL)");
        assert_eq!(exit_code(2), "exit code 2");
        assert_eq!(exit_code(i32::MIN), "exit code -2147483648");
    }
}
