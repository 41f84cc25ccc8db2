//! The request to an engine for one container with all its limits.
//!
//! Invariant: the container has no privileges, no capabilities, only the network that was asked for, and a read-only root.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType,
};

use super::engine::{Engine, STATE_LABEL, WORKER_LABEL};
use super::files::Files;
use super::init::{FILES, SOCKET_DIR};
use super::mounts::Slot;
use kiln_executor::BUILD;

/// Processes that the init may need in addition to the task's: its threads.
const OWN_PROCESSES: i64 = 8;
/// Memory that the init may need in addition to the task's.
const OWN_BYTES: u64 = 16 << 20;

/// Properties of a container: only tasks with equal properties may share one, one after another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) tenant: String,
    pub(super) image: String,
    pub(super) network: bool,
    pub(super) milli_cpus: u32,
    pub(super) memory_bytes: u64,
    pub(super) max_processes: u32,
    /// What tasks take for the name of the machine.
    pub(super) host_name: String,
}

/// What all containers of a worker have in common.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) engine: Engine,
    pub(super) files: Files,
    /// The directory of the sockets' directories.
    pub(super) doors: PathBuf,
    pub(super) worker: String,
    /// Id of the state directory.
    pub(super) state: String,
    /// The engine's network for tasks with network access.
    pub(super) network: String,
    /// User and group of tasks.
    pub(super) user: (u32, u32),
}

/// The host directories that become a container's inputs and `/tmp`.
#[derive(Debug)]
pub(super) enum Place {
    /// A slot, in which each task has its own mounts.
    Slot(Slot),
    /// Directories for a single task.
    Directories { build: PathBuf, tmp: PathBuf },
}

fn bind(from: &Path, to: &str, read_only: bool, propagation: Option<MountBindOptionsPropagationEnum>) -> Mount {
    Mount {
        typ: Some(MountType::BIND),
        source: Some(from.display().to_string()),
        target: Some(to.to_owned()),
        read_only: Some(read_only),
        bind_options: propagation
            .map(|propagation| MountBindOptions { propagation: Some(propagation), ..Default::default() }),
        ..Default::default()
    }
}

/// The request for a container whose socket is in the directory `door`.
pub(super) fn body(setting: &Setting, kind: &Kind, place: &Place, door: &Path) -> ContainerCreateBody {
    let follow = matches!(place, Place::Slot(_)).then_some(MountBindOptionsPropagationEnum::RSLAVE);
    let (build, tmp) = match place {
        Place::Slot(slot) => (slot.build(), slot.tmp()),
        Place::Directories { build, tmp } => (build.clone(), tmp.clone()),
    };
    let (user, group) = setting.user;
    let memory = i64::try_from(kind.memory_bytes.saturating_add(OWN_BYTES)).unwrap_or(i64::MAX);
    let host_config = HostConfig {
        cap_drop: Some(vec!["ALL".to_owned()]),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(true),
        network_mode: Some(if kind.network { setting.network.clone() } else { "none".to_owned() }),
        ipc_mode: Some("private".to_owned()),
        memory: Some(memory),
        // No swap in addition to memory.
        memory_swap: Some(memory),
        shm_size: Some(memory),
        cpu_shares: Some((i64::from(kind.milli_cpus) * 1024 / 1000).max(2)),
        pids_limit: Some(i64::from(kind.max_processes) + OWN_PROCESSES),
        mounts: Some(vec![
            bind(&setting.files.directory, FILES, true, None),
            bind(door, SOCKET_DIR, true, None),
            bind(&build, BUILD, false, follow),
            bind(&tmp, "/tmp", false, follow),
        ]),
        log_config: Some(HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([("max-size".to_owned(), "64k".to_owned())])),
        }),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(kind.image.clone()),
        entrypoint: Some(setting.files.command.clone()),
        cmd: Some(Vec::new()),
        user: Some(format!("{user}:{group}")),
        working_dir: Some("/".to_owned()),
        hostname: Some(kind.host_name.clone()),
        // A stopping engine need not wait: nothing in here has to shut down cleanly.
        stop_signal: Some("SIGKILL".to_owned()),
        labels: Some(HashMap::from([
            (WORKER_LABEL.to_owned(), setting.worker.clone()),
            (STATE_LABEL.to_owned(), setting.state.clone()),
        ])),
        // An image's own health check would run beside the tasks.
        healthcheck: Some(HealthConfig { test: Some(vec!["NONE".to_owned()]), ..Default::default() }),
        host_config: Some(host_config),
        ..Default::default()
    }
}
