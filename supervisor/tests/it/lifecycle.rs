//! From the first answer to the end.

use std::time::Instant;

use berth_supervisor_protocol::client::Incoming;
use berth_supervisor_protocol::{
    Event, ExitStatus, PROTOCOL_VERSION, Reply, Request, TerminalOpen, UnitKind, UnitSpec,
};

use crate::harness::{SOFT_OPEN_FILES, Supervisor, eventually, sh, skip_unless_root};

#[test]
fn hello_tells_what_there_is() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start_with(&["--user", "nobody"]);
    let Reply::Hello(hello) = supervisor.reply(&Request::Hello) else { panic!("no hello") };
    assert_eq!((hello.protocol, hello.boot.user.as_deref()), (PROTOCOL_VERSION, Some("nobody")));
    assert!(hello.boot.startup_us < 1_000_000);
    // One connection serves several short requests.
    let mut client = supervisor.client();
    for _ in 0..3 {
        assert!(matches!(client.request(&Request::TerminalList).unwrap(), Reply::Terminals { .. }));
    }
}

#[test]
fn shutting_down_asks_first() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let dir = supervisor.dir().to_owned();
    let keep = tempfile::tempdir().unwrap();
    let note = keep.path().join("note");
    let mut command = supervisor.client();
    command
        .request(&Request::Exec(sh(&format!(
            "trap 'echo ended >> {}; exit 0' TERM; echo up; while :; do sleep 0.01; done",
            note.display()
        ))))
        .unwrap();
    assert!(matches!(command.receive().unwrap(), Some(Incoming::Bytes(..))));
    // An interactive shell, which ignores SIGTERM.
    let shell =
        TerminalOpen { argv: Some(["bash", "--norc", "-i"].map(str::to_owned).to_vec()), ..TerminalOpen::default() };
    supervisor.reply(&Request::TerminalOpen(shell));
    let spec = UnitSpec {
        id: "db".to_owned(),
        kind: UnitKind::Service,
        command: "sleep 1000".to_owned(),
        env: Default::default(),
        cwd: None,
        user: None,
        ready: None,
        ready_timeout_ms: 0,
        stop: Some(format!("echo stopped >> {}", note.display())),
        stop_grace_ms: 10_000,
    };
    supervisor.reply(&Request::UnitStart(spec));
    let begun = Instant::now();
    assert!(matches!(supervisor.reply(&Request::Shutdown { grace_ms: 20_000 }), Reply::Done));
    let status = supervisor.wait();
    assert_eq!(status.code(), Some(0));
    assert!(begun.elapsed().as_secs() < 5, "it took {:?}: nobody had to be killed", begun.elapsed());
    let text = std::fs::read_to_string(&note).unwrap();
    assert!(text.starts_with("stopped") && text.contains("ended"), "{text:?}");
    drop(dir);
}

#[test]
fn who_does_not_listen_is_killed_after_the_grace_period() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut command = supervisor.client();
    command.request(&Request::Exec(sh("trap '' TERM HUP; echo up; while :; do sleep 1000; done"))).unwrap();
    assert!(matches!(command.receive().unwrap(), Some(Incoming::Bytes(..))));
    let begun = Instant::now();
    supervisor.reply(&Request::Shutdown { grace_ms: 300 });
    loop {
        match command.receive() {
            Ok(Some(Incoming::Event(Event::Exited(status)))) => break assert_eq!(status, ExitStatus::Signal(9)),
            Ok(Some(_)) => {}
            // Process 1 may be gone before it has told.
            Ok(None) | Err(_) => break,
        }
    }
    assert_eq!(supervisor.wait().code(), Some(0));
    assert!(begun.elapsed().as_millis() >= 300 && begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}

#[test]
fn an_empty_workspace_ends_at_once_on_a_signal() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let begun = Instant::now();
    let pid = rustix::process::Pid::from_raw(i32::try_from(supervisor.pid()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(supervisor.wait().code(), Some(0));
    assert!(begun.elapsed().as_millis() < 1000, "{:?}", begun.elapsed());
}

#[test]
fn signals_from_inside_do_not_end_it() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    supervisor.sh("kill -KILL 1; kill -HUP 1; kill -USR1 1; kill -QUIT 1; kill -SEGV 1; kill -STOP 1; kill -PIPE 1");
    assert!(matches!(supervisor.reply(&Request::Hello), Reply::Hello(_)));
    eventually("nothing of it is left", || supervisor.sh("true").status == ExitStatus::Code(0));
}

#[test]
fn process_1_opens_more_files_than_what_it_starts() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", supervisor.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let [soft, hard] = [3, 4].map(|field| line.split_whitespace().nth(field).unwrap());
    assert_eq!(soft, hard);
    let inside = supervisor.sh("ulimit -Sn; ulimit -Hn");
    assert_eq!(String::from_utf8_lossy(&inside.stdout), format!("{SOFT_OPEN_FILES}\n{hard}\n"));
}
