//! The one table of what each call requires. A call that is not listed is refused.

use super::Role;

/// What a call requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing: the call carries its own proof, or reveals nothing.
    Nothing,
    /// Any identity.
    Anybody,
    /// One of these roles.
    AnyOf(&'static [Role]),
}

use Role::{Admin, Builder, CacheReader, CacheWriter, Coordinator, FarmAdmin, Worker};

const BUILD: Needs = Needs::AnyOf(&[Builder, Admin]);
const READ: Needs = Needs::AnyOf(&[CacheReader, CacheWriter, Builder, Worker, Admin]);
const UPLOAD: Needs = Needs::AnyOf(&[CacheWriter, Builder, Worker, Admin]);
const LOOK: Needs = Needs::AnyOf(&[CacheReader, CacheWriter, Builder, Admin]);
const FETCH: Needs = Needs::AnyOf(&[CacheWriter, Builder, Admin]);
const WRITE_RESULTS: Needs = Needs::AnyOf(&[CacheWriter, Admin]);
const WORK: Needs = Needs::AnyOf(&[Worker]);
const ADMINISTER: Needs = Needs::AnyOf(&[Admin]);
const RUN_THE_FARM: Needs = Needs::AnyOf(&[FarmAdmin]);
const SEE_THE_FARM: Needs = Needs::AnyOf(&[CacheReader, CacheWriter, Builder, Admin, FarmAdmin]);

const COORDINATE: Needs = Needs::AnyOf(&[Coordinator]);
const SEE_THE_COORDINATORS: Needs = Needs::AnyOf(&[CacheReader, CacheWriter, Builder, Admin, FarmAdmin, Coordinator]);

/// Service, method, requirement.
pub const TABLE: &[(&str, &str, Needs)] = &[
    ("build.bazel.remote.execution.v2.Capabilities", "GetCapabilities", Needs::Anybody),
    ("build.bazel.remote.execution.v2.ContentAddressableStorage", "FindMissingBlobs", READ),
    ("build.bazel.remote.execution.v2.ContentAddressableStorage", "BatchUpdateBlobs", UPLOAD),
    ("build.bazel.remote.execution.v2.ContentAddressableStorage", "BatchReadBlobs", READ),
    ("build.bazel.remote.execution.v2.ContentAddressableStorage", "GetTree", READ),
    ("build.bazel.remote.execution.v2.ContentAddressableStorage", "SplitBlob", READ),
    ("build.bazel.remote.execution.v2.ContentAddressableStorage", "SpliceBlob", UPLOAD),
    ("build.bazel.remote.execution.v2.ContentAddressableStorage", "GetChunkMapping", READ),
    ("build.bazel.remote.execution.v2.ContentAddressableStorage", "RegisterChunkMapping", UPLOAD),
    ("google.bytestream.ByteStream", "Read", READ),
    ("google.bytestream.ByteStream", "Write", UPLOAD),
    ("google.bytestream.ByteStream", "QueryWriteStatus", UPLOAD),
    ("build.bazel.remote.execution.v2.ActionCache", "GetActionResult", LOOK),
    ("build.bazel.remote.execution.v2.ActionCache", "UpdateActionResult", WRITE_RESULTS),
    ("build.bazel.remote.execution.v2.Execution", "Execute", BUILD),
    ("build.bazel.remote.execution.v2.Execution", "WaitExecution", BUILD),
    ("google.longrunning.Operations", "ListOperations", BUILD),
    ("google.longrunning.Operations", "GetOperation", BUILD),
    ("google.longrunning.Operations", "DeleteOperation", BUILD),
    ("google.longrunning.Operations", "CancelOperation", BUILD),
    ("google.longrunning.Operations", "WaitOperation", BUILD),
    ("build.bazel.remote.asset.v1.Fetch", "FetchBlob", FETCH),
    ("build.bazel.remote.asset.v1.Fetch", "FetchDirectory", FETCH),
    ("build.bazel.remote.asset.v1.Push", "PushBlob", WRITE_RESULTS),
    ("build.bazel.remote.asset.v1.Push", "PushDirectory", WRITE_RESULTS),
    ("kiln.v1.Builds", "Submit", BUILD),
    ("kiln.v1.Builds", "Watch", BUILD),
    ("kiln.v1.Builds", "Cancel", BUILD),
    ("kiln.v1.Builds", "CancelAll", BUILD),
    ("kiln.v1.Builds", "Expect", BUILD),
    ("kiln.v1.Builds", "List", BUILD),
    ("kiln.v1.Builds", "Get", BUILD),
    ("google.devtools.build.v1.PublishBuildEvent", "PublishLifecycleEvent", BUILD),
    ("google.devtools.build.v1.PublishBuildEvent", "PublishBuildToolEventStream", BUILD),
    ("kiln.v1.Invocations", "List", BUILD),
    ("kiln.v1.Invocations", "Get", BUILD),
    ("kiln.v1.Invocations", "Log", BUILD),
    ("kiln.v1.Invocations", "Actions", BUILD),
    ("kiln.v1.Invocations", "Note", COORDINATE),
    ("kiln.v1.Artifacts", "List", LOOK),
    ("kiln.v1.Artifacts", "Get", LOOK),
    ("kiln.v1.Artifacts", "SignIndex", BUILD),
    ("kiln.v1.Cache", "List", LOOK),
    ("kiln.v1.Cache", "Stats", LOOK),
    ("kiln.v1.Cache", "Explain", LOOK),
    ("kiln.v1.Cache", "Prune", ADMINISTER),
    ("kiln.v1.Cache", "Mounts", LOOK),
    ("kiln.v1.Cache", "PruneMounts", ADMINISTER),
    ("kiln.v1.CacheMounts", "Take", WORK),
    ("kiln.v1.CacheMounts", "Publish", WORK),
    ("kiln.v1.Calls", "Look", WORK),
    ("kiln.v1.Calls", "Keep", WORK),
    ("kiln.v1.Calls", "Room", WORK),
    ("kiln.v1.Calls", "Run", WORK),
    ("kiln.v1.Possession", "Ask", WORK),
    ("kiln.v1.Possession", "Show", WORK),
    ("kiln.v1.SshAgents", "Serve", BUILD),
    ("kiln.v1.SshAgents", "Ask", WORK),
    ("kiln.v1.Shells", "Open", BUILD),
    ("kiln.v1.Shells", "Serve", WORK),
    ("kiln.v1.Workers", "Link", WORK),
    ("kiln.v1.Farm", "Status", SEE_THE_FARM),
    ("kiln.v1.Farm", "DrainWorker", RUN_THE_FARM),
    ("kiln.v1.Farm", "OpenPages", SEE_THE_FARM),
    ("kiln.v1.Farm", "Keys", Needs::Anybody),
    ("kiln.v1.Coordinators", "List", SEE_THE_COORDINATORS),
    ("kiln.v1.Coordinators", "Challenge", Needs::Nothing),
    ("kiln.v1.Coordinators", "Members", COORDINATE),
    ("kiln.v1.Deliveries", "Take", COORDINATE),
    ("grpc.health.v1.Health", "Check", Needs::Nothing),
    ("grpc.health.v1.Health", "Watch", Needs::Nothing),
    ("grpc.reflection.v1.ServerReflection", "ServerReflectionInfo", Needs::Anybody),
    ("kiln.v1.Membership", "Join", Needs::Nothing),
    ("kiln.v1.Membership", "Renew", WORK),
    ("kiln.v1.Membership", "Revoke", RUN_THE_FARM),
    ("kiln.v1.Membership", "Unrevoke", RUN_THE_FARM),
    ("kiln.v1.Membership", "Distrust", RUN_THE_FARM),
    ("kiln.v1.Membership", "Trust", RUN_THE_FARM),
    ("kiln.v1.Membership", "List", RUN_THE_FARM),
];

/// What the call at this path, `/SERVICE/METHOD`, requires; `None` for an unknown call.
pub fn needs(path: &str) -> Option<Needs> {
    let (service, method) = path.strip_prefix('/')?.rsplit_once('/')?;
    TABLE.iter().find(|(one, other, _)| *one == service && *other == method).map(|(_, _, needs)| *needs)
}

#[cfg(test)]
mod tests;
