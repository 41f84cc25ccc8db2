//! The rules of `docker build --check`.

use kiln_dockerfile::config::Config;
use kiln_dockerfile::lint::Rule;
use kiln_dockerfile::patterns::Ignore;
use kiln_dockerfile::{Bases, Options, Platform, bases, lower};

use crate::support::{error, file, lowered, options};

/// The rules that find something in a file, with their lines.
fn found_with(text: &str, options: &Options) -> Vec<(&'static str, usize)> {
    let options = Options { all_stages: true, ..options.clone() };
    let built = lowered(text, &options, &[]).unwrap_or_else(|error| panic!("{}", error.render(false)));
    built.lints.iter().map(|lint| (lint.rule.name(), lint.line)).collect()
}

fn found(text: &str) -> Vec<(&'static str, usize)> {
    found_with(text, &options())
}

#[test]
fn each_rule_finds_what_it_is_about_and_nothing_else() {
    for (text, expected) in [
        ("FROM a\nRUN x\nCMD [\"y\"]\n", &[][..]),
        ("FROM a AS Build\nRUN x\n", &[("StageNameCasing", 1)]),
        ("FROM a as build\nRUN x\n", &[("FromAsCasing", 1)]),
        ("from a as build\nrun x\n", &[]),
        ("FROM a\nRUN x \\\n\n  y\n", &[("NoEmptyContinuation", 4)]),
        ("FROM a\nRUN x\ncopy a b\n", &[("ConsistentInstructionCasing", 3)]),
        ("from a\nrun x\nCopy a b\n", &[("ConsistentInstructionCasing", 3)]),
        ("FROM a AS x\nRUN y\nFROM a AS X\nRUN y\n", &[("StageNameCasing", 3), ("DuplicateStageName", 3)]),
        ("FROM a AS scratch\nRUN x\n", &[("ReservedStageName", 1)]),
        ("FROM a\nCMD x\n", &[("JSONArgsRecommended", 2)]),
        ("FROM a\nENTRYPOINT x\n", &[("JSONArgsRecommended", 2)]),
        ("FROM a\nSHELL [\"s\"]\nCMD x\n", &[]),
        ("FROM a\nMAINTAINER x\n", &[("MaintainerDeprecated", 2)]),
        ("ARG TAG=1\nFROM a:${TAG}${TGA}\n", &[("UndefinedArgInFrom", 2)]),
        ("FROM a\nWORKDIR x\nWORKDIR y\n", &[("WorkdirRelativePath", 2)]),
        ("FROM a\nWORKDIR /x\nWORKDIR y\n", &[]),
        ("FROM a\nCOPY $x /y\nARG z\nCOPY $z /y\nCOPY $PATH /y\n", &[("UndefinedVar", 2)]),
        ("FROM a\nRUN $x\nENV y=${x:-1}\n", &[("UndefinedVar", 3)]),
        ("FROM a\nCMD [\"x\"]\nCMD [\"y\"]\n", &[("MultipleInstructionsDisallowed", 2)]),
        (
            "FROM a\nHEALTHCHECK NONE\nHEALTHCHECK NONE\nHEALTHCHECK NONE\n",
            &[("MultipleInstructionsDisallowed", 2), ("MultipleInstructionsDisallowed", 3)],
        ),
        ("FROM a AS x\nCMD [\"x\"]\nFROM x\nCMD [\"y\"]\n", &[]),
        ("FROM a\nENV b c\nLABEL d e\n", &[("LegacyKeyValueFormat", 2), ("LegacyKeyValueFormat", 3)]),
        ("FROM --platform=$TARGETPLATFORM a\n", &[("RedundantTargetPlatform", 1)]),
        ("FROM --platform=linux/arm64 a\n", &[("FromPlatformFlagConstDisallowed", 1)]),
        ("FROM --platform=linux/arm64 a AS build-arm64\n", &[]),
        ("FROM --platform=$BUILDPLATFORM a\n", &[]),
        (
            "FROM a\nARG MY_PASSWORD\nENV TOKEN_FILE=/x API_KEY=y PUBLIC_KEY=z MONKEY=1\n",
            &[("SecretsUsedInArgOrEnv", 2), ("SecretsUsedInArgOrEnv", 3)],
        ),
        ("ARG T=\nFROM a:${T:-1}\n", &[]),
        ("FROM a\nEXPOSE 80/TCP\n", &[("ExposeProtoCasing", 2)]),
        (
            "FROM a\nEXPOSE 8080:80\nEXPOSE 127.0.0.1:80:80 [::1]:53:53/udp\n",
            &[("ExposeInvalidFormat", 2), ("ExposeInvalidFormat", 3), ("ExposeInvalidFormat", 3)],
        ),
    ] {
        assert_eq!(found(text), expected, "{text}");
    }
}

#[test]
fn defaults_that_name_no_image_are_found_even_if_an_argument_is_given() {
    let mut own = options();
    own.build_args.insert("TAG".to_owned(), "1".to_owned());
    assert_eq!(found_with("ARG TAG\nFROM a:$TAG\n", &own), [("InvalidDefaultArgInFrom", 2)]);
}

#[test]
fn a_base_for_another_platform_is_found() {
    let mut known = Bases::new();
    let file = file("FROM a\nRUN x\n");
    let own = Options { platform: Some(Platform::linux("arm64")), ..options() };
    let wanted = bases(&file, &own, &known).unwrap();
    let image = crate::support::image(Config::default());
    known.add(wanted[0].clone(), kiln_dockerfile::Resolved { image, digest: None });
    let lints = lower(&file, &own, &known).unwrap().lints;
    assert_eq!(lints[0].rule, Rule::InvalidBaseImagePlatform);
    assert_eq!(lints[0].message, "the base image `a` is for linux/amd64, and the build is for linux/arm64");
}

#[test]
fn sources_that_are_left_out_are_found_unless_there_are_exceptions() {
    let ignoring = |text: &str| Options { ignore: Some(Ignore::read(".dockerignore", text).unwrap()), ..options() };
    let text = "FROM a\nCOPY x/y /z\nADD x /z\nCOPY . /z\nCOPY --from=a x /z\n";
    assert_eq!(found_with(text, &ignoring("x\n")), [("CopyIgnoredFile", 2), ("CopyIgnoredFile", 3)]);
    assert_eq!(found_with(text, &ignoring("*\n")).len(), 3);
    assert!(found_with(text, &ignoring("*\n!x\n")).is_empty());
}

#[test]
fn a_comment_describes_what_follows_if_that_is_asked_for() {
    let text = "# check=experimental=all\n# A is good\nARG A=1\n# wrong\nARG B=1\n# base is it\nFROM a AS base\n# none\nRUN x\n# No\nARG C D\n";
    assert_eq!(found(text), [("InvalidDefinitionDescription", 5), ("InvalidDefinitionDescription", 11)]);
    assert!(found(&text.replace("# check=experimental=all\n", "")).is_empty());
}

#[test]
fn rules_are_left_out_for_a_file_or_an_instruction() {
    let text = "FROM a\nWORKDIR x\nMAINTAINER y\n";
    assert_eq!(found(&format!("# check=skip=MaintainerDeprecated,Foo\n{text}")), [("WorkdirRelativePath", 3)]);
    assert!(found(&format!("# check=skip=all\n{text}")).is_empty());
    assert_eq!(found("FROM a\n# check=skip=UndefinedVar\nCOPY $x /\nCOPY $x /\n"), [("UndefinedVar", 4)]);
    assert_eq!(found("FROM a\n# text\n# check=skip=all\nMAINTAINER x\nMAINTAINER y\n"), [("MaintainerDeprecated", 5)]);
    let mut own = options();
    own.build_args.insert("BUILDKIT_DOCKERFILE_CHECK".to_owned(), "skip=all".to_owned());
    assert!(found_with(text, &own).is_empty());
}

#[test]
fn findings_are_errors_if_the_file_says_so() {
    let text = "# check=error=true\nFROM a\nMAINTAINER x\n";
    let message = error(text);
    assert!(
        message.starts_with("3: the rules `MaintainerDeprecated` found something: MAINTAINER is deprecated"),
        "{message}"
    );
}

#[test]
fn a_file_can_be_checked_without_a_registry() {
    let file = file("FROM nowhere.example/x\nMAINTAINER y\n");
    let known = Bases::assumed();
    assert!(bases(&file, &options(), &known).unwrap().is_empty());
    let lints = lower(&file, &options(), &known).unwrap().lints;
    assert_eq!(lints.iter().map(|lint| lint.rule).collect::<Vec<_>>(), [Rule::MaintainerDeprecated]);
}

#[test]
fn what_depends_on_the_variables_of_an_unknown_base_is_no_error() {
    let text = concat!(
        "FROM nowhere.example/x\nVOLUME $DATA\nWORKDIR $HOME_OF_IT\nSTOPSIGNAL $SIGNAL\nEXPOSE $PORT\n",
        "RUN --mount=type=cache,target=$CACHE,uid=$UID x\nCOPY --chmod=$MODE a /${NAME:?}\nVOLUME \"\"\n",
    );
    let (lints, error) = kiln_dockerfile::check(&file(text), &options(), &Bases::assumed());
    assert!(lints.is_empty(), "{lints:?}");
    assert_eq!(error.unwrap().line(), 8, "what depends on nothing is one");
    let known = kiln_dockerfile::check(&file("FROM scratch\nVOLUME $DATA\n"), &options(), &Bases::assumed());
    assert!(known.1.is_some(), "nothing sets it");
}

#[test]
fn a_file_that_cannot_be_built_is_checked_as_far_as_possible() {
    let file = file("FROM --platform=$BULIDPLATFORM a\nMAINTAINER x\n");
    let (lints, error) = kiln_dockerfile::check(&file, &options(), &Bases::assumed());
    let rules: Vec<_> = lints.iter().map(|lint| lint.rule).collect();
    assert_eq!(rules, [Rule::MaintainerDeprecated, Rule::UndefinedArgInFrom]);
    assert!(error.unwrap().to_string().contains("did you mean `BUILDPLATFORM`?"));
    let (lints, error) = kiln_dockerfile::check(&self::file("ARG A\nFROM $A\n"), &options(), &Bases::assumed());
    assert_eq!((lints[0].rule, error.is_some()), (Rule::InvalidDefaultArgInFrom, true));
}

#[test]
fn there_are_22_rules_with_names_of_their_own() {
    let names: std::collections::BTreeSet<_> = Rule::ALL.iter().map(|rule| rule.name()).collect();
    assert_eq!(names.len(), 22);
}
