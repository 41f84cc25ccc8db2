//! C and C++.

use kiln_harness::{Farm, project, until, write};

use super::project::{Gate, built, c_project, calls, config, counts};

#[test]
fn an_edit_compiles_what_it_changed_and_everything_is_as_without_kilns_help() {
    let farm = Farm::shared();
    let dir = c_project("edited", "");
    let (cold, first) = built(farm, dir.path());
    assert_eq!(counts(&cold), (0, 7), "{:?}", calls(&cold, "build"));

    write(dir.path(), "src/f2.c", "#include \"own.h\"\nint f2(int x) { return x + OWN; }\n");
    let (edited, second) = built(farm, dir.path());
    assert_eq!(counts(&edited), (6, 1));
    assert_ne!(first["f2.o"], second["f2.o"]);

    let plain = c_project("edited", "split = false");
    write(plain.path(), "src/f2.c", "#include \"own.h\"\nint f2(int x) { return x + OWN; }\n");
    let (not_split, objects) = built(farm, plain.path());
    assert_eq!(counts(&not_split), (0, 0));
    for (name, content) in &objects {
        assert!(second[name] == *content, "`{name}` differs from what is built without splitting");
    }
    assert_eq!(objects.keys().collect::<Vec<_>>(), second.keys().collect::<Vec<_>>());

    write(dir.path(), "src/f2.c", "int f2(int x) { return x + 3; }\n// fewer headers\n");
    farm.build(dir.path(), &[]).well();
    write(dir.path(), "second/own.h", "#define OWN 5\n");
    let (header, _) = built(farm, dir.path());
    assert_eq!(counts(&header), (2, 5), "what does not include the header is known");
}

#[test]
fn another_project_and_another_worker_share_what_is_equal() {
    let farm = Farm::shared();
    let one = c_project("shared", "env = { WHICH = \"one\" }");
    write(one.path(), "src/f3.c", "#include \"own.h\"\nint f3(void) { return OWN; } // shared\n");
    let (_, first) = built(farm, one.path());
    let two = c_project("shared", "env = { WHICH = \"two\", VERSION = \"1.2\" }");
    write(two.path(), "src/f3.c", "#include \"own.h\"\nint f3(void) { return OWN; } // shared\n");
    let (second_build, second) = built(farm, two.path());
    assert_eq!(counts(&second_build), (7, 0), "variables that no compiler reads make no difference");
    assert_eq!(first, second);
}

#[test]
fn a_new_header_that_shadows_another_is_seen() {
    let farm = Farm::shared();
    let dir = c_project("shadowed", "");
    let (_, before) = built(farm, dir.path());
    // Found before `second/own.h`.
    write(dir.path(), "first/own.h", "#define OWN 77\n");
    let (after, left) = built(farm, dir.path());
    assert_eq!(counts(&after), (1, 6), "only `main.c` includes nothing: {:?}", calls(&after, "build"));
    assert!(before["f1.o"] != left["f1.o"] && left["f1.d"].windows(11).any(|part| part == b"first/own.h"));
    std::fs::remove_file(dir.path().join("first/own.h")).unwrap();
    write(dir.path(), "first/none.h", "// so that the step runs\n");
    let (gone, left) = built(farm, dir.path());
    assert_eq!((counts(&gone), left == before), ((7, 0), true));
}

#[test]
fn a_header_that_the_step_makes_counts_by_its_content() {
    let farm = Farm::shared();
    let dir = c_project("made", "");
    built(farm, dir.path());
    let makefile = std::fs::read_to_string(dir.path().join("Makefile")).unwrap();
    write(dir.path(), "Makefile", &makefile.replace("MADE 4", "MADE 5"));
    let (other, _) = built(farm, dir.path());
    assert_eq!(counts(&other), (1, 6));
    write(dir.path(), "Makefile", &format!("{makefile}# with the old header\n"));
    let (same, _) = built(farm, dir.path());
    assert_eq!(counts(&same), (7, 0));
}

#[test]
fn what_is_not_understood_runs_in_the_step_and_is_counted_by_its_reason() {
    let farm = Farm::shared();
    let run = "mkdir out tmp\n\
        cc -E one.c > out/one.i\n\
        cc one.c two.c -o out/prog\n\
        cc -c -save-temps=obj one.c -o tmp/one.o\n\
        echo 'int z;' | cc -c -x c - -o tmp/z.o\n\
        cp two.c /tmp/t.c && cc -c /tmp/t.c -o tmp/t.o\n\
        cc -c one.c -o /tmp/o.o\n\
        KILN_SPLIT=off cc -c one.c -o tmp/off.o\n\
        cc -c one.c -o tmp/one.o && cp tmp/*.o out\n\
        out/prog";
    let dir = project(&[
        ("kiln.toml", &config("refused", run, "")),
        ("one.c", "int two(void);\nint main(void) { return two(); }\n"),
        ("two.c", "int two(void) { return 0; }\n"),
    ]);
    let (ran, left) = built(farm, dir.path());
    let calls = calls(&ran, "build");
    assert_eq!((calls.hits, calls.ran()), (0, 1), "{calls:?}");
    let refused: Vec<(&str, u64)> = calls.refused.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    let expected = [("extra_files", 1), ("link", 1), ("outside", 2), ("preprocess", 1), ("standard_input", 1)];
    assert_eq!(refused, expected);
    assert_eq!(left["off.o"], left["one.o"]);
}

#[test]
fn an_error_is_said_in_the_compilers_own_words_and_nothing_is_kept_of_it() {
    let farm = Farm::shared();
    let run = "mkdir out; cc -c wrong.c -o out/wrong.o";
    let dir = project(&[("kiln.toml", &config("wrong", run, "")), ("wrong.c", "int f( { return 0; }\n")]);
    for _ in 0..2 {
        let built = farm.build(dir.path(), &["--no-cache"]);
        assert_eq!(built.0.code, 1);
        assert!(built.log().contains("wrong.c:1:8: error:"), "{}", built.log());
    }
    let built = farm.build(dir.path(), &[]);
    assert_eq!(calls(&built, "build").refused.get("failed"), Some(&1));
    write(dir.path(), "wrong.c", "int f(void) { return 0; }\n");
    farm.build(dir.path(), &[]).well();
}

#[test]
fn warnings_come_with_a_hit_too() {
    let farm = Farm::shared();
    let run = "mkdir out; cc -Wall -c warns.c -o out/warns.o; echo $ROUND";
    let dir = |round: &str| {
        project(&[
            ("kiln.toml", &config("warns", run, &format!("env = {{ ROUND = \"{round}\" }}"))),
            ("warns.c", "int f(void) { int unused; return 0; }\n"),
        ])
    };
    let warning = "warning: unused variable";
    for (round, expected) in [("one", (0, 1)), ("two", (1, 0))] {
        let dir = dir(round);
        let built = farm.build(dir.path(), &[]).well();
        assert_eq!(counts(&built), expected, "{round}");
        assert!(built.log().contains(warning), "{}", built.log());
    }
}

#[test]
fn what_calls_write_is_the_steps_own_to_change() {
    let farm = Farm::shared();
    let run = "mkdir out; umask 077; cc -g -c one.c -o out/one.o; stat -c %a out/one.o; strip out/one.o; chmod 644 out/one.o; echo $ROUND";
    for round in ["one", "two"] {
        let dir = project(&[
            ("kiln.toml", &config("stripped", run, &format!("env = {{ ROUND = \"{round}\" }}"))),
            ("one.c", "int stripped_one;\n"),
        ]);
        let built = farm.build(dir.path(), &[]).well();
        assert!(built.log().contains("600"), "expected the step's umask to hold: {}", built.log());
    }
    // `strip` changed the step's copy and not what the farm keeps.
    let again = project(&[
        ("kiln.toml", &config("stripped", "mkdir out; cc -g -c one.c -o out/one.o", "")),
        ("one.c", "int stripped_one;\n"),
    ]);
    let (last, left) = built(farm, again.path());
    assert_eq!(counts(&last), (1, 0));
    assert!(left["one.o"].windows(11).any(|part| part == b".debug_info"), "expected the debug information");
}

#[test]
fn native_code_is_known_again_by_what_native_stands_for() {
    let farm = Farm::shared();
    let plain = "mkdir out; cc -O2 -march=native -c n.c -o out/n.o; echo $ROUND";
    let dir = |round: &str, more: &str| {
        let more = format!("env = {{ ROUND = \"{round}\" }}\n{more}");
        let source =
            "float native_sum(float *x) { float s = 0; for (int i = 0; i < 64; i++) s += x[i] * x[i]; return s; }\n";
        project(&[("kiln.toml", &config("native", plain, &more)), ("n.c", source)])
    };
    let (_, not_split) = built(farm, dir("plain", "split = false").path());
    for (round, expected) in [("one", (0, 1)), ("two", (1, 0))] {
        let (ran, left) = built(farm, dir(round, "").path());
        assert_eq!(counts(&ran), expected, "{round}: {:?}", calls(&ran, "build"));
        assert!(left == not_split, "{round}");
    }
}

#[test]
fn what_comes_out_as_something_that_the_farm_has_is_found_again_too() {
    let farm = Farm::shared();
    let build = |round: &str, option: &str| {
        let run = format!("mkdir out; cc -c {option} same.c -o out/same.o; echo {round}");
        let dir = project(&[("kiln.toml", &config("same", &run, "")), ("same.c", "int same_in_each;\n")]);
        built(farm, dir.path())
    };
    let (_, left) = build("one", "-DOPTION=1");
    for (round, expected) in [("two", (0, 1)), ("three", (1, 0))] {
        let (ran, same) = build(round, "-DOPTION=2");
        assert_eq!(counts(&ran), expected, "{round}");
        assert!(same == left, "expected an option that changes nothing");
    }
}

#[test]
fn a_dirty_trick_with_links_gets_the_compilers_own_result() {
    let farm = Farm::shared();
    // An output that is a link is written through, as a compiler does.
    let run = "mkdir out real; ln -s ../real/x.o out/x.o; cc -c one.c -o out/x.o; [ -L out/x.o ] && [ -s real/x.o ]; cp --remove-destination real/x.o out/x.o\n\
        ln -s one.c linked.c; cc -c linked.c -o out/linked.o";
    let dir = project(&[("kiln.toml", &config("links", run, "")), ("one.c", "int linked_one;\n")]);
    let (ran, _) = built(farm, dir.path());
    assert_eq!(calls(&ran, "build").refused.get("output_not_a_file"), Some(&1));
}

#[test]
fn of_many_headers_that_a_step_makes_a_call_gets_those_that_it_may_include() {
    let farm = Farm::shared();
    let run = "mkdir -p out made/deep; ln -s made linked\n\
        for n in $(seq 600); do echo \"#define H$n $n\" > made/h$n.h; done\n\
        echo '#include \"../h7.h\"' > made/deep/d.h; echo '#define PLACE \"h9.h\"' > made/place.h\n\
        printf '#include \"linked/deep/d.h\"\\nint a = H7;\\n' > a.c\n\
        printf '#include \"place.h\"\\n#include PLACE\\nint b = H9;\\n' > b.c\n\
        printf '#define AT(x) <h##x.h>\\n#include AT(11)\\nint c = H11;\\n' > c.c\n\
        for f in a b c; do cc -I. -Imade -c $f.c -o out/$f.o || exit 1; done";
    let dir = project(&[("kiln.toml", &config("many-headers", run, ""))]);
    let (built, left) = built(farm, dir.path());
    let calls = calls(&built, "build");
    assert_eq!((calls.ran(), calls.refused.len()), (3, 0), "{calls:?}");
    let plain = project(&[("kiln.toml", &config("many-headers", run, "split = false"))]);
    farm.build(plain.path(), &[]).well();
    assert_eq!(super::project::outputs(plain.path()), left);
}

#[test]
fn a_step_asks_once_for_all_that_its_calls_asked_for_before() {
    let farm = Farm::with(&["--metrics-listen", "127.0.0.1:0"], &[]);
    farm.start_worker_in(&farm.url, "one", &[], &[("KILN_LOG", "info,kiln_broker=debug")]);
    farm.wait_for_worker("one");
    let log = farm.log("coordinator");
    let line = log.lines().find(|line| line.contains("serving metrics and health")).unwrap();
    let address = line.split("address=").nth(1).unwrap().trim().to_owned();
    let questions = || -> u64 {
        let samples = kiln_harness::http::samples(&address);
        let looks =
            samples.iter().filter(|line| line.starts_with("kiln_grpc_calls_total") && line.contains("\"Look\""));
        looks.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    let dir = c_project("ahead", "");
    built(&farm, dir.path());
    let before = questions();
    // The first question fetches all answers, which are there before the others.
    let makefile = std::fs::read_to_string(dir.path().join("Makefile")).unwrap();
    let gate = Gate::new();
    let first = format!("made.h:\n\tcc --version >/dev/null; {}; ", gate.wait());
    write(dir.path(), "Makefile", &makefile.replace("made.h:\n\t", &first));
    let running = farm.start_build(dir.path(), &[]);
    until("the answers to be there", || farm.log("one").contains("asked for the last time calls=7").then_some(()));
    gate.open();
    let warm = running.end().well();
    let why = farm.kiln(&["cache", "explain", "build", dir.path().to_str().unwrap()]).out;
    assert_eq!(counts(&warm), (7, 0), "{why}");
    let asked = questions() - before;
    assert!((1..=4).contains(&asked), "{asked} questions for 7 calls");
}
