//! A farm of real processes on this machine, started by `kiln up` and stopped at the end.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

/// A running farm; it ends when this is dropped.
#[derive(Debug)]
pub struct Farm {
    child: Child,
    /// Where it listens.
    pub url: String,
    _data: tempfile::TempDir,
}

impl Farm {
    /// Starts a farm with the `kiln` binary beside this program and waits until it says where it listens.
    pub fn start(workers: u32) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let url = format!("http://127.0.0.1:{port}");
        let mut child = Command::new(kiln()?)
            .args(["up", "--workers", &workers.to_string(), "--listen", &format!("127.0.0.1:{port}")])
            .arg("--data-dir")
            .arg(data.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot start `kiln up`")?;
        let stderr = child.stderr.take().context("no stderr")?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = Vec::new();
        loop {
            match lines.next() {
                Some(Ok(line)) if line.contains("ready") => break,
                Some(Ok(line)) => said.push(line),
                _ => bail!("`kiln up` ended before it was ready:\n{}", said.join("\n")),
            }
        }
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, url, _data: data })
    }

    /// Highest resident memory of the coordinator so far, in bytes.
    pub fn coordinator_peak_bytes(&self) -> anyhow::Result<u64> {
        for child in children(self.child.id())? {
            let command = std::fs::read(format!("/proc/{child}/cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains("coordinator") {
                return peak_bytes(child);
            }
        }
        bail!("`kiln up` has no coordinator process")
    }
}

impl Drop for Farm {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

/// The `kiln` binary that was built with this program.
pub fn kiln() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("kiln");
    if !path.exists() {
        bail!("expected `{}`; build it with `cargo build --release`", path.display());
    }
    Ok(path)
}

fn children(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for task in Path::new("/proc").join(pid.to_string()).join("task").read_dir()? {
        let list = std::fs::read_to_string(task?.path().join("children")).unwrap_or_default();
        found.extend(list.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(found)
}

fn peak_bytes(pid: u32) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).context("no VmHWM in /proc")?;
    let kib: u64 = line.split_whitespace().nth(1).context("no figure in VmHWM")?.parse()?;
    Ok(kib * 1024)
}
