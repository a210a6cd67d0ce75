//! Terminals that live on.

use berth_supervisor_protocol::client::{Client, Incoming};
use berth_supervisor_protocol::{
    ErrorCode, Event, ExitStatus, Kind, Reply, Request, TerminalInfo, TerminalOpen, TerminalState, TtySize,
};
use std::os::unix::net::UnixStream;

use crate::harness::{Supervisor, eventually, read_until, skip_unless_root};

fn shell(line: &str) -> TerminalOpen {
    TerminalOpen { argv: Some(["bash", "--norc", "-c", line].map(str::to_owned).to_vec()), ..TerminalOpen::default() }
}

fn open(supervisor: &Supervisor, request: TerminalOpen) -> (Client<UnixStream>, TerminalInfo) {
    let mut client = supervisor.client();
    match client.request(&Request::TerminalOpen(request)).unwrap() {
        Reply::Terminal(info) => (client, info),
        other => panic!("{other:?}"),
    }
}

fn attach(supervisor: &Supervisor, id: &str, scrollback_bytes: u64) -> Client<UnixStream> {
    let mut client = supervisor.client();
    let reply = client.request(&Request::TerminalAttach { id: id.to_owned(), scrollback_bytes }).unwrap();
    assert!(matches!(reply, Reply::Terminal(_)));
    client
}

fn list(supervisor: &Supervisor) -> Vec<TerminalInfo> {
    match supervisor.reply(&Request::TerminalList) {
        Reply::Terminals { terminals } => terminals,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_late_joiner_sees_what_was() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let (mut first, info) = open(
        &supervisor,
        TerminalOpen { attach: true, name: Some("build".to_owned()), ..shell("echo early; read; echo late; read") },
    );
    read_until(&mut first, "early");
    let mut second = attach(&supervisor, &info.id, 1 << 20);
    read_until(&mut second, "early");
    // Both type, both read.
    second.bytes(Kind::Stdin, b"\n").unwrap();
    read_until(&mut first, "late");
    read_until(&mut second, "late");
    assert_eq!(
        list(&supervisor).iter().map(|terminal| (terminal.name.as_deref(), terminal.attached)).collect::<Vec<_>>(),
        [(Some("build"), 2)]
    );
    drop(first);
    drop(second);
    eventually("both have left", || list(&supervisor).iter().all(|terminal| terminal.attached == 0));
    // It lives on, and its end is told to who comes after it.
    let mut third = attach(&supervisor, &info.id, 6);
    third.bytes(Kind::Stdin, b"\n").unwrap();
    loop {
        match third.receive().unwrap() {
            Some(Incoming::Event(Event::Exited(status))) => break assert_eq!(status, ExitStatus::Code(0)),
            Some(Incoming::Bytes(..)) => {}
            other => panic!("{other:?}"),
        }
    }
    let mut fourth = attach(&supervisor, &info.id, 1 << 20);
    let seen = read_until(&mut fourth, "late");
    assert!(seen.contains("early"));
    assert!(matches!(fourth.receive().unwrap(), Some(Incoming::Event(Event::Exited(_)))));
    assert!(matches!(list(&supervisor).as_slice(), [TerminalInfo { state: TerminalState::Exited(_), .. }]));
    supervisor.reply(&Request::TerminalClose { id: info.id.clone() });
    assert!(list(&supervisor).is_empty());
    assert_eq!(
        supervisor.refusal(&Request::TerminalAttach { id: info.id, scrollback_bytes: 0 }).0,
        ErrorCode::NotFound
    );
}

#[test]
fn scrollback_is_bounded_and_complete_at_its_end() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let (_, info) = open(&supervisor, shell("seq 1 200000; echo the-end; read"));
    eventually("it has printed", || {
        let mut client = attach(&supervisor, &info.id, 100);
        matches!(client.receive().unwrap(), Some(Incoming::Bytes(_, bytes)) if bytes.windows(7).any(|part| part == b"the-end"))
    });
    let mut client = attach(&supervisor, &info.id, u64::MAX);
    let seen = read_until(&mut client, "the-end");
    assert!((200 * 1024..=256 * 1024 + 100).contains(&seen.len()), "{} bytes", seen.len());
    assert!(seen.contains("199999\r\n200000\r\nthe-end"));
}

#[test]
fn a_reader_that_stands_still_does_not_stop_the_others() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let (still, info) =
        open(&supervisor, TerminalOpen { attach: true, ..shell("read; seq 1 3000000; echo the-end; read") });
    let mut reads = attach(&supervisor, &info.id, 0);
    reads.bytes(Kind::Stdin, b"\n").unwrap();
    // 20 MB go by, the other one takes none of it.
    let mut tail = Vec::new();
    while !String::from_utf8_lossy(&tail).contains("the-end") {
        match reads.receive().unwrap() {
            Some(Incoming::Bytes(_, bytes)) => {
                tail.extend(bytes);
                tail.drain(..tail.len().saturating_sub(100));
            }
            other => panic!("{other:?}"),
        }
    }
    // When it reads again, it learns that it missed something, and gets the end.
    let mut still = still;
    let (mut lagged, mut seen) = (0, Vec::new());
    while !String::from_utf8_lossy(&seen).contains("the-end") {
        match still.receive().unwrap() {
            Some(Incoming::Event(Event::Lagged { skipped_bytes })) => lagged += skipped_bytes,
            Some(Incoming::Bytes(_, bytes)) => seen.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
    assert!(lagged > 10_000_000, "{lagged}");
    assert!(supervisor.status_kib("VmRSS") < 8 * 1024, "{} KiB", supervisor.status_kib("VmRSS"));
}

#[test]
fn closing_ends_even_a_shell_that_ignores_terminate() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut client = supervisor.client();
    let interactive = TerminalOpen {
        argv: Some(["bash", "--norc", "-i"].map(str::to_owned).to_vec()),
        attach: true,
        ..TerminalOpen::default()
    };
    let Reply::Terminal(info) = client.request(&Request::TerminalOpen(interactive)).unwrap() else {
        panic!("no terminal")
    };
    client.bytes(Kind::Stdin, b"sleep 98765\n").unwrap();
    let runs = || supervisor.sh("pgrep -x -f 'sleep 98765'").status == ExitStatus::Code(0);
    eventually("the job runs", runs);
    supervisor.reply(&Request::TerminalClose { id: info.id });
    eventually("its shell and job are gone", || {
        !runs() && list(&supervisor).iter().all(|terminal| terminal.state != TerminalState::Running)
    });
}

#[test]
fn close_on_detach_and_sizes() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let size = TtySize { rows: 10, cols: 20 };
    let (client, info) = open(
        &supervisor,
        TerminalOpen { attach: true, close_on_detach: true, size, ..shell("while read; do stty size; done") },
    );
    let mut other = attach(&supervisor, &info.id, 0);
    supervisor.reply(&Request::TerminalResize { id: info.id.clone(), size: TtySize { rows: 11, cols: 21 } });
    assert!(matches!(other.receive().unwrap(), Some(Incoming::Event(Event::Resized(TtySize { rows: 11, cols: 21 })))));
    other.bytes(Kind::Stdin, b"\n").unwrap();
    read_until(&mut other, "11 21");
    drop(client);
    assert_eq!(list(&supervisor).len(), 1, "one is still attached");
    drop(other);
    eventually("it is gone", || list(&supervisor).is_empty());
}

#[test]
fn the_login_shell_is_the_users() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let (mut client, _) = open(&supervisor, TerminalOpen { attach: true, ..TerminalOpen::default() });
    client.bytes(Kind::Stdin, b"echo arg0=$0 job=$(jobs | wc -l) home=$PWD\n").unwrap();
    let seen = read_until(&mut client, "job=0");
    assert!(seen.contains("arg0=-"), "{seen}");
    assert!(!seen.contains("no job control"), "{seen}");
}
