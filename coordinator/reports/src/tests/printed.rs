//! What runners print, as text and as JSON: copied from runs of them.

use Outcome::{Failed, Passed, Skipped};

use super::{all, told};
use crate::*;

const LIBTEST: &str = r"
running 4 tests
test tests::adds ... ok
test tests::later ... ignored, not yet
test tests::totals ... FAILED
test tests::panics - should panic ... ok

failures:

---- tests::totals stdout ----
the cart has 8

thread 'tests::totals' (23909) panicked at src/lib.rs:10:55:
assertion `left == right` failed: expected 7
  left: 7
 right: 8


failures:
    tests::totals

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.07s


running 1 test
test whole ... ok

test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.06s


running 2 tests
test src/lib.rs - (line 4) - compile fail ... ok
test src/lib.rs - (line 1) ... ok

test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.11s
";
const CARGO: &str = r"   Compiling shop v0.1.0 (/build)
     Running unittests src/lib.rs (target/debug/deps/shop-507999230d6984fa)
error: test failed, to rerun pass `--lib`
     Running tests/it.rs (target/debug/deps/it-d6c00e1614d165e9)
   Doc-tests shop
";

#[test]
fn tests_of_cargo_have_the_programs_that_it_announces_on_the_other_stream() {
    let tests = read_output(LIBTEST.as_bytes(), CARGO.as_bytes(), &Limits::default()).unwrap();
    let expected = [
        ("shop", "tests::adds", Passed),
        ("shop", "tests::later", Skipped),
        ("shop", "tests::totals", Failed),
        ("shop", "tests::panics", Passed),
        ("it", "whole", Passed),
        ("shop (documentation)", "src/lib.rs - (line 4)", Passed),
        ("shop (documentation)", "src/lib.rs - (line 1)", Passed),
    ];
    assert_eq!(told(&tests), expected);
    assert_eq!(tests[2].message, "assertion `left == right` failed: expected 7 (src/lib.rs:10:55)");
    assert!(tests[2].output.starts_with("the cart has 8\n") && tests[2].output.ends_with(" right: 8"), "{tests:?}");
    // The same in colours,
    let coloured = LIBTEST.replace(" ok\n", " \u{1b}[32mok\u{1b}[m\n");
    let announced = CARGO.replace("     Running", "\u{1b}[1m\u{1b}[92m     Running\u{1b}[0m");
    let tests = read_output(coloured.as_bytes(), announced.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(told(&tests), expected);
    // without it, and with both streams in one file.
    assert_eq!(all(LIBTEST).len(), 7);
    let lines: Vec<&str> = CARGO.lines().collect();
    let blocks: Vec<String> = LIBTEST.split("\nrunning").map(|block| format!("\nrunning{block}")).collect();
    let both = format!("{}{}\n{}\n{}{}\n{}", lines[1], blocks[1], lines[3], blocks[2], lines[4], blocks[3]);
    assert_eq!(told(&all(&both)), expected);
}

#[test]
fn a_program_that_ends_in_the_middle_is_a_failure() {
    let cut = LIBTEST.split("test tests::totals").next().unwrap();
    let tests = all(&format!("{cut}test tests::totals ... "));
    assert_eq!(told(&tests)[2], ("", "(the program)", Failed));
    assert_eq!(tests[2].message, "it ended after 2 of 4 tests, in `tests::totals`");
}

#[test]
fn what_is_printed_between_a_name_and_its_result_is_no_result() {
    let text = "running 2 tests\ntest a ... hello\ntest: ok\nok\ntest b ... --- PASS: c (0.00s)\nFAILED\n\ntest result: FAILED.\n";
    assert_eq!(told(&all(text)), [("", "a", Passed), ("", "b", Failed)]);
    // With `--quiet`, only failures have names.
    let quiet = "running 2 tests\n.F\nfailures:\n\n---- b stdout ----\nwhy\n\nfailures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\n";
    let tests = all(quiet);
    assert_eq!((told(&tests), tests[0].message.as_str()), (vec![("", "b", Failed)], "why"));
}

#[test]
fn libtest_json_is_read() {
    let tests = all(r#"{ "type": "suite", "event": "started", "test_count": 3 }
{ "type": "test", "event": "started", "name": "adds" }
not json
{ "type": "test", "name": "later", "event": "ignored", "message": "not yet" }
{ "type": "test", "name": "adds", "event": "ok", "exec_time": 0.25 }
{ "type": "test", "name": "totals", "event": "failed", "stdout": "thread 'totals' panicked at a.rs:1:2:\nunlucky\n" }
{ "type": "suite", "event": "failed", "passed": 1, "failed": 1, "ignored": 1 }
"#);
    assert_eq!(told(&tests), [("", "later", Skipped), ("", "adds", Passed), ("", "totals", Failed)]);
    assert_eq!((tests[1].duration, tests[2].message.as_str()), (Duration::from_millis(250), "unlucky (a.rs:1:2)"));
}

const GO: &str = "=== RUN   TestAdds
--- PASS: TestAdds (0.50s)
=== RUN   TestTotals
=== RUN   TestTotals/big_cart
    a_test.go:4: expected 7, found 8
--- FAIL: TestTotals (0.00s)
    --- FAIL: TestTotals/big_cart (0.00s)
=== RUN   TestLater
    a_test.go:5: not yet
--- SKIP: TestLater (0.00s)
FAIL
FAIL\texample.org/shop\t0.002s
?   \texample.org/shop/none\t[no test files]
ok  \texample.org/shop/quick\t(cached)
=== RUN   TestBoom
--- FAIL: TestBoom (0.00s)
panic: boom [recovered]
\tpanic: boom

goroutine 18 [running]:
FAIL\texample.org/shop/sub\t0.014s
# example.org/shop/broken
broken/b.go:3:1: syntax error
FAIL\texample.org/shop/broken [build failed]
FAIL
";

#[test]
fn the_output_of_go_is_read() {
    let tests = all(GO);
    let shop = "example.org/shop";
    assert_eq!(
        told(&tests),
        [
            (shop, "TestAdds", Passed),
            (shop, "TestTotals", Failed),
            (shop, "TestTotals/big_cart", Failed),
            (shop, "TestLater", Skipped),
            ("example.org/shop/quick", "(the package)", Passed),
            ("example.org/shop/sub", "TestBoom", Failed),
            ("example.org/shop/broken", "(the package)", Failed),
        ]
    );
    assert_eq!((tests[0].duration, tests[5].message.as_str()), (Duration::from_millis(500), "panic: boom [recovered]"));
    assert_eq!(tests[2].message, "a_test.go:4: expected 7, found 8");
    assert_eq!(tests[6].message, "build failed");
    assert!(tests[6].output.contains("syntax error"), "{tests:?}");
    // Without `-v`, what a failed test said is behind its result.
    let brief =
        all("--- FAIL: TestTotals (0.00s)\n    a_test.go:4: expected 7\nFAIL\nFAIL\tshop\t0.1s\nok  \tother\t0.25s\n");
    assert_eq!(told(&brief), [("shop", "TestTotals", Failed), ("other", "(the package)", Passed)]);
    assert_eq!((brief[0].message.as_str(), brief[1].duration), ("a_test.go:4: expected 7", Duration::from_millis(250)));
}

#[test]
fn tests_of_a_go_program_that_was_killed_have_failed() {
    let text = "=== RUN   TestA\n=== PAUSE TestA\n=== RUN   TestB\n=== CONT  TestA\npanic: test timed out after 1s\nFAIL\tshop\t1.0s\n";
    let tests = all(text);
    assert_eq!(told(&tests), [("shop", "TestA", Failed), ("shop", "TestB", Failed)]);
    assert_eq!(tests[0].message, "panic: test timed out after 1s");
    assert_eq!(told(&all("=== RUN   TestA\n")), [("", "TestA", Failed)]);
}

#[test]
fn the_json_of_go_is_read() {
    let event = |text: &str| format!("{{\"Time\":\"2026-01-01T00:00:00Z\",{text}}}\n");
    let text = [
        r#""Action":"run","Package":"shop","Test":"TestA""#,
        r#""Action":"run","Package":"other","Test":"TestA""#,
        r#""Action":"output","Package":"shop","Test":"TestA","Output":"=== RUN   TestA\n""#,
        r#""Action":"output","Package":"shop","Test":"TestA","Output":"    a_test.go:4: expected 7\n""#,
        r#""Action":"output","Package":"shop","Test":"TestA","Output":"--- FAIL: TestA (0.00s)\n""#,
        r#""Action":"pass","Package":"other","Test":"TestA","Elapsed":1.5"#,
        r#""Action":"fail","Package":"shop","Test":"TestA","Elapsed":0"#,
        r#""Action":"fail","Package":"shop","Elapsed":0.003"#,
        r#""Action":"pass","Package":"other","Elapsed":0.003"#,
        r#""ImportPath":"broken","Action":"build-output","Output":"b.go:3:1: syntax error\n""#,
        r#""ImportPath":"broken","Action":"build-fail""#,
        r#""Action":"fail","Package":"broken","Elapsed":0,"FailedBuild":"broken""#,
        r#""Action":"run","Package":"killed","Test":"TestB""#,
    ];
    let tests = all(&text.map(event).concat());
    let expected = [
        ("other", "TestA", Passed),
        ("shop", "TestA", Failed),
        ("broken", "(the package)", Failed),
        ("killed", "TestB", Failed),
    ];
    assert_eq!(told(&tests), expected);
    let messages: Vec<&str> = tests.iter().map(|test| test.message.as_str()).collect();
    assert_eq!(messages, ["", "a_test.go:4: expected 7", "b.go:3:1: syntax error", "it did not end"]);
    assert_eq!((tests[1].output.as_str(), tests[0].duration.as_secs_f64()), ("    a_test.go:4: expected 7", 1.5));
}

#[test]
fn the_output_of_ctest_is_read() {
    let tests = all("Test project /build/.kiln/build
    Start 1: good
1/4 Test #1: good .............................   Passed    0.25 sec
    Start 2: bad one.
2/4 Test #2: bad one. .........................***Failed    0.01 sec
said
    Start 3: segv
3/4 Test #3: segv .............................***Exception: SegFault  0.01 sec
4/4 Test #4: later ............................***Skipped   0.00 sec

33% tests passed, 2 tests failed out of 4
4/4 Test #9: after ............................***Failed   0.00 sec
");
    assert_eq!(
        told(&tests),
        [("", "good", Passed), ("", "bad one.", Failed), ("", "segv", Failed), ("", "later", Skipped)]
    );
    assert_eq!((tests[0].duration, tests[2].message.as_str()), (Duration::from_millis(250), "Exception: SegFault"));
    assert_eq!(tests[1].output, "said");
}

#[test]
fn the_output_of_nextest_is_read_from_the_standard_error() {
    let err = "    Starting 4 tests across 2 binaries (1 test skipped)
        PASS [   0.009s] (1/4) shop tests::adds
  TRY 1 FAIL [   0.131s] (───) shop tests::totals
  stdout ───

    the cart has 7
  TRY 2 FAIL [   0.070s] (2/4) shop tests::totals
  stdout ───

    the cart has 8
  stderr ───

    thread 'tests::totals' (24001) panicked at src/lib.rs:10:55:
    expected 7

  TRY 1 FAIL [   0.152s] (───) shop::it luck
  TRY 2 PASS [   0.005s] (3/4) shop::it luck
     SIGSEGV [   0.005s] shop::it segv
     Summary [   0.271s] 4 tests run: 2 passed (1 flaky), 2 failed, 1 skipped
   FLAKY 2/2 [   0.005s] (3/4) shop::it luck
  TRY 2 FAIL [   0.070s] (2/4) shop tests::totals
";
    let tests = read_output(b"", err.as_bytes(), &Limits::default()).unwrap();
    assert_eq!(
        told(&tests),
        [
            ("shop", "tests::adds", Passed),
            ("shop", "tests::totals", Failed),
            ("shop::it", "luck", Passed),
            ("shop::it", "segv", Failed)
        ]
    );
    assert_eq!(tests.iter().map(|test| test.is_flaky).collect::<Vec<_>>(), [false, false, true, false]);
    assert!(tests[1].output.contains("has 8") && !tests[1].output.contains("has 7"), "{tests:?}");
    assert_eq!(tests[1].message, "expected 7 (src/lib.rs:10:55)");
}

#[test]
fn the_json_of_jest_is_read() {
    let tests = all(r#"{"numTotalTests":3,"testResults":[
{"name":"/build/src/cart.test.js","status":"failed","message":"","assertionResults":[
 {"ancestorTitles":["Cart"],"fullName":"Cart adds","title":"adds","status":"passed","duration":12,"invocations":1,"failureMessages":[]},
 {"fullName":"Cart totals","title":"totals","status":"failed","duration":null,"failureMessages":["Error: expected 7\n    at a.js:1"]},
 {"fullName":"Cart luck","title":"luck","status":"passed","invocations":2},
 {"fullName":"Cart later","title":"later","status":"pending"}]},
{"name":"/build/broken.test.js","status":"failed","message":"SyntaxError: no\nmore","assertionResults":[]}]}"#);
    let cart = "src/cart.test.js";
    assert_eq!(
        told(&tests),
        [
            (cart, "Cart adds", Passed),
            (cart, "Cart totals", Failed),
            (cart, "Cart luck", Passed),
            (cart, "Cart later", Skipped),
            ("broken.test.js", "(the file)", Failed)
        ]
    );
    assert_eq!((tests[1].message.as_str(), tests[4].message.as_str()), ("Error: expected 7", "SyntaxError: no"));
    assert!(tests[2].is_flaky && !tests[0].is_flaky);
}

#[test]
fn what_is_no_report_is_refused_with_what_it_begins_with() {
    let refused = |text: &str| read(text.as_bytes(), &Limits::default()).unwrap_err().to_string();
    assert!(refused("\n  hello\nworld").ends_with("it begins with `hello`"), "{}", refused("\n  hello"));
    assert!(refused("{\"a\": 1}").contains("begins with `{\"a\": 1}`"));
    assert!(refused("{\"testResults\": 5}").contains("invalid JSON"));
    let deep = format!("{{\"testResults\":[{}", "[".repeat(100_000));
    assert!(refused(&deep).contains("invalid JSON"));
    let limits = Limits { tests: 3, ..Limits::default() };
    let many = "running 5 tests\n".to_owned() + &"test a ... ok\n".repeat(5);
    assert!(read(many.as_bytes(), &limits).unwrap_err().to_string().contains("more than 3 tests"));
    assert!(all("").is_empty() && all("\u{feff} \n").is_empty());
    assert!(all("running 0 tests\n\ntest result: ok. 0 passed\n").is_empty());
}
