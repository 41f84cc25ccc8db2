use super::all;
use crate::*;

#[test]
fn what_runners_have_in_common_is_read() {
    let tests = all(r#"<?xml version="1.0" encoding="UTF-8"?>
<testsuites><testsuite name="shop" tests="5">
  <properties><property name="a" value="b"/></properties>
  <testcase classname="shop.Cart" name="adds &amp; removes" time="0.015"/>
  <testcase classname="shop.Cart" name="totals" time="1,234.5">
    <failure message="expected 7&#10;found 8" type="AssertionError">at Cart.java:12
&lt;end&gt;</failure>
    <system-out><![CDATA[total <8>]]></system-out>
  </testcase>
  <testcase name="of the suite"><error type="IOException"/></testcase>
  <testcase classname="c" name="not yet"><skipped/></testcase>
  <testcase classname="c" name="again"><flakyFailure message="once">trace</flakyFailure></testcase>
  <system-out>of the suite, and of no test</system-out>
</testsuite></testsuites>"#);
    let told: Vec<(&str, &str, Outcome)> =
        tests.iter().map(|test| (test.suite.as_str(), test.name.as_str(), test.outcome)).collect();
    assert_eq!(
        told,
        [
            ("shop.Cart", "adds & removes", Outcome::Passed),
            ("shop.Cart", "totals", Outcome::Failed),
            ("shop", "of the suite", Outcome::Failed),
            ("c", "not yet", Outcome::Skipped),
            ("c", "again", Outcome::Passed),
        ]
    );
    assert_eq!(tests[0].duration, Duration::from_millis(15));
    assert_eq!((tests[1].duration, tests[1].message.as_str()), (Duration::from_millis(1_234_500), "expected 7"));
    assert_eq!(tests[1].output, "at Cart.java:12\n<end>\ntotal <8>");
    assert_eq!((tests[2].message.as_str(), tests[2].output.as_str()), ("IOException", ""));
    assert!(tests[4].is_flaky && tests[4].output == "trace" && !tests[1].is_flaky);
}

#[test]
fn hostile_documents_are_refused_and_cost_nothing() {
    let refused = |xml: &str| read(xml.as_bytes(), &Limits::default()).unwrap_err().to_string();
    let bomb = r#"<!DOCTYPE a [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><testsuite><testcase name="&b;"/></testsuite>"#;
    assert!(refused(bomb).contains("document type"));
    let outside = r#"<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><testsuite name="&x;"/>"#;
    assert!(refused(outside).contains("document type"));
    assert!(refused(&"<testsuite>".repeat(1000)).contains("more than 64 deep"));
    assert!(refused("<html><body/></html>").contains("found `html`"));
    assert!(refused("<testsuite><testcase").contains("invalid XML"));
    assert!(refused("<testsuite><testcase name='a'>").contains("ends in the middle"));
    assert!(refused("<testsuite></testcase>").contains("invalid XML"));
    let limits = Limits { tests: 3, ..Limits::default() };
    let many = format!("<testsuite>{}</testsuite>", "<testcase name='a'/>".repeat(4));
    assert!(read(many.as_bytes(), &limits).unwrap_err().to_string().contains("more than 3 tests"));
    // An entity that nobody has declared is what it is.
    assert_eq!(all("<testsuite><testcase><failure>a &b; c</failure></testcase></testsuite>")[0].output, "a &b; c");
    assert!(read(b"", &Limits::default()).unwrap().is_empty());
}

#[test]
fn texts_are_cut_and_characters_are_whole() {
    let limits = Limits { text: 10, name: 5, ..Limits::default() };
    let xml = format!(
        "<testsuite><testcase name='ääääää'><failure message='ööööö'>{}the end</failure></testcase></testsuite>",
        "ü".repeat(1000)
    );
    let test = read(xml.as_bytes(), &limits).unwrap().remove(0);
    assert_eq!((test.name.as_str(), test.message.as_str(), test.output.as_str()), ("ää", "öö", "üthe end"));
}
