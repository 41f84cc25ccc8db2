//! Everything here once more, with the layout of older kernels and of workers that are not root.

use std::process::Command;

#[test]
fn all_of_this_holds_for_unpacked_roots_too() {
    if std::env::var_os("KILN_ROOT_LAYOUT").is_some() {
        return;
    }
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own)
        .args(["--test-threads", "2", "--skip", "network::"])
        .env("KILN_ROOT_LAYOUT", "unpacked")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}
