//! A disk that remembers every write, so that it can be cut off at any of them: what was not synced by then is lost, torn or kept, as it
//! happens.

use std::sync::Arc;

use parking_lot::Mutex;
use proptest::prelude::Rng;
use proptest::test_runner::TestRng;
use redb::StorageBackend;

/// The unit in which a disk tears a write.
const SECTOR: usize = 512;

#[derive(Debug, Clone)]
enum Operation {
    Write(u64, Vec<u8>),
    SetLength(u64),
    Sync,
}

#[derive(Debug, Default)]
struct State {
    /// What the process sees.
    bytes: Vec<u8>,
    /// What it did so far.
    operations: Vec<Operation>,
}

/// The disk of one file. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

fn apply(bytes: &mut Vec<u8>, operation: &Operation) {
    match operation {
        Operation::Write(offset, data) => {
            let (start, end) = (*offset as usize, *offset as usize + data.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[start..end].copy_from_slice(data);
        }
        Operation::SetLength(length) => bytes.resize(*length as usize, 0),
        Operation::Sync => {}
    }
}

impl Disk {
    /// How many operations there were.
    pub fn now(&self) -> usize {
        self.state.lock().operations.len()
    }

    /// The disk as it may be after the power was cut behind so many operations.
    pub fn cut(&self, at: usize, rng: &mut TestRng) -> Self {
        let state = self.state.lock();
        let done = &state.operations[..at];
        let synced = done.iter().rposition(|operation| matches!(operation, Operation::Sync)).map_or(0, |at| at + 1);
        let mut bytes = Vec::new();
        done[..synced].iter().for_each(|operation| apply(&mut bytes, operation));
        for operation in &done[synced..] {
            match (rng.next_u32() % 4, operation) {
                (0, _) => {}
                (1, Operation::Write(offset, data)) => {
                    // Some sectors got there, and others did not.
                    for (sector, data) in data.chunks(SECTOR).enumerate().filter(|_| rng.next_u32().is_multiple_of(2)) {
                        apply(&mut bytes, &Operation::Write(offset + (sector * SECTOR) as u64, data.to_vec()));
                    }
                }
                (_, operation) => apply(&mut bytes, operation),
            }
        }
        let operations = vec![Operation::Write(0, bytes.clone()), Operation::Sync];
        Self { state: Arc::new(Mutex::new(State { bytes, operations })) }
    }

    fn act(&self, operation: Operation) {
        let mut state = self.state.lock();
        apply(&mut state.bytes, &operation);
        state.operations.push(operation);
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> std::io::Result<u64> {
        Ok(self.state.lock().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        let (state, start) = (self.state.lock(), offset as usize);
        let found = state.bytes.get(start..start + out.len()).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(found);
        Ok(())
    }

    fn set_len(&self, length: u64) -> std::io::Result<()> {
        self.act(Operation::SetLength(length));
        Ok(())
    }

    fn sync_data(&self) -> std::io::Result<()> {
        self.act(Operation::Sync);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> std::io::Result<()> {
        self.act(Operation::Write(offset, data.to_vec()));
        Ok(())
    }
}
