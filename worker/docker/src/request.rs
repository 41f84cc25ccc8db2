//! What an engine is asked for: one container with all its limits.
//!
//! Invariant: it has no privileges, no capabilities, no network that was not asked for, and a root that nobody can write.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum, MountType,
};

use super::engine::{Engine, STATE_LABEL, WORKER_LABEL};
use super::files::Files;
use super::init::{DOOR, FILES};
use super::mounts::Slot;
use kiln_executor::BUILD;

/// Processes that the init may need beside the task's own: its threads.
const OWN_PROCESSES: i64 = 8;
/// Memory that the init may need beside the task's own.
const OWN_BYTES: u64 = 16 << 20;

/// What a container is made for: only tasks that ask for the same may share one, one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Kind {
    pub(super) tenant: String,
    pub(super) image: String,
    pub(super) network: bool,
    pub(super) milli_cpus: u32,
    pub(super) memory_bytes: u64,
    pub(super) max_processes: u32,
}

/// What all containers of a worker have in common.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) engine: Engine,
    pub(super) files: Files,
    /// Where the doors are.
    pub(super) doors: PathBuf,
    pub(super) worker: String,
    /// Id of the state directory.
    pub(super) state: String,
    /// The engine's network for tasks that ask for one.
    pub(super) network: String,
    /// User and group of tasks.
    pub(super) user: (u32, u32),
}

/// The directories of the host that become the inputs and `/tmp` of a container.
#[derive(Debug)]
pub(super) enum Place {
    /// A slot, where each task has its own mounts.
    Slot(Slot),
    /// For one task.
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

/// The request, for a container with its door in this directory.
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
        // No swap beside it.
        memory_swap: Some(memory),
        shm_size: Some(memory),
        cpu_shares: Some((i64::from(kind.milli_cpus) * 1024 / 1000).max(2)),
        pids_limit: Some(i64::from(kind.max_processes) + OWN_PROCESSES),
        mounts: Some(vec![
            bind(&setting.files.directory, FILES, true, None),
            bind(door, DOOR, true, None),
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
        hostname: Some("kiln".to_owned()),
        // An engine that stops need not wait: nothing in here can end in order.
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
