//! What a file offers, and the time that it names.

use kiln_dockerfile::{
    Bases, Context, Epoch, GitSource, NamedContext, Options, arguments, bases, epoch, lower, targets,
};

use crate::support::{build_with, error_with, file, options, runs, variable};

#[test]
fn stages_and_arguments_have_descriptions() {
    let file = file(concat!(
        "# VERSION of the compiler\nARG VERSION=1\n# build compiles it\nFROM --platform=$BUILDPLATFORM a:$VERSION AS build\n",
        "# something else\nARG X Y=\"2\"\nFROM build\n",
    ));
    let targets = targets(&file);
    assert_eq!((targets[0].name.as_deref(), targets[0].description.as_deref()), (Some("build"), Some("compiles it")));
    assert_eq!((targets[0].base.as_str(), targets[0].platform.as_deref()), ("a:$VERSION", Some("$BUILDPLATFORM")));
    assert_eq!((targets[0].is_default, targets[1].is_default, targets[1].line), (false, true, 7));
    let arguments = arguments(&file);
    let found: Vec<_> = arguments.iter().map(|a| (&*a.name, a.description.as_deref(), a.stage, a.line)).collect();
    assert_eq!(
        found,
        [("VERSION", Some("of the compiler"), None, 2), ("X", None, Some(0), 6), ("Y", None, Some(0), 6)]
    );
    assert_eq!(arguments[2].default.as_deref(), Some("\"2\""));
}

fn with_epoch(value: &str) -> Options {
    let mut own = options();
    own.build_args.insert("SOURCE_DATE_EPOCH".to_owned(), value.to_owned());
    own
}

#[test]
fn a_build_has_the_time_that_it_is_given() {
    let text = "FROM a\nARG SOURCE_DATE_EPOCH\nRUN x\n";
    let built = build_with(text, &with_epoch("1700000000"));
    assert_eq!(built.epoch, Some(1_700_000_000));
    assert_eq!(variable(runs(&built)[0], "SOURCE_DATE_EPOCH"), Some("1700000000"));
    let own = build_with(&format!("ARG SOURCE_DATE_EPOCH=5\n{text}"), &options());
    assert_eq!((own.epoch, variable(runs(&own)[0], "SOURCE_DATE_EPOCH")), (Some(5), Some("5")));
    assert_eq!(build_with(text, &options()).epoch, None);
    assert_eq!(build_with(text, &with_epoch("")).epoch, None);
}

#[test]
fn a_time_may_be_that_of_a_source_which_the_caller_resolves() {
    let text = concat!(
        "ARG V=1\nFROM scratch AS time\nARG V\nADD https://example.com/$V.tar /\nFROM scratch AS git\n",
        "ADD https://example.com/x.git#v /\nFROM scratch AS bad\nCOPY a b\nFROM a\nARG SOURCE_DATE_EPOCH\nRUN x\n",
    );
    let find = |value: &str| epoch(&file(text), &with_epoch(value)).map_err(|error| error.to_string());
    assert_eq!(find("context"), Ok(Some(Epoch::Context(Context::Main))));
    assert_eq!(find("Time"), Ok(Some(Epoch::Url("https://example.com/1.tar".to_owned()))));
    let git =
        GitSource { remote: "https://example.com/x.git".to_owned(), reference: "v".to_owned(), ..GitSource::default() };
    assert_eq!(find("git"), Ok(Some(Epoch::Git(git))));
    assert!(find("bad").unwrap_err().contains("more than a source"));
    assert!(find("tme").unwrap_err().contains("did you mean `time`?"));
    let mut named = with_epoch("sources");
    named.contexts.add("sources", NamedContext::read("https://example.com/y.git").unwrap());
    assert_eq!(epoch(&file(text), &named).unwrap(), Some(Epoch::Context(Context::Named("sources".to_owned()))));
    let known = Options { epoch: Some(7), ..with_epoch("context") };
    let built = build_with(text, &known);
    assert_eq!((built.epoch, variable(runs(&built)[0], "SOURCE_DATE_EPOCH")), (Some(7), Some("7")));
    let unknown = build_with(text, &with_epoch("context"));
    assert_eq!((unknown.epoch, variable(runs(&unknown)[0], "SOURCE_DATE_EPOCH")), (None, None));
}

#[test]
fn special_arguments_have_their_effect() {
    let mut own = options();
    own.build_args.insert("BUILDKIT_SANDBOX_HOSTNAME".to_owned(), "box".to_owned());
    assert_eq!(runs(&build_with("FROM a\nRUN x", &own))[0].hostname.as_deref(), Some("box"));
    own.build_args.insert("BUILDKIT_SYNTAX".to_owned(), "example.com/own".to_owned());
    assert!(
        error_with("FROM a", &own).contains("the frontend `example.com/own` of `BUILDKIT_SYNTAX` is not supported")
    );
}

#[test]
fn what_is_not_known_of_a_base_is_not_reported() {
    let file = file("FROM a\nCOPY $GOPATH /x\n");
    let known = Bases::assumed();
    assert!(bases(&file, &options(), &known).unwrap().is_empty());
    assert!(lower(&file, &options(), &known).unwrap().lints.is_empty());
}
