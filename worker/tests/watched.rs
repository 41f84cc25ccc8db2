//! What the worker's process offers for monitoring while it has no coordinator.

#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

struct Worker(Child);

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_worker_without_a_coordinator_is_alive_but_not_ready_and_logs_json_where_asked() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln-worker"));
    command
        .args(["--coordinator", &format!("http://{nobody}"), "--name", "alone", "--docker", "off"])
        .args(["--metrics-listen", "127.0.0.1:0", "--log-format", "json", "--state-dir"])
        .arg(dir.path())
        .env_remove("KILN_LOG")
        .stderr(Stdio::piped());
    let mut worker = Worker(command.spawn().unwrap());
    let lines = BufReader::new(worker.0.stderr.take().unwrap()).lines();
    let address = lines
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).expect("expected an object a line"))
        .find(|line| line["message"] == "serving metrics and health")
        .expect("expected a line that says where metrics are served")["address"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(kiln_harness::http::get(&address, "/healthz").0, 200);
    assert_eq!(kiln_harness::http::get(&address, "/readyz"), (503, "no connection to the coordinator\n".to_owned()));
    let samples = kiln_harness::http::samples(&address);
    for line in ["kiln_worker_running_leases 0", "kiln_worker_leases_total{outcome=\"worker_fault\"} 0"] {
        assert!(samples.iter().any(|sample| sample == line), "expected `{line}` in {samples:#?}");
    }
}
