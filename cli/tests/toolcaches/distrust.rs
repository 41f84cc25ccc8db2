//! Entries whose writer is not to be believed.

use kiln_harness::Ran;
use kiln_harness::guarded::well;
use kiln_proto::channel::{self, Access};
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi;
use kiln_proto::reapi::action_cache_client::ActionCacheClient;
use kiln_proto::transfer::{Blob, Client};
use prost::Message;

use crate::world::World;

const KEY: &str = "0123456789abcdef0123456789abcdef01234567";

/// The status of a request for an entry of Gradle's; with a body, it is stored.
async fn gradle(world: &World, caller: &str, key: &str, body: Option<&str>) -> u16 {
    let (client, url) = (reqwest::Client::new(), format!("{}/gradle/{key}", world.root));
    let request = match body {
        Some(body) => client.put(url).body(body.to_owned()),
        None => client.get(url),
    };
    request.bearer_auth(world.token(caller)).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_distrusted_client_wrote_is_used_by_nobody_until_it_is_trusted_and_writes_again() {
    let world = World::start();
    let other = KEY.replace('0', "f");
    assert_eq!(gradle(&world, "writer", KEY, Some("wrong")).await, 200);
    assert_eq!(gradle(&world, "admin", &other, Some("right")).await, 200);
    let file = world.farm.dir.path().join("writer.token");
    std::fs::write(&file, world.token("writer")).unwrap();
    let access = Access { token_file: Some(file), ..Access::default() };
    let channel = channel::connect(&world.farm.url, &access).await.unwrap();
    let blobs = Client::new(channel.clone(), "", DigestFunction::Sha256);
    let command = reapi::Command { arguments: vec!["true".into()], ..Default::default() }.encode_to_vec();
    let command_digest = Some(DigestFunction::Sha256.digest(&command).to_wire());
    let action = reapi::Action { command_digest, ..Default::default() }.encode_to_vec();
    let digest = DigestFunction::Sha256.digest(&action);
    let stored = [command, action].map(|data| (DigestFunction::Sha256.digest(&data), Blob::Bytes(data.into())));
    blobs.upload(stored.into()).await.unwrap();
    let mut actions = ActionCacheClient::new(channel.clone());
    // Whoever it says has made it, it is owed to its writer.
    let metadata = reapi::ExecutedActionMetadata { worker: "somebody".into(), ..Default::default() };
    let update = reapi::UpdateActionResultRequest {
        action_digest: Some(digest.to_wire()),
        action_result: Some(reapi::ActionResult { execution_metadata: Some(metadata), ..Default::default() }),
        ..Default::default()
    };
    actions.update_action_result(update.clone()).await.unwrap();
    let known = async || {
        let ask = reapi::GetActionResultRequest { action_digest: Some(digest.to_wire()), ..Default::default() };
        match ActionCacheClient::new(channel.clone()).get_action_result(ask).await {
            Ok(_) => true,
            Err(status) if status.code() == tonic::Code::NotFound => false,
            Err(status) => panic!("{status}"),
        }
    };
    assert!(known().await && gradle(&world, "reader", KEY, None).await == 200);

    let operate = |arguments: &[&str]| {
        let mut command = world.farm.command(arguments);
        command.env("KILN_TOKEN", world.token("operator"));
        tokio::task::block_in_place(|| Ran::from(command))
    };
    let distrust =
        |more: &[&str]| operate(&[&["farm", "distrust", "--client", "writer", "--since", "1h"], more].concat());
    well(distrust(&["--dry-run"]));
    assert!(known().await && gradle(&world, "reader", KEY, None).await == 200, "nothing was changed");
    let said = distrust(&[]);
    assert!(said.code == 0 && said.err.contains("`writer` is distrusted: what it wrote"), "{said:?}");
    assert!(!known().await && gradle(&world, "reader", KEY, None).await == 404);
    assert_eq!(gradle(&world, "reader", &other, None).await, 200, "others' entries stay");
    // What it writes now does not count either.
    gradle(&world, "writer", KEY, Some("wrong again")).await;
    actions.update_action_result(update.clone()).await.unwrap();
    assert!(!known().await && gradle(&world, "reader", KEY, None).await == 404);
    let listed = operate(&["farm", "list"]);
    assert!(listed.out.contains("distrusted client"), "{listed:?}");

    well(operate(&["farm", "trust", "--client", "writer"]));
    assert!(!known().await && gradle(&world, "reader", KEY, None).await == 404, "what it wrote then never counts");
    assert_eq!(gradle(&world, "writer", KEY, Some("right")).await, 200);
    actions.update_action_result(update).await.unwrap();
    assert!(known().await && gradle(&world, "reader", KEY, None).await == 200);
    let unknown = operate(&["farm", "distrust", "--client", "nobody", "--since", "1h"]);
    assert!(unknown.code != 0 && unknown.err.contains("`--unknown` distrusts it anyway"), "{unknown:?}");
}
