//! Limits on the callers that wait for actions and on the size of what they wait for, because the queue is in memory.
//!
//! Invariant: a place is taken before an action is checked, and released when its caller has its answer or has left.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_proto::reapi;
use prost::Message;
use tonic::Status;

/// Maximum number of waiting callers.
const MAX_WAITING: u64 = 200_000;
/// Memory overhead of an element of a message: a string takes three words, a variable has two strings.
const ELEMENT_BYTES: usize = 48;
/// Maximum bytes in memory of the messages of all actions that are waited for.
const MAX_BYTES: u64 = 512 << 20;

#[derive(Debug, Default)]
struct Taken {
    count: AtomicU64,
    bytes: AtomicU64,
}

/// All places of this coordinator. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    taken: Arc<Taken>,
}

/// The place of one caller.
#[derive(Debug)]
pub(super) struct Place {
    taken: Arc<Taken>,
    bytes: u64,
}

impl Places {
    /// Takes a place for an action; fails if there is none.
    pub(super) fn take(&self, action: &reapi::Action, command: &reapi::Command) -> Result<Place, Status> {
        let bytes = decoded_bytes(action, command) as u64;
        // Dropping it releases the place, also if it is refused here.
        let place = Place { taken: self.taken.clone(), bytes };
        let count = self.taken.count.fetch_add(1, Ordering::AcqRel) + 1;
        let all = self.taken.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        let full = |what: String| {
            Err(Status::resource_exhausted(format!("the farm's queue is full: {what}; try again when some have ended")))
        };
        match (count > MAX_WAITING, all > MAX_BYTES) {
            (true, _) => full(format!("{MAX_WAITING} calls wait for actions")),
            (_, true) => full(format!("the queued actions would take {} MiB with this one", all >> 20)),
            _ => Ok(place),
        }
    }
}

/// Memory that an action and its command take once decoded.
fn decoded_bytes(action: &reapi::Action, command: &reapi::Command) -> usize {
    #[allow(deprecated)]
    let outputs = command.output_files.len() + command.output_directories.len();
    let of_command = command.arguments.len() + command.environment_variables.len() + command.output_paths.len();
    #[allow(deprecated)]
    let platforms = action.platform.iter().chain(&command.platform);
    let properties: usize = platforms.map(|platform| platform.properties.len()).sum();
    let elements = of_command + outputs + command.output_node_properties.len() + properties;
    action.encoded_len() + command.encoded_len() + elements * ELEMENT_BYTES
}

impl Drop for Place {
    fn drop(&mut self) {
        self.taken.count.fetch_sub(1, Ordering::AcqRel);
        self.taken.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_of_large_actions_is_full_by_its_bytes_and_has_room_again() {
        let places = Places::default();
        let command = reapi::Command { arguments: vec!["x".repeat(15 << 20)], ..Default::default() };
        let mut held: Vec<Place> = Vec::new();
        let status = loop {
            match places.take(&reapi::Action::default(), &command) {
                Ok(place) => held.push(place),
                Err(status) => break status,
            }
        };
        assert_eq!((status.code(), held.len()), (tonic::Code::ResourceExhausted, 34), "{status}");
        held.pop();
        assert!(places.take(&reapi::Action::default(), &command).is_ok());
    }

    #[test]
    fn what_waits_is_counted_as_it_is_in_memory() {
        let places = Places::default();
        let command = reapi::Command { arguments: vec![String::new(); 500_000], ..Default::default() };
        let held: Vec<Place> =
            std::iter::from_fn(|| places.take(&reapi::Action::default(), &command).ok()).take(1000).collect();
        assert!(held.len() < 24, "expected a few such commands to fill the queue, and {} are in it", held.len());
    }

    #[test]
    fn a_queue_of_small_actions_is_full_by_their_number() {
        let places = Places::default();
        let take = || places.take(&reapi::Action::default(), &reapi::Command::default());
        let held: Vec<Place> = (0..MAX_WAITING).map(|_| take().unwrap()).collect();
        assert!(take().unwrap_err().message().contains("200000 calls wait"));
        drop(held);
        assert!(take().is_ok());
    }
}
