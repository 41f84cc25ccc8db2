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

/// Which conditions of two runs were other ones, as far as both are known: `time`, `worker`, `cpus`, `host-name`, `directory`.
pub fn varied(first: &v1::RunConditions, second: &v1::RunConditions) -> Vec<&'static str> {
    let time = |at: &Option<crate::protobuf::Timestamp>| at.as_ref().map(|at| (at.seconds, at.nanos));
    let is_later = time(&first.ended).zip(time(&second.began)).is_some_and(|(ended, began)| ended < began);
    let is_other = |first: &str, second: &str| !first.is_empty() && !second.is_empty() && first != second;
    let all = [
        ("time", is_later),
        ("worker", is_other(&first.worker, &second.worker)),
        ("cpus", first.cpus > 0 && second.cpus > 0 && first.cpus != second.cpus),
        ("host-name", is_other(&first.host_name, &second.host_name)),
        ("directory", is_other(&first.directory, &second.directory)),
    ];
    all.into_iter().filter(|(_, varied)| *varied).map(|(name, _)| name).collect()
}

/// Which conditions were other ones for every step that ran again.
pub fn varied_in_all(steps: &[v1::ReproducedStep]) -> Vec<&'static str> {
    let mut each = steps.iter().filter_map(|step| Some(varied(step.first.as_ref()?, step.second.as_ref()?)));
    let Some(mut all) = each.next() else { return Vec::new() };
    each.for_each(|one| all.retain(|name| one.contains(name)));
    all
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

    #[test]
    fn a_condition_was_varied_only_if_both_runs_tell_of_it() {
        let at = |seconds| Some(crate::protobuf::Timestamp { seconds, nanos: 0 });
        let first = v1::RunConditions {
            worker: "vm1".into(),
            began: at(1),
            ended: at(2),
            cpus: 2,
            host_name: "kiln".into(),
            directory: "/state/a".into(),
        };
        let second = v1::RunConditions {
            worker: "vm2".into(),
            began: at(5),
            ended: at(6),
            cpus: 1,
            host_name: "kiln-1".into(),
            directory: "/state/b".into(),
        };
        assert_eq!(varied(&first, &second), ["time", "worker", "cpus", "host-name", "directory"]);
        assert!(varied(&first, &first).is_empty() && varied(&first, &v1::RunConditions::default()).is_empty());
        let step = |second: &v1::RunConditions| v1::ReproducedStep {
            first: Some(first.clone()),
            second: Some(second.clone()),
            ..v1::ReproducedStep::default()
        };
        let same = v1::RunConditions { worker: "vm1".into(), host_name: String::new(), ..second.clone() };
        let not_run = v1::ReproducedStep { first: Some(first.clone()), ..v1::ReproducedStep::default() };
        assert_eq!(varied_in_all(&[step(&second), not_run, step(&same)]), ["time", "cpus", "directory"]);
        assert!(varied_in_all(&[]).is_empty());
    }
}
