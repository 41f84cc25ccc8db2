//! System calls: the ones that builds need are allowed, and no others.

use nix::libc;

use super::escape::{answers, call, refused};
use super::place::confined;

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_no_build_needs_are_refused() {
    let attempts = [
        ("bpf", call(libc::SYS_bpf, "0, bytes(128), 128")),
        (
            "perf_event_open",
            call(libc::SYS_perf_event_open, "struct.pack('IIQ', 1, 128, 0) + bytes(112), 0, -1, -1, 0"),
        ),
        ("userfaultfd", call(libc::SYS_userfaultfd, "1")),
        ("io_uring_setup", call(libc::SYS_io_uring_setup, "4, bytes(256)")),
        ("io_uring_register", call(libc::SYS_io_uring_register, "-1, 0, 0, 0")),
        ("keyctl", call(libc::SYS_keyctl, "0, -3, 1")),
        ("add_key", call(libc::SYS_add_key, "b'user', b'kiln', b'x', 1, -3")),
        ("request_key", call(libc::SYS_request_key, "b'user', b'kiln', 0, 0")),
        ("kexec_load", call(libc::SYS_kexec_load, "0, 0, 0, 0")),
        ("finit_module", call(libc::SYS_finit_module, "0, b'', 0")),
        ("syslog", call(libc::SYS_syslog, "3, bytes(64), 64")),
        ("swapon", call(libc::SYS_swapon, "b'/tmp/x', 0")),
        ("reboot", call(libc::SYS_reboot, "0, 0, 0, 0")),
        ("clock_settime", "attempt(lambda: __import__('time').clock_settime(0, 0))".to_owned()),
        ("acct", call(libc::SYS_acct, "b'/tmp/x'")),
    ];
    refused(false, &["EPERM"], &attempts).await;
    let status = confined().script("grep -E '^(Seccomp|NoNewPrivs|CapEff|CapPrm|CapBnd):' /proc/self/status").await;
    let text = status.text();
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000"] {
        assert!(text.contains(line), "expected `{line}` in:\n{text}");
    }
}

/// This processor's other set of system calls has different numbers, which a filter must also cover.
#[cfg(target_arch = "x86_64")]
#[tokio::test(flavor = "multi_thread")]
async fn calls_by_32_bit_numbers_are_refused_just_so_and_32_bit_programs_run() {
    const PROGRAM: &str = r#"
#include <stdio.h>
#include <unistd.h>
#include <sys/syscall.h>
static long old(long number, long a, long b, long c) {
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory", "r8", "r9", "r10", "r11");
    return result;
}
int main(void) {
    printf("keyctl %ld bpf %ld io_uring %ld unshare %ld init %ld x32 %ld\n", old(288, 0, -3, 1), old(357, 0, 0, 0), old(425, 1, 0, 0),
           old(310, 0x10000000, 0, 0) < 0 ? -1L : 0L, old(340, 1, 7, 0), syscall(0x40000000 + SYS_getpid) < 0 ? -1L : 0L);
    printf("getpid %d limits %ld\n", old(20, 0, 0, 0) == getpid(), old(340, 0, 7, 0));
}
"#;
    let place = confined();
    let mut job = place.job("cc -o /tmp/program program.c && /tmp/program");
    job.layers.push(place.layer("program", &[("program.c", PROGRAM)]));
    let ran = place.run(job).await;
    assert_eq!(
        ran.text(),
        "keyctl -1 bpf -1 io_uring -1 unshare -1 init -1 x32 -1\ngetpid 1 limits 0\n",
        "{}",
        ran.err
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_newer_kernels_are_as_absent_as_on_an_older_one() {
    // This kernel has some of them (`listmount`, `lsm_get_self_attr`, `setxattrat`, `open_tree_attr`), and may have all
    // of them one day.
    let numbers = [435, 457, 458, 459, 460, 461, 463, 464, 467, 468, 470, 480, 499, 512, 600, 1023, 0x4000_0000];
    let names: Vec<String> = numbers.iter().map(|number| format!("call {number}")).collect();
    let attempts: Vec<(&str, String)> =
        names.iter().zip(numbers).map(|(name, number)| (name.as_str(), call(number, "0, 0, 0, 0, 0, 0"))).collect();
    refused(false, &["ENOSYS"], &attempts).await;
    refused(true, &["ENOSYS"], &attempts).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_are_of_the_usual_families_and_protocols() {
    let socket = |family: i32, kind: i32, protocol: i32| {
        format!("attempt(lambda: socket.socket({family}, {kind}, {protocol}).close())")
    };
    let attempts = [
        ("udp-lite", socket(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)),
        ("udp-lite 6", socket(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE)),
        ("sctp", socket(libc::AF_INET, libc::SOCK_STREAM, libc::IPPROTO_SCTP)),
        ("raw", socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_RAW)),
        ("audit", socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_AUDIT)),
        ("packet", socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
        ("crypto", socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0)),
    ];
    refused(false, &["EPERM", "EPROTONOSUPPORT"], &attempts).await;
    refused(true, &["EPERM", "EPROTONOSUPPORT"], &attempts).await;
    let usual = [
        ("tcp", socket(libc::AF_INET, libc::SOCK_STREAM, 0)),
        ("udp", socket(libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_UDP)),
        ("unix", socket(libc::AF_UNIX, libc::SOCK_STREAM, 0)),
        ("route", socket(libc::AF_NETLINK, libc::SOCK_RAW, libc::NETLINK_ROUTE)),
        ("interfaces", "attempt(socket.if_nameindex)".to_owned()),
    ];
    for (name, said) in answers(&confined(), false, &usual).await {
        assert_eq!(said, "open", "{name}");
    }
}
