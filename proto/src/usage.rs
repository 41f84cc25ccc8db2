//! What a run of an action used, as a part of its result's metadata.

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_is_found_in_the_metadata_that_it_was_added_to() {
        let mut metadata = reapi::ExecutedActionMetadata::default();
        assert_eq!(of(&metadata), None);
        let usage = v1::Usage { peak_memory_bytes: 7, out_of_memory: true, ..v1::Usage::default() };
        add(&mut metadata, &usage);
        assert_eq!(of(&metadata), Some(usage));
    }
}
