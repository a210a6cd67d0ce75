//! Commands.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_supervisor_protocol::client::{Client, Incoming};
use berth_supervisor_protocol::{
    Control, ErrorCode, Event, Exec, ExitStatus, Kind, Reply, Request, SignalName, TtySize,
};

use crate::harness::{Supervisor, collect, eventually, read_until, sh, skip_unless_root};

#[test]
fn output_errors_and_status_come_apart() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let output = supervisor.sh("echo out; echo err >&2; exit 7");
    assert_eq!((output.text(), output.stderr.as_slice(), output.status), ("out", &b"err\n"[..], ExitStatus::Code(7)));
    assert_eq!(supervisor.sh("kill -9 $$").status, ExitStatus::Signal(9));
}

#[test]
fn input_reaches_the_command_whole() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut client = supervisor.client();
    let exec = Exec { stdin: true, ..sh("cat; echo done >&2") };
    assert!(matches!(client.request(&Request::Exec(exec)).unwrap(), Reply::Started { .. }));
    let sent: Vec<u8> = (0..3_000_000u32).map(|index| u8::try_from(index % 251).unwrap()).collect();
    let mut writer = berth_supervisor_protocol::client::Client::new(client.get_ref().try_clone().unwrap());
    let output = std::thread::scope(|scope| {
        scope.spawn(|| {
            writer.bytes(Kind::Stdin, &sent).unwrap();
            writer.bytes(Kind::Stdin, b"").unwrap();
        });
        collect(&mut client)
    });
    assert!(output.stdout == sent, "{} of {} bytes came back", output.stdout.len(), sent.len());
    assert_eq!(output.stderr, b"done\n");
}

#[test]
fn a_reader_that_takes_its_time_loses_nothing() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut client = supervisor.client();
    client.request(&Request::Exec(sh("head -c 20000000 /dev/zero; echo end"))).unwrap();
    // Meanwhile the supervisor serves others, and does not grow with what waits.
    for _ in 0..20 {
        supervisor.reply(&Request::Hello);
    }
    assert!(supervisor.status_kib("VmRSS") < 8 * 1024, "{} KiB", supervisor.status_kib("VmRSS"));
    let output = collect(&mut client);
    assert_eq!(output.stdout.len(), 20_000_004);
}

#[test]
fn environment_user_and_directory() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start_with(&["--env", "FROM=init", "--env", "BOTH=init", "--cwd", "/usr"]);
    let env = BTreeMap::from([("BOTH".to_owned(), "request".to_owned())]);
    let output = supervisor.run(Exec { env, ..sh("echo $FROM $BOTH $HOME $USER $PWD; id -u") });
    assert_eq!(output.text(), "init request /root root /usr\n0");

    let below = supervisor.run(Exec { cwd: Some("share".to_owned()), ..sh("pwd; echo $PWD") });
    assert_eq!(below.text(), "/usr/share\n/usr/share", "as paths of files: below the checkout");

    let as_nobody =
        |user: &str| Exec { user: Some(user.to_owned()), cwd: Some("/".to_owned()), ..sh("id -u; id -g; id -G; pwd") };
    assert_eq!(supervisor.run(as_nobody("nobody")).text(), "65534\n65534\n65534\n/");
    assert_eq!(supervisor.run(as_nobody("1234:5678")).text(), "1234\n5678\n5678\n/");
    let gone = supervisor.run(Exec { user: Some("nobody".to_owned()), ..sh("kill -0 1") });
    assert_ne!(gone.status, ExitStatus::Code(0), "the user cannot signal process 1");
}

#[test]
fn what_cannot_be_run_is_said() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let exec = |exec: Exec| supervisor.refusal(&Request::Exec(exec));
    let of = |argv: &[&str]| Exec { argv: argv.iter().map(|part| (*part).to_owned()).collect(), ..Exec::default() };
    assert_eq!(
        exec(of(&["no-such-program"])),
        (ErrorCode::NotFound, "no-such-program was not found in the workspace".to_owned())
    );
    assert_eq!(exec(of(&["/etc/passwd"])).0, ErrorCode::PermissionDenied);
    assert_eq!(exec(of(&[])).0, ErrorCode::BadRequest);
    let (code, message) = exec(Exec { cwd: Some("/no/such".to_owned()), ..of(&["true"]) });
    assert!(code == ErrorCode::NotFound && message.contains("/no/such"), "{message}");
    let (code, message) = exec(Exec { user: Some("nosuchuser".to_owned()), ..of(&["true"]) });
    assert!(code == ErrorCode::NotFound && message.contains("nosuchuser"), "{message}");
    assert_eq!(exec(Exec { tty: Some(TtySize::default()), ..of(&["no-such-program"]) }).0, ErrorCode::NotFound);
}

#[test]
fn a_signal_goes_to_the_whole_group() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut client = supervisor.client();
    client.request(&Request::Exec(sh("trap 'echo caught; exit 3' TERM; echo ready; sleep 1000 & wait"))).unwrap();
    read_until(&mut client, "ready");
    client.control(&Control::Signal { signal: SignalName::Term }).unwrap();
    let output = collect(&mut client);
    assert_eq!((output.text(), output.status), ("caught", ExitStatus::Code(3)));
}

#[test]
fn hanging_up_ends_the_command_unless_it_is_kept() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let runs =
        |name: &str| supervisor.sh(&format!("pgrep -x -f 'sleep {name}' >/dev/null")).status == ExitStatus::Code(0);
    for (name, keep) in [("54321", false), ("54322", true)] {
        let mut client = supervisor.client();
        let exec = Exec { keep_on_disconnect: keep, ..sh(&format!("exec sleep {name}")) };
        client.request(&Request::Exec(exec)).unwrap();
        eventually("the command runs", || runs(name));
    }
    eventually("the abandoned command ends", || !runs("54321"));
    assert!(runs("54322"), "the kept command goes on");
}

#[test]
fn hanging_up_ends_a_command_that_does_not_read_what_was_sent() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let runs = || supervisor.sh("pgrep -x -f 'sleep 54323' >/dev/null").status == ExitStatus::Code(0);
    let stream = supervisor.stream();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut client = Client::new(stream);
    client.request(&Request::Exec(Exec { stdin: true, ..sh("exec sleep 54323") })).unwrap();
    eventually("the command runs", runs);
    let full = client.bytes(Kind::Stdin, &vec![0; 8 * 1024 * 1024]);
    assert!(full.is_err(), "more than every buffer on the way holds");
    assert!(runs());
    drop(client);
    eventually("the abandoned command ends", || !runs());
}

#[test]
fn who_keeps_to_the_window_is_heard_while_nothing_is_read() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let stream = supervisor.stream();
    stream.set_write_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut client = Client::new(stream);
    let line = "trap 'echo caught; wc -c; exit' INT; echo ready; while :; do sleep 0.1; done";
    let started = client.request(&Request::Exec(Exec { stdin: true, ..sh(line) })).unwrap();
    let Reply::Started { input_window: Some(window), .. } = started else { panic!("{started:?}") };
    read_until(&mut client, "ready");
    client.bytes(Kind::Stdin, &vec![0; usize::try_from(window).unwrap()]).unwrap();
    client.control(&Control::Signal { signal: SignalName::Int }).unwrap();
    // It reads now: the room that it makes is told of, to the last byte but half a window.
    let mut room = 0;
    while room < window / 2 {
        match client.receive().unwrap() {
            Some(Incoming::Event(Event::Window { bytes })) => room += bytes,
            Some(Incoming::Bytes(Kind::Stdout, _)) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    client.bytes(Kind::Stdin, b"more").unwrap();
    client.bytes(Kind::Stdin, b"").unwrap();
    assert!(collect(&mut client).text().ends_with(&(window + 4).to_string()));

    // What a command that closed its input does not want counts as taken.
    client = supervisor.client();
    client.request(&Request::Exec(Exec { stdin: true, ..sh("exec 0<&-; sleep 1000") })).unwrap();
    let mut room = window;
    for _ in 0..8 {
        client.bytes(Kind::Stdin, &vec![0; usize::try_from(room).unwrap()]).unwrap();
        let Some(Incoming::Event(Event::Window { bytes })) = client.receive().unwrap() else { panic!("a window") };
        room = bytes;
    }
}

#[test]
fn children_that_hold_the_output_do_not_hold_the_answer() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let output = supervisor.sh("sleep 1000 & echo started");
    assert_eq!((output.text(), output.status), ("started", ExitStatus::Code(0)));
}

#[test]
fn a_command_on_a_terminal() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut client = supervisor.client();
    let exec = Exec {
        tty: Some(TtySize { rows: 33, cols: 99 }),
        stdin: true,
        ..sh("stty size; tty; echo $TERM; read line; echo got $line; stty size; exit 4")
    };
    assert!(matches!(client.request(&Request::Exec(exec)).unwrap(), Reply::Started { pid, .. } if pid > 1));
    let first = read_until(&mut client, "xterm-256color");
    assert!(first.contains("33 99") && first.contains("/dev/pts/"), "{first}");
    client.control(&Control::Resize(TtySize { rows: 5, cols: 6 })).unwrap();
    client.bytes(Kind::Stdin, b"typed\n").unwrap();
    let rest = collect(&mut client);
    assert!(rest.text().contains("got typed") && rest.text().contains("5 6"), "{}", rest.text());
    assert_eq!(rest.status, ExitStatus::Code(4));
    assert!(matches!(supervisor.reply(&Request::TerminalList), Reply::Terminals { terminals } if terminals.is_empty()));
}

#[test]
fn activity_is_told() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let Reply::Activity(before) = supervisor.reply(&Request::Activity) else { panic!("no activity") };
    assert_eq!(before.last_input_ms, 0);
    let mut watcher = supervisor.client();
    watcher.request(&Request::ActivityWatch { min_interval_ms: 0 }).unwrap();
    let mut client = supervisor.client();
    client.request(&Request::Exec(Exec { stdin: true, ..sh("cat") })).unwrap();
    client.bytes(Kind::Stdin, b"x").unwrap();
    let Some(Incoming::Event(Event::Activity(after))) = watcher.receive().unwrap() else { panic!("no event") };
    assert!(after.last_input_ms > 0 && after.attached == 1, "{after:?}");
}
