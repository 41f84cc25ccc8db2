//! A farm that serves the caches to callers with tokens.

use std::path::Path;
use std::process::Command;

use kiln_harness::guarded::{local, well};
use kiln_harness::{Farm, Ran, caretaker};

/// Who has a token: the name, and what it is made with.
const CALLERS: [(&str, &[&str]); 7] = [
    ("admin", &["--role", "admin"]),
    ("operator", &["--role", "farm-admin"]),
    ("writer", &["--role", "cache-writer"]),
    ("reader", &["--role", "cache-reader"]),
    ("builder", &["--role", "builder"]),
    ("branch", &["--role", "cache-writer", "--scope", "feature/x"]),
    ("bank", &["--role", "cache-writer", "--tenant", "bank"]),
];

pub struct World {
    pub farm: Farm,
    /// The caches' address until the coordinator restarts.
    pub root: String,
    tokens: Vec<(&'static str, String)>,
}

impl World {
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// With more arguments of the coordinator.
    pub fn with(more: &[&str]) -> Self {
        let dir = caretaker::directory();
        let of = dir.path().join("farm");
        std::fs::create_dir_all(&of).unwrap();
        let make = |name: &'static str, with: &[&str]| {
            let fixed = ["farm", "token", name, "--farm-dir", of.to_str().unwrap()];
            (name, well(local(&[&fixed[..], with].concat())))
        };
        let tokens: Vec<_> = CALLERS.iter().map(|(name, with)| make(name, with)).collect();
        let file = of.join("tokens.toml");
        let arguments = [&["--tokens", file.to_str().unwrap(), "--cache-listen", "127.0.0.1:0"], more].concat();
        let access = vec![("KILN_TOKEN".to_owned(), tokens[0].1.clone())];
        let farm = Farm::bare(dir, "http", Vec::new(), &arguments, access);
        farm.wait_until_up();
        // The tests' own HTTP client has no provider of its own.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = well(farm.kiln(&["cache", "env", "gradle"]));
        let (_, root) = settings.split_once("export KILN_GRADLE_CACHE=").unwrap();
        let (root, _) = root.split_once("/gradle").unwrap();
        Self { root: root.to_owned(), farm, tokens }
    }

    /// The token of a caller; one that is unknown for anybody else.
    pub fn token(&self, name: &str) -> &str {
        self.tokens.iter().find(|(known, _)| *known == name).map_or("kiln_unknown", |(_, token)| token)
    }

    /// A shell whose variables are those that `kiln cache env TOOL` prints for this caller.
    pub fn shell(&self, caller: &str, tool: &str, script: &str) -> Command {
        // Who is not known is told nothing, and has what somebody else was told.
        let asks = if self.tokens.iter().any(|(known, _)| *known == caller) { caller } else { "writer" };
        let mut asking = self.farm.command(&["cache", "env", tool]);
        asking.env("KILN_TOKEN", self.token(asks));
        let settings = Ran::from(asking);
        assert_eq!(settings.code, 0, "expected settings: {settings:?}");
        assert!(!settings.out.contains(self.token(asks)), "expected no token in: {}", settings.out);
        let mut command = Command::new("sh");
        command.args(["-euc", &format!("{}\n{script}", settings.out)]);
        command.env("KILN_TOKEN", self.token(caller)).env_remove("KILN_FARM");
        command
    }

    pub fn run(&self, caller: &str, tool: &str, dir: &Path, script: &str) -> Ran {
        let mut command = self.shell(caller, tool, script);
        command.current_dir(dir);
        Ran::from(command)
    }
}

#[track_caller]
pub fn done(ran: Ran) -> Ran {
    assert_eq!(ran.code, 0, "expected success, found\n{}\n{}", ran.out, ran.err);
    ran
}

/// Whether a command is installed; says so if not.
pub fn works(command: &str, arguments: &[&str]) -> bool {
    let works = Command::new(command).args(arguments).output().is_ok_and(|ran| ran.status.success());
    if !works {
        kiln_harness::cannot_run(&format!("`{command}` is not installed"));
    }
    works
}
