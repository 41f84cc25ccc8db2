//! Files that are meant to do harm end in an error, soon.

use crate::support::{error, options};
use kiln_dockerfile::{Bases, decode, lower, parse};

#[test]
fn large_files_and_long_lines_are_refused() {
    let large = format!("FROM a\n{}", "RUN x\n".repeat(2 << 20));
    assert_eq!(error(&large), "1: the file is larger than 4 MiB; move data that it contains to files of the context");
    let long = format!("FROM a\nRUN {}\n", "x".repeat(70_000));
    assert!(error(&long).starts_with("2: the line is longer than 65536 bytes"));
    assert!(error(&format!("FROM a\n{}", "RUN x\n".repeat(10_001))).starts_with("10001: more than 10000 instructions"));
    assert!(error(&"FROM a\n".repeat(1_001)).starts_with("1001: more than 1000 stages"));
    assert!(decode("Dockerfile", vec![b' '; 10 << 20]).is_ok());
}

#[test]
fn variables_that_double_each_other_end() {
    let mut text = "FROM a\nENV A=0123456789\n".to_owned();
    text.push_str(&"ENV A=$A$A$A$A\n".repeat(60));
    assert!(error(&text).contains("expands to more than 1048576 bytes"));
    let many =
        format!("FROM a\nENV A={}\n{}", "x".repeat(60_000), "LABEL a=$A$A$A$A$A$A$A$A$A$A$A$A$A$A$A\n".repeat(400));
    assert!(error(&many).contains("expand to more than 256 MiB"));
}

#[test]
fn stages_and_environments_that_are_copied_often_end() {
    let mut text = format!("FROM a AS s\nENV A={}\n", "x".repeat(60_000));
    text.push_str("ENV B=$A$A$A$A$A$A\n");
    text.push_str(&"FROM s\nCOPY x y\n".repeat(900));
    let file = parse("Dockerfile", &text).unwrap();
    let own = kiln_dockerfile::Options { all_stages: true, ..options() };
    let error = lower(&file, &own, &Bases::assumed()).unwrap_err();
    assert!(error.message().contains("256 MiB"), "{error}");
    let mut text = "FROM a\n".to_owned();
    (0..3_000).for_each(|at| text.push_str(&format!("ENV V{at}=1\n")));
    assert!(crate::support::error(&text).contains("more than 2000 variables"));
}

#[test]
fn large_files_of_every_shape_take_no_time() {
    // Each would take minutes if something were quadratic.
    let continued = format!("FROM a\nRUN x{}\n", " \\\n y".repeat(200_000));
    let words = format!("FROM a\nCOPY {} /d/\n", "\\\na ".repeat(100_000));
    let quotes = format!("FROM a\nENV A=1{}\n", " \\\nB='x'".repeat(100_000));
    let heredocs = format!("FROM a\nRUN {}\n", "<<E\\\n ".repeat(150_000));
    let comments = format!("{}FROM a\n", "# x\n".repeat(100_000));
    let flags = format!("FROM a\nCOPY {} a b\n", "\\\n--exclude=x".repeat(100_000));
    let nested = format!("FROM a\n{}RUN x\n", "ONBUILD ".repeat(8_000));
    let body = format!("FROM a\nCOPY <<EOF /x\n{}EOF\n", "$PATH x\n".repeat(20_000));
    for text in [continued, words, quotes, heredocs, comments, flags, nested, body] {
        assert!(text.len() < 4 << 20);
        if let Ok(file) = parse("Dockerfile", &text) {
            let _ = lower(&file, &options(), &Bases::assumed());
        }
    }
}

#[test]
fn many_stages_are_resolved() {
    let mut text = "FROM scratch AS s0\n".to_owned();
    (1..1_000).for_each(|at| text.push_str(&format!("FROM s{} AS s{at}\nCOPY --from=s{} a b\n", at - 1, at / 2)));
    let file = parse("Dockerfile", &text).unwrap();
    assert_eq!(lower(&file, &options(), &Bases::assumed()).unwrap().operations.len(), 1_000);
}
