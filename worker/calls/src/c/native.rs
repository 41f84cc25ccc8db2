//! What `-march=native` stands for on a machine.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use super::words::words;
use crate::call::{Call, Details};
use crate::refusal::Refusal;

/// The arguments with which the driver is to be asked what the call's `native` stands for. Its standard error is the answer that
/// [`with_native`] takes.
pub fn native_query(call: &Call) -> Vec<OsString> {
    let about_cpu = words(&call.arguments).filter_map(Result::ok).filter(|word| is_about_cpu(word.first));
    let mut query: Vec<OsString> = about_cpu.flat_map(|word| word.arguments.iter().cloned()).collect();
    query.extend(["-###", "-E", "-x", call.language.name(), "/dev/null"].map(OsString::from));
    query
}

/// The call with what `native` stands for on this machine in its place.
///
/// The object is the one that the call would have made, but for the list of options in debugging information, whose order may
/// differ.
///
/// `answer` is what the driver wrote to standard error when called with [`native_query`].
pub fn with_native(mut call: Call, answer: &str) -> Result<Call, Refusal> {
    let Details::C(details) = &mut call.details else { return Ok(call) };
    let Some(first) = details.native.first() else { return Ok(call) };
    let refuse = || Refusal::Native { argument: first.to_string_lossy().into_owned() };
    let words = answer.lines().find_map(compiler).ok_or_else(refuse)?;
    let is_clang = words.iter().any(|word| word == "-cc1");
    let expansion = if is_clang { of_clang(&words) } else { of_gcc(&words) };
    if expansion.is_empty() || expansion.iter().any(|word| word.as_bytes().windows(7).any(|part| part == b"=native")) {
        return Err(refuse());
    }
    // gcc's answer has all options for the CPU, clang's only those that follow from its model.
    let stands_for =
        |argument: &OsString| if is_clang { details.native.contains(argument) } else { is_about_cpu(argument) };
    call.arguments = replaced(&call.arguments, expansion, stands_for);
    details.native.clear();
    Ok(call)
}

fn is_about_cpu(argument: &OsStr) -> bool {
    argument.as_bytes().starts_with(b"-m")
}

/// The words of the line that runs the compiler proper.
fn compiler(line: &str) -> Option<Vec<OsString>> {
    let words = unquoted(line.strip_prefix(' ')?);
    let name = words.first()?.as_bytes().rsplit(|c| *c == b'/').next()?;
    let is_compiler = matches!(name, b"cc1" | b"cc1plus") || words.get(1).is_some_and(|word| word == "-cc1");
    is_compiler.then_some(words)
}

fn unquoted(line: &str) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut word: Option<Vec<u8>> = None;
    let mut quoted = false;
    let mut bytes = line.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => word.get_or_insert_default().extend(bytes.next()),
            b'"' => {
                quoted = !quoted;
                word.get_or_insert_default();
            }
            b' ' if !quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(byte),
        }
    }
    words.extend(word);
    words.into_iter().map(OsString::from_vec).collect()
}

/// gcc's own options for the CPU: they mean to its driver what they mean to the compiler proper.
fn of_gcc(words: &[OsString]) -> Vec<OsString> {
    let mut found = Vec::new();
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--param" {
            let Some(value) = words.next() else { break };
            found.extend([word.clone(), value.clone()]);
        } else if is_about_cpu(word) {
            found.push(word.clone());
        }
    }
    found
}

/// What clang's driver tells the compiler proper about the CPU, in the form in which one can tell it oneself.
fn of_clang(words: &[OsString]) -> Vec<OsString> {
    let about = ["-target-cpu", "-target-feature", "-tune-cpu"];
    let pairs = words.iter().zip(words.iter().skip(1)).filter(|(name, _)| about.iter().any(|option| *name == option));
    pairs.flat_map(|(name, value)| [name, value]).flat_map(|word| [OsString::from("-Xclang"), word.clone()]).collect()
}

/// The arguments with the expansion in the place of the first option that it stands for, and without the others.
fn replaced(arguments: &[OsString], expansion: Vec<OsString>, stands_for: impl Fn(&OsString) -> bool) -> Vec<OsString> {
    let mut expansion = Some(expansion);
    let mut all = Vec::new();
    for word in words(arguments).filter_map(Result::ok) {
        if stands_for(word.first) {
            all.extend(expansion.take().into_iter().flatten());
        } else {
            all.extend(word.arguments.iter().cloned());
        }
    }
    all
}
