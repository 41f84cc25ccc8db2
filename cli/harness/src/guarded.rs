//! A farm that authenticates its callers, and the files that `kiln farm` makes for it.

use std::path::{Path, PathBuf};

use crate::{Farm, Ran};

/// A farm with TLS, its directory, and the files that `kiln farm` makes there.
pub struct Guarded {
    pub farm: Farm,
    pub join: String,
}

/// `kiln` without a farm.
pub fn local(arguments: &[&str]) -> Ran {
    let mut command = std::process::Command::new(crate::run::program());
    command.args(arguments).env_remove("KILN_FARM").env("KILN_CONFIG", "/nowhere/config.toml");
    command.stdin(std::process::Stdio::null());
    Ran::from(command)
}

#[track_caller]
pub fn well(ran: Ran) -> String {
    assert_eq!(ran.code, 0, "expected success: {ran:?}");
    ran.out.trim().to_owned()
}

#[track_caller]
pub fn refused(ran: &Ran, code: i32, word: &str) {
    let all = format!("{}{}", ran.out, ran.err);
    assert!(all.contains(word), "expected `{word}` in: {ran:?}");
    assert_eq!(ran.code, code, "expected exit code {code}: {ran:?}");
}

impl Guarded {
    pub fn start(more: &[&str]) -> Self {
        Self::start_in(Vec::new(), more)
    }

    /// The same, with variables for its coordinator.
    pub fn start_in(variables: Vec<(String, String)>, more: &[&str]) -> Self {
        let dir = crate::caretaker::directory();
        let farm_dir = dir.path().join("farm");
        let join =
            well(local(&["farm", "init", farm_dir.to_str().unwrap(), "--host", "127.0.0.1", "--uses", "unlimited"]));
        let admin = certificate(&farm_dir, "admin", &["--role", "admin", "--role", "farm-admin"]);
        let arguments = [&["--farm-dir", farm_dir.to_str().unwrap()], more].concat();
        let farm = Farm::bare(dir, "https", variables, &arguments, access(&farm_dir, Some(&admin)));
        farm.wait_until_up();
        Self { farm, join }
    }

    pub fn dir(&self) -> PathBuf {
        self.farm.dir.path().join("farm")
    }

    /// `kiln farm COMMAND` on this farm's directory.
    pub fn make(&self, arguments: &[&str]) -> String {
        well(local(&[&["farm"], arguments, &["--farm-dir", self.dir().to_str().unwrap()]].concat()))
    }

    pub fn worker(&self, name: &str) {
        self.worker_with(name, &[]);
    }

    /// The same, with more arguments.
    pub fn worker_with(&self, name: &str, more: &[&str]) {
        self.farm.start_worker_in(&self.farm.url, name, &[&["--join", &self.join], more].concat(), &[]);
        self.farm.wait_for_worker(name);
    }

    /// `kiln` as a user other than the harness.
    pub fn as_other(&self, access: Vec<(String, String)>, arguments: &[&str]) -> std::process::Command {
        let mut command = self.farm.command(arguments);
        command.env_remove("KILN_CERT").env_remove("KILN_KEY").envs(access);
        command
    }

    pub fn ran(&self, access: Vec<(String, String)>, arguments: &[&str]) -> Ran {
        Ran::from(self.as_other(access, arguments))
    }
}

/// A certificate for a name that may already have one.
pub fn certificate(farm_dir: &Path, name: &str, more: &[&str]) -> PathBuf {
    let output = farm_dir.join("people");
    if output.join(format!("{name}.key")).exists() {
        return output.join(name);
    }
    let fixed = ["--farm-dir", farm_dir.to_str().unwrap(), "--output", output.to_str().unwrap()];
    well(local(&[&["farm", "certificate", name], &fixed[..], more].concat()));
    output.join(name)
}

pub fn access(farm_dir: &Path, certificate: Option<&Path>) -> Vec<(String, String)> {
    let variable = |name: &str, path: PathBuf| (name.to_owned(), path.display().to_string());
    let mut access = vec![variable("KILN_CA", farm_dir.join("ca.pem"))];
    if let Some(certificate) = certificate {
        access.push(variable("KILN_CERT", certificate.with_extension("pem")));
        access.push(variable("KILN_KEY", certificate.with_extension("key")));
    }
    access
}

pub fn token(farm_dir: &Path, token: &str) -> Vec<(String, String)> {
    let mut access = access(farm_dir, None);
    access.push(("KILN_TOKEN".to_owned(), token.to_owned()));
    access
}
