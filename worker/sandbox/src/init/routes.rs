//! Blocks networks for a job that has its own network, with "unreachable" routes, which apply to every protocol.
//!
//! Sources: rtnetlink(7), `struct rtmsg` and `struct ifaddrmsg` in <linux/rtnetlink.h> and <linux/if_addr.h>.

use std::io;
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};

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
const RTM_NEWADDR: u16 = 20;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
/// `IFA_F_NODAD`
const WITHOUT_DETECTION: u8 = 2;
const SCOPE_LINK: u8 = 253;
const HEADER_BYTES: usize = 16;

/// Makes these networks unreachable. A link-local address is reached by naming an interface, which bypasses routes; it
/// is assigned to this network itself, where nothing answers.
pub(super) fn close(networks: &[(IpAddr, u8)]) -> io::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC;
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
    let interfaces = interfaces(&std::fs::read_to_string("/proc/net/if_inet6").unwrap_or_default());
    for (address, bits) in networks {
        ask(&netlink, &route(*address, *bits), address)?;
        if let IpAddr::V6(v6) = address
            && v6.is_unicast_link_local()
            && *bits == 128
        {
            for interface in &interfaces {
                ask(&netlink, &own(*v6, *interface), address)?;
            }
        }
    }
    Ok(())
}

/// Sends a request and waits for the kernel's acknowledgement.
fn ask(netlink: &OwnedFd, request: &[u8], address: &IpAddr) -> io::Result<()> {
    send(netlink.as_raw_fd(), request, MsgFlags::empty())?;
    let mut answer = [0; 4096];
    let read = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let code = error_code(&answer[..read]).ok_or_else(|| io::Error::other("no answer from the kernel"))?;
    // Without IPv6 in the kernel there is nothing to block.
    let is_absent = address.is_ipv6() && [nix::libc::EOPNOTSUPP, nix::libc::EAFNOSUPPORT].contains(&-code);
    if code == 0 || is_absent { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) }
}

/// Indexes of the interfaces with IPv6, except the loopback.
fn interfaces(inet6: &str) -> Vec<u32> {
    let of = |line: &str| {
        let mut fields = line.split_whitespace();
        let number = u32::from_str_radix(fields.nth(1)?, 16).ok()?;
        (fields.next_back()? != "lo").then_some(number)
    };
    let mut interfaces: Vec<u32> = inet6.lines().filter_map(of).collect();
    interfaces.dedup();
    interfaces
}

fn message(kind: u16, body: &[u8], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut message = vec![0; HEADER_BYTES];
    message.extend(body);
    for (kind, value) in attributes {
        message.extend((4 + value.len() as u16).to_ne_bytes());
        message.extend(kind.to_ne_bytes());
        message.extend(*value);
    }
    let length = (message.len() as u32).to_ne_bytes();
    message[..4].copy_from_slice(&length);
    message[4..6].copy_from_slice(&kind.to_ne_bytes());
    message[6..8].copy_from_slice(&FLAGS.to_ne_bytes());
    message
}

fn route(address: IpAddr, bits: u8) -> Vec<u8> {
    let octets: Vec<u8> = match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    };
    let family = if address.is_ipv4() { nix::libc::AF_INET } else { nix::libc::AF_INET6 } as u8;
    let body = [family, bits, 0, 0, TABLE_MAIN, PROTOCOL_STATIC, 0, TYPE_UNREACHABLE, 0, 0, 0, 0];
    // Preferred to any other route with this prefix.
    message(RTM_NEWROUTE, &body, &[(RTA_DST, &octets), (RTA_PRIORITY, &1_u32.to_ne_bytes())])
}

fn own(address: Ipv6Addr, interface: u32) -> Vec<u8> {
    let mut body = vec![nix::libc::AF_INET6 as u8, 128, WITHOUT_DETECTION, SCOPE_LINK];
    body.extend(interface.to_ne_bytes());
    message(RTM_NEWADDR, &body, &[(IFA_ADDRESS, &address.octets()), (IFA_LOCAL, &address.octets())])
}

/// The error number of an acknowledgement: negative, or 0 for success.
fn error_code(answer: &[u8]) -> Option<i32> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    let code = i32::from_ne_bytes(answer.get(HEADER_BYTES..HEADER_BYTES + 4)?.try_into().ok()?);
    (kind == NLMSG_ERROR).then_some(code)
}
