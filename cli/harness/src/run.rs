//! `kiln` as a process: run to its end, watched, or running until it is interrupted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;

use serde_json::Value;

use crate::build_dir;

/// A command that takes longer is ended, so that a hang fails one test rather than blocking all.
const HANGS: Duration = Duration::from_secs(900);

/// The built `kiln`.
pub fn program() -> std::path::PathBuf {
    build_dir().join("kiln")
}

pub(crate) fn kiln() -> Command {
    kiln_behind(&[])
}

pub(crate) fn signal(child: &Child, what: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
    nix::sys::signal::kill(pid, what).unwrap();
}

/// `kiln`, executed by the program named before it.
pub(crate) fn kiln_behind(before: &[&str]) -> Command {
    started(&program(), before)
}

/// A program in place of the built `kiln`, executed by the one named before it.
pub(crate) fn started(program: &Path, before: &[&str]) -> Command {
    let mut command = Command::new(before.first().map_or(program.as_os_str(), |first| first.as_ref()));
    if let [_, rest @ ..] = before {
        command.args(rest).arg(program);
    }
    command.env_remove("KILN_FARM").env_remove("KILN_LOG").env("USER", "tester").stdin(Stdio::null());
    // Whoever runs the tests may have a farm of their own.
    command.env("KILN_CONFIG", "/nowhere/config.toml");
    command
}

/// Starts a process of the farm on a thread that lives as long as this program: the kernel kills it when the thread
/// ends.
pub(crate) fn spawn(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<Child>);
    static ORDERS: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let orders = ORDERS.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            while let Ok((mut command, reply)) = receiver.recv() {
                let _ = reply.send(command.spawn().unwrap());
            }
        });
        Mutex::new(sender)
    });
    let (reply, child) = mpsc::channel();
    orders.lock().unwrap().send((command, reply)).unwrap();
    child.recv().unwrap()
}

/// The results of a run.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Command> for Ran {
    fn from(mut command: Command) -> Self {
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap());
        let (ended, waiting) = std::sync::mpsc::channel::<()>();
        let watch = std::thread::spawn(move || {
            let hangs = waiting.recv_timeout(HANGS) == Err(std::sync::mpsc::RecvTimeoutError::Timeout);
            hangs.then(|| nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)).is_some()
        });
        let output = child.wait_with_output().unwrap();
        drop(ended);
        assert!(!watch.join().unwrap(), "{command:?} did not end within {HANGS:?}: {output:?}");
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A build's events.
#[derive(Debug)]
pub struct Built(pub Ran);

impl Built {
    pub fn events(&self) -> Vec<Value> {
        let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("expected JSON, found: {line}"));
        self.0.out.lines().map(parse).collect()
    }

    pub fn of_type(&self, kind: &str) -> Vec<Value> {
        self.events().into_iter().filter(|event| event["type"] == kind).collect()
    }

    /// The build, which must have succeeded.
    #[track_caller]
    pub fn well(self) -> Self {
        assert_eq!(self.0.code, 0, "expected a success, found\n{}\n{}", self.0.out, self.0.err);
        self
    }

    /// For each step, whether it was a hit.
    pub fn caches(&self) -> BTreeMap<String, String> {
        let of =
            |event: Value| (event["step"].as_str().unwrap().to_owned(), event["cache"].as_str().unwrap().to_owned());
        self.of_type("step_finished").into_iter().map(of).collect()
    }

    /// The output of all steps.
    pub fn log(&self) -> String {
        self.of_type("log").iter().map(|event| event["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    pub fn finished(&self) -> Value {
        self.events()
            .pop()
            .filter(|event| event["type"] == "build_finished")
            .expect("the last event is the build's end")
    }

    pub fn message(&self) -> String {
        self.finished()["message"].as_str().unwrap_or_default().to_owned()
    }

    pub fn id(&self) -> String {
        self.of_type("build_started")[0]["build"].as_str().unwrap().to_owned()
    }
}

/// A running `kiln build`.
pub struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    seen: Vec<String>,
}

impl Running {
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a matching event.
    pub fn until(&mut self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            self.seen.push(line);
            if fits(&event) {
                return event;
            }
        }
        panic!("the events ended before {what}: {:#?}", self.seen);
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn started(&mut self, step: &str) -> Value {
        self.until(&format!("step `{step}` ran"), |event| event["type"] == "step_started" && event["step"] == step)
    }

    pub fn interrupt(&self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    }

    /// kill -9.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// The complete build, once it has ended.
    pub fn end(mut self) -> Built {
        for line in self.lines.by_ref() {
            self.seen.push(line.unwrap());
        }
        let output = self.child.wait_with_output().unwrap();
        Built(Ran {
            code: output.status.code().unwrap_or(-1),
            out: self.seen.join("\n"),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

/// A process that runs until it is interrupted, and the lines of its standard error.
pub struct Lasting {
    child: Child,
    lines: Lines<BufReader<std::process::ChildStderr>>,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lasting {
    pub fn start(mut command: Command) -> Self {
        command.stderr(Stdio::piped()).stdout(Stdio::null());
        let mut child = spawn(command);
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Self { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn line_with(&mut self, words: &str) -> String {
        self.lines_until(words).pop().unwrap()
    }

    /// The lines up to the first with these words, which is the last one.
    pub fn lines_until(&mut self, words: &str) -> Vec<String> {
        let mut seen = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            let is_it = line.contains(words);
            seen.push(line);
            if is_it {
                return seen;
            }
        }
        panic!("it ended before it printed `{words}`: {seen:#?}");
    }

    pub fn interrupt(&self) {
        self.signal(nix::sys::signal::Signal::SIGINT);
    }

    /// Tells a program to read its configuration again.
    pub fn hang_up(&self) {
        self.signal(nix::sys::signal::Signal::SIGHUP);
    }

    fn signal(&self, what: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        nix::sys::signal::kill(pid, what).unwrap();
    }

    pub fn wait(&mut self) -> Option<i32> {
        for _ in self.lines.by_ref() {}
        self.child.wait().unwrap().code()
    }
}
