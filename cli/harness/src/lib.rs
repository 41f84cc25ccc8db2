//! For tests: farms of real processes, and the real services that they use. See this crate's README.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

pub mod arm64;
pub mod bases;
pub mod caretaker;
pub mod certificates;
pub mod engine;
pub mod farm;
pub mod faults;
pub mod guarded;
pub mod http;
pub mod http_proxy;
pub mod machine;
pub mod mutated;
pub mod options;
pub mod private_registry;
pub mod project;
pub mod proxy;
pub mod redis;
pub mod registry;
pub mod remote;
pub mod replicas;
pub mod replicated;
pub mod run;
pub mod s3;
pub mod ssh;
pub mod terminal;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub use farm::{ASKS, Farm, PROGRAM};
pub use project::{commit, copy, example, find, git, output, project, unpack, write};
pub use run::{Built, Lasting, Ran, Running};

/// How long anything may take before a test fails with what it waited for.
const DEADLINE: Duration = Duration::from_secs(120);

/// Options of Bazel itself: without a user's settings, a server that ends by itself, and is compiled for a short life.
pub const BAZEL: [&str; 3] = ["--nohome_rc", "--max_idle_secs=120", "--host_jvm_args=-XX:TieredStopAtLevel=1"];

/// Reports that a test could not run, or fails if all tests must run.
pub fn cannot_run(missing: &str) {
    assert!(std::env::var_os("KILN_TESTS_MUST_RUN").is_none_or(|value| value != "1"), "cannot run: {missing}");
    eprintln!("SKIPPED: {missing}");
}

/// Polls until there is a result.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    poll(|| look().ok_or(()), |()| what.to_owned())
}

/// Polls until nothing is found any more; fails with what is.
pub fn until_none<T: std::fmt::Debug>(what: &str, mut look: impl FnMut() -> Vec<T>) {
    let is_empty = || Some(look()).filter(|found| !found.is_empty()).map_or(Ok(()), Err);
    poll(is_empty, |found| format!("no {what} to be left, and there is {found:#?}"));
}

/// Polls until there is a result; fails with what was waited for, given how it was at last.
fn poll<T, E>(mut look: impl FnMut() -> Result<T, E>, what: impl Fn(E) -> String) -> T {
    let began = Instant::now();
    loop {
        match look() {
            Ok(found) => return found,
            Err(last) => assert!(began.elapsed() < DEADLINE, "waited {DEADLINE:?} for {}", what(last)),
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A URL on this machine at which nobody listens yet.
pub fn free_url() -> String {
    format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap())
}

/// A URL that accepts connections and never answers, for as long as this program runs.
pub fn black_hole() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || listener.incoming().collect::<Vec<_>>());
    url
}

/// Whether a program is installed; prints a message if not.
pub fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        cannot_run(&format!("`{program}` is not installed"));
    }
    found
}

/// The directory of the profile that this test program was built in: `target/debug`.
pub(crate) fn build_dir() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    program.ancestors().nth(2).unwrap().to_owned()
}

/// What tests keep between runs: `target/tmp`.
pub fn kept() -> PathBuf {
    let dir = build_dir().parent().unwrap().join("tmp");
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

/// The root of this repository.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap().to_owned()
}
