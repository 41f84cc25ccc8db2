//! Cases on Docker's own builder: the BuildKit in Debian's `docker.io`.

use std::process::{Command, Output};

use kiln_harness::bases::busybox_layout;
use kiln_harness::engine::Engine;
use kiln_harness::{has, output};

use crate::case::Case;
use crate::check;
use crate::image::Image;
use crate::serve::Server;

/// An engine with the image `base`.
pub struct Docker {
    engine: Engine,
    base: Image,
    server: Server,
}

impl Docker {
    /// `None`, with a message, if there is none on this machine.
    pub fn new() -> Option<Self> {
        if !has("skopeo") {
            return None;
        }
        let layout = tempfile::tempdir().unwrap();
        busybox_layout(layout.path())?;
        let engine = Engine::bare()?;
        let archive = layout.path().join("base.tar");
        let (from, to) =
            (format!("oci:{}", layout.path().display()), format!("docker-archive:{}:base:latest", archive.display()));
        output("skopeo", &["--insecure-policy", "copy", "--quiet", &from, &to], layout.path());
        engine.ok(&["load", "--input", &archive.display().to_string()]);
        Some(Self { engine, base: Image::of_layout(layout.path()), server: Server::start() })
    }

    /// What Docker does otherwise than a case says, if the case does not say that it does.
    pub fn problems(&self, case: &Case) -> Vec<String> {
        if !case.expect.contexts.is_empty() {
            // Docker 20.10 has no named contexts.
            return Vec::new();
        }
        let found = self.differences(case);
        match &case.expect.docker {
            Some(reason) if found.is_empty() => vec![format!("Docker agrees, although the case says: {reason}")],
            Some(_) => Vec::new(),
            None => found,
        }
    }

    fn differences(&self, case: &Case) -> Vec<String> {
        let (dir, expect) = (case.prepared(), &case.expect);
        let server = self.server.serve(&case.name, &dir.path().join("served"));
        let image = format!("case/{}:1", case.name);
        let mut command = self.command();
        command.args(["build", "--progress", "plain", "--tag", &image, "--file"]).arg(dir.path().join("Dockerfile"));
        command.args(["--build-arg", &format!("SERVER={server}"), "--network", "none"]);
        command.args(expect.target.iter().flat_map(|target| ["--target", target]));
        command.args(expect.platform.iter().flat_map(|platform| ["--platform", platform]));
        for (name, value) in &expect.args {
            command.arg(format!("--build-arg={name}={value}"));
        }
        for (name, value) in &expect.labels {
            command.arg(format!("--label={name}={value}"));
        }
        let built = command.arg(dir.path().join("context")).output().unwrap();
        match (&expect.error, built.status.success()) {
            (Some(_), true) => vec!["Docker builds it".to_owned()],
            (Some(_), false) => Vec::new(),
            (None, false) => vec![format!("Docker refuses it: {}", last_lines(&built))],
            (None, true) => {
                let saved = self.command().args(["save", &image]).output().unwrap();
                let image = match saved.status.success() {
                    true => Image::of_archive(&saved.stdout),
                    false => self.described(&image),
                };
                check::image(case, &image, &self.base, &server)
            }
        }
    }

    /// An image without layers, which Docker does not save.
    fn described(&self, image: &str) -> Image {
        let inspected = self.command().args(["image", "inspect", image]).output().unwrap();
        let found: serde_json::Value = serde_json::from_slice(&inspected.stdout).unwrap();
        let of = |name: &str| found[0][name].clone();
        let config = serde_json::json!({
            "config": of("Config"), "architecture": of("Architecture"), "os": of("Os"), "author": of("Author"), "created": of("Created"),
        });
        Image { config, layers: Vec::new() }
    }

    fn command(&self) -> Command {
        // Debian's own client: newer ones build by a plugin only.
        let own = std::path::Path::new("/usr/bin/docker");
        let mut command = Command::new(if own.exists() { own } else { "docker".as_ref() });
        command.env("DOCKER_HOST", &self.engine.host).env("DOCKER_BUILDKIT", "1");
        command.env_remove("DOCKER_CONFIG").stdin(std::process::Stdio::null());
        command
    }
}

fn last_lines(output: &Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(6)..].join(" / ")
}
