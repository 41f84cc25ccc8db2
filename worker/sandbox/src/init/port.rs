//! The worker's port on a job's loopback: opened here, in the job's network, and handed to the worker, which listens at it from outside.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};

use super::spec;

/// Opens the port and sends its listener. Where that is impossible, nobody listens: what would be found there can be done without.
pub(super) fn open(number: u16, socket: &OwnedFd) {
    if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, number)) {
        let _ = spec::send(socket, &[listener.as_fd()]);
    }
}
