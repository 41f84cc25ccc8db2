//! JSON documents: equal ones whose keys or elements are in another order.

use serde_json::Value;

use super::Kind;
use super::place::{Found, Place};

/// Larger documents are compared as texts.
const MAX_BYTES: usize = 4 << 20;

/// Whether two texts are documents that differ only in their order.
pub(super) fn compare(found: &mut Found<'_>, place: &Place, first: &str, second: &str) -> bool {
    let begins = |text: &str| text.trim_start().starts_with(['{', '[']);
    if !begins(first) || !begins(second) || first.len().max(second.len()) > MAX_BYTES {
        return false;
    }
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    let (Some(mut one), Some(mut other)) = (read(first), read(second)) else { return false };
    // Values sort their keys.
    if one == other {
        let words = "the same JSON document: its keys are in another order, or its spaces differ";
        found.add(place, Kind::Order, words);
        return true;
    }
    sort(&mut one);
    sort(&mut other);
    if one == other {
        found.add(place, Kind::Order, "the same JSON document with the elements of an array in another order");
        return true;
    }
    false
}

fn sort(value: &mut Value) {
    match value {
        Value::Array(elements) => {
            elements.iter_mut().for_each(sort);
            elements.sort_by_cached_key(Value::to_string);
        }
        Value::Object(members) => members.values_mut().for_each(sort),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
