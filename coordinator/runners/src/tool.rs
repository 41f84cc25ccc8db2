//! Which test runner a step's command starts.

use crate::commands::{Word, commands, is_assignment};

/// A test runner of which Kiln knows how to run some of its tests only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// `cargo test`.
    Cargo,
    /// `cargo nextest run`.
    Nextest,
    /// `go test`.
    Go,
    /// pytest.
    Pytest,
    /// Jest.
    Jest,
    /// Vitest.
    Vitest,
    /// `node --test`.
    Node,
    /// `ctest`.
    Ctest,
    /// `python3 -m unittest`.
    Unittest,
}

/// Options of Node that take a value.
const NODE_VALUES: [&str; 8] =
    ["--import", "-r", "--require", "--loader", "--experimental-loader", "--env-file", "-C", "--conditions"];

/// Words that may stand before a runner without being the command themselves.
const LAUNCHERS: [&str; 24] = [
    "time", "nice", "timeout", "env", "exec", "uv", "poetry", "pipenv", "pdm", "hatch", "run", "npx", "yarn", "pnpm",
    "npm", "bun", "bunx", "x", "node", "coverage", "xvfb-run", "python", "python3", "-m",
];

impl Tool {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Cargo,
        Self::Nextest,
        Self::Go,
        Self::Pytest,
        Self::Unittest,
        Self::Jest,
        Self::Vitest,
        Self::Node,
        Self::Ctest,
    ];

    /// What a user calls it.
    pub fn command(self) -> &'static str {
        match self {
            Self::Cargo => "cargo test",
            Self::Nextest => "cargo nextest run",
            Self::Go => "go test",
            Self::Pytest => "pytest",
            Self::Jest => "jest",
            Self::Vitest => "vitest run",
            Self::Node => "node --test",
            Self::Ctest => "ctest",
            Self::Unittest => "python3 -m unittest",
        }
    }

    /// What it is called in the script that runs it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Cargo => "cargo",
            Self::Nextest => "nextest",
            Self::Go => "go",
            Self::Pytest => "pytest",
            Self::Jest => "jest",
            Self::Vitest => "vitest",
            Self::Node => "node",
            Self::Ctest => "ctest",
            Self::Unittest => "unittest",
        }
    }

    /// The runner that a step's command starts; none if it starts none that is known, or several kinds.
    pub fn of(run: &str) -> Option<Self> {
        let mut tools = calls(run).into_iter().map(|call| call.tool);
        let first = tools.next()?;
        tools.all(|tool| tool == first).then_some(first)
    }

    /// What a test is chosen by, from its names in a report; `None` if that cannot be done by name.
    pub fn unit(self, suite: &str, name: &str) -> Option<String> {
        // What stands for a whole program, package or file.
        if name.starts_with("(the ") {
            return None;
        }
        let unit = match self {
            // Tests of documentation cannot be named to rustdoc.
            Self::Cargo if name.contains(' ') => return None,
            Self::Cargo | Self::Ctest | Self::Jest => name.to_owned(),
            Self::Go if suite.is_empty() => return None,
            Self::Go => format!("{suite}\t{}", name.split('/').next().unwrap_or_default()),
            Self::Pytest | Self::Unittest => format!("{suite} {name}"),
            // In TAP, the suite is the file and the titles around the test.
            Self::Vitest => suite.split(" > ").skip(1).chain([name]).collect::<Vec<_>>().join(" "),
            // It chooses by the titles around a test too, which depends on its version; cargo-nextest runs them again itself.
            Self::Node | Self::Nextest => return None,
        };
        let is_plain = |c: char| !c.is_control() || (c == '\t' && self == Self::Go);
        unit.chars().all(is_plain).then_some(unit)
    }

    /// Whether a command of it leaves tests out after one has failed.
    pub(crate) fn may_stop_early(self, run: &str) -> bool {
        let has = |flags: &[&str]| {
            let commands = commands(run);
            let mut words = commands.iter().flatten().map(|word| word.text.as_str());
            words.any(|word| flags.iter().any(|flag| word == *flag || word.starts_with(&format!("{flag}="))))
        };
        match self {
            // By default, it runs no further program.
            Self::Cargo => !has(&["--no-fail-fast"]),
            Self::Go => has(&["-failfast", "--failfast"]),
            Self::Jest => has(&["--bail", "-b"]),
            Self::Vitest => has(&["--bail"]),
            Self::Ctest => has(&["--stop-on-failure"]),
            Self::Unittest => has(&["-f", "--failfast"]),
            Self::Pytest | Self::Nextest | Self::Node => false,
        }
    }

    /// What is given to one shard or another, from the names of a test in a report; `None` if the runner itself divides them.
    pub fn shared_unit(self, suite: &str, name: &str) -> Option<String> {
        match self {
            Self::Vitest | Self::Node => None,
            // Packages and files.
            Self::Go | Self::Jest => {
                Some(suite.to_owned()).filter(|suite| !suite.is_empty() && !suite.contains(char::is_control))
            }
            // What needs no quotes in an expression.
            Self::Nextest => {
                let is_plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | ':' | '.' | '$');
                let named = !suite.is_empty() && !name.is_empty();
                let plain = named && suite.chars().chain(name.chars()).all(is_plain);
                plain.then(|| format!("{suite} {name}"))
            }
            Self::Cargo | Self::Pytest | Self::Ctest | Self::Unittest => self.unit(suite, name),
        }
    }
}

/// A place where a command starts a runner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) tool: Tool,
    /// Where the script that runs it is put.
    pub(crate) at: usize,
}

pub(crate) fn calls(run: &str) -> Vec<Call> {
    commands(run).iter().filter_map(|command| call(command)).collect()
}

fn call(command: &[Word]) -> Option<Call> {
    // What the shell's own words introduce is a command too.
    let is_shells = |word: &str| matches!(word, "if" | "then" | "else" | "elif" | "do" | "while" | "until" | "!" | "{");
    let from = command.iter().position(|word| !is_shells(&word.text) && !is_assignment(&word.text))?;
    let command = command.get(from..)?;
    let base = |at: usize| command.get(at).map_or("", |word| word.text.rsplit('/').next().unwrap_or_default());
    for at in 0..command.len() {
        let next = base(at.saturating_add(1));
        let tool = match base(at) {
            "cargo" => {
                let toolchain = usize::from(next.starts_with('+'));
                match (
                    base(at.saturating_add(1).saturating_add(toolchain)),
                    base(at.saturating_add(2).saturating_add(toolchain)),
                ) {
                    ("nextest", "run" | "r") => Some(Tool::Nextest),
                    ("test" | "t", _) => Some(Tool::Cargo),
                    _ => None,
                }
            }
            "go" if next == "test" => Some(Tool::Go),
            "pytest" | "py.test" => Some(Tool::Pytest),
            "jest" => Some(Tool::Jest),
            "vitest" if !matches!(next, "bench" | "list" | "init") => Some(Tool::Vitest),
            "node" if tests_by_node(command.get(at.saturating_add(1)..).unwrap_or_default()) => Some(Tool::Node),
            "unittest" if at > 0 && base(at.saturating_sub(1)) == "-m" => Some(Tool::Unittest),
            "ctest" => Some(Tool::Ctest),
            _ => None,
        };
        if let Some(tool) = tool {
            // The arguments of `go` and `node` are read, so these stand first; others keep what launches them.
            let place = if matches!(tool, Tool::Go | Tool::Node) { at } else { 0 };
            return Some(Call { tool, at: command.get(place)?.at });
        }
        let word = base(at);
        let is_launcher = LAUNCHERS.contains(&word)
            || word.starts_with("python3.")
            || word.starts_with('-')
            || is_assignment(word)
            || word.starts_with(|c: char| c.is_ascii_digit());
        if !is_launcher {
            return None;
        }
    }
    None
}

/// Whether Node is told to run tests, by one of its own options: what follows a program's path is the program's.
fn tests_by_node(arguments: &[Word]) -> bool {
    let mut words = arguments.iter().map(|word| word.text.as_str());
    while let Some(word) = words.next() {
        if word == "--test" {
            return true;
        }
        if !word.starts_with('-') {
            return false;
        }
        if NODE_VALUES.contains(&word) {
            words.next();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runner_is_found_behind_what_launches_it() {
        for (run, tool, at) in [
            ("cargo test", Tool::Cargo, 0),
            ("mkdir x\nA=1 cargo +nightly t --offline", Tool::Cargo, 12),
            ("cargo nextest run --profile ci", Tool::Nextest, 0),
            ("cd a && timeout 60 go test ./... | tee log", Tool::Go, 19),
            ("if python3 -m pytest -q; then echo; fi", Tool::Pytest, 3),
            ("uv run --frozen pytest", Tool::Pytest, 0),
            ("npx jest src; node_modules/.bin/jest", Tool::Jest, 0),
            ("(cd b; ctest -j4)", Tool::Ctest, 7),
            ("/opt/bin/pytest", Tool::Pytest, 0),
            ("npx vitest run --reporter=tap", Tool::Vitest, 0),
            ("A=1 node --import tsx --test --test-reporter=tap src", Tool::Node, 4),
            ("timeout 9 python3.12 -m unittest discover -v", Tool::Unittest, 0),
        ] {
            assert_eq!(Tool::of(run), Some(tool), "{run}");
            assert_eq!(calls(run)[0].at, at, "{run}");
        }
        for run in [
            "pip install pytest",
            "echo cargo test",
            "make test",
            "sh -c 'cargo test'",
            "cargo build",
            "which jest",
            "cargo test && pytest",
            "cat <<E\ncargo test\nE",
            "go vet",
            "vitest bench",
            "node run.js --test",
            "python3 unittest",
        ] {
            assert_eq!(Tool::of(run), None, "{run}");
        }
    }

    #[test]
    fn tests_are_named_as_their_runner_wants_it() {
        assert_eq!(Tool::Go.unit("shop", "TestA/b/c").unwrap(), "shop\tTestA");
        assert_eq!(Tool::Pytest.unit("tests.test_a", "test_b[1]").unwrap(), "tests.test_a test_b[1]");
        assert_eq!(Tool::Cargo.unit("shop", "tests::a").unwrap(), "tests::a");
        for (tool, suite, name) in [
            (Tool::Cargo, "shop", "src/lib.rs - (line 1)"),
            (Tool::Cargo, "", "a\nb"),
            (Tool::Go, "", "TestA"),
            (Tool::Go, "shop", "(the package)"),
            (Tool::Nextest, "shop", "a"),
        ] {
            assert_eq!(tool.unit(suite, name), None, "{name}");
        }
        assert_eq!(Tool::Go.shared_unit("shop", "(the package)").unwrap(), "shop");
        assert_eq!(Tool::Jest.shared_unit("a.test.js", "a").unwrap(), "a.test.js");
        assert_eq!(Tool::Vitest.unit("a.test.js > cart", "totals").unwrap(), "cart totals");
        assert_eq!(Tool::Vitest.unit("a.test.js", "cart totals").unwrap(), "cart totals");
        assert_eq!(Tool::Unittest.unit("test_a.Cart", "test_b").unwrap(), "test_a.Cart test_b");
        assert_eq!(Tool::Nextest.shared_unit("shop::it", "a::b").unwrap(), "shop::it a::b");
        assert_eq!(Tool::Nextest.shared_unit("shop", "a) | all("), None);
    }
}
