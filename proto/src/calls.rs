//! What became of a step's compiler calls, and what a call looked at, as parts of their results' metadata.

use crate::protobuf::Any;
use crate::{reapi, v1};
use prost::Message;

/// The version of the rules by which calls run on other workers. A worker with another one gets none.
pub const RULES: u32 = 1;
/// The types' names in the metadata.
const TYPE: &str = "type.googleapis.com/kiln.v1.SplitCalls";
const SIGHT: &str = "type.googleapis.com/kiln.v1.CallSight";

/// Adds the calls of a run to its metadata.
pub fn add(metadata: &mut reapi::ExecutedActionMetadata, calls: &v1::SplitCalls) {
    metadata.auxiliary_metadata.push(Any { type_url: TYPE.to_owned(), value: calls.encode_to_vec() });
}

/// The calls of a run, if its metadata has any.
pub fn of(metadata: &reapi::ExecutedActionMetadata) -> Option<v1::SplitCalls> {
    let found = metadata.auxiliary_metadata.iter().find(|any| any.type_url == TYPE)?;
    v1::SplitCalls::decode(found.value.as_slice()).ok()
}

/// Adds what a call looked at to its metadata.
pub fn add_sight(metadata: &mut reapi::ExecutedActionMetadata, sight: &v1::CallSight) {
    metadata.auxiliary_metadata.push(Any { type_url: SIGHT.to_owned(), value: sight.encode_to_vec() });
}

/// What a call looked at, if its metadata says so.
pub fn sight_of(metadata: &reapi::ExecutedActionMetadata) -> Option<v1::CallSight> {
    let found = metadata.auxiliary_metadata.iter().find(|any| any.type_url == SIGHT)?;
    v1::CallSight::decode(found.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_found_in_the_metadata_that_they_were_added_to() {
        let mut metadata = reapi::ExecutedActionMetadata::default();
        assert_eq!(of(&metadata), None);
        let calls = v1::SplitCalls { hits: 3, refused: [("link".to_owned(), 1)].into(), ..Default::default() };
        add(&mut metadata, &calls);
        assert_eq!(of(&metadata), Some(calls));
    }
}
