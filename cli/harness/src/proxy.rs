//! A proxy to a process that counts bytes, and breaks or holds up connections on request.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Forwards connections to a process, and counts.
pub struct Proxy {
    pub url: String,
    up: Arc<AtomicU64>,
    down: Arc<AtomicU64>,
    /// Bytes until the connection that carries them breaks; negative: none does.
    left: Arc<AtomicI64>,
    held: Arc<AtomicBool>,
    is_cut: Arc<AtomicBool>,
    /// Both ends of all connections.
    open: Arc<Mutex<Vec<(TcpStream, TcpStream)>>>,
}

/// Bytes that were forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Towards the process.
    pub up: u64,
    /// From the process.
    pub down: u64,
}

impl Proxy {
    /// A proxy to what listens at this URL.
    pub fn to(url: &str) -> Self {
        Self::at("127.0.0.1:0", url)
    }

    /// The same, at a given address.
    pub fn at(address: &str, url: &str) -> Self {
        let target = url.trim_start_matches("http://").to_owned();
        let listener = TcpListener::bind(address).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let left = Arc::new(AtomicI64::new(-1));
        let (held, is_cut, open) = (Arc::default(), Arc::default(), Arc::default());
        let proxy = Self { url, up: Arc::default(), down: Arc::default(), left, held, is_cut, open };
        let (up, down, left, held) = (proxy.up.clone(), proxy.down.clone(), proxy.left.clone(), proxy.held.clone());
        let (is_cut, open) = (proxy.is_cut.clone(), proxy.open.clone());
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let Ok(near) = near else { continue };
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&target) else { continue };
                open.lock().unwrap().push((near.try_clone().unwrap(), far.try_clone().unwrap()));
                for (from, to, count) in [(&near, &far, &up), (&far, &near, &down)] {
                    let (from, to, count) = (from.try_clone().unwrap(), to.try_clone().unwrap(), count.clone());
                    let (left, held) = (left.clone(), held.clone());
                    std::thread::spawn(move || pass(from, to, &count, &left, &held));
                }
            }
        });
        proxy
    }

    /// Ends all connections and lets none begin, or lets them begin again.
    pub fn cut(&self, cut: bool) {
        self.is_cut.store(cut, Ordering::SeqCst);
        for (near, far) in self.open.lock().unwrap().drain(..) {
            let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
        }
    }

    /// Breaks the connection that carries the last of this many further bytes, and none after it.
    pub fn break_after(&self, bytes: i64) {
        self.left.store(bytes, Ordering::Relaxed);
    }

    /// From now on nothing passes, and no connection ends: as if a machine were gone without a word.
    pub fn hold(&self) {
        self.held.store(true, Ordering::Relaxed);
    }

    /// Whether a connection is still due to break.
    pub fn is_to_break(&self) -> bool {
        self.left.load(Ordering::Relaxed) >= 0
    }

    /// Bytes since the last call.
    pub fn passed(&self) -> Passed {
        Passed { up: self.up.swap(0, Ordering::Relaxed), down: self.down.swap(0, Ordering::Relaxed) }
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, count: &AtomicU64, left: &AtomicI64, held: &AtomicBool) {
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        while held.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        count.fetch_add(read as u64, Ordering::Relaxed);
        let before = left.load(Ordering::Relaxed);
        if before >= 0 {
            left.store((before - read as i64).max(-1), Ordering::Relaxed);
            if before < read as i64 {
                let _ = (to.shutdown(Shutdown::Both), from.shutdown(Shutdown::Both));
                return;
            }
        }
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
}
