//! For tests: attempts to do what a step must not, made by Python in the step, and what each is told.

use std::fmt::Write as _;

use nix::libc;

/// The start of every attempt's program: functions that return the name of the error, or `open` on success.
const PRELUDE: &str = r#"
import ctypes, errno, os, signal, socket, stat, struct
libc = ctypes.CDLL(None, use_errno=True)
room = ctypes.create_string_buffer(8)
def name(number):
    return errno.errorcode.get(number, str(number))
def call(number, *arguments):
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_char_p(a) if isinstance(a, bytes) else ctypes.c_long(a) for a in arguments])
    return 'open' if result >= 0 else name(ctypes.get_errno())
def attempt(what, *arguments):
    try:
        what(*arguments)
        return 'open'
    except OSError as error:
        return name(error.errno)
def opened(path, flags):
    return attempt(lambda: os.close(os.open(path, flags)))
def written(path, data=b'1'):
    def write():
        file = os.open(path, os.O_WRONLY)
        try: os.write(file, data)
        finally: os.close(file)
    return attempt(write)
"#;

/// A system call, as an expression.
pub fn call(number: libc::c_long, arguments: &str) -> String {
    format!("call({number}, {arguments})")
}

/// The command that runs this program.
pub fn python(program: &str) -> Vec<String> {
    ["/usr/bin/python3", "-c", &format!("{PRELUDE}\n{program}")].map(str::to_owned).into()
}

/// A program that makes attempts, each a name and an expression.
pub fn program(attempts: &[(&str, String)]) -> String {
    let mut program = String::new();
    for (name, expression) in attempts {
        writeln!(program, "print({name:?}, {expression}, flush=True)").unwrap();
    }
    program
}

/// What each attempt was told, from what the program said.
pub fn answers(said: &str) -> Vec<(String, String)> {
    said.lines().filter_map(|line| line.rsplit_once(' ')).map(|(name, said)| (name.into(), said.into())).collect()
}

/// Every attempt must have been refused with one of these errors.
pub fn check(errors: &[&str], attempts: &[(&str, String)], answers: &[(String, String)]) {
    assert_eq!(answers.len(), attempts.len(), "{answers:?}");
    for (name, said) in answers {
        assert!(errors.contains(&said.as_str()), "expected `{name}` to be refused with {errors:?}, found `{said}`");
    }
}
