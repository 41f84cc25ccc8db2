//! Text to instructions: lines, directives, continuations, heredocs, flags, and the form of arguments.

use kiln_dockerfile::text::{Arguments, Node, Text, heredoc_word, read, syntax};

fn nodes(text: &str) -> Vec<Node> {
    read(text).map(|read: Text| read.nodes).unwrap_or_else(|problem| panic!("{}:\n{text}", problem.message))
}

fn node(text: &str) -> Node {
    let mut nodes = nodes(text);
    assert_eq!(nodes.len(), 1, "{text}");
    nodes.remove(0)
}

fn argument(node: &Node) -> &str {
    match &node.arguments {
        Arguments::Text(word) => &word.value,
        other => panic!("expected a text, found {other:?}"),
    }
}

fn words(node: &Node) -> Vec<&str> {
    match &node.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.iter().map(|word| &*word.value).collect(),
        other => panic!("expected words, found {other:?}"),
    }
}

fn problem(text: &str) -> String {
    read(text).unwrap_err().message
}

#[test]
fn directives_are_on_the_first_lines() {
    let directives = |text: &str| read(text).unwrap().directives;
    let found = directives("# Syntax = docker/dockerfile:1 \n#escape=`\n# check=skip=all\nFROM a\n");
    assert_eq!((found.syntax.unwrap().value.as_str(), found.escape), ("docker/dockerfile:1", '`'));
    assert_eq!(found.check.unwrap().value, "skip=all");
    for ended in
        ["# comment\n# escape=`\nFROM a", "\n# escape=`\nFROM a", "FROM a\n# escape=`\n", "# foo=x\n# escape=`\nFROM a"]
    {
        assert_eq!(directives(ended).escape, '\\', "{ended}");
    }
    assert_eq!(directives("\u{feff}# escape=`\nFROM a").escape, '`');
    assert_eq!(problem("# escape=`\n# escape=`\nFROM a"), "the directive `escape` is repeated");
    assert_eq!(problem("# escape=x\nFROM a"), "invalid escape character `x`");
    assert_eq!(problem("# syntax=a\n# SYNTAX=b\nFROM a"), "the directive `syntax` is repeated");
}

#[test]
fn the_frontend_is_found_in_three_forms() {
    assert_eq!(syntax("# syntax=a/b:1 more\nFROM x"), Some("a/b:1"));
    assert_eq!(syntax("#!/bin/x\n# escape=`\n# syntax=a\n"), Some("a"));
    assert_eq!(syntax("// syntax=a\nx"), Some("a"));
    assert_eq!(syntax("\u{feff}{\"syntax\": \"a\", \"x\": 1}"), Some("a"));
    for text in ["FROM x\n# syntax=a", "# x\n# syntax=a", "{\"x\": \"syntax\"}", "", "# syntax="] {
        assert_eq!(syntax(text), None, "{text}");
    }
}

#[test]
fn lines_are_joined() {
    assert_eq!(argument(&node("RUN a \\\n  b \\ \t\n# comment\n\n   # another\n\tc\n")), "a   b \tc");
    assert_eq!(nodes("RUN a \\\\\nRUN b").len(), 2, "two escape characters continue nothing");
    assert_eq!(argument(&node("# escape=`\nRUN a `\n b\\")), "a  b\\");
    assert_eq!(argument(&node("\\\nRUN a\\\n")), "a");
    assert!(node("RUN a \\\n\n b").has_empty_line);
    assert!(!node("RUN a \\\n# c\n b").has_empty_line);
    assert_eq!(argument(&node("  run\ta\r\n")), "a");
    assert_eq!(argument(&node("RUN echo \\\r\n  x\r\n")), "echo   x");
}

#[test]
fn comments_belong_to_the_instruction_that_follows() {
    let all = nodes("# syntax=docker/dockerfile:1\n# one\n\n  # two\nFROM a\n# three\n#\n# four\nRUN x\n");
    assert_eq!(all[0].comments, ["one", "two"]);
    assert_eq!(all[1].comments, ["four"]);
    assert_eq!(argument(&node("RUN a # no comment")), "a # no comment");
}

#[test]
fn flags_come_before_the_arguments() {
    let flags = |text: &str| node(text).flags.iter().map(|flag| flag.value.clone()).collect::<Vec<_>>();
    assert_eq!(
        flags("RUN --mount=type=cache,target=/x --network=none make --all"),
        ["--mount=type=cache,target=/x", "--network=none"]
    );
    assert_eq!(flags("COPY --chown=\"a b\" --x='c\"d' --y=e\\ f a b"), ["--chown=a b", "--x=c\"d", "--y=e f"]);
    assert_eq!(flags("COPY --chown=größe a b"), ["--chown=größe"]);
    let ended = node("RUN --a -- --b c");
    assert_eq!((ended.flags.len(), argument(&ended)), (1, "--b c"));
    assert_eq!(argument(&node("RUN -x --y")), "-x --y");
    assert!(matches!(&node("COPY --link").arguments, Arguments::Words(words) if words.is_empty()));
}

#[test]
fn the_json_form_is_an_array_of_strings() {
    let of = |text: &str| node(text).arguments;
    assert!(matches!(of(r#"RUN ["a", "b\n\u00e9"]"#), Arguments::Json(words) if words[1].value == "b\né"));
    assert!(matches!(of("CMD []"), Arguments::Json(words) if words.is_empty()));
    for shell in ["RUN ['a']", r#"RUN ["a",]"#, r#"RUN ["a"] x"#, r#"RUN ["a"#, "RUN [ -f x ]"] {
        assert!(matches!(of(shell), Arguments::Text(_)), "{shell}");
    }
    assert!(matches!(of(r#"COPY ["a b", "c"]"#), Arguments::Json(words) if words[0].value == "a b"));
    assert!(problem(r#"RUN ["a", 1]"#).contains("strings only, found `1`"));
    assert!(problem(r#"COPY ["a", null]"#).contains("strings only"));
}

#[test]
fn pairs_are_new_or_old() {
    let pairs = |text: &str| match node(text).arguments {
        Arguments::Pairs(pairs) => {
            pairs.into_iter().map(|pair| (pair.name.value, pair.value.value, pair.is_legacy)).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let pair = |name: &str, value: &str, legacy| (name.to_owned(), value.to_owned(), legacy);
    assert_eq!(
        pairs("ENV a=b c=\"d e\" f=g\\ h i="),
        [pair("a", "b", false), pair("c", "\"d e\"", false), pair("f", "g\\ h", false), pair("i", "", false)]
    );
    assert_eq!(pairs("ENV a  b c=d"), [pair("a", "b c=d", true)]);
    assert_eq!(pairs("LABEL \"a b\"=c"), [pair("\"a b\"", "c", false)]);
    assert!(problem("ENV a").contains("has no value"));
    assert!(problem("ENV a=b c").contains("`c` has no `=`"));
}

#[test]
fn heredocs_are_read_to_their_end() {
    let run = node("RUN <<A cat <<-\"B\" 3<<C\none\nA\n\ttwo\n\tB\n A\nC\n");
    let found: Vec<_> = run.heredocs.iter().map(|h| (&*h.name, h.descriptor, h.expands, h.data())).collect();
    assert_eq!(
        found,
        [("A", 0, true, "one\n".to_owned()), ("B", 0, false, "two\n".to_owned()), ("C", 3, true, " A\n".to_owned())]
    );
    assert_eq!(nodes("COPY <<EOF /x\n# no comment\n\\\nEOF\nRUN y").len(), 2);
    assert_eq!(node("ONBUILD RUN <<EOF\nx\nEOF").heredocs.len(), 1);
    assert_eq!(node("# escape=`\nRUN <<'E`F'\nx\nE`F").heredocs[0].name, "E`F");
    for none in [
        "ENV a=<<EOF",
        "RUN [\"<<EOF\"]",
        "RUN cat<<EOF",
        "RUN cat <<<EOF",
        "RUN it's <<EOF",
        "RUN a << <b",
        "CMD <<EOF",
    ] {
        assert!(node(none).heredocs.is_empty(), "{none}");
    }
    assert_eq!(problem("RUN <<EOF\nx\n EOF\n"), "the heredoc `EOF` has no end");
    assert_eq!(node("RUN <<EOF\r\nx\r\nEOF\r\n").heredocs[0].content, "x\r\n");
}

#[test]
fn a_word_is_a_heredoc_if_it_has_one_name() {
    let name = |word: &str| heredoc_word(word).map(|heredoc| (heredoc.name, heredoc.expands, heredoc.strips_tabs));
    assert_eq!(name("<<EOF"), Some(("EOF".to_owned(), true, false)));
    assert_eq!(name("12<<-'E F'"), Some(("E F".to_owned(), false, true)));
    assert_eq!(name("<<E\"O\"F"), Some(("EOF".to_owned(), false, false)));
    assert_eq!(name("<< EOF"), Some(("EOF".to_owned(), true, false)));
    assert_eq!(name("<<$EOF"), Some(("$EOF".to_owned(), true, false)));
    for word in ["<<", "<<-", "<EOF", "x<<EOF", "<<a b", "<<<a", "<<'a", "<<a<b"] {
        assert_eq!(name(word), None, "{word}");
    }
}

#[test]
fn a_health_check_has_a_word_before_its_command() {
    let check = node("HEALTHCHECK --interval=5s cmd [\"a\"]");
    assert_eq!(check.check.as_ref().unwrap().value, "cmd");
    assert_eq!(words(&check), ["a"]);
    assert_eq!(argument(&node("HEALTHCHECK CMD a || b")), "a || b");
    assert_eq!(node("HEALTHCHECK").check, None);
}

#[test]
fn places_are_those_of_the_file() {
    let text = "FROM a\n\nRUN --mount=x \\\n  # c\n  make \\\n  all\n";
    let all = nodes(text);
    let part = |span: kiln_dockerfile::source::Span| &text[span.start..span.end];
    assert_eq!(part(all[1].flags[0].span), "--mount=x");
    assert_eq!(part(all[1].span), "RUN --mount=x \\\n  # c\n  make \\\n  all");
    let Arguments::Text(argument) = &all[1].arguments else { panic!() };
    assert_eq!(part(argument.span), "make \\\n  all");
    let copy = &nodes("COPY a \\\n b /c\n")[0];
    let Arguments::Words(words) = &copy.arguments else { panic!() };
    assert_eq!((words[1].span.start, words[2].span.end), (10, 14));
}
