//! What `proto/fuzz` and the short form of it in `proto/tests/hostile_bytes.rs` feed with bytes that mean no good.
//!
//! Each function takes any bytes at all, and panics where something that must hold does not.

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

/// What workers and coordinators say to each other, read and written again.
pub fn link_message(data: &[u8]) {
    if let Ok(message) = v1::WorkerMessage::decode(data) {
        assert_eq!(v1::WorkerMessage::decode(message.encode_to_vec().as_slice()), Ok(message));
    }
    if let Ok(message) = v1::CoordinatorMessage::decode(data) {
        assert_eq!(v1::CoordinatorMessage::decode(message.encode_to_vec().as_slice()), Ok(message));
    }
}
