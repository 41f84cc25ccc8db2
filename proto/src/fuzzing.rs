//! Fuzz targets, used by `proto/fuzz` and, in a short form, by `proto/tests/hostile_bytes.rs`.
//!
//! Each function accepts any bytes, and panics if an invariant is violated.

use prost::Message;

use crate::resource_name::{ReadName, WriteName};
use crate::v1;

/// Resource names of reads and writes.
pub fn resource_name(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(name) = ReadName::parse(&text) {
        assert_eq!(ReadName::parse(&name.to_string()), Ok(name));
    }
    if let Ok(name) = WriteName::parse(&text) {
        assert_eq!(WriteName::parse(&name.to_string()), Ok(name));
    }
}

/// Messages between workers and coordinators, decoded and encoded again.
pub fn link_message(data: &[u8]) {
    if let Ok(message) = v1::WorkerMessage::decode(data) {
        assert_eq!(v1::WorkerMessage::decode(message.encode_to_vec().as_slice()), Ok(message));
    }
    if let Ok(message) = v1::CoordinatorMessage::decode(data) {
        assert_eq!(v1::CoordinatorMessage::decode(message.encode_to_vec().as_slice()), Ok(message));
    }
}
