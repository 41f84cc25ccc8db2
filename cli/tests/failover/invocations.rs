//! What Bazel asks of a coordinator that does not lead is on its invocation's page.

use kiln_harness::remote;
use kiln_harness::replicas::Replicas;
use kiln_harness::until;
use kiln_proto::bes::build_event::Event;
use kiln_proto::bes::publish_build_event_client::PublishBuildEventClient;
use kiln_proto::bes::{self, PublishBuildToolEventStreamRequest as Sent};
use kiln_proto::build_events::build_event::Payload;
use kiln_proto::build_events::{BuildEvent, BuildStarted};
use kiln_proto::digest::DigestFunction;
use kiln_proto::reapi::action_cache_client::ActionCacheClient;
use kiln_proto::reapi::{GetActionResultRequest, RequestMetadata};
use kiln_proto::v1::InvocationActionsRequest;
use kiln_proto::v1::invocations_client::InvocationsClient;
use prost::Message;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Request;
use tonic::metadata::MetadataValue;

const ID: &str = "6dd0dd6c-0000-4000-8000-0000000000bb";

fn started() -> Sent {
    let started = BuildStarted { command: "build".into(), start_time_millis: 1_790_000_000_000, ..Default::default() };
    let event = BuildEvent { payload: Some(Payload::Started(started)), ..Default::default() };
    let any = prost_types::Any { type_url: "build_event_stream.BuildEvent".into(), value: event.encode_to_vec() };
    let event = bes::BuildEvent { event: Some(Event::BazelEvent(any)), event_time: None };
    let stream_id = bes::StreamId { invocation_id: ID.into(), ..Default::default() };
    let ordered = bes::OrderedBuildEvent { stream_id: Some(stream_id), sequence_number: 1, event: Some(event) };
    Sent { ordered_build_event: Some(ordered), ..Default::default() }
}

#[test]
fn a_hit_that_a_follower_answers_is_among_the_actions_of_its_invocation() {
    let Some(farm) = Replicas::start(&["ada", "ben"], &["one"]) else { return };
    let leader = farm.leader().unwrap();
    let other = farm.names().into_iter().find(|name| *name != leader).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (caller, action, _events) = runtime.block_on(async {
        let caller = remote::caller_of(&farm.url_of(&other), DigestFunction::Sha256).await;
        let action = caller.action(remote::shell("echo known > out", &["out"]), &[], |_| ()).await;
        assert_eq!(remote::code(&caller.execute(&action).await), tonic::Code::Ok);
        // The invocation begins: what it asks for from now on belongs to it.
        let (sender, receiver) = tokio::sync::mpsc::channel(4);
        sender.send(started()).await.unwrap();
        let mut bes = PublishBuildEventClient::new(caller.channel.clone());
        let mut answers =
            bes.publish_build_tool_event_stream(ReceiverStream::new(receiver)).await.unwrap().into_inner();
        assert_eq!(answers.message().await.unwrap().unwrap().sequence_number, 1);
        let mut request =
            Request::new(GetActionResultRequest { action_digest: Some(action.to_wire()), ..Default::default() });
        let metadata = RequestMetadata { tool_invocation_id: ID.into(), ..Default::default() };
        let metadata = MetadataValue::from_bytes(&metadata.encode_to_vec());
        request.metadata_mut().insert_bin("build.bazel.remote.execution.v2.requestmetadata-bin", metadata);
        ActionCacheClient::new(caller.channel.clone()).get_action_result(request).await.unwrap();
        (caller, action, (sender, answers))
    });
    let hit = until("the hit to be among its actions", || {
        let request = InvocationActionsRequest { id: ID.into(), from: 0 };
        let mut invocations = InvocationsClient::new(caller.channel.clone());
        let found = runtime.block_on(async { invocations.actions(request).await }).ok()?;
        found.into_inner().actions.into_iter().next()
    });
    assert!(hit.is_hit && hit.action == Some(action.to_wire()) && hit.output == "out", "{hit:?}");
    assert_eq!(farm.leader(), Some(leader));
}
