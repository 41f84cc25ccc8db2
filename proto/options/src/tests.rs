use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
#[command(name = "program", version)]
struct Program {
    #[command(flatten)]
    options: Options,
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    #[arg(long, env = "KILN_OPTIONS_TEST_LIFE", default_value = "30s", value_parser = seconds)]
    life: Duration,
    #[arg(long = "pool", value_delimiter = ';')]
    pools: Vec<String>,
    #[arg(long)]
    insecure: bool,
    #[arg(long, default_value_t = 7)]
    number: usize,
    #[arg(long, env = "KILN_OPTIONS_TEST_SECRET", hide_env_values = true)]
    secret: Option<String>,
    #[arg(long, requires = "secret")]
    secret_ca: Option<PathBuf>,
    #[arg(long, conflicts_with = "insecure")]
    tokens: Option<PathBuf>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number = text.strip_suffix('s').and_then(|number| number.parse().ok());
    number.map(Duration::from_secs).ok_or_else(|| "expected for example `5s`".to_owned())
}

/// A file with this text and this mode, and the program's options with it and these arguments.
fn with_mode(text: &str, mode: u32, arguments: &[&str]) -> Result<Read<Program>, String> {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program.toml");
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    let path = path.to_str().unwrap().to_owned();
    let line: Vec<OsString> =
        ["program", "--config", &path].into_iter().chain(arguments.iter().copied()).map(OsString::from).collect();
    read::<Program>(&line).map_err(|error| error.to_string().replace(dir.path().to_str().unwrap(), "DIR"))
}

fn with(text: &str, arguments: &[&str]) -> Result<Read<Program>, String> {
    with_mode(text, 0o600, arguments)
}

#[test]
fn the_command_line_wins_over_the_file_and_the_file_over_defaults() {
    let text = "data-dir = \"/data\"\nlife = \"9s\"\npool = [\"a\", \"b\"]\ninsecure = true\nnumber = 8\n";
    let read = with(text, &["--life", "4s", "--pool", "c"]).unwrap();
    assert_eq!(read.arguments.life, Duration::from_secs(4));
    assert_eq!(read.arguments.pools, ["c"], "expected a list of the command line to replace the file's");
    assert!(read.arguments.insecure && read.arguments.number == 8);
    let source = |name: &str| read.settings.all.iter().find(|one| one.name == name).unwrap().source.to_string();
    assert_eq!((source("life").as_str(), source("pool").as_str()), ("command line", "command line"));
    assert!(source("number").ends_with("program.toml`, line 5"), "{}", source("number"));
    let read = with("data-dir = \"/data\"\ninsecure = false\n", &[]).unwrap();
    assert!(!read.arguments.insecure && read.arguments.number == 7 && read.arguments.pools.is_empty());
}

#[test]
fn paths_are_relative_to_the_file() {
    let read = with("data-dir = \"data\"\n", &[]).unwrap();
    assert_eq!(read.arguments.data_dir, read.settings.file.unwrap().with_file_name("data"));
    let read = with("", &["--data-dir", "data"]).unwrap();
    assert_eq!(read.arguments.data_dir, PathBuf::from("data"));
}

#[test]
fn what_is_wrong_in_a_file_is_said_with_its_line() {
    for (text, words) in [
        ("\n\ndata-dri = \"x\"", "`DIR/program.toml`, line 3: there is no `data-dri`; did you mean `data-dir`?"),
        ("data_dir = \"x\"", "line 1: there is no `data_dir`; did you mean `data-dir`?"),
        ("config = \"x\"", "line 1: there is no `config`"),
        ("\nlife = \"long\"", "line 2: invalid value `long` for `life`: expected for example `5s`"),
        ("life = 5", "line 1: invalid value `5` for `life`: expected for example `5s`"),
        ("data-dir = 5", "line 1: `data-dir` must be a string (DIR), found a number"),
        ("insecure = \"yes\"", "line 1: `insecure` must be `true` or `false`, found a string"),
        ("number = true", "line 1: `number` must be a string (NUMBER), found `true` or `false`"),
        ("number = \"many\"", "line 1: invalid value `many` for `number`: invalid digit found in string"),
        ("pool = \"a\"", "line 1: `pool` must be an array of strings, found a string"),
        ("pool = [\n\"a\",\n3]", "line 1: each element of `pool` must be a string (POOLS), found a number"),
        ("\n[life]\n", "line 2: `life` must be a string (LIFE), found a table"),
        ("life = ", "line 1: "),
    ] {
        let error = with(text, &["--data-dir", "x"]).map(drop).unwrap_err();
        assert!(error.contains(words), "expected `{words}` for {text:?} in: {error}");
    }
    let error = read::<Program>(&["program", "--config", "/nowhere.toml"].map(OsString::from)).unwrap_err();
    assert!(error.to_string().contains("cannot read the configuration `/nowhere.toml`"), "{error}");
}

#[test]
fn options_of_the_file_are_checked_against_each_other_and_the_file_is_named() {
    let error = with("secret-ca = \"ca.pem\"\n", &["--data-dir", "x"]).map(drop).unwrap_err();
    assert!(error.contains("--secret") && error.contains("`DIR/program.toml` has `secret-ca` (line 1)"), "{error}");
    let error = with("tokens = \"t\"\n", &["--data-dir", "x", "--insecure"]).map(drop).unwrap_err();
    assert!(error.contains("cannot be used with") && error.contains("`tokens` (line 1)"), "{error}");
    let error = with("", &[]).map(drop).unwrap_err();
    assert!(error.contains("--data-dir <DIR>") && error.contains("has no options"), "{error}");
}

#[test]
fn a_file_that_everyone_can_write_or_whose_secret_everyone_can_read_is_refused() {
    let plain = "data-dir = \"x\"\n";
    assert!(with_mode(plain, 0o644, &[]).is_ok());
    let error = with_mode(plain, 0o646, &[]).map(drop).unwrap_err();
    assert!(error.contains("can be written by every user") && error.contains("chmod o-w DIR"), "{error}");
    let secret = "data-dir = \"x\"\nsecret = \"word\"\n";
    assert!(with_mode(secret, 0o640, &[]).is_ok());
    let error = with_mode(secret, 0o644, &[]).map(drop).unwrap_err();
    assert!(error.contains("has a secret") && error.contains("chmod o-rwx DIR"), "{error}");
}

#[test]
fn what_is_printed_can_be_read_again_and_has_no_secret() {
    let text = "data-dir = \"/a \\\"b\\\"\"\nsecret = \"word\"\npool = [\"a\", \"b\"]\ninsecure = true\n";
    let first = with(text, &[]).unwrap().settings;
    let shown = first.to_string();
    assert!(!shown.contains("word") && shown.contains("# secret is set and not shown"), "{shown}");
    let again = with(&format!("{shown}\nsecret = \"word\"\n"), &[]).unwrap().settings;
    assert_eq!(again.changed_since(&first), Vec::<String>::new());
    let other = with("data-dir = \"/b\"\npool = [\"a\", \"b\"]\n", &[]).unwrap().settings;
    assert_eq!(other.changed_since(&first), ["data-dir", "insecure", "secret"]);
}

#[test]
fn what_needs_a_restart_is_named_until_there_is_one() {
    let mut running = with("data-dir = \"/a\"\nlife = \"1s\"\n", &[]).unwrap().settings;
    let new = || with("data-dir = \"/b\"\nlife = \"2s\"\n", &[]).unwrap().settings;
    let change = running.take_over(new(), &["life"]);
    assert_eq!((change.applied, change.late), (vec!["life".to_owned()], vec!["data-dir".to_owned()]));
    let change = running.take_over(new(), &["life"]);
    assert_eq!((change.applied, change.late), (vec![], vec!["data-dir".to_owned()]));
}
