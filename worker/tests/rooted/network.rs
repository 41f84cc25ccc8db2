//! The networks of commands in roots: their own, none, and the machine's where it is allowed.

use std::io::Write;
use std::net::TcpListener;

use kiln_proto::root::{NETWORK_DEFAULT, NETWORK_HOST, NETWORK_NONE};

use crate::base::busybox;
use crate::place::{Place, ask, place};

/// A service of the machine on its loopback that greets whoever comes.
fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        while let Ok((mut caller, _)) = listener.accept() {
            let _ = caller.write_all(b"hello\n");
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machines_network_is_there_only_where_it_is_asked_for_and_allowed() {
    let port = service();
    let dir = tempfile::tempdir().unwrap();
    let own = Place::with(dir.path(), (None, None), true);
    assert!(own.sandbox.allows_host_network() && !place().sandbox.allows_host_network());
    let root = busybox(&own.cas);
    let with = |network: &'static str| {
        let script = format!(
            "nc -w 5 127.0.0.1 {port} </dev/null 2>/dev/null || echo closed; ls /sys/class/net | grep -c -v '^lo$' || true"
        );
        let mut ask = ask(root, &script);
        ask.network = network;
        ask
    };
    let interfaces =
        std::fs::read_dir("/sys/class/net").unwrap().flatten().filter(|entry| entry.file_name() != "lo").count();
    assert_eq!(own.run(with(NETWORK_HOST)).await.ok(), format!("hello\n{interfaces}\n"));
    assert_eq!(own.run(with(NETWORK_NONE)).await.ok(), "closed\n0\n");
    if own.sandbox.has_own_networks() {
        assert_eq!(own.run(with(NETWORK_DEFAULT)).await.ok(), "closed\n1\n");
    }
    let fault = place().fault(with(NETWORK_HOST)).await;
    assert!(fault.contains("--allow-host-network"), "{fault}");
}
