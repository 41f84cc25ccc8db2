//! The worker's port on a job's loopback: the job reaches it, and nobody else does.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use kiln_worker::executor::calls::{Listening, Offer, Port};
use kiln_worker::executor::{Exit, Job};
use tokio::sync::watch;

use super::place::{Place, confined, sharing_the_network};

/// Prints what the port says, or that nobody listens there.
fn ask(number: u16) -> String {
    format!(
        "perl -MSocket -e 'socket(S, PF_INET, SOCK_STREAM, 0); connect(S, sockaddr_in({number}, INADDR_LOOPBACK)) or print \"nobody\"; \
         print scalar <S>'"
    )
}

/// A port of this machine's loopback that nobody else listens at.
fn own() -> (TcpListener, u16) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let number = listener.local_addr().unwrap().port();
    (listener, number)
}

fn with_port(place: &Place, number: u16, script: &str) -> (Job, Listening) {
    let directory = place.dir.path().join("offered");
    std::fs::create_dir_all(&directory).unwrap();
    let (port, listening) = Port::new(number);
    let mut job = place.job(script);
    job.calls.offer = Some(Offer {
        directory,
        to: "/kiln/call".into(),
        programs: "/kiln/call/bin".into(),
        begun: watch::Sender::new(None),
        port: Some(port),
    });
    (job, listening)
}

/// Answers one connection.
fn answer(listener: &TcpListener) {
    listener.set_nonblocking(false).unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.write_all(b"the worker\n").unwrap();
    // Whoever closes first leaves a trace in the network.
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read(&mut [0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_reaches_its_worker_and_nobody_else_does() {
    let place = confined();
    // The same number is in use outside.
    let (outside, number) = own();
    let ask = ask(number);
    let (job, mut listening) =
        with_port(&place, number, &format!("{ask}; until [ -e /kiln/call/go ]; do sleep 0.01; done"));
    let serving = async {
        let listener = listening.listener().await.expect("a listener in the job's network");
        let _user = TcpStream::connect(("127.0.0.1", number)).unwrap();
        assert!(outside.accept().is_ok(), "expected the worker's port not to be on this machine's loopback");
        let other = place.script(&ask).await;
        assert_eq!(other.text(), "nobody", "expected another job not to reach it");
        let listener = tokio::task::spawn_blocking(move || {
            answer(&listener);
            listener
        });
        let listener = listener.await.unwrap();
        std::fs::write(place.dir.path().join("offered/go"), "").unwrap();
        listening.over().await;
        drop((listener, listening));
    };
    let (ran, ()) = tokio::join!(place.run(job), serving);
    assert_eq!((ran.text().as_str(), ran.exit()), ("the worker\n", &Exit::Code(0)), "{}", ran.err);
    drop(ran);
    assert_eq!(place.script(&ask).await.text(), "nobody", "expected the next job not to find it either");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_on_the_machines_network_gets_no_port() {
    let place = sharing_the_network();
    let (_, number) = own();
    let (job, mut listening) = with_port(&place, number, &ask(number));
    let job = Job { network: true, ..job };
    let (ran, listener) = tokio::join!(place.run(job), listening.listener());
    assert!(listener.is_none(), "expected nobody to listen on the machine's loopback");
    assert_eq!(ran.text(), "nobody", "{}", ran.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_whose_port_was_not_used_serves_the_next_job() {
    let place = confined();
    if !place.sandbox.has_own_ids() {
        return super::cannot_run("root, or ids of its own");
    }
    // A number that no other network gets, unlike that of its file (SO_NETNS_COOKIE).
    let network =
        "perl -MSocket -e 'socket(S, PF_INET, SOCK_DGRAM, 0); print unpack(\"Q\", getsockopt(S, SOL_SOCKET, 71))'";
    let mut seen = std::collections::BTreeSet::new();
    // A network is given back a moment after its job has ended.
    for _ in 0..50 {
        let (job, mut listening) = with_port(&place, 18981, network);
        let serving = async {
            let listener = listening.listener().await;
            assert!(listener.is_some());
            listening.over().await;
            drop((listener, listening));
        };
        let (ran, ()) = tokio::join!(place.run(job), serving);
        if !seen.insert(ran.text()) {
            return;
        }
        drop(ran);
        place.wait_until_idle();
    }
    panic!("expected a network to be used again: {seen:?}");
}
