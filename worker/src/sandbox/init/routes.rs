//! Closes networks to a job that has a network of its own: by routes that say "unreachable", which hold for every protocol.
//!
//! Sources: rtnetlink(7), `struct rtmsg` in <linux/rtnetlink.h>.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsRawFd;

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};

const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
/// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE`
const FLAGS: u16 = 0x1 | 0x4 | 0x400 | 0x100;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const TYPE_UNREACHABLE: u8 = 7;
const RTA_DST: u16 = 1;
const RTA_PRIORITY: u16 = 6;
const HEADER_BYTES: usize = 16;

/// Makes these networks unreachable.
pub(super) fn close(networks: &[(IpAddr, u8)]) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    for (address, bits) in networks {
        send(netlink.as_raw_fd(), &request(*address, *bits), MsgFlags::empty())?;
        let mut answer = [0; 4096];
        let read = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
        let code = error_code(&answer[..read]).ok_or_else(|| io::Error::other("the kernel gives no answer"))?;
        // Where the kernel has no IPv6, there is nothing to close.
        let is_absent = address.is_ipv6() && [nix::libc::EOPNOTSUPP, nix::libc::EAFNOSUPPORT].contains(&-code);
        if code != 0 && !is_absent {
            return Err(io::Error::from_raw_os_error(-code));
        }
    }
    Ok(())
}

fn request(address: IpAddr, bits: u8) -> Vec<u8> {
    let octets: Vec<u8> = match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    };
    let family = if address.is_ipv4() { nix::libc::AF_INET } else { nix::libc::AF_INET6 } as u8;
    let mut message = vec![0; HEADER_BYTES];
    message.extend([family, bits, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, 0, TYPE_UNREACHABLE, 0, 0, 0, 0]);
    let mut attribute = |kind: u16, value: &[u8]| {
        message.extend((4 + value.len() as u16).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(value);
    };
    attribute(RTA_DST, &octets);
    // Before whatever else has this prefix.
    attribute(RTA_PRIORITY, &1_u32.to_ne_bytes());
    let length = (message.len() as u32).to_ne_bytes();
    message[..4].copy_from_slice(&length);
    message[4..6].copy_from_slice(&RTM_NEWROUTE.to_ne_bytes());
    message[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    message
}

/// The error number of an acknowledgement, negative, or 0.
fn error_code(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(HEADER_BYTES..HEADER_BYTES + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(code)
}
