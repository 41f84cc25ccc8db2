//! The system as jobs of this machine see it, whichever job runs: a job that does nothing, whose files are looked at.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_call::{DIRECTORY, PROGRAMS, SHIM};
use kiln_executor::calls::Offer;
use kiln_executor::{Job, Place, Secrets};
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::area::Area;
use super::view::View;
use super::{Shared, listen};

/// Memory of the job: it does nothing.
const MEMORY_BYTES: u64 = 256 << 20;
/// Bytes that it may write: nothing.
const DISK_BYTES: u64 = 1 << 20;
/// How long one is used: what is mounted stays what it was when it began.
const LIFE: Duration = Duration::from_secs(600);
/// How long it may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// The job, which ends when this is dropped.
#[derive(Debug)]
pub(super) struct Reference {
    pub(super) view: Arc<View>,
    began: Instant,
    _shim: UnixStream,
    cancel: CancellationToken,
    running: JoinHandle<()>,
    _directory: tempfile::TempDir,
}

impl Reference {
    /// Starts the job.
    ///
    /// # Errors
    /// Why it cannot be had, as text.
    pub(super) async fn start(shared: &Shared) -> Result<Self, String> {
        let said = |error: std::io::Error| error.to_string();
        let directory = shared.directory_of_a_step(shared.programs.of_system()).map_err(said)?;
        let listener = listen(directory.path()).map_err(said)?;
        let begun = watch::Sender::new(None);
        let mut told = begun.subscribe();
        let (layer, _) = shared.inputs.delta(Vec::new(), &BTreeMap::new()).map_err(|error| error.to_string())?;
        let programs = Path::new(DIRECTORY).join(PROGRAMS);
        let shim = programs.join(SHIM).display().to_string();
        let offer = Offer { directory: directory.path().to_owned(), to: DIRECTORY.into(), programs, begun, port: None };
        let job = Job {
            place: Place::Machine,
            tenant: String::new(),
            layers: vec![layer.path().to_owned()],
            arguments: vec![shim, "/bin/sh".to_owned()],
            environment: BTreeMap::new(),
            secrets: Secrets::default(),
            working_directory: String::new(),
            make_directories: Vec::new(),
            network: false,
            timeout: None,
            milli_cpus: 1000,
            memory_bytes: MEMORY_BYTES,
            disk_bytes: DISK_BYTES,
            max_processes: 16,
            beside: Vec::new(),
            calls: kiln_executor::calls::Calls { offer: Some(offer), ..Default::default() },
            session: None,
            conditions: Default::default(),
            usage: None,
        };
        let cancel = CancellationToken::new();
        let (sender, mut output) = mpsc::channel(1);
        let (executor, stop) = (shared.executor.clone(), cancel.clone());
        let running = tokio::spawn(async move {
            let _keep = layer;
            let drain = async { while output.recv().await.is_some() {} };
            let (ended, ()) = tokio::join!(executor.run(job, sender, stop), drain);
            tracing::debug!(?ended, "the job that shows the system has ended");
        });
        // A shim that asks and is never answered.
        let begins =
            async { (listener.accept().await, told.wait_for(Option::is_some).await.map(|begun| begun.clone())) };
        let Ok((Ok((shim, _)), Ok(Some(begun)))) = tokio::time::timeout(PATIENCE, begins).await else {
            cancel.cancel();
            return Err("the job that shows the system did not begin".to_owned());
        };
        let root: PathBuf = begun.root().map_err(said)?;
        let view = View::open(&root, Area::Build, Some(shared.system.clone())).map_err(said)?;
        Ok(Self { view: Arc::new(view), began: Instant::now(), _shim: shim, cancel, running, _directory: directory })
    }

    /// Whether its files can still be looked at, and are not those of a system of long ago.
    pub(super) fn is_good(&self) -> bool {
        !self.running.is_finished() && self.began.elapsed() < LIFE
    }
}

impl Drop for Reference {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
