//! Tests with what Bazel writes, and with what it does not.

use std::io::Write;

use proptest::prelude::*;

use super::*;

/// The lines that matter of a profile of Bazel's.
const REAL: &str = r#"{"otherData":{"build_id":"c430d1bf"},"traceEvents":[
    {"name":"thread_name","ph":"M","pid":1,"tid":0,"args":{"name":"Critical Path"}},
    {"cat":"build phase marker","name":"Launch Blaze","ph":"X","ts":-2794000,"dur":2794000,"pid":1,"tid":20},
    {"cat":"build phase marker","name":"Initialize command","ph":"i","ts":0,"pid":1,"tid":20},
    {"cat":"general information","name":"x","ph":"X","ts":447248,"dur":99999999,"pid":1,"tid":20},
    {"cat":"build phase marker","name":"Build artifacts","ph":"i","ts":1946665,"pid":1,"tid":20},
    {"name":"CPU usage (Bazel)","ph":"C","ts":2000000,"pid":1,"tid":20,"args":{"cpu":"0.5"}},
    {"cat":"action processing","name":"Executing genrule //:number","ph":"X","ts":2021757,"dur":1048611,"args":{"target":"//:number","mnemonic":"Genrule"},"pid":1,"tid":62},
    {"cat":"action processing","name":"Executing genrule //:side","ph":"X","ts":2021000,"dur":7,"pid":1,"tid":61},
    {"cat":"build phase marker","name":"Complete build","ph":"i","ts":3126073,"pid":1,"tid":20},
    {"cat":"critical path component","name":"action 'Executing genrule //:number'","ph":"X","ts":2021289,"dur":1048660,"pid":1,"tid":0}
]}"#;

fn zipped(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn phases_critical_path_and_longest_actions_are_told() {
    let profile = read(&zipped(REAL.as_bytes())).unwrap();
    assert_eq!(profile, read(REAL.as_bytes()).unwrap());
    let phases: Vec<_> = profile.phases.iter().map(|phase| (phase.name.as_str(), phase.took)).collect();
    let expected = [
        ("Launch Blaze", 2_794_000),
        ("Initialize command", 1_946_665),
        ("Build artifacts", 1_179_408),
        ("Complete build", 0),
    ];
    assert_eq!(phases, expected);
    assert_eq!((profile.begin, profile.end, profile.actions, profile.is_cut), (-2_794_000, 3_126_073, 2, false));
    assert_eq!(profile.critical[0].name, "Executing genrule //:number");
    let longest: Vec<_> =
        profile.longest.iter().map(|span| (span.target.as_str(), span.took, span.is_critical)).collect();
    assert_eq!(longest, [("", 7, false), ("//:number", 1_048_611, true)]);
    assert_eq!(profile.longest[1].mnemonic, "Genrule");
}

#[test]
fn a_file_that_breaks_off_says_what_it_says_up_to_there() {
    let (whole, zipped) = (read(REAL.as_bytes()).unwrap(), zipped(REAL.as_bytes()));
    let mut told = 0;
    for end in 0..zipped.len() - 1 {
        if let Ok(profile) = read(&zipped[..end]) {
            assert!(profile.is_cut && profile.actions <= whole.actions);
            told += 1;
        }
    }
    let cut = read(&REAL.as_bytes()[..REAL.len() - 150]).unwrap();
    assert!(cut.is_cut && cut.actions == 2 && cut.critical.is_empty(), "{cut:?}");
    assert!(told < zipped.len());
}

#[test]
fn memory_does_not_grow_with_the_file() {
    let action = |number: usize| {
        format!(r#"{{"cat":"action processing","name":"a{number}","ph":"X","ts":{number},"dur":{number}}}"#)
    };
    let many: Vec<String> = (0..20_000).map(action).collect();
    let profile = read(format!(r#"{{"traceEvents":[{}]}}"#, many.join(",")).as_bytes()).unwrap();
    assert_eq!((profile.actions, profile.longest.len(), profile.is_cut), (20_000, LONGEST, false));
    assert_eq!(profile.longest[0].name, "a19900");
    let phases = vec![r#"{"cat":"build phase marker","name":"p","ph":"i","ts":1}"#; 10_000].join(",");
    assert_eq!(read(format!(r#"{{"traceEvents":[{phases}]}}"#).as_bytes()).unwrap().phases.len(), PHASES);
}

#[test]
fn a_text_a_number_or_a_file_without_end_is_ended() {
    let first = r#"{"traceEvents":[{"cat":"action processing","name":"a","ph":"X","ts":1,"dur":1},{"name":""#;
    for endless in ["x".repeat(1 << 20), ",\\\"".repeat(1 << 20), format!("\",\"ts\":{}", "1".repeat(1 << 20))] {
        let profile = read(format!("{first}{endless}").as_bytes()).unwrap();
        assert!(profile.is_cut && profile.actions == 1, "{profile:?}");
    }
    // A small file that becomes a large one.
    let spaces = vec![b' '; 1 << 20];
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(br#"{"traceEvents":[{"cat":"action processing","name":"a","ph":"X","ts":1,"dur":1},"#).unwrap();
    (0..300).for_each(|_| encoder.write_all(&spaces).unwrap());
    let bomb = encoder.finish().unwrap();
    assert!(bomb.len() < 4 << 20, "{}", bomb.len());
    assert!(read(&bomb).unwrap().is_cut);
    // As deep as can be.
    let deep = format!(r#"{{"traceEvents":[{{"args":{}"#, "[".repeat(1 << 20));
    assert!(read(deep.as_bytes()).is_err());
}

#[test]
fn what_is_no_profile_is_refused_and_strange_values_are_passed_over() {
    for bytes in [&b""[..], b"[]", b"{", b"\x1f\x8b", b"\x1f\x8bnonsense", b"<html>", b"{\"traceEvents\":7}"] {
        assert!(read(bytes).is_err(), "{:?}", String::from_utf8_lossy(bytes));
    }
    let strange = r#"{"traceEvents":[{"cat":7,"name":{"a":[1]},"ts":"x","args":[1,{}],"dur":null},
        {"cat":"action processing","name":"a","ph":"X","ts":1e300,"dur":-1e300,"args":{"target":[1],"mnemonic":true}},
        {"cat":"action processing","name":"b","ph":"X","ts":-1e300,"dur":1e300,"args":"none"}]}"#;
    let profile = read(strange.as_bytes()).unwrap();
    assert_eq!((profile.actions, profile.is_cut), (2, false));
    assert!(profile.longest.iter().all(|span| span.took >= 0 && span.target.is_empty()), "{profile:?}");
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, cut in 0..REAL.len(), with: u8) {
        let _ = read(&bytes);
        let mut changed = REAL.as_bytes().to_vec();
        changed[cut] = with;
        let _ = read(&changed);
        let _ = read(&zipped(&changed[..cut]));
    }
}
