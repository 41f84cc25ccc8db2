//! Batches as keys and arguments of the script that commits them.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_journal::Write;

use super::keys::JournalKeys;
use super::seal::Sealer;

/// Bytes of one script. Redis serves nobody else while it runs: this much takes some tens of milliseconds.
const PART_BYTES: usize = 8 << 20;
/// Arguments of one script. Redis takes about a million.
const PART_ARGUMENTS: usize = 100_000;
/// Keys of the script before those of the changes.
const FIXED_KEYS: usize = 3;
/// Positions beyond this are not exact as numbers of Lua.
const LAST_POSITION: u64 = 1 << 53;

/// What a record's seal says about its place.
pub(super) fn record_place<'a>(tenant: &'a str, space: &'a str, key: &'a str) -> [&'a [u8]; 4] {
    [b"record", tenant.as_bytes(), space.as_bytes(), key.as_bytes()]
}

/// What an entry's seal says about its place.
pub(super) fn entry_place<'a>(tenant: &'a str, stream: &'a str, position: &'a [u8; 8]) -> [&'a [u8]; 4] {
    [b"entry", tenant.as_bytes(), stream.as_bytes(), position]
}

/// The id of an entry. Redis has no `0-0`.
pub(super) fn id(position: u64) -> String {
    format!("{position}-1")
}

/// The position of an entry's id.
pub(super) fn position(id: &str) -> Option<u64> {
    id.strip_suffix("-1")?.parse().ok()
}

/// What one script is given: whole batches.
#[derive(Debug, Default)]
pub(super) struct Part {
    pub(super) keys: Vec<String>,
    /// A letter for the type of each key.
    pub(super) types: String,
    pub(super) changes: Vec<Vec<u8>>,
    bytes: usize,
    places: HashMap<String, usize>,
}

/// Groups become parts: in order, a batch always in one of them, and one at least.
pub(super) fn parts(
    batches: &[Arc<Vec<Write>>],
    (keys, sealer, tenant): (&JournalKeys, &Sealer, &str),
) -> Result<Vec<Part>, String> {
    let mut parts = vec![Part::default()];
    for batch in batches {
        let bytes: usize = batch.iter().map(bytes).sum();
        let full =
            |part: &Part| part.bytes + bytes > PART_BYTES || part.changes.len() + batch.len() * 5 > PART_ARGUMENTS;
        if parts.last().is_some_and(|part| !part.changes.is_empty() && full(part)) {
            parts.push(Part::default());
        }
        let Some(part) = parts.last_mut() else { continue };
        part.bytes += bytes;
        for write in batch.iter() {
            part.add(write, keys, sealer, tenant)?;
        }
    }
    Ok(parts)
}

fn bytes(write: &Write) -> usize {
    match write {
        Write::Append { data, .. } => data.len(),
        Write::Put { key, value, .. } => key.len() + value.len(),
        Write::Remove { key, .. } => key.len(),
        Write::RemoveStream { .. } => 0,
    }
}

impl Part {
    /// The number of a key among the script's.
    fn key(&mut self, name: String, kind: char) -> Vec<u8> {
        let next = FIXED_KEYS + self.keys.len() + 1;
        let (keys, types) = (&mut self.keys, &mut self.types);
        let place = self.places.entry(name).or_insert_with_key(|name| {
            keys.push(name.clone());
            types.push(kind);
            next
        });
        place.to_string().into_bytes()
    }

    fn add(&mut self, write: &Write, keys: &JournalKeys, sealer: &Sealer, tenant: &str) -> Result<(), String> {
        let change = match write {
            Write::Append { stream, position, data } => {
                if *position >= LAST_POSITION {
                    return Err(format!("position {position} of the stream `{stream}` is too large"));
                }
                let sealed = sealer.seal(&entry_place(tenant, stream, &position.to_be_bytes()), data);
                vec![b"A".to_vec(), self.key(keys.stream(stream), 's'), id(*position).into_bytes(), sealed]
            }
            Write::RemoveStream { stream } => vec![b"X".to_vec(), self.key(keys.stream(stream), 's')],
            Write::Put { space, key, value } => {
                let (records, order) = (self.key(keys.records(space), 'h'), self.key(keys.order(space), 'z'));
                let sealed = sealer.seal(&record_place(tenant, space, key), value);
                vec![b"P".to_vec(), records, order, key.clone().into_bytes(), sealed]
            }
            Write::Remove { space, key } => {
                let (records, order) = (self.key(keys.records(space), 'h'), self.key(keys.order(space), 'z'));
                vec![b"R".to_vec(), records, order, key.clone().into_bytes()]
            }
        };
        self.changes.extend(change);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::keys::Keys;
    use super::*;

    #[test]
    fn a_large_group_is_divided_between_batches_only() {
        let batch = |count: usize| {
            let append =
                |position| Write::Append { stream: "s".into(), position, data: Bytes::from(vec![0; PART_BYTES / 4]) };
            Arc::new((0..count as u64).map(append).collect::<Vec<_>>())
        };
        let (keys, sealer) = (Keys::new("k").unwrap().journal(""), Sealer::new(&[1; 32], "k"));
        let divided = |batches: &[usize]| -> Vec<usize> {
            let batches: Vec<_> = batches.iter().map(|count| batch(*count)).collect();
            let parts = parts(&batches, (&keys, &sealer, "")).unwrap();
            parts.iter().map(|part| part.changes.len() / 4).collect()
        };
        assert_eq!(divided(&[2, 2, 1, 3]), [4, 4]);
        assert_eq!(divided(&[1, 9, 1]), [1, 9, 1]);
        assert_eq!(divided(&[]), [0], "an empty group is still a commit");
    }

    #[test]
    fn a_position_is_read_from_its_id() {
        assert_eq!(position(&id(0)), Some(0));
        assert_eq!([position("7"), position("x-1"), position("7-2")], [None; 3]);
    }
}
