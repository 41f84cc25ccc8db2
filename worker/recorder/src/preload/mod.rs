//! What is loaded into a program: functions that take the place of the C library's.
//!
//! Invariants: nothing here panics, allocates or holds a lock, because it runs in any program at any time, also between `vfork` and
//! `execve`; a call that cannot be written down is made from elsewhere than the gate, and so is seen by the supervisor.

#![allow(unsafe_code)]

mod files;
mod gate;
mod note;
mod real;

/// Called before the program's own code. Whatever fails leaves every call to the supervisor.
extern "C" fn start() {
    if gate::open() {
        note::open();
    }
}

#[used]
#[unsafe(link_section = ".init_array")]
static START: extern "C" fn() = start;

#[panic_handler]
fn panicked(_: &core::panic::PanicInfo<'_>) -> ! {
    // Nothing here panics; the program's own crash is told from this by the signal.
    loop {
        // SAFETY: ends this process.
        unsafe { gate::plain(gate::EXIT_GROUP, [134, 0, 0, 0, 0, 0]) };
    }
}
