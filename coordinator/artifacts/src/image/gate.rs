//! A gate's command in an image that was made: its file system as a root, its user and variables, and what it is shown of the artifact.
//!
//! Invariant: nothing of the build, its commit or the time is in the command, so an image that comes out the same has the same result.

use std::collections::BTreeMap;

use kiln_dockerfile::Run;
use kiln_dockerfile::instruction::Network;
use kiln_images::platform::Platform;
use kiln_planner::plan::gates::{self, Place};
use kiln_planner::plan::{self, Artifact};
use kiln_proto::digest::Digest;
use kiln_proto::root::{Mount, Service};
use kiln_roots::{Files, Mounted, Roots};
use kiln_store::{Stores, trees};
use kiln_trees::root::Times;
use kiln_trees::tree::{Entry, Tree};
use serde_json::Value;

use super::base::{BaseError, Bases};
use super::dockerfile::Command;
use super::packages::files;
use crate::assemble::{Error, Made};

/// Where a gate finds what it is shown.
const SHOWN: &str = "/.kiln-gate";
/// The name of the layout while it is read as a base.
const LAYOUT: &str = "artifact";

/// What a gate is shown besides the artifact, in the store.
#[derive(Debug, Clone, Copy)]
pub struct Shown {
    /// Its bill of materials.
    pub sbom: Digest,
    /// Its provenance, for a gate that asks for it.
    pub provenance: Option<Digest>,
    /// The files of the sources that the gate names.
    pub inputs: Option<Digest>,
}

/// A root that a command runs in other than the image's own: its tree, the blob with its times, and its variables.
pub type Other<'a> = (Digest, Digest, &'a BTreeMap<String, String>);

/// What a gate in an image is made from.
#[derive(Debug, Clone, Copy)]
pub struct InImage<'a> {
    /// Where everything is.
    pub stores: &'a Stores,
    /// The build's bases.
    pub bases: &'a Bases,
    /// The roots of this gate.
    pub roots: &'a Roots,
    /// The artifact.
    pub artifact: &'a Artifact,
    /// Its content.
    pub made: &'a Made,
    /// Its platform.
    pub platform: plan::Platform,
    /// What the gate is shown.
    pub shown: Shown,
}

/// What starts an image, and how.
struct Configured {
    env: Vec<(String, String)>,
    user: String,
    cwd: String,
    argv: Vec<String>,
}

impl InImage<'_> {
    fn failed(&self, reason: String) -> Error {
        Error::Layout { artifact: self.artifact.name.clone(), reason }
    }

    fn base_failed(&self, source: BaseError) -> Error {
        Error::Base {
            artifact: self.artifact.name.clone(),
            base: "the image itself".to_owned(),
            source: Box::new(source),
        }
    }

    /// The image's files and its configuration.
    async fn image(&self) -> Result<(Files, Configured), Error> {
        let layout = trees::expand(&*self.stores.blobs, self.made.root).await?;
        let tree = Tree { entries: [(LAYOUT.to_owned(), Entry::Directory(layout))].into(), mode: None };
        let platform = Platform::linux(self.platform.architecture());
        let stored = self.bases.of_project(LAYOUT, &tree, &tree, &platform).await;
        let stored = stored.map_err(|error| self.base_failed(error))?;
        let found = files(self.roots, &stored, &self.artifact.name).await?;
        let config = stored.base.config.get("config").cloned().unwrap_or_default();
        let list = |key: &str| -> Vec<String> {
            let list = config.get(key).and_then(Value::as_array).into_iter().flatten();
            list.filter_map(|one| one.as_str().map(str::to_owned)).collect()
        };
        let text = |key: &str| config.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let env = list("Env").iter().filter_map(|pair| pair.split_once('=')).map(owned).collect();
        let cwd = Some(text("WorkingDir")).filter(|cwd| !cwd.is_empty()).unwrap_or_else(|| "/".to_owned());
        let argv = [list("Entrypoint"), list("Cmd")].concat();
        Ok((found, Configured { env, user: text("User"), cwd, argv }))
    }

    /// The command of a gate inside the image or beside the running image; in the latter case in another root, if there is one.
    ///
    /// # Errors
    /// If the image cannot be read as a root, it has nothing to start, or the store fails.
    pub async fn command(&self, name: &str, gate: &gates::Command, other: Option<Other<'_>>) -> Result<Command, Error> {
        let (own, configured) = self.image().await?;
        let times = self.times(&own.times.flat()).await?;
        let (mut mounts, mut mounted, mut env) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut show = |at: &str, variable: &str, one: Mounted, rw: bool| {
            let target = format!("{SHOWN}/{at}");
            env.insert(variable.to_owned(), target.clone());
            mounts.push(Mount::Bind { target, source: mounted.len() as u32, rw });
            mounted.push(one);
        };
        let none = Times(BTreeMap::new());
        let plain = |digest: Digest| self.roots.context(digest, None, &none);
        show("artifact", "KILN_ARTIFACT", Mounted::Files(plain(self.made.root).await?, "/".to_owned()), false);
        let documents = [
            ("sbom.cdx.json", "KILN_SBOM", Some(self.shown.sbom)),
            ("provenance.json", "KILN_PROVENANCE", self.shown.provenance),
        ];
        for (at, variable, document) in documents {
            let Some(digest) = document else { continue };
            show(at, variable, Mounted::Files(self.roots.file(at, digest, 0o644).await?, at.to_owned()), false);
        }
        if let Some(inputs) = self.shown.inputs {
            show("inputs", "KILN_INPUTS", Mounted::Files(plain(inputs).await?, "/".to_owned()), false);
        }
        let started = match &gate.place {
            Place::Started { port, .. } => {
                show("root", "KILN_ROOT", Mounted::Files(own.clone(), "/".to_owned()), true);
                Some(*port)
            }
            _ => None,
        };
        env.insert("KILN_ARTIFACT_NAME".to_owned(), self.artifact.name.clone());
        env.insert("KILN_PLATFORM".to_owned(), self.platform.to_string());
        let service = match started {
            Some(port) => Some(self.service(&configured, port)?),
            None => None,
        };
        for secret in &gate.step.secrets {
            let env = Some(secret.clone());
            mounts.push(Mount::Secret {
                target: None,
                id: secret.clone(),
                env,
                required: true,
                mode: None,
                uid: 0,
                gid: 0,
            });
        }
        env.extend(gate.step.env.clone());
        let (root, times, from, user, cwd) = match other {
            Some((root, times, variables)) => (root, times, variables.clone(), String::new(), "/".to_owned()),
            None => (own.root, times, configured.env.into_iter().collect(), configured.user, configured.cwd),
        };
        from.into_iter().for_each(|(name, value)| {
            env.entry(name).or_insert(value);
        });
        let argv = if gate.words.is_empty() { shell(gate) } else { gate.words.clone() };
        let network = if gate.step.network { Network::Default } else { Network::None };
        let run = Run {
            root: 0,
            argv,
            env: env.into_iter().collect(),
            proxies: Vec::new(),
            user,
            cwd,
            hostname: None,
            network,
            mounts: Vec::new(),
            script: None,
        };
        Ok(Command {
            name: name.to_owned(),
            platform: self.platform,
            run,
            root,
            times,
            memory_bytes: Some(gate.step.memory_bytes),
            mounts,
            caches: Vec::new(),
            mounted: Some(self.roots.mounts(&mounted).await?),
            secrets: gate.step.secrets.clone(),
            keyed: Vec::new(),
            hosts: Vec::new(),
            no_cache: false,
            service,
        })
    }

    fn service(&self, configured: &Configured, port: Option<u16>) -> Result<Service, Error> {
        if configured.argv.is_empty() {
            let reason =
                "it has nothing to start: set `entrypoint` or `cmd` of the image, or give the gate `inside = true`";
            return Err(self.failed(reason.to_owned()));
        }
        Ok(Service {
            root: format!("{SHOWN}/root"),
            argv: configured.argv.clone(),
            env: configured.env.clone(),
            user: configured.user.clone(),
            cwd: configured.cwd.clone(),
            port,
        })
    }

    async fn times(&self, times: &Times) -> Result<Digest, Error> {
        let data = times.encode();
        let digest = self.made.root.function.digest(&data);
        self.stores.blobs.put(&digest, data.into()).await?;
        Ok(digest)
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// A shell that runs the command, once the image says that it is ready.
fn shell(gate: &gates::Command) -> Vec<String> {
    let ready = match &gate.place {
        Place::Started { ready: Some(ready), .. } => {
            format!("until ({ready}) >/dev/null 2>&1; do sleep 0.2 2>/dev/null || sleep 1; done\n")
        }
        _ => String::new(),
    };
    ["/bin/sh", "-e", "-c"].map(str::to_owned).into_iter().chain([format!("{ready}{}", gate.step.run)]).collect()
}

/// The directory of an image's layer at which a command wrote a file, as a path in the layer.
pub fn report_path(command: &Command, report: &str) -> String {
    let absolute = if report.starts_with('/') { report.to_owned() } else { format!("{}/{report}", command.run.cwd) };
    absolute.trim_start_matches('/').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ready_is_asked_before_the_command_runs() {
        let step = plan::Step::new("gate:a", "curl -f localhost");
        let place = Place::Started { port: None, ready: Some("test -e /up".to_owned()) };
        let gate =
            gates::Command { step, words: Vec::new(), place, predicate: gates::Predicate::TestResult, report: None };
        let argv = shell(&gate);
        assert_eq!(argv[..3], ["/bin/sh", "-e", "-c"]);
        assert!(
            argv[3].starts_with("until (test -e /up)") && argv[3].ends_with("done\ncurl -f localhost"),
            "{}",
            argv[3]
        );
    }
}
