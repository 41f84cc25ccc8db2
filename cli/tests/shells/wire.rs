//! What the farm answers to callers that do not keep to the rules, which `kiln` does.

use kiln_harness::Farm;
use kiln_proto::channel::{self, Access};
use kiln_proto::v1::shell_state::Phase;
use kiln_proto::v1::shells_client::ShellsClient;
use kiln_proto::v1::{OpenShell, Shell, ShellInput, ShellOutput, Terminal, WindowSize, shell_input, shell_output};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::{doing, fails};

type Client = ShellsClient<channel::Channel>;

async fn client(farm: &Farm) -> Client {
    ShellsClient::new(channel::connect(&farm.url, &Access::default()).await.unwrap())
}

fn open(build: &str, shell: Shell) -> shell_input::Message {
    let (build, step) = (build.to_owned(), "work".to_owned());
    shell_input::Message::Open(OpenShell { build, step, shell: Some(shell), ..OpenShell::default() })
}

fn command(words: &[&str]) -> Shell {
    Shell { command: words.iter().map(|word| (*word).to_owned()).collect(), before: true, ..Shell::default() }
}

fn on(term: &str, rows: u32) -> Shell {
    let size = Some(WindowSize { rows, columns: 80 });
    Shell { terminal: Some(Terminal { term: term.to_owned(), size }), ..Shell::default() }
}

/// How the farm ends a shell whose client says this, one after the other; the rest as soon as it is open.
async fn ends(client: &mut Client, first: Option<shell_input::Message>, then: Vec<shell_input::Message>) -> Code {
    let (sender, messages) = mpsc::channel(8);
    if let Some(first) = first {
        sender.send(ShellInput { message: Some(first) }).await.unwrap();
    }
    let sender = (!then.is_empty()).then_some(sender);
    let mut output = match client.open(ReceiverStream::new(messages)).await {
        Ok(output) => output.into_inner(),
        Err(status) => return status.code(),
    };
    let mut then = Some(then);
    loop {
        match output.message().await {
            Ok(Some(ShellOutput { message: Some(shell_output::Message::State(state)) }))
                if state.phase() == Phase::Open =>
            {
                for message in then.take().unwrap_or_default() {
                    sender.as_ref().unwrap().send(ShellInput { message: Some(message) }).await.unwrap();
                }
            }
            Ok(Some(ShellOutput { message: Some(shell_output::Message::Ended(_)) })) | Ok(None) => return Code::Ok,
            Ok(Some(_)) => {}
            Err(status) => return status.code(),
        }
    }
}

#[tokio::test]
async fn what_is_not_a_shell_is_refused_before_anything_runs() {
    let farm = Farm::shared();
    let dir = doing("exit 1", "");
    let build = fails(farm, dir.path());
    let mut client = client(farm).await;
    let long = "x".repeat(200 << 10);
    for (first, code) in [
        (None, Code::InvalidArgument),
        (Some(shell_input::Message::Data(vec![1].into())), Code::InvalidArgument),
        (Some(shell_input::Message::Taken(5)), Code::InvalidArgument),
        (Some(open(&build, Shell::default())), Code::InvalidArgument),
        (Some(open(&build, command(&["", "x"]))), Code::InvalidArgument),
        (Some(open(&build, command(&["a\0b"]))), Code::InvalidArgument),
        (Some(open(&build, command(&["true", &long]))), Code::InvalidArgument),
        (Some(open(&build, on("xterm\u{1b}[2J", 24))), Code::InvalidArgument),
        (Some(open(&build, on("xterm", 1_000_000))), Code::InvalidArgument),
        (Some(open("nowhere", command(&["true"]))), Code::NotFound),
    ] {
        let said = format!("{first:?}").chars().take(200).collect::<String>();
        assert_eq!(ends(&mut client, first, Vec::new()).await, code, "{said}");
    }
}

#[tokio::test]
async fn a_client_that_breaks_the_rules_loses_its_shell_and_one_that_goes_loses_it_too() {
    let farm = Farm::shared();
    let dir = doing("exit 1", "");
    let build = fails(farm, dir.path());
    let mut client = client(farm).await;
    let first = || Some(open(&build, command(&["cat"])));
    let data = |length: usize| shell_input::Message::Data(vec![b'x'; length].into());
    let end = || shell_input::Message::End(Default::default());
    assert_eq!(ends(&mut client, first(), vec![data(1), data(32 << 10), end()]).await, Code::Ok);
    assert_eq!(ends(&mut client, first(), vec![data((32 << 10) + 1)]).await, Code::InvalidArgument);
    assert_eq!(ends(&mut client, first(), vec![shell_input::Message::Taken(u32::MAX)]).await, Code::InvalidArgument);
    assert_eq!(ends(&mut client, first(), vec![first().unwrap()]).await, Code::InvalidArgument);
    // What its input ends with is the stream's end: nobody is there any more.
    assert_eq!(ends(&mut client, first(), Vec::new()).await, Code::Ok);
}

#[tokio::test]
async fn a_shell_is_served_only_for_a_lease() {
    let mut client = client(Farm::shared()).await;
    let (sender, messages) = mpsc::channel::<ShellOutput>(1);
    let refused = client.serve(ReceiverStream::new(messages)).await.unwrap_err();
    drop(sender);
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused}");
}
