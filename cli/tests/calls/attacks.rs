//! Steps that misuse what they are given for their calls.

use kiln_harness::{Built, Farm, Ran, project};

use super::project::{Calls, built, calls, config, counts};

/// Python's side of the protocol.
pub(super) const CLIENT: &str = r#"
import array, os, socket, struct, sys
def connect():
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.settimeout(20)
    s.connect('/kiln/call/farm.sock')
    return s
def string(x):
    return struct.pack('<I', len(x)) + x
def ask(program, arguments, directory=b'/build', environment=()):
    out = b'\x02' + string(program) + string(directory)
    out += struct.pack('<I', len(arguments)) + b''.join(map(string, arguments))
    out += struct.pack('<I', len(environment)) + b''.join(string(n) + string(v) for n, v in environment)
    return string(out)
def answer(s):
    data, fds, _, _ = socket.recv_fds(s, 1 << 20, 250)
    return data[4:5], data, fds
CLOCK = ((b'SOURCE_DATE_EPOCH', b'946684800'), (b'PATH', b'/usr/bin:/bin'))
"#;

fn attack(name: &str, script: &str) -> tempfile::TempDir {
    let run = "mkdir out; python3 attack.py > out/said; cc -c one.c -o out/one.o";
    project(&[
        ("kiln.toml", &config(name, run, "")),
        ("attack.py", &format!("{CLIENT}\n{script}")),
        ("one.c", &format!("int {};\n", name.replace('-', "_"))),
    ])
}

#[test]
fn nonsense_on_the_socket_ends_that_connection_and_nothing_else() {
    let script = r#"
for data in [b'', b'\x00', b'\xff\xff\xff\xff', struct.pack('<I', 10) + b'short', string(b'\x01'), string(b'\x02' + b'\xff' * 100),
             struct.pack('<I', 16 << 20) + b'x' * 1000]:
    s = connect()
    s.sendall(data)
    s.shutdown(socket.SHUT_WR)
    try:
        got = s.recv(10)
    except OSError:
        got = b''
    assert got in (b'', ) , (data[:20], got)
# Half a question from many that then hang up.
many = [connect() for _ in range(300)]
for s in many:
    s.sendall(struct.pack('<I', 1000) + b'\x02')
for s in many:
    s.close()
print('ok')
"#;
    let dir = attack("nonsense", script);
    let (ran, left) = built(Farm::shared(), dir.path());
    assert_eq!((counts(&ran), &left["said"][..]), ((0, 1), &b"ok\n"[..]));
}

#[test]
fn a_step_gets_nothing_through_its_calls_that_it_could_not_compile_itself() {
    let script = r#"
os.symlink('/etc/passwd', 'passwd.c')
os.symlink('/proc/1/maps', 'maps.h')
open('maps.c', 'w').write('#include "maps.h"\n')
asks = [
    # Programs that are no compilers, or the step's own.
    (b'/bin/sh', [b'-c', b'id']), (b'/build/cc', [b'-c', b'one.c', b'-o', b'x.o']), (b'/kiln/call/bin/cc', [b'-c', b'one.c', b'-o', b'x.o']),
    # Outputs and sources outside the build.
    (b'/usr/bin/cc', [b'-c', b'one.c', b'-o', b'/etc/x.o']), (b'/usr/bin/cc', [b'-c', b'one.c', b'-o', b'../../etc/x.o']),
    (b'/usr/bin/cc', [b'-c', b'/etc/passwd', b'-x', b'c', b'-o', b'x.o']), (b'/usr/bin/cc', [b'-c', b'passwd.c', b'-o', b'x.o']),
    # What the worker could read, and the step cannot.
    (b'/usr/bin/cc', [b'-c', b'maps.c', b'-o', b'x.o']), (b'/usr/bin/cc', [b'-c', b'one.c', b'-include', b'maps.h', b'-o', b'x.o']),
    # Options that run other programs.
    (b'/usr/bin/cc', [b'-wrapper', b'sh,-c,id', b'-c', b'one.c', b'-o', b'x.o']), (b'/usr/bin/cc', [b'-B', b'/build', b'-c', b'one.c', b'-o', b'x.o']),
]
for program, arguments in asks:
    s = connect()
    s.sendall(ask(program, arguments, environment=CLOCK))
    kind, data, fds = answer(s)
    assert kind in b'HP', (program, arguments, data[:200])
    assert not fds
print('ok')
"#;
    let dir = attack("outsider", script);
    let (_, left) = built(Farm::shared(), dir.path());
    assert_eq!(left["said"], b"ok\n");
}

#[test]
fn what_a_call_answers_with_cannot_be_changed_by_the_step() {
    let script = r#"
s = connect()
s.sendall(ask(b'/usr/bin/cc', [b'-c', b'one.c', b'-o', b'y.o'], environment=CLOCK))
kind, data, fds = answer(s)
assert kind == b'D' and len(fds) == 1, data
for attempt in (lambda: os.write(fds[0], b'evil'), lambda: os.ftruncate(fds[0], 0),
                lambda: os.open('/proc/self/fd/%d' % fds[0], os.O_WRONLY), lambda: os.fchmod(fds[0], 0o777)):
    try:
        attempt()
        print('CHANGED')
    except OSError:
        pass
print('ok')
"#;
    let dir = attack("changed", script);
    let (_, left) = built(Farm::shared(), dir.path());
    assert_eq!(left["said"], b"ok\n");
}

#[test]
fn a_call_that_changes_its_files_meanwhile_poisons_nobody() {
    // A header is exchanged over and over while calls read it; whatever is kept must be what its own content gives.
    let run = "mkdir out; python3 exchange.py & p=$!\n\
        for n in 1 2 3 4 5 6 7 8; do cc -c v.c -o out/v$n.o; done; kill $p; wait $p || :\n\
        echo '#define V 1' > v.h; cc -c v.c -o out/one.o; echo '#define V 2' > v.h; cc -c v.c -o out/two.o";
    let exchange = "import os\nwhile True:\n  for v in 1, 2:\n    open('new.h', 'w').write('#define V %d\\n' % v)\n    os.rename('new.h', 'v.h')\n";
    let source = "#include \"v.h\"\nint poisoned = V;\n";
    let racing = project(&[
        ("kiln.toml", &config("racing", run, "")),
        ("v.c", source),
        ("v.h", "#define V 1\n"),
        ("exchange.py", exchange),
    ]);
    let farm = Farm::shared();
    let (_, left) = built(farm, racing.path());
    let honest =
        "mkdir out; echo '#define V 1' > v.h; cc -c v.c -o out/one.o; echo '#define V 2' > v.h; cc -c v.c -o out/two.o";
    let plain = project(&[("kiln.toml", &config("honest", honest, "split = false")), ("v.c", source)]);
    let (_, right) = built(farm, plain.path());
    for name in ["one.o", "two.o"] {
        assert_eq!(left[name], right[name], "{name}");
    }
}

#[test]
fn nothing_of_a_steps_secrets_is_kept_with_its_calls() {
    // The compiler repeats the value, as a warning and in what it makes.
    let run = "mkdir out; cc -c -DVALUE=\"\\\"$CALLS_TOKEN\\\"\" warns.c -o warns.o; rm warns.o; touch out/done";
    let source = "#pragma message VALUE\nconst char *value = VALUE;\n";
    let files =
        [("kiln.toml", config("secretive", run, "secrets = [\"CALLS_TOKEN\"]")), ("warns.c", source.to_owned())];
    let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
    let (farm, dir) = (Farm::start(&["one"]), project(&files));
    let value = "a-value-that-nobody-may-keep";
    let mut command = farm.build_command(dir.path(), &[]);
    command.env("CALLS_TOKEN", value).env("KILN_SECRETS", "CALLS_TOKEN");
    let ran = Built(Ran::from(command)).well();
    assert!(ran.log().contains("#pragma message"), "expected the compiler to have run: {}", ran.log());
    assert_eq!(calls(&ran, "build"), Calls::default(), "expected the step not to be split");
    assert!(!ran.0.out.contains(value) && !holds(farm.dir.path(), value.as_bytes()));
}

/// Whether a file below a directory has these bytes.
fn holds(directory: &std::path::Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(directory).into_iter().flatten().flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => holds(&entry.path(), bytes),
        Ok(kind) if kind.is_file() => {
            std::fs::read(entry.path()).unwrap_or_default().windows(bytes.len()).any(|part| part == bytes)
        }
        _ => false,
    })
}

#[test]
fn thousands_of_calls_at_once_are_all_answered() {
    let farm = Farm::shared();
    let run = "mkdir out; printf 'int many;\\n' > many.c\n\
        seq 3000 | xargs -P 3000 -n 1 sh -c 'cc -dumpmachine $0.none' > out/said\n\
        seq 64 | xargs -P 64 -I{} cc -c many.c -o out/{}.o\n\
        sort out/said | uniq -c";
    let dir = project(&[("kiln.toml", &config("many-calls", run, "memory = \"4GiB\""))]);
    let (built, left) = built(farm, dir.path());
    let calls = calls(&built, "build");
    assert_eq!((calls.hits + calls.ran(), calls.refused.get("information").copied()), (64, Some(3000)), "{calls:?}");
    assert_eq!((left.len(), left["said"].iter().filter(|byte| **byte == b'\n').count()), (65, 3000));
}

/// Python's side of Go's protocol, and a step that speaks it.
const GO: &str = r#"
import base64, hashlib, json
def go():
    s = connect()
    s.sendall(string(b'G'))
    f = s.makefile('rwb')
    assert json.loads(f.readline())['KnownCommands'] == ['get', 'put', 'close']
    return f
def say(f, message, body=b''):
    f.write(json.dumps(message).encode() + b'\n\n')
    if body:
        f.write(b'"' + base64.b64encode(body) + b'"\n')
    f.flush()
    return json.loads(f.readline())
def of(data):
    return base64.b64encode(hashlib.sha256(data).digest()).decode()
def put(f, action, body, output=None):
    message = {'ID': 1, 'Command': 'put', 'ActionID': of(action), 'OutputID': output or of(body), 'BodySize': len(body)}
    return say(f, message, body)
def get(f, action):
    return say(f, {'ID': 2, 'Command': 'get', 'ActionID': of(action)})
"#;

#[test]
fn a_step_stores_for_its_own_project_only_and_nothing_under_a_wrong_name() {
    let farm = Farm::shared();
    let script = r#"
f = go()
print('before', get(f, b'action').get('Miss'))
print('wrong', 'OutputID' in put(f, b'wrong', b'body', of(b'other')).get('Err', ''))
print('wrong', get(f, b'wrong').get('Miss'))
path = put(f, b'action', b'body')['DiskPath']
assert open(path, 'rb').read() == b'body', path
for attempt in (lambda: open(path, 'ab'), lambda: os.unlink(path), lambda: os.chmod(path, 0o777)):
    try:
        attempt()
        print('changed')
    except OSError:
        pass
print('after', get(f, b'action').get('Size'))
# Whatever else is said ends that connection alone.
for nonsense in (b'{"ID":1}\n', b'rubbish\n', b'{"ID":1,"Command":"put","BodySize":-1}\n', b'{"ID":3,"Command":"put","ActionID":"AA==","OutputID":"AA==","BodySize":9}\n"!!!"\n'):
    other = go()
    other.write(nonsense)
    other.flush()
    assert other.readline() == b'', nonsense
print('still', get(f, b'action').get('Size'))
"#;
    let said = |name: &str| {
        let dir = attack(name, &format!("{GO}\n{script}"));
        let (_, left) = built(farm, dir.path());
        String::from_utf8_lossy(&left["said"]).into_owned()
    };
    let expected = "before True\nwrong True\nwrong True\nafter 4\nstill 4\n";
    for project in ["go-own", "go-other"] {
        assert_eq!(said(project), expected, "{project}");
    }
}
