//! TAP and what `unittest` prints, as the tools write them.

use super::*;

const NODE: &str = "\
TAP version 13
# the cart has 8
# Subtest: adds
ok 1 - adds
  ---
  duration_ms: 13.452031
  ...
# Subtest: cart
    # Subtest: big
    not ok 1 - big
      ---
      duration_ms: 17.409199
      location: '/build/a.test.js:3:37'
      failureType: 'testCodeFailure'
      error: |-
        Expected values to be strictly equal:
        
        8 !== 7
        
      code: 'ERR_ASSERTION'
      stack: |-
        TestContext.<anonymous> (/build/a.test.js:3:95)
      ...
    1..1
not ok 2 - cart
  ---
  duration_ms: 17.878917
  failureType: 'subtestsFailed'
  error: '1 subtest failed'
  ...
# Subtest: later
ok 3 - later # SKIP not yet
  ---
  duration_ms: 0.124114
  ...
# Subtest: suite
    # Subtest: in it
    ok 1 - in it
      ---
      duration_ms: 0.13438
      ...
    1..1
ok 4 - suite
  ---
  duration_ms: 0.322249
  type: 'suite'
  ...
# Subtest: broken suite
    # Subtest: fails
    not ok 1 - fails
      ---
      duration_ms: 1
      error: 'no'
      ...
    1..1
not ok 5 - broken suite
  ---
  duration_ms: 2
  type: 'suite'
  failureType: 'subtestsFailed'
  ...
1..5
# tests 6
";

#[test]
fn tap_of_node_has_subtests_and_reasons() {
    let tests = all(NODE);
    let expected = [
        ("", "adds", Outcome::Passed),
        ("cart", "big", Outcome::Failed),
        ("", "cart", Outcome::Failed),
        ("", "later", Outcome::Skipped),
        ("suite", "in it", Outcome::Passed),
        ("broken suite", "fails", Outcome::Failed),
    ];
    assert_eq!(told(&tests), expected);
    assert_eq!(
        (tests[1].message.as_str(), tests[2].message.as_str()),
        ("Expected values to be strictly equal: 8 !== 7", "1 subtest failed")
    );
    assert!(tests[1].output.starts_with("location: '/build/a.test.js:3:37'\n"), "{}", tests[1].output);
    assert!(tests[1].output.ends_with("  TestContext.<anonymous> (/build/a.test.js:3:95)"), "{}", tests[1].output);
    assert_eq!(tests[0].duration.as_micros(), 13_452);
}

#[test]
fn tap_of_vitest_is_the_same_nested_and_flat() {
    let details =
        "error:\nINname: \"AssertionError\"\nINmessage: \"expected 8 to be 7\"\nat: \"/build/sum.test.js:3:59\"\n...\n";
    let indented =
        |by: &str| details.lines().map(|line| format!("{by}{}\n", line.replace("IN", "    "))).collect::<String>();
    let nested = format!(
        "TAP version 13\n1..1\nnot ok 1 - sum.test.js # time=41.17ms {{\n    1..2\n    ok 1 - adds # time=0.68ms\n    \
         not ok 2 - cart # time=39.57ms {{\n        1..1\n        not ok 1 - totals # time=39.46ms\n            ---\n{}    }}\n}}\n",
        indented("            ")
    );
    let flat = format!(
        "TAP version 13\n1..2\nok 1 - sum.test.js > adds # time=0.68ms\nnot ok 2 - sum.test.js > cart > totals # time=39.46ms\n    ---\n{}",
        indented("    ")
    );
    let (nested, flat) = (all(&nested), all(&flat));
    assert_eq!(
        told(&nested),
        [("sum.test.js", "adds", Outcome::Passed), ("sum.test.js > cart", "totals", Outcome::Failed)]
    );
    assert_eq!(nested, flat);
    assert_eq!((nested[1].message.as_str(), nested[1].duration.as_micros()), ("expected 8 to be 7", 39_460));
}

#[test]
fn tap_of_others_needs_no_version() {
    let tests = all(
        "1..4\nok 1 - adds\nsomething else\nnot ok 2 totals\n# said \u{e4}\nok # skip no network\nnot ok 4 - later # TODO\n",
    );
    let expected = [
        ("", "adds", Outcome::Passed),
        ("", "totals", Outcome::Failed),
        ("", "test 3", Outcome::Skipped),
        ("", "later", Outcome::Skipped),
    ];
    assert_eq!(told(&tests), expected);
    // Go's own lines begin alike.
    let go = "1..1\nok 1 - a\nok  \texample.org/shop\t0.01s\n";
    assert_eq!(told(&all(go))[0], ("", "a", Outcome::Passed));
    assert!(read(b"ok then\n", &Limits::default()).is_err());
}

const UNITTEST: &str = "\
test_adds (test_x.Cart.test_adds)
adds two ... ok
test_err (test_x.Cart.test_err) ... ERROR
test_exp (test_x.Cart.test_exp) ... expected failure
test_later (test_x.Cart.test_later) ... skipped 'not yet'
test_sub (test_x.Cart.test_sub) ... 
  test_sub (test_x.Cart.test_sub) (i=1) ... FAIL
test_noisy (test_x.Cart.test_noisy) ... to the standard error
ok
test_old (test_x.Cart) ... FAIL

======================================================================
ERROR: test_err (test_x.Cart.test_err)
----------------------------------------------------------------------
Traceback (most recent call last):
  File \"/build/test_x.py\", line 14, in test_err
    raise ValueError(\"x\")
ValueError: x

======================================================================
FAIL: test_sub (test_x.Cart.test_sub) (i=1)
----------------------------------------------------------------------
Traceback (most recent call last):
AssertionError: 1 != 0

======================================================================
ERROR: setUpClass (test_x.Stock)
----------------------------------------------------------------------
Traceback (most recent call last):
OSError: no stock

----------------------------------------------------------------------
Slowest test durations
----------------------------------------------------------------------
0.201s     test_adds (test_x.Cart.test_adds)
----------------------------------------------------------------------
Ran 7 tests in 0.005s

FAILED (failures=2, errors=1, skipped=1, expected failures=1)
";

#[test]
fn unittest_is_read_from_either_output() {
    let tests = read_output(b"noise\n", UNITTEST.as_bytes(), &Limits::default()).unwrap();
    let expected = [
        ("test_x.Cart", "test_adds", Outcome::Passed),
        ("test_x.Cart", "test_err", Outcome::Failed),
        ("test_x.Cart", "test_exp", Outcome::Passed),
        ("test_x.Cart", "test_later", Outcome::Skipped),
        ("test_x.Cart", "test_sub", Outcome::Failed),
        ("test_x.Cart", "test_noisy", Outcome::Passed),
        ("test_x.Cart", "test_old", Outcome::Failed),
        ("test_x.Stock", "setUpClass", Outcome::Failed),
    ];
    assert_eq!(told(&tests), expected);
    assert_eq!((tests[1].message.as_str(), tests[4].message.as_str()), ("ValueError: x", "AssertionError: 1 != 0"));
    assert!(
        tests[1].output.starts_with("Traceback ") && tests[1].output.ends_with("ValueError: x"),
        "{}",
        tests[1].output
    );
    assert_eq!(tests[0].duration.as_millis(), 201);
    assert_eq!(told(&all(UNITTEST)), expected);
    // Without `-v`, those that failed are known.
    let quiet = &UNITTEST[UNITTEST.find("\n\n").unwrap()..];
    let failed = read_output(b"", format!("E.xs.\n{quiet}").as_bytes(), &Limits::default()).unwrap();
    assert_eq!(
        failed.iter().map(|test| test.name.as_str()).collect::<Vec<_>>(),
        ["test_err", "test_sub", "setUpClass"]
    );
}

#[test]
fn a_test_that_was_told_behind_a_suite_is_not_lost_when_the_suite_turns_out_to_be_none() {
    let text = "TAP version 13\n# Subtest: all\nok 1 - all\ntest_a (m.C.test_a) ... ok\n  ---\n  type: 'suite'\n  ...\n\
                test_a (m.C.test_a) ... FAIL\nRan 1 test in 0.1s\n";
    assert_eq!(told(&all(text)), [("m.C", "test_a", Outcome::Failed)]);
}
