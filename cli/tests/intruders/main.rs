//! Workers that try to exceed their leases, against a farm that authenticates its callers.

#![allow(clippy::unwrap_used)]

mod calls;
mod possession;

use std::path::Path;
use std::sync::Arc;

use kiln_harness::guarded::{Guarded, access, certificate, well};
use kiln_harness::remote::{self, Caller};
use kiln_harness::{Ran, project, until};
use kiln_proto::channel::{self, Access, Channel};
use kiln_proto::digest::{Digest, DigestFunction};
use kiln_proto::transfer::{Blob, Client};
use kiln_proto::v1::builds_client::BuildsClient;
use kiln_proto::v1::cache_mounts_client::CacheMountsClient;
use kiln_proto::v1::lease_finished::Outcome;
use kiln_proto::v1::shells_client::ShellsClient;
use kiln_proto::v1::ssh_agents_client::SshAgentsClient;
use kiln_proto::v1::workers_client::WorkersClient;
use kiln_proto::v1::{coordinator_message as told, worker_message as said};
use kiln_proto::{reapi, v1};
use kiln_trees::root;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

const SHA256: DigestFunction = DigestFunction::Sha256;

const PROJECT: &str = r#"
name = "hello"
[steps.make]
run = "echo made > out"
outputs = ["out"]
[artifacts.out]
from = "make"
files = ["out"]
kind = "archive"
"#;

async fn connect(guarded: &Guarded, name: &str, more: &[&str]) -> Channel {
    let made = certificate(&guarded.dir(), name, more);
    let shown = Access {
        ca: Some(guarded.dir().join("ca.pem")),
        cert: Some(made.with_extension("pem")),
        key: Some(made.with_extension("key")),
        token_file: None,
    };
    channel::connect(&guarded.farm.url, &shown).await.unwrap()
}

async fn builder(guarded: &Guarded, name: &str, tenant: &str) -> Caller {
    let channel = connect(guarded, name, &["--role", "builder", "--tenant", tenant]).await;
    Caller { function: SHA256, blobs: Client::new(channel.clone(), "", SHA256), channel }
}

/// A worker whose messages the test chooses.
struct Intruder {
    channel: Channel,
    says: mpsc::Sender<v1::WorkerMessage>,
    hears: tonic::Streaming<v1::CoordinatorMessage>,
}

impl Intruder {
    async fn register(channel: Channel, register: v1::Register) -> Result<Self, tonic::Status> {
        let environment = v1::Environment { isa: "x86-64".into(), ..Default::default() };
        Self::register_with(channel, register, environment).await
    }

    async fn register_with(
        channel: Channel,
        register: v1::Register,
        environment: v1::Environment,
    ) -> Result<Self, tonic::Status> {
        Self::link(channel, v1::Register { environment: Some(environment), shows: true, ..register }).await
    }

    async fn link(channel: Channel, register: v1::Register) -> Result<Self, tonic::Status> {
        let (says, messages) = mpsc::channel(16);
        // Enough for all that a test has run, whatever it leaves unfinished.
        let capacity = Some(v1::Capacity { milli_cpus: 64_000, memory_bytes: 256 << 30 });
        let register = v1::Register { capacity, ..register };
        says.send(v1::WorkerMessage { message: Some(said::Message::Register(register)) }).await.unwrap();
        let hears = WorkersClient::new(channel.clone()).link(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { channel, says, hears })
    }

    /// One that says that it runs steps in image roots.
    async fn with_roots(channel: Channel, register: v1::Register) -> Result<Self, tonic::Status> {
        let executors = ["sandbox", "root"].map(str::to_owned).into();
        let environment = v1::Environment {
            isa: "x86-64".into(),
            os: "debian:12".into(),
            libc: "glibc:2.36".into(),
            fingerprint: "invented".into(),
            executors,
            roots: "invented".into(),
            ..Default::default()
        };
        Self::register_with(channel, register, environment).await
    }

    async fn say(&self, message: said::Message) {
        self.says.send(v1::WorkerMessage { message: Some(message) }).await.unwrap();
    }

    async fn hear<T>(&mut self, pick: impl Fn(told::Message) -> Option<T>) -> T {
        loop {
            let message = self.hears.message().await.unwrap().expect("the link ended").message.unwrap();
            if let Some(found) = pick(message) {
                return found;
            }
        }
    }

    async fn lease(&mut self) -> v1::Lease {
        self.hear(|message| if let told::Message::Lease(lease) = message { Some(lease) } else { None }).await
    }

    async fn finish(&self, lease: u64, response: reapi::ExecuteResponse) {
        self.finish_with(lease, response, b"").await;
    }

    /// With a seal for what the result names.
    async fn finish_with(&self, lease: u64, response: reapi::ExecuteResponse, seal: &[u8]) {
        let (outcome, seal) = (Some(Outcome::Response(response)), seal.to_vec());
        self.say(said::Message::Finished(v1::LeaseFinished { lease, outcome, seal })).await;
    }

    /// Waits until the end of a lease is acknowledged, whatever came of it.
    async fn acknowledged(&mut self, lease: u64) {
        let acknowledged =
            |message| matches!(message, told::Message::FinishedAck(ack) if ack.lease == lease).then_some(());
        self.hear(acknowledged).await;
    }

    fn blobs(&self, instance: &str, grant: &[u8]) -> Client {
        Client::for_lease(self.channel.clone(), instance, SHA256, grant)
    }
}

fn forged(text: &str) -> reapi::ExecuteResponse {
    let metadata = reapi::ExecutedActionMetadata { worker: "somebody else".into(), ..Default::default() };
    let result =
        reapi::ActionResult { stdout_raw: text.into(), execution_metadata: Some(metadata), ..Default::default() };
    reapi::ExecuteResponse { result: Some(result), ..Default::default() }
}

#[track_caller]
fn denied<T: std::fmt::Debug>(result: Result<T, kiln_proto::transfer::Error>) {
    match result {
        Err(kiln_proto::transfer::Error::Status(status)) if status.code() == Code::PermissionDenied => {}
        other => panic!("expected PERMISSION_DENIED, found {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_a_lease_writes_no_result_and_reads_no_blob_of_any_tenant() {
    let guarded = tokio::task::spawn_blocking(|| Guarded::start(&[])).await.unwrap();
    let shop = builder(&guarded, "ann", "shop").await;
    let secret = shop.put(b"what shop alone knows".to_vec()).await;
    let action = shop.action(remote::shell("echo honest", &[]), &[("in", "x")], |_| ()).await;
    let evil = connect(&guarded, "evil", &["--role", "worker"]).await;

    // An invented lease: without a grant, with noise, and with a grant that another key sealed.
    let noise = vec![7_u8; 200];
    let invented = |lease: u64, grant: &[u8]| v1::RunningLease {
        lease,
        instance: "@shop/".into(),
        action_digest: Some(action.to_wire()),
        digest_function: SHA256.to_wire(),
        reserved: Some(v1::Capacity { milli_cpus: 1, memory_bytes: 1 }),
        grant: grant.to_vec(),
    };
    let running = vec![invented(4242, b""), invented(4243, &noise)];
    let register = v1::Register { worker: "evil".into(), running, ..Default::default() };
    let mut intruder = Intruder::register(evil.clone(), register).await.unwrap();
    let unwanted = intruder
        .hear(|message| if let told::Message::Registered(welcome) = message { Some(welcome.unwanted) } else { None })
        .await;
    assert_eq!(unwanted, [4242, 4243], "expected both invented leases to be refused");
    for lease in unwanted {
        intruder.say(said::Message::Started(v1::LeaseStarted { lease, at: None })).await;
        intruder.finish(lease, forged("forged")).await;
    }
    // Blobs of the tenant and of the default one, without a lease and for invented ones.
    for (instance, grant) in [("@shop/", &b""[..]), ("", b""), ("@shop/", &noise)] {
        let blobs = intruder.blobs(instance, grant);
        denied(blobs.get(&secret).await);
        denied(blobs.find_missing(&[secret]).await);
        denied(blobs.upload(vec![(SHA256.digest(b"mine"), Blob::Bytes("mine".into()))]).await);
    }
    // Invented leases give access to no tenant.
    for number in 0..20 {
        denied(intruder.blobs(&format!("@made-up-{number}/"), &noise).find_missing(&[secret]).await);
    }
    let tenants = guarded.farm.dir.path().join("coordinator/tenants");
    let open: Vec<_> = std::fs::read_dir(tenants).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(open, ["shop"]);

    // The tenant's action still has no result, and runs: on the intruder, the only worker, but with a lease.
    drop(intruder);
    let honest = tokio::task::spawn_blocking(move || {
        guarded.worker("honest");
        guarded
    });
    let guarded = honest.await.unwrap();
    let response = shop.execute(&action).await;
    assert!(!response.cached_result, "expected nothing to be cached: {response:?}");
    let result = response.result.unwrap();
    assert_eq!(shop.text(&result.stdout_digest).await, "honest\n");
    assert!(guarded.farm.log("coordinator").contains("refused a lease that a worker brought"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_lease_reads_what_its_action_names_until_it_has_ended() {
    let guarded = tokio::task::spawn_blocking(|| Guarded::start(&[])).await.unwrap();
    let shop = builder(&guarded, "ann", "shop").await;
    let secret = shop.put(b"what the action does not name".to_vec()).await;
    let action = shop.action(remote::shell("true", &[]), &[("dir/in", "an input")], |_| ()).await;
    let evil = connect(&guarded, "evil", &["--role", "worker"]).await;
    let register = |name: &str| v1::Register { worker: name.into(), ..Default::default() };
    let mut intruder = Intruder::register(evil, register("evil")).await.unwrap();
    let other = connect(&guarded, "other", &["--role", "worker"]).await;
    // It accepts no work, and tries to get the first one's.
    let drained = v1::Register { tenants: vec!["another".into()], ..register("other") };
    let thief = Intruder::register(other, drained).await.unwrap();
    let execution = tokio::spawn({
        let (channel, blobs) = (shop.channel.clone(), shop.blobs.clone());
        async move { Caller { function: SHA256, channel, blobs }.execute(&action).await }
    });
    let lease = intruder.lease().await;
    let blobs = intruder.blobs(&lease.instance, &lease.grant);
    let input = SHA256.digest(b"an input");
    assert_eq!(blobs.get(&input).await.unwrap(), &b"an input"[..]);
    let message = lease.action.clone().unwrap();
    let root = Digest::required(SHA256, message.input_root_digest.as_ref()).unwrap();
    blobs.get(&root).await.unwrap();
    denied(blobs.get(&secret).await);
    // Neither the grant nor the lease belongs to another worker.
    denied(thief.blobs(&lease.instance, &lease.grant).get(&input).await);
    thief.finish(lease.lease, forged("by a thief")).await;
    let chunk = v1::OutputChunk { lease: lease.lease, stream: 1, offset: 0, data: b"by a thief"[..].into() };
    thief.say(said::Message::Output(chunk)).await;
    until("the thief to be ignored twice", || {
        let log = guarded.farm.log("coordinator");
        (log.matches("ignored a worker's message about a lease that it does not hold").count() == 2).then_some(())
    });
    assert!(!execution.is_finished());
    intruder.finish(lease.lease, forged("by its worker")).await;
    let response = execution.await.unwrap();
    let result = response.result.unwrap();
    assert_eq!(result.stdout_raw, b"by its worker");
    // The farm knows who wrote a result; it does not rely on the worker's claim.
    assert_eq!(result.execution_metadata.unwrap().worker, "evil");
    intruder.hear(|message| if let told::Message::FinishedAck(ack) = message { Some(ack.lease) } else { None }).await;
    denied(blobs.get(&input).await);
    denied(blobs.find_missing(&[input]).await);
    // Nor can the lease be reported again to write another result.
    let running = vec![v1::RunningLease { lease: lease.lease, grant: lease.grant.clone(), ..Default::default() }];
    let again = v1::Register { running, ..register("evil") };
    let back = Intruder::register(intruder.channel.clone(), again).await.unwrap();
    back.finish(lease.lease, forged("by its worker, later")).await;
    let response = shop.execute(&action).await;
    assert_eq!(response.result.unwrap().stdout_raw, b"by its worker");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_use_is_nobody_elses_and_a_replaced_link_ends() {
    let guarded = tokio::task::spawn_blocking(|| Guarded::start(&[])).await.unwrap();
    let channel = connect(&guarded, "vm", &["--role", "worker"]).await;
    let session =
        |session: &[u8]| v1::Register { worker: "vm".into(), session: session.to_vec(), ..Default::default() };
    let mut first = Intruder::register(channel.clone(), session(b"one")).await.unwrap();
    let refused = Intruder::register(channel.clone(), session(b"two")).await.err().unwrap();
    assert_eq!(refused.code(), Code::AlreadyExists, "{refused}");
    assert!(refused.message().contains("--name"), "{refused}");
    // The same process again: its earlier connection is closed, not left open.
    let _second = Intruder::register(channel, session(b"one")).await.unwrap();
    let ended = async { while let Ok(Some(_)) = first.hears.message().await {} };
    tokio::time::timeout(std::time::Duration::from_secs(60), ended).await.expect("expected the first link to end");
}

/// A build of a step with a cache mount, as a tenant's builder starts it.
fn with_cache(guarded: &Arc<Guarded>, tenant: &str) -> tokio::task::JoinHandle<Ran> {
    let (guarded, tenant) = (guarded.clone(), tenant.to_owned());
    tokio::task::spawn_blocking(move || {
        let dir = project(&[
            ("kiln.toml", "name = \"app\"\n[artifacts.app]\ndockerfile = \"Dockerfile\"\n"),
            ("Dockerfile", "FROM scratch\nRUN --mount=type=cache,id=own,target=/c [\"/true\"]\n"),
        ]);
        let made =
            certificate(&guarded.dir(), &format!("builder-of-{tenant}"), &["--role", "builder", "--tenant", &tenant]);
        Ran::from(guarded.as_other(access(&guarded.dir(), Some(&made)), &["build", dir.path().to_str().unwrap()]))
    })
}

/// A tree with one node, and times, all sent.
async fn cache(blobs: &Client, name: &str, node: root::Node) -> (Digest, Digest) {
    let mut forest = root::Forest::new(SHA256);
    let mut directory = root::Directory::empty(root::Attributes::directory());
    directory.entries.insert(name.parse().unwrap(), node);
    let tree = forest.put(directory);
    let times = root::Times::default().encode();
    let digest = SHA256.digest(&times);
    let made = forest.take_made().into_iter().map(|made| (made.digest, Blob::Bytes(made.data.into())));
    blobs.send_whole(made.chain([(digest, Blob::Bytes(times.into()))]).collect()).await.unwrap();
    (tree, digest)
}

fn file(content: &[u8]) -> root::Node {
    let digest = SHA256.digest(content);
    root::Node::Leaf(root::Leaf::new(root::Content::File(digest), root::Attributes::of_root(0o644)))
}

/// A lease's calls about its cache.
struct Mounts(CacheMountsClient<kiln_proto::transfer::LeaseChannel>);

impl Mounts {
    fn of(blobs: &Client) -> Self {
        Self(CacheMountsClient::new(blobs.channel()))
    }

    async fn take(&mut self, name: &v1::CacheName) -> Result<Option<reapi::Digest>, tonic::Status> {
        let request = v1::TakeCacheRequest { name: Some(name.clone()), sharing: 0 };
        let mut answers = self.0.take(request).await?.into_inner();
        Ok(answers.message().await?.unwrap().tree)
    }

    async fn publish(&mut self, name: &v1::CacheName, (tree, times): (Digest, Digest)) -> Result<(), tonic::Status> {
        let (tree, times) = (Some(tree.to_wire()), Some(times.to_wire()));
        let request = v1::PublishCacheRequest { name: Some(name.clone()), tree, times, ..Default::default() };
        self.0.publish(request).await.map(drop)
    }
}

/// What an SSH agent answers to a lease that asks which keys there are.
async fn keys(blobs: &Client) -> Code {
    let request = v1::AskAgentRequest { agent: "default".into(), request: vec![11].into() };
    SshAgentsClient::new(blobs.channel()).ask(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// What becomes of somebody's attempt to serve the agents of the tenant's latest build.
async fn serves(caller: &Caller) -> Code {
    let listed = BuildsClient::new(caller.channel.clone())
        .list(v1::ListRequest { limit: 1, ..v1::ListRequest::default() })
        .await
        .unwrap();
    let build = listed.into_inner().builds[0].id.clone();
    let answers = tokio_stream::iter([v1::AgentAnswer { build, ..Default::default() }]);
    let served = SshAgentsClient::new(caller.channel.clone()).serve(answers).await;
    served.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_takes_and_publishes_the_caches_of_its_lease_and_no_other() {
    let guarded = Arc::new(tokio::task::spawn_blocking(|| Guarded::start(&[])).await.unwrap());
    let evil = connect(&guarded, "evil", &["--role", "worker"]).await;
    let register =
        |running| v1::Register { worker: "evil".into(), session: b"evil".to_vec(), running, ..Default::default() };
    let mut intruder = Intruder::with_roots(evil.clone(), register(Vec::new())).await.unwrap();
    let building = with_cache(&guarded, "shop");
    let lease = intruder.lease().await;
    let name = lease.caches[0].name.clone().unwrap();
    assert_eq!((name.project.as_str(), name.id.as_str()), ("app", "own"));
    let blobs = intruder.blobs(&lease.instance, &lease.grant);
    let mut mounts = Mounts::of(&blobs);
    assert_eq!(mounts.take(&name).await.unwrap(), None);
    blobs.upload(vec![(SHA256.digest(b"content"), Blob::Bytes("content".into()))]).await.unwrap();
    let own = cache(&blobs, "a", file(b"content")).await;
    mounts.publish(&name, own).await.unwrap();
    assert_eq!(mounts.take(&name).await.unwrap(), Some(own.0.to_wire()));
    // Its action mounts no agent.
    assert_eq!(keys(&blobs).await, Code::PermissionDenied);
    // Names that the lease does not have.
    for other in [
        v1::CacheName { id: "other".into(), ..name.clone() },
        v1::CacheName { project: "other".into(), ..name.clone() },
        v1::CacheName { project: String::new(), ..name.clone() },
        v1::CacheName { platform: "linux/arm64".into(), ..name.clone() },
        v1::CacheName { owner: "777:0:0".into(), ..name.clone() },
    ] {
        assert_eq!(mounts.take(&other).await.unwrap_err().code(), Code::PermissionDenied, "{other:?}");
        assert_eq!(mounts.publish(&other, own).await.unwrap_err().code(), Code::PermissionDenied, "{other:?}");
    }
    // No lease, and one that is another worker's.
    let thief = connect(&guarded, "thief", &["--role", "worker"]).await;
    for blobs in [
        intruder.blobs("", b""),
        intruder.blobs(&lease.instance, &[7; 200]),
        Client::for_lease(thief, lease.instance.clone(), SHA256, &lease.grant),
    ] {
        assert_eq!(Mounts::of(&blobs).take(&name).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(Mounts::of(&blobs).publish(&name, own).await.unwrap_err().code(), Code::PermissionDenied);
        assert_eq!(keys(&blobs).await, Code::PermissionDenied);
    }
    // A builder is no worker, and serves no agents to another one's build.
    let builder = builder(&guarded, "ann", "shop").await;
    assert_eq!(Mounts::of(&builder.blobs).take(&name).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!((keys(&builder.blobs).await, serves(&builder).await), (Code::PermissionDenied, Code::PermissionDenied));
    // What no step can leave.
    let device = root::Leaf::new(root::Content::Block(8, 0), root::Attributes::of_root(0o666));
    let device = cache(&blobs, "disk", root::Node::Leaf(device)).await;
    let incomplete = cache(&blobs, "lost", file(b"never uploaded")).await;
    for (tree, code) in [(device, Code::InvalidArgument), (incomplete, Code::FailedPrecondition)] {
        assert_eq!(mounts.publish(&name, tree).await.unwrap_err().code(), code);
    }
    assert_eq!(mounts.take(&name).await.unwrap(), Some(own.0.to_wire()), "what it was stays");
    // What the tenant has, and the worker only knows of.
    let secret = builder.put(b"what the step was not given".to_vec()).await;
    let stolen = cache(&blobs, "stolen", file(b"what the step was not given")).await;
    assert_eq!(mounts.publish(&name, stolen).await.unwrap_err().code(), Code::FailedPrecondition);
    denied(blobs.get(&secret).await);
    // Another tenant's cache of the same name is another one, and what is in this one is not to be had there.
    let others = with_cache(&guarded, "bank");
    let of_bank = intruder.lease().await;
    assert_eq!(of_bank.caches[0].name.as_ref(), Some(&name));
    let bank = intruder.blobs(&of_bank.instance, &of_bank.grant);
    assert_eq!(Mounts::of(&bank).take(&name).await.unwrap(), None);
    denied(bank.get(&SHA256.digest(b"content")).await);
    assert_eq!(Mounts::of(&bank).publish(&name, own).await.unwrap_err().code(), Code::FailedPrecondition);
    // The coordinator is killed in the middle: half of the blobs are there, and the name stands for what it stood for.
    let half = cache(&blobs, "b", file(b"the other half")).await;
    let killed = guarded.clone();
    tokio::task::spawn_blocking(move || {
        killed.farm.restart_coordinator();
        killed.farm.wait_until_up();
    })
    .await
    .unwrap();
    let running = |lease: &v1::Lease| v1::RunningLease {
        lease: lease.lease,
        instance: lease.instance.clone(),
        action_digest: lease.action_digest.clone(),
        digest_function: lease.digest_function,
        reserved: lease.reserved,
        grant: lease.grant.clone(),
    };
    let back = Intruder::with_roots(evil, register(vec![running(&lease), running(&of_bank)])).await.unwrap();
    let blobs = back.blobs(&lease.instance, &lease.grant);
    let mut mounts = Mounts::of(&blobs);
    assert_eq!(mounts.take(&name).await.unwrap(), Some(own.0.to_wire()));
    assert_eq!(blobs.get(&SHA256.digest(b"content")).await.unwrap(), &b"content"[..], "what it has may be read");
    // The new one has received nothing for the lease yet.
    assert_eq!(cache(&blobs, "b", file(b"the other half")).await, half);
    assert_eq!(mounts.publish(&name, half).await.unwrap_err().code(), Code::FailedPrecondition);
    blobs.upload(vec![(SHA256.digest(b"the other half"), Blob::Bytes("the other half".into()))]).await.unwrap();
    mounts.publish(&name, half).await.unwrap();
    assert_eq!(mounts.take(&name).await.unwrap(), Some(half.0.to_wire()));
    // After its end, a lease entitles to nothing.
    back.finish(lease.lease, forged("done")).await;
    let mut back = back;
    back.hear(|message| if let told::Message::FinishedAck(ack) = message { Some(ack.lease) } else { None }).await;
    assert_eq!(mounts.publish(&name, own).await.unwrap_err().code(), Code::PermissionDenied);
    back.finish(of_bank.lease, forged("done")).await;
    for build in [building, others] {
        assert_ne!(build.await.unwrap().code, 0, "a result without a layer is none");
    }
}

/// What becomes of somebody's attempt to serve the agents of a shell.
async fn serves_shell(caller: &Caller, shell: &str) -> Code {
    let answers = tokio_stream::iter([v1::AgentAnswer { shell: shell.to_owned(), ..Default::default() }]);
    let served = SshAgentsClient::new(caller.channel.clone()).serve(answers).await;
    served.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_of_a_shell_reads_its_steps_caches_and_publishes_nothing() {
    let guarded = Arc::new(tokio::task::spawn_blocking(|| Guarded::start(&[])).await.unwrap());
    let evil = connect(&guarded, "evil", &["--role", "worker"]).await;
    let register = v1::Register { worker: "evil".into(), session: b"evil".to_vec(), ..Default::default() };
    let mut intruder = Intruder::with_roots(evil, register).await.unwrap();
    let building = with_cache(&guarded, "shop");
    let lease = intruder.lease().await;
    let name = lease.caches[0].name.clone().unwrap();
    let blobs = intruder.blobs(&lease.instance, &lease.grant);
    blobs.upload(vec![(SHA256.digest(b"content"), Blob::Bytes("content".into()))]).await.unwrap();
    let own = cache(&blobs, "a", file(b"content")).await;
    Mounts::of(&blobs).publish(&name, own).await.unwrap();
    intruder.finish(lease.lease, forged("done")).await;
    assert_ne!(building.await.unwrap().code, 0, "a result without a layer is none");

    let bea = builder(&guarded, "bea", "shop").await;
    let request = v1::ListRequest { limit: 1, ..v1::ListRequest::default() };
    let listed = BuildsClient::new(bea.channel.clone()).list(request).await.unwrap().into_inner();
    let build = BuildsClient::new(bea.channel.clone())
        .get(v1::GetRequest { build: listed.builds[0].id.clone(), ..Default::default() })
        .await
        .unwrap()
        .into_inner();
    let step = build.steps[0].step.clone().unwrap().step;
    let shell = v1::Shell { command: vec!["/true".into()], ..Default::default() };
    let open = v1::OpenShell { build: build.id, step, shell: Some(shell), id: "beas-own".into(), ..Default::default() };
    let opened = async || {
        let first = v1::ShellInput { message: Some(v1::shell_input::Message::Open(open.clone())) };
        let typed = futures::StreamExt::chain(tokio_stream::iter([first]), futures::stream::pending());
        ShellsClient::new(bea.channel.clone()).open(typed).await
    };
    let _shell = opened().await.unwrap();
    let lease = intruder.lease().await;
    assert!(lease.shell.is_some(), "{lease:?}");
    let blobs = intruder.blobs(&lease.instance, &lease.grant);
    let mut mounts = Mounts::of(&blobs);
    assert_eq!(mounts.take(&name).await.unwrap(), Some(own.0.to_wire()));
    assert_eq!(mounts.publish(&name, own).await.unwrap_err().code(), Code::PermissionDenied);
    // Whose it is gives it agents, and nobody else; nor does another shell take its id.
    let (ann, eve) = (builder(&guarded, "ann", "shop").await, builder(&guarded, "eve", "bank").await);
    assert_eq!(serves_shell(&bea, "beas-own").await, Code::Ok);
    assert_eq!(serves_shell(&bea, "other").await, Code::NotFound);
    assert_eq!(serves_shell(&ann, "beas-own").await, Code::PermissionDenied);
    assert_eq!(serves_shell(&eve, "beas-own").await, Code::NotFound);
    assert_eq!(opened().await.unwrap_err().code(), Code::AlreadyExists);
    assert_eq!(keys(&blobs).await, Code::PermissionDenied, "its action mounts no agent");
}

fn join(guarded: &Guarded, more: &[&str]) -> String {
    guarded.make(&[&["token", "more", "--join"], more].concat())
}

/// Starts a worker with a token, and waits until its log contains this.
fn says(guarded: &Guarded, name: &str, token: &str, words: &str) {
    guarded.farm.start_worker_in(&guarded.farm.url, name, &[], &[("KILN_JOIN", token)]);
    until(&format!("`{words}` in the log of `{name}`"), || guarded.farm.log(name).contains(words).then_some(()));
}

#[test]
fn a_join_token_is_for_as_many_workers_and_for_those_names_that_it_says() {
    let guarded = Guarded::start(&[]);
    let once = join(&guarded, &[]);
    says(&guarded, "one", &once, "registered");
    says(&guarded, "two", &once, "has no uses left (1)");
    let brief = join(&guarded, &["--life", "0s"]);
    says(&guarded, "three", &brief, "has expired");
    let arm = join(&guarded, &["--workers", "arm-*", "--uses", "5"]);
    says(&guarded, "x86-1", &arm, "is for workers named `arm-*`");
    // A name that belongs to another worker, although that one is away at the moment.
    guarded.farm.kill_worker("one");
    let state = guarded.farm.dir.path().join("one/membership");
    std::fs::rename(&state, guarded.farm.dir.path().join("kept")).unwrap();
    let many = join(&guarded, &["--uses", "unlimited"]);
    let log = guarded.farm.dir.path().join("one.log");
    std::fs::remove_file(&log).unwrap();
    says(&guarded, "one", &many, "belongs to another worker");
    // The name's own worker returns.
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(guarded.farm.dir.path().join("kept"), &state).unwrap();
    std::fs::remove_file(&log).unwrap();
    says(&guarded, "one", "", "registered");
    // Once it is revoked, its name is free.
    let serial = guarded.farm.kiln(&["farm", "list", "--json"]);
    let members: serde_json::Value = serde_json::from_str(&serial.out).unwrap();
    let of_one = |member: &&serde_json::Value| member["name"] == "one" && member["serial"] != "";
    let serial = members.as_array().unwrap().iter().find(of_one).unwrap()["serial"].as_str().unwrap();
    guarded.farm.kill_worker("one");
    well(guarded.farm.kiln(&["farm", "revoke", "--serial", serial]));
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::remove_file(&log).unwrap();
    says(&guarded, "one", &many, "registered");
}

#[test]
fn a_token_binds_its_workers_to_a_tenant_and_a_pool() {
    let guarded = Guarded::start(&[]);
    let token = join(&guarded, &["--tenant", "shop", "--pool", "fast"]);
    let file = guarded.farm.dir.path().join("token");
    std::fs::write(&file, format!("{token}\n")).unwrap();
    guarded.farm.start_worker_with("bound", &["--join-file", file.to_str().unwrap()]);
    guarded.farm.wait_for_worker("bound");
    assert!(!guarded.farm.log("bound").contains("on the command line"));
    let build = |name: &str, tenant: &str, dir: &Path| {
        let made = certificate(&guarded.dir(), name, &["--role", "builder", "--tenant", tenant]);
        Ran::from(guarded.as_other(access(&guarded.dir(), Some(&made)), &["build", dir.to_str().unwrap()]))
    };
    let dir = project(&[("kiln.toml", PROJECT)]);
    let refused = build("bob", "bank", dir.path());
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("bound to other tenants"), "{refused:?}");
    assert_eq!(build("ann", "shop", dir.path()).code, 0);
    let workers = guarded.farm.workers();
    assert_eq!(workers[0]["environment"]["labels"]["pool"], "fast", "{workers:?}");
    // It cannot claim to belong to another tenant.
    guarded.farm.kill_worker("bound");
    guarded.farm.start_worker_with("bound", &["--tenant", "bank"]);
    until("the worker to be refused", || guarded.farm.log("bound").contains("is bound to tenant `shop`").then_some(()));
    // A token on the command line causes a warning.
    let open = join(&guarded, &[]);
    guarded.farm.start_worker_with("loud", &["--join", &open]);
    until("a warning", || guarded.farm.log("loud").contains("on the command line").then_some(()));
}
