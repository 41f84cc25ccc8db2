//! A command on a real terminal: a pseudo-terminal whose other side the test has.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use nix::pty::{OpenptyResult, openpty};

use crate::until;

/// A command that has a terminal.
pub struct Terminal {
    keyboard: File,
    own: OwnedFd,
    screen: Arc<Mutex<Vec<u8>>>,
    /// How much of what is on the screen has been looked at.
    seen: usize,
    child: Child,
}

impl Terminal {
    /// Starts a command as the leader of a session on a terminal of 24 rows and 80 columns.
    pub fn start(command: &Command) -> Self {
        let OpenptyResult { master, slave } = openpty(None, None).unwrap();
        stty(&slave, &["rows", "24", "cols", "80"]);
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let mut leader = Command::new("setsid");
        leader.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leader.env(name, value),
                None => leader.env_remove(name),
            };
        }
        if let Some(directory) = command.get_current_dir() {
            leader.current_dir(directory);
        }
        leader.env("TERM", "xterm").stdin(stream()).stdout(stream()).stderr(stream());
        let child = leader.spawn().unwrap();
        let screen: Arc<Mutex<Vec<u8>>> = Arc::default();
        let (mut printed, shown) = (File::from(master.try_clone().unwrap()), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length) = printed.read(&mut buffer) {
                shown.lock().unwrap().extend_from_slice(&buffer[..length]);
            }
        });
        Self { keyboard: File::from(master), own: slave, screen, seen: 0, child }
    }

    /// Types this.
    pub fn types(&mut self, text: &str) {
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until this is printed, after what was waited for before. Returns everything in between.
    #[track_caller]
    pub fn until(&mut self, text: &str) -> String {
        let from = self.seen;
        let found = until(&format!("`{text}` on the terminal, which has `{}`", self.shown()), || {
            let screen = self.screen.lock().unwrap();
            let rest = &screen[from..];
            let at = rest.windows(text.len()).position(|window| window == text.as_bytes());
            at.map(|at| (from + at + text.len(), String::from_utf8_lossy(&rest[..at]).into_owned()))
        });
        self.seen = found.0;
        found.1
    }

    /// All that was printed.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.screen.lock().unwrap()).into_owned()
    }

    /// How the terminal is set.
    pub fn modes(&self) -> String {
        stty(&self.own, &["-a"])
    }

    /// Changes the size of its window.
    pub fn resize(&self, rows: u16, columns: u16) {
        stty(&self.own, &["rows", &rows.to_string(), "cols", &columns.to_string()]);
    }

    /// The process of the command itself.
    pub fn pid(&self) -> u32 {
        let children = format!("/proc/{0}/task/{0}/children", self.child.id());
        until("the command's process", || {
            let own = self.child.id();
            // `setsid` forks only where it would lead a group already.
            let found = std::fs::read_to_string(&children).ok()?;
            Some(found.split_whitespace().next().map_or(own, |pid| pid.parse().unwrap()))
        })
    }

    /// Waits for its end; the exit code.
    pub fn code(&mut self) -> i32 {
        let child = &mut self.child;
        until("the command on the terminal to end", || child.try_wait().unwrap()).code().unwrap_or(-1)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("on the terminal:\n{}", self.shown());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn stty(terminal: &OwnedFd, arguments: &[&str]) -> String {
    let terminal = Stdio::from(terminal.as_fd().try_clone_to_owned().unwrap());
    let output = Command::new("stty").args(arguments).stdin(terminal).output().unwrap();
    assert!(output.status.success(), "stty {arguments:?}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
