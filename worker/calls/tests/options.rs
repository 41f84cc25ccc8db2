//! What each option of gcc and clang does to a call: what is refused, what is an input, what is an output.

#![allow(clippy::unwrap_used)]

mod support;

use std::ffi::OsString;

use kiln_calls::{DirectoryKind, Language, OutputKind, Refusal, understand};
use support::{Memory, call, details, inputs, invocation, outputs, refused, with_files};

#[test]
fn links_run_in_the_step() {
    for line in ["gcc a.c -o a", "gcc a.o b.o -o prog", "g++ -shared a.o -o liba.so", "gcc a.c b.c -lm"] {
        assert!(matches!(refused(line), "link" | "no_source" | "several_sources"), "{line}");
    }
    assert_eq!(refused("gcc a.c"), "link");
}

#[test]
fn preprocessing_runs_in_the_step() {
    for option in ["-E", "-M", "-MM", "-EP"] {
        assert_eq!(refused(&format!("gcc {option} a.c -o a.i")), "preprocess", "{option}");
        assert_eq!(refused(&format!("gcc -c {option} a.c")), "preprocess", "{option}");
    }
}

#[test]
fn questions_about_the_compiler_run_in_the_step() {
    for line in [
        "gcc --version",
        "gcc -v",
        "cc -dumpmachine",
        "gcc -print-search-dirs",
        "gcc --print-multiarch",
        "gcc -### -c a.c",
    ] {
        assert_eq!(refused(line), "information", "{line}");
    }
}

#[test]
fn other_programs_are_not_understood() {
    for line in ["ld -o a a.o", "ccache gcc -c a.c", "musl-gcc -c a.c", "kiln-call ar -c a.c", "kiln-call"] {
        assert_eq!(refused(line), "program", "{line}");
    }
}

#[test]
fn a_launcher_is_followed_by_the_compiler() {
    let call = call("/kiln/bin/kiln-call /usr/bin/cc -c a.c");
    assert_eq!(call.program, "/usr/bin/cc");
    assert_eq!(call.arguments, ["-c", "a.c"]);
}

#[test]
fn a_depfile_is_an_output_where_the_compiler_puts_it() {
    let depfile = |line: &str| outputs(&call(line), OutputKind::Depfile);
    assert_eq!(depfile("gcc -MD -c src/a.c"), ["a.d"]);
    assert_eq!(depfile("gcc -MMD -MP -c src/a.c -o d/b.o"), ["d/b.d"]);
    assert_eq!(depfile("gcc -MD -c a.c -o d/a.c.o"), ["d/a.c.d"]);
    assert_eq!(depfile("gcc -MD -c a.c -o d/b"), ["d/b.d"]);
    assert_eq!(depfile("gcc -MD -c a.c -od.x/b -MFdeps/z.d -MT x -MQy"), ["deps/z.d"]);
    assert_eq!(depfile("gcc -MD -MF x.d -MF y.d -c a.c"), ["y.d"]);
    assert_eq!(depfile("gcc -MMD -S a.c -o d/b.s"), ["d/b.d"]);
    assert_eq!(depfile("gcc -Wp,-MD,deps/.x.d -c a.c -o b.o"), ["deps/.x.d"]);
    assert_eq!(depfile("gcc -Wp,-MMD,x.d -c a.c"), ["x.d"]);
    assert_eq!(depfile("gcc -MF x.d -c a.c"), [""; 0]);
}

#[test]
fn a_depfile_that_is_asked_for_twice_is_refused() {
    assert_eq!(refused("gcc -MD -MF x.d -Wp,-MD,y.d -c a.c"), "preprocessor_option");
}

#[test]
fn a_compilation_database_is_refused() {
    assert_eq!(refused("clang -MJ a.json -c a.c"), "compilation_database");
    assert_eq!(refused("clang -MJa.json -c a.c"), "compilation_database");
    assert_eq!(refused("clang -gen-cdb-fragment-path dir -c a.c"), "compilation_database");
}

#[test]
fn one_source_is_compiled_and_not_two_or_none_or_standard_input() {
    assert_eq!(refused("gcc -c a.c b.c"), "several_sources");
    assert_eq!(refused("gcc -c"), "no_source");
    assert_eq!(refused("gcc -c a.o"), "no_source");
    assert_eq!(refused("gcc -c -x c -"), "standard_input");
    assert_eq!(call("gcc -c a.c b.o -lm").source.to_str(), Some("/build/a.c"));
}

#[test]
fn the_output_is_a_regular_file() {
    for output in ["-", "/dev/null", "/dev/stdout", "/proc/self/fd/1", "/usr/lib/a.o", "d/"] {
        assert_eq!(refused(&format!("gcc -c a.c -o {output}")), "output_not_a_file", "{output}");
    }
    assert_eq!(refused("gcc -MD -MF /dev/null -c a.c"), "output_not_a_file");
    assert_eq!(refused("gcc -MD -MF - -c a.c"), "output_not_a_file");
    let directory = with_files("gcc -c a.c -o d", &[("/build/d/", "")]);
    assert_eq!(directory.unwrap_err().label(), "output_not_a_file");
}

#[test]
fn an_output_is_given_once_and_is_not_an_input() {
    assert_eq!(refused("gcc -c a.c -o b.o -o c.o"), "output_ambiguous");
    assert_eq!(refused("gcc -c a.c -o ./a.c"), "output_ambiguous");
    assert_eq!(refused("gcc -c a.c -o x -MD -MF x"), "output_ambiguous");
    assert_eq!(refused("clang -c a.c -fprofile-instr-use=p -o p"), "output_ambiguous");
}

#[test]
fn the_object_is_named_by_the_arguments_or_after_the_source() {
    let object = |line: &str| outputs(&call(line), OutputKind::Object);
    assert_eq!(object("gcc -c src/a.c"), ["a.o"]);
    assert_eq!(object("gcc -S src/a.b.c"), ["a.b.s"]);
    assert_eq!(object("gcc -c -S a.c"), ["a.s"]);
    assert_eq!(object("gcc -c a.c -o../out/x.o"), ["../out/x.o"]);
    assert_eq!(call("gcc -c a.c -o s/../../build/./x.o").outputs[0].absolute.to_str(), Some("/build/x.o"));
}

#[test]
fn response_files_are_expanded_where_they_stand() {
    let files = [("/build/args", "-DA=1 '-DB=x y' @more"), ("/build/more", "-Iinc a.c\n")];
    let call = with_files("gcc -c @args -o a.o", &files).unwrap();
    assert_eq!(call.arguments, ["-c", "-DA=1", "-DB=x y", "-Iinc", "a.c", "-o", "a.o"]);
    assert_eq!(call.source.to_str(), Some("/build/a.c"));
}

#[test]
fn response_files_that_cannot_be_expanded_are_refused() {
    let label = |line: &str, files: &[(&str, &str)]| with_files(line, files).unwrap_err().label();
    assert_eq!(label("gcc -c @missing", &[]), "response_file");
    assert_eq!(label("gcc -c @loop", &[("/build/loop", "@loop a.c")]), "response_file");
    assert_eq!(label("gcc -c @odd", &[("/build/odd", "'-DX=a\\b' a.c")]), "response_file");
    assert_eq!(label("gcc -c a.c -Wl,@file", &[]), "response_file");
}

#[test]
fn a_response_file_in_another_options_value_is_refused() {
    assert_eq!(refused("gcc -c a.c -Wa,@file"), "assembler_option");
    assert_eq!(refused("gcc -c a.c -Wp,@file"), "preprocessor_option");
    assert_eq!(refused("clang -c a.c -Xclang -Z@file"), "unknown_option");
    // Not a response file.
    assert_eq!(call("gcc -c a.c -DMAIL=a@b").arguments[2], "-DMAIL=a@b");
}

#[test]
fn only_c_cxx_and_preprocessed_assembler_are_compiled() {
    let language = |line: &str| call(line).language;
    assert_eq!(language("gcc -c a.c"), Language::C);
    assert_eq!(language("g++ -c a.c"), Language::Cxx);
    assert_eq!(language("gcc -c a.cc"), Language::Cxx);
    assert_eq!(language("gcc -c a.C"), Language::Cxx);
    assert_eq!(language("gcc -c a.S"), Language::AssemblerWithCpp);
    assert_eq!(language("gcc -x c++ -c a.c"), Language::Cxx);
    assert_eq!(language("gcc -xc -c a.weird"), Language::C);
    assert_eq!(language("gcc -x c++ -x none -c a.c"), Language::C);
    assert_eq!(language("gcc -x assembler-with-cpp -c a.s"), Language::AssemblerWithCpp);
    for line in [
        "gcc -x objective-c -c a.m",
        "gcc -c a.m",
        "gcc -c a.s",
        "gcc -c a.i",
        "gcc -c a.f90",
        "gcc -c a.adb",
        "gcc -x assembler -c a.s",
        "gcc -x cpp-output -c a.i",
        "gcc -c a.cppm",
    ] {
        assert_eq!(refused(line), "language", "{line}");
    }
}

#[test]
fn native_is_reported_so_that_the_driver_can_be_asked() {
    for option in ["-march=native", "-mcpu=native", "-mtune=native", "-mcpu=native+crypto"] {
        assert_eq!(details(&call(&format!("gcc -O2 {option} -c a.c"))).native, [option]);
    }
    assert!(details(&call("gcc -march=x86-64-v3 -c a.c")).native.is_empty());
}

#[test]
fn coverage_notes_are_outputs() {
    for option in ["--coverage", "-fprofile-arcs", "-ftest-coverage"] {
        let call = call(&format!("gcc {option} -c src/a.c -o d/b.o"));
        assert_eq!(outputs(&call, OutputKind::Coverage), ["d/b.gcno?", "b.gcno?", "a.gcno?"], "{option}");
    }
}

#[test]
fn a_profile_that_is_used_is_an_input() {
    assert_eq!(inputs(&call("gcc -fprofile-use -c a.c -o d/b.o")), ["/build/d/b.gcda?"]);
    assert_eq!(inputs(&call("gcc -fbranch-probabilities -c a.c")), ["/build/a.gcda?"]);
    assert_eq!(inputs(&call("gcc -fprofile-use=prof -c a.c")), ["/build/prof"]);
    assert_eq!(inputs(&call("gcc -fauto-profile -c a.c")), ["/build/fbdata.afdo?"]);
    assert_eq!(inputs(&call("clang -fprofile-instr-use=p/x.profdata -c a.c")), ["/build/p/x.profdata"]);
    assert_eq!(inputs(&call("clang -fprofile-sample-use=/build/s.prof -c a.c")), ["/build/s.prof"]);
    assert_eq!(inputs(&call("gcc -fprofile-generate=/build/prof -c a.c")), [""; 0]);
}

#[test]
fn split_debugging_information_is_an_output() {
    assert_eq!(outputs(&call("gcc -gsplit-dwarf -c a.c -o d/b.o"), OutputKind::SplitDebug), ["d/b.dwo?"]);
    assert_eq!(outputs(&call("gcc -g -gsplit-dwarf -c src/a.c"), OutputKind::SplitDebug), ["a.dwo?"]);
    assert_eq!(outputs(&call("clang -gsplit-dwarf=single -c a.c"), OutputKind::SplitDebug), [""; 0]);
}

#[test]
fn stack_usage_and_call_graphs_are_outputs() {
    let call = call("gcc -fstack-usage -fcallgraph-info=su -c a.c -o d/b.o");
    assert_eq!(outputs(&call, OutputKind::StackUsage), ["d/b.su?"]);
    assert_eq!(outputs(&call, OutputKind::CallGraph), ["d/b.ci?"]);
}

#[test]
fn files_with_computed_names_are_refused() {
    for option in [
        "-save-temps",
        "-save-temps=obj",
        "--save-temps",
        "-fdump-tree-all",
        "-da",
        "-dr",
        "-ftime-trace",
        "-ftime-trace=x",
        "-ftime-report",
        "-time",
        "-aux-info x",
        "-frepo",
        "-combine",
        "-gtoggle",
        "-dumpbase x",
        "-dumpdir d/",
        "-fopt-info-vec=x",
        "-fsave-optimization-record",
        "-fcompare-debug",
        "-fdiagnostics-format=sarif-file",
    ] {
        assert_eq!(refused(&format!("gcc {option} -c a.c")), "extra_files", "{option}");
    }
}

#[test]
fn calls_without_an_object_are_refused() {
    for option in ["-fsyntax-only", "-analyze", "--analyze", "--analyzer-output html", "-emit-llvm"] {
        assert_eq!(refused(&format!("clang {option} -c a.c")), "no_object", "{option}");
    }
}

#[test]
fn plugins_and_lists_are_inputs() {
    assert_eq!(inputs(&call("gcc -fplugin=./p.so -fplugin-arg-p-out=/x/y -c a.c")), ["/build/p.so"]);
    // Found by its name in a directory of the compiler.
    assert_eq!(inputs(&call("gcc -fplugin=annobin -c a.c")), [""; 0]);
    assert_eq!(inputs(&call("clang -Xclang -load -Xclang p/q.so -c a.c")), ["/build/p/q.so"]);
    assert_eq!(inputs(&call("clang -fpass-plugin=p.so -c a.c")), ["/build/p.so"]);
    assert_eq!(inputs(&call("clang -fsanitize-ignorelist=l.txt -c a.c")), ["/build/l.txt"]);
    assert_eq!(inputs(&call("clang -fxray-attr-list=x.txt -c a.c")), ["/build/x.txt"]);
    assert_eq!(inputs(&call("clang -fprofile-list=f.list -c a.c")), ["/build/f.list"]);
    assert_eq!(inputs(&call("clang -ivfsoverlay o.yaml -c a.c")), ["/build/o.yaml"]);
    assert_eq!(refused("gcc -fplugin=libcc1plugin -c a.c"), "plugin");
}

#[test]
fn making_a_precompiled_header_is_a_call() {
    let made = call("g++ -x c++-header -include cmake_pch.hxx -o d/cmake_pch.hxx.gch -c cmake_pch.hxx.cxx");
    assert_eq!(made.language, Language::CxxHeader);
    assert_eq!(outputs(&made, OutputKind::Object), ["d/cmake_pch.hxx.gch"]);
    assert_eq!(outputs(&call("gcc inc/all.h"), OutputKind::Object), ["inc/all.h.gch"]);
    assert_eq!(outputs(&call("gcc -MD -c inc/all.h"), OutputKind::Depfile), ["all.d"]);
    // The names depend on the version.
    assert_eq!(refused("gcc -MD inc/all.h"), "extra_files");
    assert_eq!(refused("clang inc/all.h"), "extra_files");
}

#[test]
fn a_precompiled_header_that_is_used_is_an_input() {
    assert_eq!(inputs(&call("clang -include-pch d/all.pch -c a.c")), ["/build/d/all.pch"]);
    let cmake = call("clang++ -Xclang -include-pch -Xclang d/x.pch -Xclang -include -Xclang d/x.hxx -c a.cc");
    assert_eq!(inputs(&cmake), ["/build/d/x.pch"]);
    assert_eq!(details(&cmake).forced[0].path.to_str(), Some("d/x.hxx"));
}

#[test]
fn modules_are_refused() {
    for option in [
        "-fmodules",
        "-fmodules-ts",
        "-fmodule-header",
        "-fmodule-header=user",
        "-fcxx-modules",
        "-fprebuilt-implicit-modules",
        "-fmodule-file=m.pcm",
        "-fmodules-cache-path=x",
        "-fmodule-mapper=x",
        "-fmodule-output",
        "--precompile",
        "-gmodules",
    ] {
        assert_eq!(refused(&format!("clang++ {option} -c a.cc")), "modules", "{option}");
    }
    call("clang++ -fno-modules -c a.cc");
}

#[test]
fn link_time_optimisation_is_compiled_as_any_other() {
    assert_eq!(outputs(&call("gcc -flto=auto -ffat-lto-objects -c a.c"), OutputKind::Object), ["a.o"]);
}

#[test]
fn options_of_the_assembler_are_known_or_refused() {
    for option in [
        "-Wa,-a",
        "-Wa,-al=x.lst",
        "-Wa,--MD,x.d",
        "-Wa,@x",
        "-Wa,-o,x",
        "-Wa,--listing-lhs-width=2",
        "-Xassembler -ahl",
    ] {
        assert_eq!(refused(&format!("gcc {option} -c a.c")), "assembler_option", "{option}");
    }
    call("gcc -Wa,--noexecstack,-mrelax-relocations=no -Wa,--defsym,X=1 -Xassembler --defsym -Xassembler Y=2 -c a.c");
}

#[test]
fn other_programs_run_only_from_the_system() {
    assert_eq!(refused("gcc -wrapper gdb,--args -c a.c"), "other_programs");
    assert_eq!(refused("gcc -B tools -c a.c"), "other_programs");
    assert_eq!(refused("gcc -B/build/../build/tools -c a.c"), "other_programs");
    assert_eq!(refused("clang --config x.cfg -c a.c"), "other_programs");
    assert_eq!(refused("clang --config-system-dir=x -c a.c"), "other_programs");
    call("gcc -B/usr/lib/gold-ld -c a.c");
}

#[test]
fn specs_are_inputs() {
    assert_eq!(inputs(&call("gcc -specs=conf/x.specs -c a.c")), ["/build/conf/x.specs"]);
    assert_eq!(inputs(&call("gcc --specs=nosys.specs -c a.c")), ["/build/nosys.specs?"]);
    assert_eq!(inputs(&call("gcc -specs /usr/lib/rpm/hardened -c a.c")), ["/usr/lib/rpm/hardened"]);
}

#[test]
fn charsets_pass() {
    assert_eq!(call("gcc -finput-charset=latin1 -fexec-charset=utf-8 -c a.c").arguments.len(), 4);
}

#[test]
fn other_platforms_are_refused() {
    for option in ["-arch x86_64", "-arch arm64 -arch x86_64", "-framework Cocoa", "-F dir", "-Xarch_host -g"] {
        assert_eq!(refused(&format!("clang {option} -c a.c")), "platform", "{option}");
    }
}

#[test]
fn options_of_the_preprocessor_are_known_or_refused() {
    let call = call("gcc -Wp,-D_FORTIFY_SOURCE=2,-UX -c a.c");
    let defined: Vec<_> =
        details(&call).defined.iter().map(|one| (one.name.as_slice(), one.value.as_deref())).collect();
    assert_eq!(defined, [(b"_FORTIFY_SOURCE".as_slice(), Some(b"2".as_slice())), (b"X", None)]);
    for option in ["-Wp,-Ifoo", "-Wp,-MD", "-Wp,-MT,x", "-Xpreprocessor -MD"] {
        assert_eq!(refused(&format!("gcc {option} -c a.c")), "preprocessor_option", "{option}");
    }
}

#[test]
fn line_markers_stay_as_they_are() {
    assert_eq!(refused("gcc -P -c a.c"), "line_markers");
    assert_eq!(refused("gcc -fno-working-directory -c a.c"), "line_markers");
}

#[test]
fn state_beside_the_build_is_refused() {
    assert_eq!(refused("clang -index-store-path x -c a.c"), "hidden_state");
    assert_eq!(refused("clang -fbuild-session-file=x -c a.c"), "hidden_state");
    let call = call("clang --serialize-diagnostics a.dia -c a.c");
    assert_eq!(outputs(&call, OutputKind::Diagnostics), ["a.dia"]);
}

#[test]
fn probes_of_a_configuration_run_in_the_step() {
    for line in [
        "gcc -c conftest.c",
        "g++ -c -o conftest.o conftest.cpp",
        "cc -o CMakeFiles/cmTC_1.dir/a.o -c /build/CMakeFiles/CMakeScratch/TryCompile-x/a.c",
        "cc -c /build/CMakeFiles/CMakeTmp/a.c",
        "cc /build/b/meson-private/tmpx/testfile.c -o /build/b/meson-private/tmpx/output.obj -c",
    ] {
        assert_eq!(refused(line), "probe", "{line}");
    }
    let mut inside = invocation("cc -c a.c");
    inside.directory = "/build/CMakeFiles/CMakeScratch/TryCompile-x".into();
    assert_eq!(understand(&inside, &Memory::default()).unwrap_err().label(), "probe");
}

#[test]
fn values_are_taken_where_the_compiler_takes_them() {
    let line = "gcc -I dir -Idir2 -isystem s -isystems2 -iquote q -idirafter z -D A=1 -DB -U C --param x=1 --param=y=2 \
                -T script -u sym -z now -L lib -l m -x c -o x a.c -c -MT t -MQ q -MF f -A a=b --sysroot=/usr/x -include i.h";
    let call = call(line);
    assert_eq!(call.source.to_str(), Some("/build/a.c"));
    assert_eq!(outputs(&call, OutputKind::Object), ["x"]);
    let found: Vec<_> =
        details(&call).search.directories.iter().map(|one| (one.kind, one.path.to_str().unwrap())).collect();
    use DirectoryKind::{After, Normal, Quote, System};
    assert_eq!(
        found,
        [
            (Quote, "/build/q"),
            (Normal, "/build/dir"),
            (Normal, "/build/dir2"),
            (System, "/build/s"),
            (System, "/build/s2"),
            (After, "/build/z")
        ]
    );
    assert_eq!(details(&call).search.sysroot.as_deref().unwrap().to_str(), Some("/usr/x"));
    let words: Vec<OsString> = line.split_whitespace().skip(1).map(OsString::from).collect();
    assert_eq!(call.arguments, words);
}

#[test]
fn an_option_without_its_value_is_refused() {
    for line in ["gcc -c a.c -o", "gcc -c a.c -I", "gcc -c a.c --param", "clang -c a.c -Xclang"] {
        assert_eq!(refused(line), "missing_argument", "{line}");
    }
}

#[test]
fn unknown_options_are_refused_and_families_pass() {
    for option in [
        "--frobnicate",
        "-jx",
        "-kernel",
        "--output",
        "-mllvm -stats",
        "-Xclang -foo",
        "-fnew-file=a/b",
        "-Wfile=/x",
        "-G 0",
    ] {
        assert_eq!(refused(&format!("gcc {option} -c a.c")), "unknown_option", "{option}");
    }
    call(
        "gcc -O2 -g3 -ggdb -gdwarf-5 -std=gnu11 -Wall -Wno-x -Werror=format -fPIC -fstack-protector-strong -mno-red-zone -m64 -pipe -pthread -w -ansi -pg -nostdlib -static -c a.c",
    );
}

#[test]
fn directories_of_headers_that_kiln_cannot_follow_are_refused() {
    for option in ["-I-", "-iwithprefix x", "-I=x", "-isystem $SYSROOT/x", "-remap", "-imultilib x"] {
        assert_eq!(refused(&format!("gcc {option} -c a.c")), "header_search", "{option}");
    }
    let call = call("gcc --sysroot /opt/s -I=/inc -iprefix /opt/p- -iwithprefix x -iwithprefixbefore y -c a.c");
    let paths: Vec<_> = details(&call).search.directories.iter().map(|one| one.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/opt/s/inc", "/opt/p-y", "/opt/p-x"]);
}

#[test]
fn directories_of_the_environment_come_after_those_of_their_kind() {
    let mut invocation = invocation("gcc -c a.c -I i -isystem s");
    invocation.environment = [("CPATH", "/c:"), ("C_INCLUDE_PATH", "/ci"), ("CPLUS_INCLUDE_PATH", "/no")]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
    let call = understand(&invocation, &Memory::default()).unwrap();
    let paths: Vec<_> = details(&call).search.directories.iter().map(|one| one.path.to_str().unwrap()).collect();
    assert_eq!(paths, ["/build/i", "/c", "/build", "/build/s", "/ci"]);
}

#[test]
fn macros_are_read_before_includes() {
    let call = call("gcc -include a.h -imacros m.h -include b.h -c a.c");
    let forced: Vec<_> =
        details(&call).forced.iter().map(|one| (one.path.to_str().unwrap(), one.macros_only)).collect();
    assert_eq!(forced, [("m.h", true), ("a.h", false), ("b.h", false)]);
}

#[test]
fn the_environment_has_only_what_compilers_read() {
    let mut invocation = invocation("gcc -c a.c");
    invocation.environment = [
        "PATH",
        "LANG",
        "LC_ALL",
        "SOURCE_DATE_EPOCH",
        "GCC_COLORS",
        "CLANG_CONFIG_FILE_USER_DIR",
        "VERSION",
        "HOME",
        "TMPDIR",
        "MAKEFLAGS",
        "KILN_JOBS",
    ]
    .map(|name| (name.into(), "x".into()))
    .into();
    let call = understand(&invocation, &Memory::default()).unwrap();
    let names: Vec<_> = call.environment.keys().map(|name| name.to_str().unwrap()).collect();
    assert_eq!(names, ["CLANG_CONFIG_FILE_USER_DIR", "GCC_COLORS", "LANG", "LC_ALL", "PATH", "SOURCE_DATE_EPOCH"]);
}

#[test]
fn variables_that_write_files_are_refused() {
    for name in ["DEPENDENCIES_OUTPUT", "SUNPRO_DEPENDENCIES"] {
        let mut invocation = invocation("gcc -c a.c");
        invocation.environment = [(name.into(), "deps".into())].into();
        let refusal = understand(&invocation, &Memory::default()).unwrap_err();
        assert_eq!(refusal, Refusal::Environment { name: name.to_owned() });
    }
}

#[test]
fn what_two_runs_make_differently_is_known() {
    let reproducible = |line: &str| details(&call(line)).reproducible;
    assert!(reproducible("gcc -O2 -g -gsplit-dwarf -c a.c"));
    assert!(reproducible("gcc -ftest-coverage -c a.c"));
    for line in ["gcc -flto -c a.c", "gcc --coverage -c a.c", "gcc a.h"] {
        assert!(!reproducible(line), "{line}");
        assert!(reproducible(&format!("{line} -frandom-seed=a.c")), "{line}");
    }
}
