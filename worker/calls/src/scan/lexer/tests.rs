//! How files are split into directives.

use super::*;

fn uses(text: &str) -> Vec<String> {
    let shown = |name: &Name| match name {
        Name::Quoted(name) => format!("\"{}\"", String::from_utf8_lossy(name)),
        Name::Angled(name) => format!("<{}>", String::from_utf8_lossy(name)),
        Name::Macro(name) => format!("macro {}", String::from_utf8_lossy(name)),
        Name::Expression(text) => format!("expression {}", String::from_utf8_lossy(text)),
    };
    directives(text.as_bytes(), true).uses.iter().map(|(used, name)| format!("{used:?} {}", shown(name))).collect()
}

#[test]
fn includes_are_found_however_they_are_written() {
    let text = "#include \"a.h\"\n  #  include <b/c.h> // why\n#import <d.h>\n/* x */ # /* y */ include /* z */ <e.h>\n\
                %:include <f.h>\n#include_next <g.h>\n#include\"h.h\"\n#include <a//b.h>\n#include <a/*b.h>\n#embed \"i\" limit(1)";
    let expected = "Include \"a.h\",Include <b/c.h>,Include <d.h>,Include <e.h>,Include <f.h>,IncludeNext <g.h>,Include \"h.h\",\
                    Include <a//b.h>,Include <a/*b.h>,Embed \"i\"";
    assert_eq!(uses(text).join(","), expected);
}

#[test]
fn both_branches_are_taken() {
    assert_eq!(uses("#if 0\n#include <a.h>\n#else\n#include <b.h>\n#endif"), ["Include <a.h>", "Include <b.h>"]);
}

#[test]
fn lines_continue_after_a_backslash() {
    assert_eq!(uses("#inc\\\nlude <a\\  \n.h>\n# \\\n include <b.h>"), ["Include <a.h>", "Include <b.h>"]);
    assert_eq!(uses("// comment \\\n#include <no.h>\n#include <a.h>"), ["Include <a.h>"]);
    assert_eq!(uses("#define X \\\n#include <no.h>\n#include <a.h>"), ["Include <a.h>"]);
    assert_eq!(uses("/\\\n* #include <x.h>\n#include <no.h> *\\\n/\n#include <a.h>"), ["Include <a.h>"]);
}

#[test]
fn comments_and_strings_hide_directives_and_each_other() {
    assert_eq!(uses("/*\n#include <no.h>\n*/\n#include <a.h>"), ["Include <a.h>"]);
    assert_eq!(uses("char *s = \"/*\";\n#include <a.h>\nchar *t = \"*/\";"), ["Include <a.h>"]);
    assert_eq!(uses("char c = '\"'; char d = '\\''; /*\n#include <no.h>\n*/\n#include <a.h>"), ["Include <a.h>"]);
    assert_eq!(uses("char *s = \"a\\\"/*\";\n#include <a.h>"), ["Include <a.h>"]);
    assert_eq!(uses("#define X /* begins\n#include <no.h> */ 1\n#include <a.h>"), ["Include <a.h>"]);
    assert_eq!(uses("#error don't /* here\n#include <a.h>"), ["Include <a.h>"]);
    assert_eq!(uses("x = \"open\n#include <a.h>"), ["Include <a.h>"]);
    assert_eq!(uses("x #include <no.h>"), [""; 0]);
}

#[test]
fn raw_strings_are_text() {
    let text = "auto s = R\"(\n#include <no.h>\n/* \" )\" ;\n#include <a.h>\nauto t = u8R\"x(\n#include <no.h>\n)\" )x\";\n#include <b.h>";
    assert_eq!(uses(text), ["Include <a.h>", "Include <b.h>"]);
    assert_eq!(uses("R\"(a\\\n)\"\n#include <a.h>"), ["Include <a.h>"]);
    assert_eq!(uses("#define X R\"(\n#include <no.h>\n)\"\n#include <a.h>"), ["Include <a.h>"]);
    // Not raw: the suffix of a literal before it.
    assert_eq!(uses("\"\"R\"x(\n#include <a.h>\n)x\""), ["Include <a.h>"]);
    // Not raw: no delimiter, or another identifier before it.
    assert_eq!(uses("R\"x y\"\n#include <a.h>\nFOOR\"(\"\n#include <b.h>"), ["Include <a.h>", "Include <b.h>"]);
}

#[test]
fn quotes_between_digits_are_no_characters() {
    assert_eq!(
        uses("int x = 1'000'000; /* ' */ int y = 0x'ff'; int z = 1'0; char c = '/'; /*\n#include <no.h>\n*/"),
        [""; 0]
    );
    assert_eq!(uses("int x = 1'0; // '\n#include <a.h>"), ["Include <a.h>"]);
}

#[test]
fn where_standards_of_c_differ_all_are_read() {
    let text = "R\"(\n#include <raw.h>\n)\"\n#include <a.h>";
    assert_eq!(uses(text), ["Include <a.h>"]);
    let found = directives(text.as_bytes(), false);
    assert_eq!((found.uses.len(), found.first), (2, 2));
    assert_eq!(directives(b"x = 1'0; /* ' */\n#include <a.h>\n", false).uses.len(), 1);
}

#[test]
fn what_is_asked_for_is_found() {
    let text = "#if defined(__has_include) && __has_include(<a.h>) || __has_include ( \"b.h\" )\n#elif __has_include_next(<c.h>)\n\
                #elif __has_embed(\"d\" limit(1))\n#endif\n#define HAS __has_include(<e.h>)\n#if __has_include(X)\n#endif";
    let expected = "Probe <a.h>,Probe \"b.h\",ProbeNext <c.h>,Embed \"d\",Probe <e.h>,Probe macro X";
    assert_eq!(uses(text).join(","), expected);
}

#[test]
fn a_dependency_of_a_pragma_is_found() {
    assert_eq!(uses("#pragma GCC dependency \"a.y\"\n#pragma once\n#pragma GCC system_header"), ["Probe \"a.y\""]);
}

#[test]
fn the_first_include_is_one_of_the_first() {
    let first = |text: &str| directives(text.as_bytes(), true).first;
    assert_eq!(first("#include <a.h>\n#include <b.h>"), 1);
    assert_eq!(first("#ifdef X\n#include <a.h>\n#else\n#include <b.h>\n#endif\n#include <c.h>\n#include <d.h>"), 3);
    assert_eq!(first("#if X\n#include <a.h>\n#endif\n#if Y\n#include <b.h>\n#endif"), 2);
}

#[test]
fn computed_includes_are_told_from_names() {
    assert_eq!(
        uses("#include CONFIG\n#include MAKE(x)\n#include <a.h\n"),
        ["Include macro CONFIG", "Include expression MAKE(x)", "Include expression a.h"]
    );
    let text =
        "#define A \"a.h\"\n#define B <b.h> // x\n#define C A\n#define D(x) x\n#define E 1\n#define F\n#define G A B";
    let macros = directives(text.as_bytes(), true).macros;
    let kinds: Vec<_> = macros.iter().map(|(name, body)| (name[0] as char, *body == Body::Opaque)).collect();
    assert_eq!(kinds, [('A', false), ('B', false), ('C', false), ('D', true), ('G', true)]);
}

#[test]
fn files_that_the_assembler_reads_are_noticed() {
    assert!(directives(b"asm(\".incbin \\\"x\\\"\");", false).has_incbin);
    assert!(directives(b"asm(\".incbin\" \" \\\"x\\\"\");", false).has_incbin);
    assert!(directives(b"  .include \"x.s\"", false).has_include);
    assert!(!directives(b"#include <x.h>", false).has_include);
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_read(text: Vec<u8>) {
        directives(&text, false);
    }

    #[test]
    fn pieces_of_source_are_read(pieces in proptest::collection::vec("[#\"'\\\\\n /*<>()R%:0a]|include|define|__has_include", 0..40)) {
        directives(pieces.concat().as_bytes(), false);
    }
}
