//! A sandbox with its own directory, and the results of a command in it.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_worker::executor::{Chunk, Exit, Finished, Job, Place as In, Secrets, Stream};
use kiln_worker::sandbox::{Config, Isolation, Mode, Sandbox, Tools};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) struct Place {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) sandbox: Sandbox,
    /// Whether another job uses the namespaces of each job before it.
    is_used: bool,
}

/// A sandbox with its own directory. Machines that cannot provide one cannot run these tests.
pub(crate) fn place(mode: Mode) -> Place {
    place_with(mode, Isolation::Auto)
}

pub(crate) fn confined() -> Place {
    place(Mode::Required)
}

/// One in which each job, if that is possible, gets the namespaces of another that has ended.
pub(crate) fn used() -> Place {
    let mut place = place(Mode::Required);
    place.is_used = true;
    place
}

/// One whose steps with the network share the machine's network.
pub(crate) fn sharing_the_network() -> Place {
    place_with(Mode::Required, Isolation::Off)
}

/// One that stores everything below this directory.
pub(crate) fn on(directory: &std::path::Path) -> Place {
    open(tempfile::tempdir_in(directory).unwrap(), Mode::Required, Isolation::Auto)
}

fn place_with(mode: Mode, network: Isolation) -> Place {
    open(tempfile::tempdir().unwrap(), mode, network)
}

fn open(dir: tempfile::TempDir, mode: Mode, network: Isolation) -> Place {
    let init = Some(env!("CARGO_BIN_EXE_kiln-worker").into());
    let (scratch, tools) = (dir.path().join("scratch"), Tools::discover());
    let config = Config {
        mode,
        scratch,
        tools,
        root: None,
        sub_ids: None,
        no_ids: None,
        network,
        init,
        own_credentials: false,
        way: None,
        layout: None,
        objects: std::path::PathBuf::new(),
        host_network: false,
        host_authorities: false,
    };
    let sandbox = Sandbox::open(config).unwrap_or_else(|error| panic!("expected a sandbox on this machine: {error}"));
    assert_eq!(sandbox.is_confined(), mode != Mode::Off, "{}", sandbox.describe());
    Place { dir, sandbox, is_used: false }
}

impl Drop for Place {
    /// The leftovers of jobs are removed in parallel with the tests; the directory is removed after them, or else an
    /// unprivileged user could not remove all of it.
    fn drop(&mut self) {
        self.wait_until_idle();
    }
}

impl Place {
    /// Waits until nothing is left of jobs that have ended.
    pub(crate) fn wait_until_idle(&self) {
        let began = std::time::Instant::now();
        let scratch = self.dir.path().join("scratch");
        let is_empty = || std::fs::read_dir(&scratch).is_ok_and(|mut entries| entries.next().is_none());
        while !is_empty() && began.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A read-only layer of inputs with these files.
    pub(crate) fn layer(&self, name: &str, files: &[(&str, &str)]) -> std::path::PathBuf {
        let layer = self.dir.path().join("layers").join(name);
        std::fs::create_dir_all(&layer).unwrap();
        for (path, text) in files {
            let path = layer.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        layer
    }

    pub(crate) fn job(&self, script: &str) -> Job {
        Job {
            place: In::Machine,
            tenant: String::new(),
            layers: vec![self.layer("inputs", &[("in.txt", "input\n"), ("sub/deep.txt", "deep\n")])],
            arguments: ["/bin/sh", "-c", script].map(str::to_owned).into(),
            environment: BTreeMap::new(),
            secrets: Secrets::default(),
            working_directory: String::new(),
            make_directories: Vec::new(),
            beside: Vec::new(),
            network: false,
            timeout: Some(Duration::from_secs(60)),
            milli_cpus: 1000,
            memory_bytes: 512 * MIB,
            disk_bytes: 1 << 30,
            max_processes: 200,
            calls: Default::default(),
            session: None,
            conditions: Default::default(),
            usage: None,
        }
    }

    pub(crate) async fn run(&self, job: Job) -> Ran {
        self.run_until(job, CancellationToken::new()).await
    }

    pub(crate) async fn run_until(&self, job: Job, cancel: CancellationToken) -> Ran {
        if self.is_used && job.calls.offer.is_none() {
            let marks = "for at in /tmp /dev/shm /build; do echo x > $at/of-another-job; done";
            let before = self.job(marks);
            let before = Job { arguments: before.arguments, environment: BTreeMap::new(), ..job.clone() };
            self.run_once(Job { working_directory: String::new(), timeout: None, ..before }, CancellationToken::new())
                .await;
        }
        self.run_once(job, cancel).await
    }

    async fn run_once(&self, job: Job, cancel: CancellationToken) -> Ran {
        self.attempt(job, cancel).await.unwrap()
    }

    /// The same, but the sandbox itself may fail.
    pub(crate) async fn sandbox_result(&self, job: Job) -> Result<Ran, kiln_worker::sandbox::Error> {
        self.attempt(job, CancellationToken::new()).await
    }

    async fn attempt(&self, job: Job, cancel: CancellationToken) -> Result<Ran, kiln_worker::sandbox::Error> {
        let (sender, mut receiver) = mpsc::channel(16);
        let collect = async {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            while let Some(Chunk { stream, data }) = receiver.recv().await {
                if stream == Stream::Stdout { &mut out } else { &mut err }.extend_from_slice(&data);
            }
            (out, err)
        };
        let (finished, (out, err)) = tokio::join!(self.sandbox.run(job, sender, cancel), collect);
        Ok(Ran { finished: finished?, out, err: String::from_utf8_lossy(&err).into_owned() })
    }

    pub(crate) async fn script(&self, script: &str) -> Ran {
        self.run(self.job(script)).await
    }
}

#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) finished: Finished,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Ran {
    pub(crate) fn exit(&self) -> &Exit {
        &self.finished.exit
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.out).into_owned()
    }

    pub(crate) fn left(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.finished.tree.root().join(path)).ok()
    }
}
