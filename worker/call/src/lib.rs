//! What the shim inside a step and its worker say to each other over the step's socket.
//!
//! The shim sends one [`Ask`]; the worker answers with [`Answer::Here`], [`Answer::Held`] or [`Answer::Done`], before which there may be
//! one [`Answer::Early`]. Each message is a frame: its length in bytes (32 bits, little endian) and its content. The descriptors of an
//! answer's outputs come along with the frame's first byte (`SCM_RIGHTS`), in the order of the outputs.
//!
//! Invariant: no dependencies, so that the shim starts at once; nothing that is received is trusted to be well-formed.

#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)]
#![cfg_attr(
    test,
    allow(clippy::indexing_slicing, clippy::string_slice, clippy::unwrap_used, clippy::arithmetic_side_effects)
)]

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Where a step finds what belongs to its calls.
pub const DIRECTORY: &str = "/kiln/call";
/// The directory with the shim under the names of compilers, below [`DIRECTORY`].
pub const PROGRAMS: &str = "bin";
/// The socket to the worker, below [`DIRECTORY`].
pub const SOCKET: &str = "farm.sock";
/// The shim's own name. Under this name its first argument is the compiler.
pub const SHIM: &str = "kiln-call";
/// The variable that switches calls off when it is `off`.
pub const SWITCH: &str = "KILN_SPLIT";
/// The variable that tells a compiler's own calls of compilers that a place is kept for them.
pub const KEPT: &str = "KILN_CALL_PLACE";
/// The argument after [`SHIM`] with which `go` starts it as its cache (`GOCACHEPROG`).
pub const GOCACHE: &str = "gocache";
/// The content of the frame with which a connection becomes `go`'s cache: what follows, in both directions, is Go's protocol.
pub const GO: &[u8] = b"G";
/// The directory with the files of that cache, below [`DIRECTORY`].
pub const GO_FILES: &str = "go";
/// The version of these messages.
pub const VERSION: u8 = 2;
/// Maximum bytes of a frame.
pub const MAX_BYTES: usize = 16 << 20;
/// Maximum number of outputs of a call: each is a descriptor of one message (`SCM_MAX_FD`).
pub const MAX_OUTPUTS: usize = 250;

const HERE: u8 = b'H';
const HELD: u8 = b'P';
const DONE: u8 = b'D';
const EARLY: u8 = b'E';

/// A compiler was called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// The compiler's absolute path.
    pub program: OsString,
    /// Its arguments, without the program's name.
    pub arguments: Vec<OsString>,
    /// The working directory.
    pub directory: OsString,
    /// The environment.
    pub environment: Vec<(OsString, OsString)>,
}

/// What the worker answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// The shim runs the compiler.
    Here,
    /// The same, in a place that the worker keeps for it until the connection ends: with the compiler's last process.
    Held,
    /// The compiler has announced some of its outputs, and is still at work.
    Early(Early),
    /// The call has been carried out.
    Done(Done),
}

/// What a compiler has announced: files first, then the words that announce them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Early {
    /// What it has written to its standard error so far. [`Done::stderr`] is what follows.
    pub stderr: Vec<u8>,
    /// The files that it announces there. [`Done::outputs`] are the others.
    pub outputs: Vec<Output>,
}

/// A call that has been carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Done {
    /// The compiler's exit code.
    pub exit: i32,
    /// Its standard output.
    pub stdout: Vec<u8>,
    /// Its standard error.
    pub stderr: Vec<u8>,
    /// The files that it made.
    pub outputs: Vec<Output>,
}

/// A file that a call made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its absolute path.
    pub path: OsString,
    /// Whether it is a program.
    pub executable: bool,
}

/// A frame that is not one of this protocol's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl std::fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("malformed message: expected one of this version's shim")
    }
}

impl std::error::Error for Malformed {}

impl Ask {
    /// The frame's content.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION];
        put(&mut out, self.program.as_bytes());
        put(&mut out, self.directory.as_bytes());
        put_number(&mut out, self.arguments.len());
        self.arguments.iter().for_each(|argument| put(&mut out, argument.as_bytes()));
        put_number(&mut out, self.environment.len());
        for (name, value) in &self.environment {
            put(&mut out, name.as_bytes());
            put(&mut out, value.as_bytes());
        }
        out
    }

    /// Reads a frame's content.
    ///
    /// # Errors
    /// If it is not the content of such a frame, or of another version.
    pub fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Rest(content);
        if rest.byte()? != VERSION {
            return Err(Malformed);
        }
        let (program, directory) = (rest.string()?, rest.string()?);
        let count = rest.count()?;
        let arguments = (0..count).map(|_| rest.string()).collect::<Result<_, _>>()?;
        let count = rest.count()?;
        let environment = (0..count).map(|_| Ok((rest.string()?, rest.string()?))).collect::<Result<_, Malformed>>()?;
        rest.end()?;
        Ok(Self { program, arguments, directory, environment })
    }
}

impl Answer {
    /// The frame's content.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Here => vec![HERE],
            Self::Held => vec![HELD],
            Self::Early(early) => {
                let mut out = vec![EARLY];
                put(&mut out, &early.stderr);
                put_outputs(&mut out, &early.outputs);
                out
            }
            Self::Done(done) => {
                let mut out = vec![DONE];
                out.extend_from_slice(&done.exit.to_le_bytes());
                put(&mut out, &done.stdout);
                put(&mut out, &done.stderr);
                put_outputs(&mut out, &done.outputs);
                out
            }
        }
    }

    /// Reads a frame's content.
    ///
    /// # Errors
    /// If it is not the content of such a frame.
    pub fn decode(content: &[u8]) -> Result<Self, Malformed> {
        let mut rest = Rest(content);
        match rest.byte()? {
            HERE => rest.end().map(|()| Self::Here),
            HELD => rest.end().map(|()| Self::Held),
            EARLY => {
                let (stderr, outputs) = (rest.bytes()?.to_vec(), rest.outputs()?);
                rest.end()?;
                Ok(Self::Early(Early { stderr, outputs }))
            }
            DONE => {
                let exit = i32::from_le_bytes(rest.four()?);
                let (stdout, stderr) = (rest.bytes()?.to_vec(), rest.bytes()?.to_vec());
                let outputs = rest.outputs()?;
                rest.end()?;
                Ok(Self::Done(Done { exit, stdout, stderr, outputs }))
            }
            _ => Err(Malformed),
        }
    }
}

/// A frame: the length of its content, and the content.
pub fn frame(content: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, content);
    out
}

fn put_number(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_outputs(out: &mut Vec<u8>, outputs: &[Output]) {
    put_number(out, outputs.len());
    for output in outputs {
        put(out, output.path.as_bytes());
        out.push(u8::from(output.executable));
    }
}

/// What is left of a frame's content.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1)?.first().copied().ok_or(Malformed)
    }

    fn four(&mut self) -> Result<[u8; 4], Malformed> {
        self.take(4)?.try_into().map_err(|_| Malformed)
    }

    fn number(&mut self) -> Result<usize, Malformed> {
        Ok(u32::from_le_bytes(self.four()?) as usize)
    }

    /// A number of things that follow, each of which has at least one byte.
    fn count(&mut self) -> Result<usize, Malformed> {
        self.number().and_then(|count| if count <= self.0.len() { Ok(count) } else { Err(Malformed) })
    }

    fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        self.take(length)
    }

    fn string(&mut self) -> Result<OsString, Malformed> {
        let bytes = self.bytes()?;
        // Neither the kernel's arguments nor its paths can contain NUL.
        if bytes.contains(&0) { Err(Malformed) } else { Ok(OsString::from_vec(bytes.to_vec())) }
    }

    fn outputs(&mut self) -> Result<Vec<Output>, Malformed> {
        let count = self.count()?;
        (0..count).map(|_| Ok(Output { path: self.string()?, executable: self.byte()? == 1 })).collect()
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// The compiler that stands behind a shim's name: the first program of that name on `path` that is not the shim's own.
pub fn resolve(
    name: &OsStr,
    path: &OsStr,
    is_program: impl Fn(&std::path::Path) -> bool,
) -> Option<std::path::PathBuf> {
    let own = std::path::Path::new(DIRECTORY).join(PROGRAMS);
    let named = std::path::Path::new(name);
    if name.as_bytes().contains(&b'/') && !named.starts_with(&own) {
        return is_program(named).then(|| named.to_owned());
    }
    let name = named.file_name()?;
    std::env::split_paths(path)
        .filter(|directory| *directory != own)
        .map(|directory| directory.join(name))
        .find(|found| is_program(found))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn string() -> impl Strategy<Value = OsString> {
        proptest::collection::vec(1_u8..=255, 0..20).prop_map(OsString::from_vec)
    }

    fn done() -> impl Strategy<Value = Done> {
        let output = (string(), any::<bool>()).prop_map(|(path, executable)| Output { path, executable });
        let outputs = proptest::collection::vec(output, 0..4);
        (any::<i32>(), any::<Vec<u8>>(), any::<Vec<u8>>(), outputs).prop_map(|(exit, stdout, stderr, outputs)| Done {
            exit,
            stdout,
            stderr,
            outputs,
        })
    }

    proptest! {
        #[test]
        fn what_one_side_says_the_other_understands(
            program in string(), directory in string(), arguments in proptest::collection::vec(string(), 0..8),
            environment in proptest::collection::vec((string(), string()), 0..8), done in done()
        ) {
            let ask = Ask { program, arguments, directory, environment };
            prop_assert_eq!(Ask::decode(&ask.encode()), Ok(ask));
            let early = Early { stderr: done.stderr.clone(), outputs: done.outputs.clone() };
            for answer in [Answer::Here, Answer::Held, Answer::Early(early), Answer::Done(done)] {
                prop_assert_eq!(Answer::decode(&answer.encode()), Ok(answer));
            }
        }

        #[test]
        fn no_bytes_do_harm(bytes: Vec<u8>) {
            let _ = (Ask::decode(&bytes), Answer::decode(&bytes));
        }

        #[test]
        fn a_message_that_is_cut_off_is_refused(done in done(), at: prop::sample::Index) {
            let content = Answer::Done(done).encode();
            prop_assert_eq!(Answer::decode(&content[..at.index(content.len())]), Err(Malformed));
        }
    }

    #[test]
    fn another_versions_shim_is_refused() {
        let ask = Ask { program: "cc".into(), arguments: vec![], directory: "/".into(), environment: vec![] };
        let mut content = ask.encode();
        content[0] = VERSION + 1;
        assert_eq!(Ask::decode(&content), Err(Malformed));
    }

    #[test]
    fn a_shim_finds_the_compiler_behind_it_and_never_itself() {
        let there = ["/usr/bin/cc", "/kiln/call/bin/cc", "/opt/bin/gcc"];
        let found = |name: &str| {
            let is_program = |path: &std::path::Path| there.iter().any(|program| path == std::path::Path::new(program));
            resolve(name.as_ref(), "/kiln/call/bin:/opt/bin:/usr/bin".as_ref(), is_program)
        };
        assert_eq!(found("cc"), Some("/usr/bin/cc".into()));
        assert_eq!(found("/kiln/call/bin/cc"), Some("/usr/bin/cc".into()));
        assert_eq!(found("/opt/bin/gcc"), Some("/opt/bin/gcc".into()));
        assert_eq!(found("clang"), None);
    }
}
