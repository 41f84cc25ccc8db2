//! What a run of an action could see that is no part of the action, as a part of its result's metadata.

use crate::protobuf::Any;
use crate::{reapi, v1};
use prost::Message;

/// The type's name in the metadata.
const TYPE: &str = "type.googleapis.com/kiln.v1.RunConditions";

/// Adds the conditions of a run to its metadata.
pub fn add(metadata: &mut reapi::ExecutedActionMetadata, conditions: &v1::RunConditions) {
    metadata.auxiliary_metadata.push(Any { type_url: TYPE.to_owned(), value: conditions.encode_to_vec() });
}

/// The conditions of a run: what its metadata says of them, its worker and its times.
pub fn of(metadata: &reapi::ExecutedActionMetadata) -> v1::RunConditions {
    let found = metadata.auxiliary_metadata.iter().find(|any| any.type_url == TYPE);
    let told = found.and_then(|any| v1::RunConditions::decode(any.value.as_slice()).ok()).unwrap_or_default();
    v1::RunConditions {
        worker: metadata.worker.clone(),
        began: metadata.execution_start_timestamp,
        ended: metadata.execution_completed_timestamp,
        ..told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_found_in_the_metadata_that_they_were_added_to() {
        let mut metadata = reapi::ExecutedActionMetadata { worker: "vm1".into(), ..Default::default() };
        assert_eq!(of(&metadata), v1::RunConditions { worker: "vm1".into(), ..Default::default() });
        add(&mut metadata, &v1::RunConditions { cpus: 2, host_name: "kiln".into(), ..Default::default() });
        let found = of(&metadata);
        assert_eq!((found.worker.as_str(), found.cpus, found.host_name.as_str()), ("vm1", 2, "kiln"));
    }
}
