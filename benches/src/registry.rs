//! Debian's `docker-registry` on this machine, with a directory of its own.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::farm::text;

/// Limit for the registry to respond.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// A running registry; stopped on drop.
#[derive(Debug)]
pub struct Registry {
    /// Its host and port.
    pub name: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Registry {
    /// Starts it and waits until it responds.
    ///
    /// # Errors
    /// If it is not installed, or does not respond within 30 s.
    pub fn start() -> anyhow::Result<Self> {
        let dir = tempfile::tempdir()?;
        let name = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let config = dir.path().join("config.yml");
        let storage = dir.path().join("storage");
        std::fs::write(
            &config,
            format!(
                "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\nhttp:\n  addr: {name}\n",
                storage.display()
            ),
        )?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start `docker-registry`; install Debian's package of that name")?;
        let registry = Self { name, child, _dir: dir };
        let began = Instant::now();
        while std::net::TcpStream::connect(&registry.name).is_err() {
            if began.elapsed() > READY_TIMEOUT {
                bail!("waited {READY_TIMEOUT:?} for `docker-registry` to respond");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// Copies the image of an OCI layout here and returns its name.
    ///
    /// # Errors
    /// If `skopeo` is missing or fails.
    pub fn import(&self, layout: &Path) -> anyhow::Result<String> {
        let name = format!("{}/bench/base:1", self.name);
        run(
            "skopeo",
            &[
                "copy",
                "--quiet",
                "--dest-tls-verify=false",
                &format!("oci:{}", text(layout)?),
                &format!("docker://{name}"),
            ],
        )?;
        Ok(name)
    }

    /// Adds a layer with `directory` at `to` to an image that is here, and returns the new image's name.
    ///
    /// # Errors
    /// If `skopeo`, `umoci` or `tar` is missing or fails.
    pub fn with_directory(&self, image: &str, directory: &Path, to: &str) -> anyhow::Result<String> {
        let work = tempfile::tempdir()?;
        let (layout, layer) = (work.path().join("layout"), work.path().join("layer.tar"));
        let (layout, layer) = (format!("{}:image", text(&layout)?), text(&layer)?.to_owned());
        run(
            "skopeo",
            &["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{image}"), &format!("oci:{layout}")],
        )?;
        let moved = format!("--transform=s,^[.],{},", to.trim_start_matches('/'));
        run(
            "tar",
            &["--create", "--file", &layer, "--owner=0", "--group=0", &moved, "--directory", text(directory)?, "."],
        )?;
        run("umoci", &["raw", "add-layer", "--image", &layout, &layer])?;
        let name = format!("{}/bench/builder:1", self.name);
        run(
            "skopeo",
            &["copy", "--quiet", "--dest-tls-verify=false", &format!("oci:{layout}"), &format!("docker://{name}")],
        )?;
        Ok(name)
    }
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot start `{program}`; install Debian's package of that name"))?;
    if !output.status.success() {
        bail!("`{program} {}` failed:\n{}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
