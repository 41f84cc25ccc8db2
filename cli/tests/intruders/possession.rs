//! Workers that name in results what they do not have, or want to show it by other means than having it.

use kiln_harness::guarded::Guarded;
use kiln_harness::remote::{Caller, shell};
use kiln_harness::{Farm, project};
use kiln_proto::digest::Digest;
use kiln_proto::possession::{Challenge, Named};
use kiln_proto::reapi::action_cache_client::ActionCacheClient;
use kiln_proto::transfer::{Blob, LeaseChannel};
use kiln_proto::v1::coordinator_message as told;
use kiln_proto::v1::possession_client::PossessionClient;
use kiln_proto::{calls, reapi, v1};
use kiln_trees::{Entry, Tree};
use prost::Message;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

use super::{Intruder, SHA256, builder, connect, denied, forged};

const SECRET: &[u8] = b"what another project of the tenant made";

/// What a lease's worker shows.
struct Shows {
    client: PossessionClient<LeaseChannel>,
    challenge: Challenge,
}

impl Shows {
    fn of(intruder: &Intruder, lease: &v1::Lease) -> Self {
        let blobs = intruder.blobs(&lease.instance, &lease.grant);
        let challenge =
            Challenge::from_wire(&lease.challenge).expect("a challenge for a worker that shows what it has");
        Self { client: PossessionClient::new(blobs.channel()), challenge }
    }

    async fn ask(&mut self, blobs: &[Digest]) -> (Vec<u32>, Vec<u32>) {
        let request = v1::AskPossessionRequest { blobs: blobs.iter().map(Digest::to_wire).collect() };
        let left = self.client.ask(request).await.unwrap().into_inner();
        (left.send, left.show)
    }

    async fn show(&mut self, blob: &Digest, proof: &[u8]) -> Result<Vec<u32>, Status> {
        let blobs = vec![v1::ShownBlob { blob: Some(blob.to_wire()), proof: proof.to_vec() }];
        let request = v1::ShowPossessionRequest { blobs, named: None };
        Ok(self.client.show(request).await?.into_inner().send)
    }

    async fn seal(&mut self, result: &reapi::ActionResult) -> Result<Vec<u8>, Status> {
        let named = Some(Named::of(SHA256, result).unwrap().to_wire());
        let request = v1::ShowPossessionRequest { blobs: Vec::new(), named };
        Ok(self.client.show(request).await?.into_inner().seal)
    }
}

/// An action that waits for its result, until this is dropped.
async fn waits_for(caller: &Caller, salt: &str) -> (Digest, AbortOnDropHandle<reapi::ExecuteResponse>) {
    let action = caller.action(shell(&format!("echo {salt} > out"), &["out"]), &[], |_| ()).await;
    let caller = Caller { function: SHA256, channel: caller.channel.clone(), blobs: caller.blobs.clone() };
    (action, AbortOnDropHandle::new(tokio::spawn(async move { caller.execute(&action).await })))
}

async fn cached(caller: &Caller, action: &Digest) -> Option<reapi::ActionResult> {
    let request = reapi::GetActionResultRequest { action_digest: Some(action.to_wire()), ..Default::default() };
    match ActionCacheClient::new(caller.channel.clone()).get_action_result(request).await {
        Ok(found) => Some(found.into_inner()),
        Err(status) if status.code() == Code::NotFound => None,
        Err(status) => panic!("{status}"),
    }
}

fn file(digest: &Digest) -> reapi::ActionResult {
    let file = reapi::OutputFile { path: "out".into(), digest: Some(digest.to_wire()), ..Default::default() };
    reapi::ActionResult { output_files: vec![file], ..Default::default() }
}

fn directory(tree: Option<&Digest>, root: Option<&Digest>) -> reapi::ActionResult {
    let directory = reapi::OutputDirectory {
        path: "out".into(),
        tree_digest: tree.map(Digest::to_wire),
        root_directory_digest: root.map(Digest::to_wire),
        ..Default::default()
    };
    reapi::ActionResult { output_directories: vec![directory], ..Default::default() }
}

fn with(result: reapi::ActionResult) -> reapi::ExecuteResponse {
    let mut response = forged("");
    let metadata = response.result.take().and_then(|result| result.execution_metadata);
    let execution_metadata = result.execution_metadata.clone().or(metadata);
    response.result = Some(reapi::ActionResult { execution_metadata, ..result });
    response
}

/// A directory with the secret, and a `Tree` of it.
fn around(secret: &Digest) -> [(Digest, Blob); 2] {
    let mut tree = Tree::default();
    tree.insert("stolen", Entry::file(*secret, false)).unwrap();
    let mut messages = Vec::new();
    tree.encode(SHA256, &mut |encoded| messages.push(encoded.data));
    let root = reapi::Directory::decode(messages[0].as_slice()).unwrap();
    messages.push(reapi::Tree { root: Some(root), ..Default::default() }.encode_to_vec());
    [0, 1].map(|at| (SHA256.digest(&messages[at]), Blob::Bytes(messages[at].clone().into())))
}

async fn guarded() -> (Guarded, Caller, Intruder) {
    let guarded = tokio::task::spawn_blocking(|| Guarded::start(&[])).await.unwrap();
    let shop = builder(&guarded, "ann", "shop").await;
    let evil = connect(&guarded, "evil", &["--role", "worker"]).await;
    let register = v1::Register {
        worker: "evil".into(),
        session: b"evil".to_vec(),
        tenants: vec!["shop".into()],
        ..Default::default()
    };
    let intruder = Intruder::register(evil, register).await.unwrap();
    (guarded, shop, intruder)
}

/// A lease of an action of this caller, which waits for its result.
async fn lease(
    intruder: &mut Intruder,
    caller: &Caller,
    salt: &str,
) -> (v1::Lease, Digest, AbortOnDropHandle<reapi::ExecuteResponse>) {
    let (action, waiting) = waits_for(caller, salt).await;
    loop {
        let told = intruder.hear(|message| match message {
            told::Message::Lease(lease) => Some(Ok(lease)),
            told::Message::Cancel(cancel) => Some(Err(cancel.lease)),
            _ => None,
        });
        match told.await {
            Ok(lease) if lease.action_digest == Some(action.to_wire()) => return (lease, action, waiting),
            // An earlier action, which nobody else can run and nobody waits for: its place is to be free again.
            Ok(v1::Lease { lease, .. }) | Err(lease) => intruder.finish(lease, reapi::ExecuteResponse::default()).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_knows_a_digest_cannot_make_it_a_result() {
    let (guarded, shop, mut intruder) = guarded().await;
    let secret = shop.put(SECRET.to_vec()).await;
    let [root, tree] = around(&secret);
    shop.blobs.upload(vec![root.clone(), tree.clone()]).await.unwrap();
    let mut keys = reapi::ExecutedActionMetadata::default();
    calls::add(&mut keys, &v1::SplitCalls { keys: Some(secret.to_wire()), ..Default::default() });
    let printed = |digest: &Digest| reapi::ActionResult { stdout_digest: Some(digest.to_wire()), ..Default::default() };
    let own_directory = [root.clone()].to_vec();
    let own_tree = [tree.clone()].to_vec();
    let lies = [
        ("a file", file(&secret), vec![]),
        ("what was printed", printed(&secret), vec![]),
        (
            "what was printed as an error",
            reapi::ActionResult { stderr_digest: Some(secret.to_wire()), ..Default::default() },
            vec![],
        ),
        ("a list of calls", reapi::ActionResult { execution_metadata: Some(keys), ..Default::default() }, vec![]),
        ("a directory that the farm has", directory(None, Some(&root.0)), vec![]),
        ("a tree that the farm has", directory(Some(&tree.0), None), vec![]),
        ("a directory of its own", directory(None, Some(&root.0)), own_directory),
        ("a tree of its own", directory(Some(&tree.0), None), own_tree),
        ("a failure", reapi::ActionResult { exit_code: 1, ..file(&secret) }, vec![]),
    ];
    for (at, (what, result, sends)) in lies.into_iter().enumerate() {
        let (lease, action, waiting) = lease(&mut intruder, &shop, &format!("{at}")).await;
        intruder.blobs(&lease.instance, &lease.grant).send_whole(sends).await.unwrap();
        let refused = Shows::of(&intruder, &lease).seal(&result).await.unwrap_err();
        assert_eq!(refused.code(), Code::FailedPrecondition, "{what}: {refused}");
        intruder.finish_with(lease.lease, with(result.clone()), b"no seal").await;
        intruder.acknowledged(lease.lease).await;
        assert!(!waiting.is_finished(), "expected {what} to be no result of anything");
        assert_eq!(cached(&shop, &action).await, None, "{what}");
        drop(waiting);
    }
    let log = guarded.farm.log("coordinator");
    assert!(log.contains("names what its worker has not shown to have"), "{log}");

    // Whoever has it may name it, and another worker does what this one did not.
    let (lease, action, waiting) = lease(&mut intruder, &shop, "honest").await;
    let blobs = intruder.blobs(&lease.instance, &lease.grant);
    denied(blobs.get(&secret).await);
    let [root, tree] = around(&secret);
    let secret = (secret, Blob::Bytes(SECRET.into()));
    blobs.send_whole(vec![root.clone(), tree.clone(), secret]).await.unwrap();
    let both = directory(Some(&tree.0), Some(&root.0));
    let seal = Shows::of(&intruder, &lease).seal(&both).await.unwrap();
    intruder.finish_with(lease.lease, with(both.clone()), &seal).await;
    assert_eq!(waiting.await.unwrap().result.unwrap().output_directories, both.output_directories);
    assert!(cached(&shop, &action).await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_is_shown_by_having_it_while_the_lease_lasts_and_by_nothing_else() {
    let (_guarded, shop, mut intruder) = guarded().await;
    let secret = shop.put(SECRET.to_vec()).await;
    let (first, ..) = lease(&mut intruder, &shop, "first").await;
    let mut shows = Shows::of(&intruder, &first);
    assert_eq!(shows.ask(&[secret, SHA256.digest(b"new")]).await, (vec![1], vec![0]));
    let old = shows.challenge.prove(SECRET).to_wire();
    // A proof of another length is a mistake, and no lie.
    assert_eq!(shows.show(&secret, &old[1..]).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(shows.show(&secret, &old).await.unwrap(), Vec::<u32>::new());
    assert_eq!(shows.ask(&[secret]).await, (vec![], vec![]));
    let sealed = shows.seal(&file(&secret)).await.unwrap();

    let of_digest = Challenge::of(secret.hash).prove(SECRET).to_wire();
    let lies = [
        ("an earlier answer", old),
        ("its digest", secret.hash.to_vec()),
        ("a proof without the challenge", of_digest),
    ];
    for (what, lie) in lies {
        let (lease, action, waiting) = lease(&mut intruder, &shop, what).await;
        assert_ne!(lease.challenge, first.challenge, "expected a challenge for each lease");
        let mut shows = Shows::of(&intruder, &lease);
        let refused = shows.show(&secret, &lie).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{what}: {refused}");
        // Nothing that it shows afterwards counts, nor what it has made.
        let right = shows.challenge.prove(SECRET).to_wire();
        assert_eq!(shows.show(&secret, &right).await.unwrap_err().code(), Code::PermissionDenied);
        let empty = reapi::ActionResult::default();
        assert_eq!(shows.seal(&empty).await.unwrap_err().code(), Code::PermissionDenied);
        intruder.finish_with(lease.lease, with(empty), &sealed).await;
        intruder.acknowledged(lease.lease).await;
        assert!(!waiting.is_finished());
        assert_eq!(cached(&shop, &action).await, None, "{what}");
    }
    // Nor is a seal good for another lease, or for another result.
    for result in [file(&secret), file(&SHA256.digest(b"new"))] {
        let (lease, action, waiting) = lease(&mut intruder, &shop, "another's seal").await;
        intruder.finish_with(lease.lease, with(result), &sealed).await;
        intruder.acknowledged(lease.lease).await;
        assert!(!waiting.is_finished());
        assert_eq!(cached(&shop, &action).await, None);
        drop(waiting);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_with_leases_of_two_tenants_show_nothing_for_each_other() {
    let (guarded, shop, mut intruder) = guarded().await;
    let bank = builder(&guarded, "eve", "bank").await;
    let secret = shop.put(SECRET.to_vec()).await;
    // The other tenant has the same bytes, and the accomplice gets them with its lease.
    let input = [("in", std::str::from_utf8(SECRET).unwrap())];
    let action = bank.action(shell("true", &[]), &input, |_| ()).await;
    let channel = connect(&guarded, "accomplice", &["--role", "worker"]).await;
    let register = v1::Register { worker: "accomplice".into(), tenants: vec!["bank".into()], ..Default::default() };
    let mut accomplice = Intruder::register(channel, register).await.unwrap();
    let _banks = AbortOnDropHandle::new(tokio::spawn(async move { bank.execute(&action).await }));
    let of_bank = accomplice.lease().await;
    let content = accomplice.blobs(&of_bank.instance, &of_bank.grant).get(&secret).await.unwrap();
    let mut theirs = Shows::of(&accomplice, &of_bank);
    assert_eq!(theirs.ask(&[secret]).await, (vec![], vec![]), "what its own lease gave it, it may name");
    let seal = theirs.seal(&file(&secret)).await.unwrap();

    // A seal for one lease is none for the other, and nor is what proves it for one.
    let (of_shop, action, waiting) = lease(&mut intruder, &shop, "a seal").await;
    intruder.finish_with(of_shop.lease, with(file(&secret)), &seal).await;
    intruder.acknowledged(of_shop.lease).await;
    assert!(!waiting.is_finished());
    assert_eq!(cached(&shop, &action).await, None);
    drop(waiting);
    let (of_shop, ..) = lease(&mut intruder, &shop, "a proof").await;
    let proof = theirs.challenge.prove(&content).to_wire();
    let refused = Shows::of(&intruder, &of_shop).show(&secret, &proof).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
    // Nor does either present the other's lease.
    let stranger = accomplice.blobs(&of_shop.instance, &of_shop.grant);
    let mut stranger = Shows { client: PossessionClient::new(stranger.channel()), challenge: theirs.challenge };
    assert_eq!(stranger.seal(&file(&secret)).await.unwrap_err().code(), Code::PermissionDenied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sealed_result_counts_after_a_restart_and_an_older_worker_sends_what_it_names() {
    let (guarded, shop, mut intruder) = guarded().await;
    let guarded = std::sync::Arc::new(guarded);
    let secret = shop.put(SECRET.to_vec()).await;
    let older = connect(&guarded, "older", &["--role", "worker"]).await;
    let (sealed, _, _sealed) = lease(&mut intruder, &shop, "sealed").await;
    let (unsealed, _, _unsealed) = lease(&mut intruder, &shop, "unsealed").await;
    let mut seals = Vec::new();
    for lease in [&sealed, &unsealed] {
        let mut shows = Shows::of(&intruder, lease);
        let proof = shows.challenge.prove(SECRET).to_wire();
        shows.show(&secret, &proof).await.unwrap();
        seals.push(shows.seal(&file(&secret)).await.unwrap());
    }
    let killed = guarded.clone();
    let restart = move || {
        killed.farm.restart_coordinator();
        killed.farm.wait_until_up();
    };
    tokio::task::spawn_blocking(restart).await.unwrap();
    let running = |lease: &v1::Lease| v1::RunningLease {
        lease: lease.lease,
        instance: lease.instance.clone(),
        action_digest: lease.action_digest.clone(),
        digest_function: lease.digest_function,
        reserved: lease.reserved,
        grant: lease.grant.clone(),
    };
    let running = vec![running(&sealed), running(&unsealed)];
    let register = v1::Register { worker: "evil".into(), session: b"evil".to_vec(), running, ..Default::default() };
    let mut back = Intruder::register(intruder.channel.clone(), register).await.unwrap();
    // The new coordinator has seen neither the blob nor a proof.
    back.finish_with(sealed.lease, with(file(&secret)), &seals[0]).await;
    back.acknowledged(sealed.lease).await;
    let found = |lease: &v1::Lease| Digest::required(SHA256, lease.action_digest.as_ref()).unwrap();
    assert_eq!(cached(&shop, &found(&sealed)).await.unwrap().output_files, file(&secret).output_files);
    back.finish(unsealed.lease, with(file(&secret))).await;
    back.acknowledged(unsealed.lease).await;
    assert_eq!(cached(&shop, &found(&unsealed)).await, None);
    drop(back);

    let register = v1::Register { worker: "older".into(), ..Default::default() };
    let environment = Some(v1::Environment { isa: "x86-64".into(), ..Default::default() });
    let mut older = Intruder::link(older, v1::Register { environment, ..register }).await.unwrap();
    let (lease, _, waiting) = lease(&mut older, &shop, "older").await;
    assert!(lease.challenge.is_empty(), "expected no challenge for a worker that does not know what one is");
    let blobs = older.blobs(&lease.instance, &lease.grant);
    assert!(blobs.find_missing(&[secret]).await.unwrap().contains(&secret), "what it has not sent, it is to send");
    blobs.upload(vec![(secret, Blob::Bytes(SECRET.into()))]).await.unwrap();
    assert!(blobs.find_missing(&[secret]).await.unwrap().is_empty());
    older.finish(lease.lease, with(file(&secret))).await;
    assert_eq!(waiting.await.unwrap().result.unwrap().output_files, file(&secret).output_files);
}

#[test]
fn an_honest_worker_shows_what_the_farm_has_without_sending_it() {
    let listen = ["--metrics-listen", "127.0.0.1:0"];
    let farm = Farm::with(&listen, &[]);
    farm.start_worker("one");
    farm.wait_for_worker("one");
    let config = |name: &str| {
        let run = format!(
            "mkdir out; yes kiln | head -c 3000000 > out/large; for n in $(seq 200); do yes $n | head -c 1000 > out/$n; done; : {name}"
        );
        format!(
            "name = \"{name}\"\n[steps.make]\nrun = \"\"\"{run}\"\"\"\noutputs = [\"out\"]\n[artifacts.out]\nfrom = \"make\"\nfiles = [\"out\"]\nkind = \"archive\"\n"
        )
    };
    let sum = |words: &str| {
        let log = farm.log("coordinator");
        let line = log.lines().find(|line| line.contains("serving metrics and health")).unwrap();
        let samples = kiln_harness::http::samples(line.split("address=").nth(1).unwrap().trim());
        let values = samples.iter().filter(|sample| sample.starts_with(words));
        values.map(|value| value.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum::<u64>()
    };
    let received = || sum("kiln_grpc_received_bytes_total");
    let shown = || sum("kiln_grpc_calls_total{service=\"kiln.v1.Possession\",method=\"Show\"");
    let build = |name: &str| {
        let dir = project(&[("kiln.toml", &config(name))]);
        let (bytes, shows) = (received(), shown());
        farm.build(dir.path(), &[]).well();
        (received() - bytes, shown() - shows)
    };
    let (bytes, _) = build("one");
    assert!(bytes > 3_200_000, "expected the first to send what it made, found {bytes} bytes");
    let (bytes, shows) = build("two");
    assert!(bytes < 400_000 && shows > 1, "expected nothing to be sent twice, found {bytes} bytes and {shows} shows");
}
