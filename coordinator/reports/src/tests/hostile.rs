//! Bytes of any kind.

use proptest::prelude::*;

use crate::*;

/// What the formats are made of.
const PARTS: [&str; 46] = [
    "TAP version 13\n",
    "1..2\n",
    "# Subtest: a\n",
    "    not ok 1 - a # time=1e400ms {\n",
    "}\n",
    "  ---\n",
    "  duration_ms: -1e300\n",
    "  type: 'suite'\n",
    "  ...\n",
    "test_a (m.C.test_a) ... ",
    "FAIL: test_a (m.C.test_a)\n",
    "======================================================================\n",
    "running 3 tests\n",
    "test a ... ok\n",
    "test b ... FAILED\n",
    "test c ... ",
    "ok\n",
    "failures:\n",
    "---- b stdout ----\n",
    "test result: FAILED.\n",
    "     Running unittests src/lib.rs (t/a-0123456789abcdef)\n",
    "=== RUN   TestA\n",
    "--- PASS: TestA (0.00s)\n",
    "    --- FAIL: TestA/b (1.5s)\n",
    "panic: x\n",
    "ok  \tp\t0.1s\n",
    "FAIL\tp [build failed]\n",
    "FAIL\tp\t1e400s\n",
    "Test project /x\n",
    "1/2 Test #1: a ....   Passed    0.01 sec\n",
    "2/2 Test #2: b ....***Failed    0.01 sec\n",
    "50% tests passed, 1 tests failed out of 2\n",
    "    Starting 2 tests across 1 binary\n",
    "  TRY 1 FAIL [   0.1s] (1/2) s a\n",
    "        PASS [   0.1s] s a\n",
    "     Summary [ 0.1s] 2 tests run\n",
    "{\"Action\":\"run\",\"Package\":\"p\",\"Test\":\"T\"}\n",
    "{\"Action\":\"output\",\"Package\":\"p\",\"Test\":\"T\",\"Output\":\"x\\n\"}\n",
    "{\"Action\":\"fail\",\"Package\":\"p\",\"Elapsed\":-1e300}\n",
    "{\"type\":\"test\",\"event\":\"failed\",\"name\":\"a\",\"exec_time\":1e300}\n",
    "{\"testResults\":[{\"assertionResults\":[{\"status\":\"failed\"}]}]}",
    "\u{16}",
    "{",
    "\r\n",
    "\0",
    "ü",
];

proptest! {
    #[test]
    fn no_bytes_make_it_fail_otherwise_than_by_an_error(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = read(&bytes, &Limits::default());
        let _ = read_output(&bytes, &bytes, &Limits::default());
        for begin in ["<testsuite><testcase name='", "running 1 test\n", "{\"testResults\":[{\"name\":\"", "=== RUN   ", "{\"Action\":\"run\","] {
            let mut within = begin.as_bytes().to_vec();
            within.extend(&bytes);
            let _ = read(&within, &Limits::default());
        }
    }

    #[test]
    fn markup_of_any_kind_is_read_or_refused(
        parts in prop::collection::vec(prop::sample::select(vec![
            "<testsuite>", "</testsuite>", "<testcase name='a'>", "</testcase>", "<failure>", "</failure>", "<![CDATA[", "]]>", "<!--", "-->",
            "&#0;", "&#xffffffff;", "&lt;", "&", "<", ">", "x", "<?", "?>", "<skipped/>", "'", "=",
        ]), 0..40)
    ) {
        let _ = read(parts.concat().as_bytes(), &Limits::default());
    }

    #[test]
    fn lines_in_any_order_stay_within_the_limits(
        out in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..60),
        err in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..20),
    ) {
        let limits = Limits { tests: 10, name: 8, text: 16, ..Limits::default() };
        if let Ok(tests) = read_output(out.concat().as_bytes(), err.concat().as_bytes(), &limits) {
            prop_assert!(tests.len() <= 10);
            let fits = |test: &Test| test.suite.len() <= 8 && test.output.len() <= 16;
            prop_assert!(tests.iter().all(fits), "{tests:?}");
        }
    }
}
