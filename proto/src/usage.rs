//! What a run of an action used, as a part of its result's metadata, and how often that is told while it runs.

use std::time::Duration;

use crate::protobuf::Any;
use crate::{reapi, v1};
use prost::Message;

/// The type's name in the metadata.
const TYPE: &str = "type.googleapis.com/kiln.v1.Usage";

/// Adds what a run used to its metadata.
pub fn add(metadata: &mut reapi::ExecutedActionMetadata, usage: &v1::Usage) {
    metadata.auxiliary_metadata.push(Any { type_url: TYPE.to_owned(), value: usage.encode_to_vec() });
}

/// What a run used, if its metadata says so.
pub fn of(metadata: &reapi::ExecutedActionMetadata) -> Option<v1::Usage> {
    let found = metadata.auxiliary_metadata.iter().find(|any| any.type_url == TYPE)?;
    v1::Usage::decode(found.value.as_slice()).ok()
}

/// How long it takes until it is told again what a run uses that has lasted so many milliseconds. What is told of a run of any length is little.
pub fn pause(run_ms: u64) -> Duration {
    Duration::from_millis(1000.max(run_ms / 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_a_week_is_told_of_less_than_a_thousand_times() {
        let (mut at, mut times) = (0, 0);
        while at < 7 * 86_400_000 {
            at += pause(at).as_millis() as u64;
            times += 1;
        }
        assert!((500..1000).contains(&times), "{times}");
    }

    #[test]
    fn what_was_used_is_found_in_the_metadata_that_it_was_added_to() {
        let mut metadata = reapi::ExecutedActionMetadata::default();
        assert_eq!(of(&metadata), None);
        let usage = v1::Usage { peak_memory_bytes: 7, out_of_memory: true, ..v1::Usage::default() };
        add(&mut metadata, &usage);
        assert_eq!(of(&metadata), Some(usage));
    }
}
