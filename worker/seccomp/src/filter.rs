//! System call filters as classic BPF programs: building blocks, and tables of call numbers.
//!
//! Source: seccomp(2); Documentation/userspace-api/seccomp_filter.rst. When a filter is installed the kernel runs it
//! for every call number, so a table is a tree rather than a list.

use nix::libc;
use seccompiler::sock_filter;

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const ANY_BIT: u16 = 0x45;
const JUMP: u16 = 0x05;
const RETURN: u16 = 0x06;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Allow,
    Error(u32),
    /// A listener decides.
    Notify,
}

fn op(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

pub(super) fn answer(answer: Answer) -> sock_filter {
    let value = match answer {
        Answer::Allow => libc::SECCOMP_RET_ALLOW,
        Answer::Error(code) => libc::SECCOMP_RET_ERRNO | code,
        Answer::Notify => libc::SECCOMP_RET_USER_NOTIF,
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

/// A half of a number of 64 bits.
#[derive(Debug, Clone, Copy)]
pub(super) enum Half {
    Low,
    High,
}

/// Half of the address of the instruction after the call.
pub(super) fn load_pointer(half: Half) -> sock_filter {
    op(LOAD, 0, 0, if matches!(half, Half::Low) { 8 } else { 12 })
}

/// The lower half of an argument.
pub(super) fn load_argument(argument: u32) -> sock_filter {
    op(LOAD, 0, 0, 16 + 8 * argument)
}

/// Runs the block if the loaded value equals `value`, otherwise continues after it. The block ends with an answer.
pub(super) fn where_equal(value: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    guarded(EQUAL, value, block)
}

/// Runs the block if the loaded value is at least `value`.
pub(super) fn where_at_least(value: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    guarded(AT_LEAST, value, block)
}

/// Runs the block if the loaded value has one of these bits.
pub(super) fn where_any_bit(bits: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    guarded(ANY_BIT, bits, block)
}

fn guarded(code: u16, value: u32, block: Vec<sock_filter>) -> Vec<sock_filter> {
    // A conditional jump only reaches 255 instructions.
    let mut program = match u8::try_from(block.len()) {
        Ok(over) => vec![op(code, 0, over, value)],
        Err(_) => vec![op(code, 1, 0, value), op(JUMP, 0, 0, block.len() as u32)],
    };
    program.extend(block);
    program
}

/// Answers by call number.
#[derive(Debug)]
pub(super) struct Table {
    /// Each answer applies from its number up to the next entry.
    from: Vec<(u32, Answer)>,
}

impl Table {
    /// The given answers, and `otherwise` for all other numbers.
    pub(super) fn new(answers: impl IntoIterator<Item = (u32, Answer)>, otherwise: Answer) -> Self {
        let mut answers: Vec<(u32, Answer)> = answers.into_iter().collect();
        // If a number has two answers, the later one applies.
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

    /// Looks up the answer for the loaded number.
    pub(super) fn program(&self) -> Vec<sock_filter> {
        tree(&self.from, &|only| vec![answer(only)])
    }

    /// Looks up the answer, and runs the block where it is `replaced`. The block ends with an answer.
    pub(super) fn program_with(&self, replaced: Answer, block: &[sock_filter]) -> Vec<sock_filter> {
        tree(&self.from, &|only| if only == replaced { block.to_vec() } else { vec![answer(only)] })
    }
}

fn tree(from: &[(u32, Answer)], leaf: &dyn Fn(Answer) -> Vec<sock_filter>) -> Vec<sock_filter> {
    if let [(_, only)] = from {
        return leaf(*only);
    }
    let (low, high) = from.split_at(from.len() / 2);
    let (low, start) = (tree(low, leaf), high.first().map_or(0, |(start, _)| *start));
    let mut program = match u8::try_from(low.len()) {
        Ok(over) => vec![op(AT_LEAST, over, 0, start)],
        Err(_) => vec![op(AT_LEAST, 0, 1, start), op(JUMP, 0, 0, low.len() as u32)],
    };
    program.extend(low);
    program.extend(tree(high, leaf));
    program
}
