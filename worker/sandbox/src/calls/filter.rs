//! Filters of system calls as programs of the kernel's: pieces, and tables of numbers.
//!
//! Source: seccomp(2); Documentation/userspace-api/seccomp_filter.rst. The kernel tries every number when a filter is set, so a
//! table is a tree and not a list.

use nix::libc;
use seccompiler::sock_filter;

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// What a call comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    Error(u32),
}

fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

pub(super) fn answer(answer: Answer) -> sock_filter {
    let value = match answer {
        Answer::Allow => libc::SECCOMP_RET_ALLOW,
        Answer::Error(code) => libc::SECCOMP_RET_ERRNO | code,
    };
    op(RETURN, 0, 0, value)
}

/// Offsets in `struct seccomp_data`.
pub(super) fn load_number() -> sock_filter {
    op(LOAD, 0, 0, 0)
}

pub(super) fn load_architecture() -> sock_filter {
    op(LOAD, 0, 0, 4)
}

/// The lower half of an argument.
pub(super) fn load_argument(argument: u32) -> sock_filter {
    op(LOAD, 0, 0, 16 + 8 * argument)
}

/// Does this where what was loaded is the value, and goes on behind it elsewhere. The block ends with an answer.
pub(super) fn where_equal(value: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    guarded(EQUAL, value, block)
}

/// Does this where what was loaded has one of these bits.
pub(super) fn where_any_bit(bits: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    guarded(ANY_BIT, bits, block)
}

fn guarded(code: u16, value: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    // A condition's own jump is short.
    let mut program = match u8::try_from(block.len()) {
        Ok(over) => vec![op(code, 0, over, value)],
        Err(_) => vec![op(code, 1, 0, value), op(JUMP, 0, 0, block.len() as u32)],
    };
    program.extend(block);
    program
}

/// Answers by number.
#[derive(Debug)]
pub(super) struct Table {
    /// From each of these numbers on.
    from: Vec<(u32, Answer)>,
}

impl Table {
    /// These answers, and `otherwise` for all other numbers.
    pub(super) fn new(answers: impl IntoIterator<Item = (u32, Answer)>, otherwise: Answer) -> Self {
        let mut answers: Vec<(u32, Answer)> = answers.into_iter().collect();
        // Of two answers to one number, the later one holds.
        answers.sort_by_key(|(number, _)| *number);
        let mut from = vec![(0, otherwise)];
        let mut push = |number: u32, answer: Answer| match from.last_mut() {
            Some(last) if last.0 == number => last.1 = answer,
            Some(last) if last.1 == answer => {}
            _ => from.push((number, answer)),
        };
        for (at, (number, answer)) in answers.iter().enumerate() {
            push(*number, *answer);
            if answers.get(at + 1).is_none_or(|(next, _)| *next > number + 1) {
                push(number + 1, otherwise);
            }
        }
        Self { from }
    }

    /// Finds the answer to the number that was loaded.
    pub(super) fn program(&self) -> Vec<sock_filter> {
        tree(&self.from)
    }
}

fn tree(from: &[(u32, Answer)]) -> Vec<sock_filter> {
    if let [(_, only)] = from {
        return vec![answer(*only)];
    }
    let (low, high) = from.split_at(from.len() / 2);
    let (low, start) = (tree(low), high.first().map_or(0, |(start, _)| *start));
    let mut program = match u8::try_from(low.len()) {
        Ok(over) => vec![op(AT_LEAST, over, 0, start)],
        Err(_) => vec![op(AT_LEAST, 0, 1, start), op(JUMP, 0, 0, low.len() as u32)],
    };
    program.extend(low);
    program.extend(tree(high));
    program
}
