//! `kiln-call` stands in for a compiler inside a step: it asks the step's worker for the result of the call, and where there is none it
//! becomes the compiler.
//!
//! Invariant: whatever is odd (no socket, a broken connection, an output that cannot be written) ends in the compiler being run with
//! the arguments untouched.

mod descriptors;
mod early;
mod outputs;

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use early::Given;
use kiln_call::{
    Answer, Ask, DIRECTORY, Done, GO, GOCACHE, KEPT, MAX_BYTES, Malformed, SHIM, SOCKET, SWITCH, frame, resolve,
};

/// The exit code of a shell that does not find a program.
const NOT_FOUND: i32 = 127;

fn main() {
    let mut arguments = std::env::args_os();
    let mut called = arguments.next().unwrap_or_default();
    if Path::new(&called).file_name().is_some_and(|name| name == SHIM) {
        called = arguments.next().unwrap_or_default();
        if called == GOCACHE && arguments.len() == 0 {
            std::process::exit(gocache());
        }
    }
    let arguments: Vec<OsString> = arguments.collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let Some(program) = resolve(&called, &path, is_program) else {
        eprintln!("{}: command not found", called.display());
        std::process::exit(NOT_FOUND);
    };
    let mut given = Given::default();
    let mut compiler = Command::new(&program);
    if std::env::var_os(SWITCH).is_none_or(|switch| switch != "off") {
        match ask(&program, &arguments, &mut given) {
            Ok(Answered::Done(exit)) => std::process::exit(exit),
            Ok(Answered::Held) => drop(compiler.env(KEPT, "1")),
            Ok(Answered::Here) | Err(_) => {}
        }
    }
    compiler.args(&arguments);
    let error = if given.is_none() {
        compiler.exec()
    } else {
        match given.run_again(compiler) {
            Ok(code) => std::process::exit(code),
            Err(error) => error,
        }
    };
    eprintln!("{}: {error}", program.display());
    std::process::exit(NOT_FOUND - 1);
}

/// Lets `go`, at standard input and output, speak to the worker.
fn gocache() -> i32 {
    let carried = UnixStream::connect(Path::new(DIRECTORY).join(SOCKET)).and_then(|mut socket| {
        socket.write_all(&frame(GO))?;
        let mut from_go = socket.try_clone()?;
        std::thread::spawn(move || {
            let _ = carry(&mut io::stdin().lock(), &mut from_go);
            let _ = from_go.shutdown(std::net::Shutdown::Write);
        });
        let mut out = File::from(io::stdout().as_fd().try_clone_to_owned()?);
        carry(&mut socket, &mut out)
    });
    match carried {
        Ok(()) => 0,
        Err(error) => {
            eprintln!(
                "{SHIM}: the worker does not answer as a cache: {error}; `GOCACHEPROG=` in front of `go` does without"
            );
            1
        }
    }
}

/// Passes on what arrives at once. `io::copy` would let the kernel wait for more of it.
fn carry(from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(read) => to.write_all(&buffer[..read])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Whether this is a program other than the shim, which may be linked to under any name.
fn is_program(path: &Path) -> bool {
    let own = std::fs::metadata("/proc/self/exe").map(|own| (own.dev(), own.ino())).ok();
    path.metadata().is_ok_and(|data| {
        data.is_file() && data.permissions().mode() & 0o111 != 0 && Some((data.dev(), data.ino())) != own
    })
}

/// What a worker has answered.
enum Answered {
    /// The call has been carried out, with this exit code, and everything that it made is in place.
    Done(i32),
    /// The compiler has to run.
    Here,
    /// The compiler has to run, and a place is kept for it.
    Held,
}

/// Asks the worker. `given` is what was handed out before its answer.
fn ask(program: &Path, arguments: &[OsString], given: &mut Given) -> io::Result<Answered> {
    let mut socket = UnixStream::connect(Path::new(DIRECTORY).join(SOCKET))?;
    let ask = Ask {
        program: program.into(),
        arguments: arguments.to_vec(),
        directory: std::env::current_dir()?.into(),
        environment: std::env::vars_os().collect(),
    };
    let content = ask.encode();
    if content.len() > MAX_BYTES {
        return Ok(Answered::Here);
    }
    socket.write_all(&frame(&content))?;
    loop {
        let mut descriptors = Vec::new();
        let answer = Answer::decode(&receive(&socket, &mut descriptors)?).map_err(malformed)?;
        let contents: Vec<File> = descriptors.into_iter().map(File::from).collect();
        match answer {
            Answer::Here => return Ok(Answered::Here),
            Answer::Held => {
                descriptors::leave_open(socket);
                return Ok(Answered::Held);
            }
            Answer::Early(early) if given.is_none() => *given = Given::hand_out(early, contents)?,
            Answer::Early(_) => return Err(malformed(Malformed)),
            Answer::Done(done) => return accept(&done, contents).map(Answered::Done),
        }
    }
}

fn malformed(error: Malformed) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// The content of the next frame, with the descriptors that came along.
fn receive(socket: &UnixStream, descriptors: &mut Vec<OwnedFd>) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    fill(socket, &mut length, descriptors)?;
    let length = u32::from_le_bytes(length) as usize;
    if length > MAX_BYTES {
        return Err(malformed(Malformed));
    }
    let mut content = vec![0; length];
    fill(socket, &mut content, descriptors)?;
    Ok(content)
}

fn fill(socket: &UnixStream, mut buffer: &mut [u8], descriptors: &mut Vec<OwnedFd>) -> io::Result<()> {
    while !buffer.is_empty() {
        match descriptors::receive(socket, buffer, descriptors) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(received) => buffer = &mut buffer[received..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Puts the outputs in place and says what the compiler said.
fn accept(done: &Done, mut contents: Vec<File>) -> io::Result<i32> {
    outputs::place(&done.outputs, &mut contents)?;
    // Nothing can be taken back from here on.
    let _ = io::stdout().write_all(&done.stdout).and_then(|()| io::stdout().flush());
    let _ = io::stderr().write_all(&done.stderr);
    Ok(done.exit)
}
