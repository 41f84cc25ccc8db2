//! Who made a result or wrote it, and when it was recorded, in the result's metadata.

use std::collections::BTreeMap;
use std::time::SystemTime;

use crate::protobuf::Any;
use crate::{calls, clock, reapi, v1};
use prost::Message;

/// The type's name in the metadata.
const TYPE: &str = "type.googleapis.com/kiln.v1.Recorded";

/// What a maker's name begins with that is a client. No worker's name has a space.
const CLIENT: &str = "client ";

/// The name of a client among makers.
pub fn of_client(name: &str) -> String {
    format!("{CLIENT}{name}")
}

/// The client's name, if a maker is one.
pub fn client(maker: &str) -> Option<&str> {
    maker.strip_prefix(CLIENT)
}

/// Notes in a result's metadata that it is recorded at this time, in place of what it says of that. Which client wrote it stays.
pub fn record(metadata: &mut reapi::ExecutedActionMetadata, at: SystemTime) {
    let client = noted(metadata).map(|noted| noted.client).unwrap_or_default();
    note(metadata, &v1::Recorded { at: Some(clock::timestamp(at)), client });
}

/// Notes in a result's metadata that this client wrote it, in place of what it says of that.
pub fn written_by(metadata: &mut reapi::ExecutedActionMetadata, client: &str) {
    note(metadata, &v1::Recorded { at: None, client: client.to_owned() });
}

/// When a result was recorded; `None` if its metadata does not say.
pub fn recorded(metadata: &reapi::ExecutedActionMetadata) -> Option<SystemTime> {
    clock::read_timestamp(&noted(metadata)?.at?)
}

/// The client that wrote a result; `None` if the farm ran it.
pub fn writer(metadata: &reapi::ExecutedActionMetadata) -> Option<String> {
    noted(metadata).map(|noted| noted.client).filter(|client| !client.is_empty())
}

fn noted(metadata: &reapi::ExecutedActionMetadata) -> Option<v1::Recorded> {
    let found = metadata.auxiliary_metadata.iter().find(|any| any.type_url == TYPE)?;
    v1::Recorded::decode(found.value.as_slice()).ok()
}

fn note(metadata: &mut reapi::ExecutedActionMetadata, noted: &v1::Recorded) {
    metadata.auxiliary_metadata.retain(|any| any.type_url != TYPE);
    metadata.auxiliary_metadata.push(Any { type_url: TYPE.to_owned(), value: noted.encode_to_vec() });
}

/// When the first and the last of several results were recorded; `None` if one of them does not say.
pub type Times = Option<(SystemTime, SystemTime)>;

/// The workers that a result is owed to, each with when what it made was recorded: the one that ran the action, and those whose results of
/// calls it has used; and the client that wrote it ([`of_client`]).
pub fn makers(metadata: &reapi::ExecutedActionMetadata) -> BTreeMap<String, Times> {
    let mut makers = BTreeMap::new();
    let own = recorded(metadata).map(|at| (at, at));
    if !metadata.worker.is_empty() {
        add(&mut makers, &metadata.worker, own);
    }
    if let Some(client) = writer(metadata) {
        add(&mut makers, &of_client(&client), own);
    }
    for maker in calls::of(metadata).map(|calls| calls.makers).unwrap_or_default() {
        let time = |at: &Option<_>| at.as_ref().and_then(clock::read_timestamp);
        add(&mut makers, &maker.worker, time(&maker.first).zip(time(&maker.last)));
    }
    makers
}

/// Notes that a worker made something else, too.
pub fn add(makers: &mut BTreeMap<String, Times>, worker: &str, times: Times) {
    let known = makers.entry(worker.to_owned()).or_insert(times);
    *known = known.zip(times).map(|((first, last), (other, later))| (first.min(other), last.max(later)));
}

/// As the farm tells it.
pub fn to_wire(makers: &BTreeMap<String, Times>) -> Vec<v1::Maker> {
    let one = |(worker, times): (&String, &Times)| v1::Maker {
        worker: worker.clone(),
        first: times.map(|(first, _)| clock::timestamp(first)),
        last: times.map(|(_, last)| clock::timestamp(last)),
    };
    makers.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_result_was_recorded_when_it_was_recorded_last() {
        let mut metadata = reapi::ExecutedActionMetadata { worker: "one".to_owned(), ..Default::default() };
        assert_eq!(recorded(&metadata), None);
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        record(&mut metadata, SystemTime::UNIX_EPOCH);
        record(&mut metadata, at);
        assert_eq!(recorded(&metadata), Some(at));
        assert_eq!(metadata.auxiliary_metadata.len(), 1);
    }

    #[test]
    fn a_result_is_owed_to_the_client_that_wrote_it_whatever_it_says_itself() {
        let mut metadata = reapi::ExecutedActionMetadata { worker: "one".to_owned(), ..Default::default() };
        assert_eq!(writer(&metadata), None);
        written_by(&mut metadata, "somebody else");
        written_by(&mut metadata, "ci");
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        record(&mut metadata, at);
        assert_eq!((writer(&metadata).as_deref(), recorded(&metadata)), (Some("ci"), Some(at)));
        let expected = [("client ci", Some((at, at))), ("one", Some((at, at)))];
        assert_eq!(makers(&metadata), expected.map(|(maker, times)| (maker.to_owned(), times)).into());
        assert_eq!((client("client ci"), client("ci")), (Some("ci"), None));
    }

    #[test]
    fn a_result_is_owed_to_its_worker_and_to_those_that_made_its_calls() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let mut metadata = reapi::ExecutedActionMetadata { worker: "one".to_owned(), ..Default::default() };
        let mut calls = BTreeMap::new();
        add(&mut calls, "two", Some((at(3), at(3))));
        add(&mut calls, "two", Some((at(1), at(1))));
        add(&mut calls, "three", None);
        add(&mut calls, "three", Some((at(1), at(1))));
        calls::add(&mut metadata, &v1::SplitCalls { makers: to_wire(&calls), ..Default::default() });
        record(&mut metadata, at(9));
        let expected = [("one", Some((at(9), at(9)))), ("three", None), ("two", Some((at(1), at(3))))];
        assert_eq!(makers(&metadata), expected.map(|(worker, times)| (worker.to_owned(), times)).into());
        assert!(makers(&reapi::ExecutedActionMetadata::default()).is_empty());
    }
}
