//! What a stock consists of.
use inventory_derive::Describe;
use serde::Serialize;

/// So many of one thing.
#[derive(Serialize, Describe)]
pub struct Item {
    name: String,
    count: u32,
}

impl Item {
    pub fn new(name: &str, count: u32) -> Self {
        Item { name: name.to_owned(), count }
    }
}

/// What the build script said.
pub fn stamp() -> &'static str {
    env!("STAMP")
}
