//! The event logs of builds: one append-only file each, read by any number of watchers from any offset.
//!
//! Invariant: offsets count from 0 without gaps; what was appended is read back after a kill of the coordinator, and a torn
//! last record is cut off when the log is opened again.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_proto::clock;
use kiln_proto::v1::{Event, event};
use parking_lot::Mutex;
use prost::Message;
use tokio::sync::watch;

/// Bytes before each record: its length, little-endian.
const HEADER_BYTES: u64 = 4;
/// Longest record that is believed; a longer one means a torn file.
const MAX_RECORD_BYTES: usize = 16 << 20;

#[derive(Debug)]
struct Writer {
    file: File,
    /// Where each record starts, and where the next will.
    starts: Vec<u64>,
    end: u64,
}

/// The log of one build. Cheap to clone.
#[derive(Debug, Clone)]
pub struct EventLog {
    writer: Arc<Mutex<Writer>>,
    count: watch::Sender<u64>,
    path: Arc<PathBuf>,
}

impl EventLog {
    /// Opens a build's log, made where there is none.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        let file = OpenOptions::new().read(true).append(true).create(true).open(path)?;
        let length = file.metadata()?.len();
        let mut starts = Vec::new();
        let mut end = 0;
        let mut reader = BufReader::new(&file);
        loop {
            let mut header = [0; HEADER_BYTES as usize];
            if reader.read_exact(&mut header).is_err() {
                break;
            }
            let size = u32::from_le_bytes(header);
            if size as usize > MAX_RECORD_BYTES || end + HEADER_BYTES + u64::from(size) > length {
                break;
            }
            reader.seek_relative(i64::from(size))?;
            starts.push(end);
            end += HEADER_BYTES + u64::from(size);
        }
        drop(reader);
        if end < length {
            file.set_len(end)?;
        }
        let count = watch::Sender::new(starts.len() as u64);
        Ok(Self { writer: Arc::new(Mutex::new(Writer { file, starts, end })), count, path: Arc::new(path.to_owned()) })
    }

    /// Appends an event with the next offset and the present time.
    ///
    /// A full disk loses the event and says so in the coordinator's own log; the build goes on.
    pub fn append(&self, event: event::Event) {
        let count = {
            let mut writer = self.writer.lock();
            let event = Event { offset: writer.starts.len() as u64, at: Some(clock::kiln_now()), event: Some(event) };
            let data = event.encode_to_vec();
            let mut record = Vec::with_capacity(data.len() + HEADER_BYTES as usize);
            record.extend_from_slice(&(data.len() as u32).to_le_bytes());
            record.extend_from_slice(&data);
            if let Err(error) = writer.file.write_all(&record) {
                tracing::error!(%error, path = %self.path.display(), "cannot write to a build's event log");
                let end = writer.end;
                let _ = writer.file.set_len(end);
                return;
            }
            let end = writer.end;
            writer.starts.push(end);
            writer.end += record.len() as u64;
            writer.starts.len() as u64
        };
        self.count.send_replace(count);
    }

    /// The event at an offset; `None` where there is none yet.
    pub fn read(&self, offset: u64) -> std::io::Result<Option<Event>> {
        let (file, start, end) = {
            let writer = self.writer.lock();
            let Some(start) = usize::try_from(offset).ok().and_then(|index| writer.starts.get(index).copied()) else {
                return Ok(None);
            };
            let end = writer.starts.get(offset as usize + 1).copied().unwrap_or(writer.end);
            (writer.file.try_clone()?, start + HEADER_BYTES, end)
        };
        let mut data = vec![0; (end - start) as usize];
        file.read_exact_at(&mut data, start)?;
        Event::decode(data.as_slice()).map(Some).map_err(std::io::Error::other)
    }

    /// How many events there are, and a wake-up when that changes.
    pub fn count(&self) -> watch::Receiver<u64> {
        self.count.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kiln_proto::v1::Warning;

    fn warning(text: &str) -> event::Event {
        event::Event::Warning(Warning { text: text.into() })
    }

    fn text(log: &EventLog, offset: u64) -> Option<String> {
        match log.read(offset).unwrap()?.event? {
            event::Event::Warning(warning) => Some(warning.text),
            other => panic!("expected a warning, found {other:?}"),
        }
    }

    #[test]
    fn a_torn_record_is_cut_off_and_the_rest_is_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events");
        let log = EventLog::open(&path).unwrap();
        log.append(warning("one"));
        log.append(warning("two"));
        drop(log);
        let whole = std::fs::metadata(&path).unwrap().len();
        for cut in 1..8 {
            OpenOptions::new().write(true).open(&path).unwrap().set_len(whole - cut).unwrap();
            let log = EventLog::open(&path).unwrap();
            assert_eq!(text(&log, 0).as_deref(), Some("one"));
            assert_eq!(text(&log, 1), None, "expected the torn record to be gone");
            log.append(warning("two"));
            assert_eq!(text(&log, 1).as_deref(), Some("two"));
        }
    }
}
