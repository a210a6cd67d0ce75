//! Tasks and services.

use std::collections::BTreeMap;

use berth_supervisor_protocol::client::{Client, Incoming};
use berth_supervisor_protocol::{
    ErrorCode, Event, ExitStatus, Kind, Reply, Request, UnitKind, UnitSpec, UnitState, UnitStatus,
};
use std::os::unix::net::UnixStream;

use crate::harness::{Supervisor, eventually, sh, skip_unless_root};

fn unit(id: &str, kind: UnitKind, command: &str) -> UnitSpec {
    UnitSpec {
        id: id.to_owned(),
        kind,
        command: command.to_owned(),
        env: BTreeMap::new(),
        cwd: None,
        user: None,
        ready: None,
        ready_timeout_ms: 0,
        stop: None,
        stop_grace_ms: 20_000,
    }
}

fn start(supervisor: &Supervisor, spec: UnitSpec) -> UnitStatus {
    match supervisor.reply(&Request::UnitStart(spec)) {
        Reply::Unit(status) => status,
        other => panic!("{other:?}"),
    }
}

fn watch(supervisor: &Supervisor) -> Client<UnixStream> {
    let mut client = supervisor.client();
    assert!(matches!(client.request(&Request::UnitWatch).unwrap(), Reply::Units { .. }));
    client
}

/// States of a unit up to a final one.
fn states(client: &mut Client<UnixStream>, id: &str) -> (Vec<UnitState>, UnitStatus) {
    let mut states = Vec::new();
    let mut version = 0;
    loop {
        match client.receive().unwrap() {
            Some(Incoming::Event(Event::Unit(status))) => {
                assert!(status.version > version, "events come in order");
                version = status.version;
                if status.id == id {
                    states.push(status.state);
                    if status.state.is_final() {
                        return (states, status);
                    }
                }
            }
            other => panic!("{other:?}"),
        }
    }
}

fn until(client: &mut Client<UnixStream>, id: &str, state: UnitState) -> UnitStatus {
    loop {
        match client.receive().unwrap() {
            Some(Incoming::Event(Event::Unit(status))) if status.id == id && status.state == state => return status,
            Some(Incoming::Event(Event::Unit(_))) => {}
            other => panic!("{other:?}"),
        }
    }
}

fn logs(supervisor: &Supervisor, id: &str, follow: bool, tail_bytes: Option<u64>) -> String {
    let mut client = supervisor.client();
    assert!(matches!(
        client.request(&Request::UnitLogs { id: id.to_owned(), follow, tail_bytes }).unwrap(),
        Reply::Ready
    ));
    let mut text = Vec::new();
    loop {
        match client.receive().unwrap() {
            Some(Incoming::Bytes(Kind::Stdout, bytes)) => text.extend(bytes),
            Some(Incoming::Event(Event::Done)) => return String::from_utf8(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn tasks_end_well_or_badly() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut watcher = watch(&supervisor);
    let first =
        start(&supervisor, unit("good", UnitKind::Task, "echo out; echo err >&2; echo version=1.2 >> $BERTH_OUTPUT"));
    assert_eq!((first.state, first.run), (UnitState::Starting, 1));
    let (seen, last) = states(&mut watcher, "good");
    assert_eq!(seen, [UnitState::Starting, UnitState::Running, UnitState::Succeeded]);
    assert_eq!(last.outputs, BTreeMap::from([("version".to_owned(), "1.2".to_owned())]));
    assert_eq!(logs(&supervisor, "good", false, None), "out\nerr\n");
    assert_eq!(logs(&supervisor, "good", true, Some(4)), "err\n");

    start(&supervisor, unit("bad", UnitKind::Task, "exit 3"));
    let (_, last) = states(&mut watcher, "bad");
    assert_eq!((last.state, last.exit), (UnitState::Failed, Some(ExitStatus::Code(3))));
    assert!(last.message.unwrap().contains("exit status 3"));

    start(&supervisor, UnitSpec { cwd: Some("/no/such".to_owned()), ..unit("lost", UnitKind::Task, "true") });
    let (_, last) = states(&mut watcher, "lost");
    assert!(last.state == UnitState::Failed && last.message.as_ref().unwrap().contains("/no/such"), "{last:?}");

    assert_eq!(start(&supervisor, unit("good", UnitKind::Task, "true")).run, 2, "it can run again");
}

#[test]
fn a_service_becomes_ready_and_stops() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut watcher = watch(&supervisor);
    let flag = supervisor.dir().join("ready");
    let spec = UnitSpec {
        ready: Some(format!("test -e {}", flag.display())),
        ..unit("web", UnitKind::Service, "echo up; sleep 1000")
    };
    start(&supervisor, spec.clone());
    assert_eq!(start(&supervisor, spec).run, 1, "starting twice is once");
    let (code, _) = supervisor.refusal(&Request::UnitStart(unit("web", UnitKind::Service, "another")));
    assert_eq!(code, ErrorCode::Conflict);
    std::fs::write(&flag, "").unwrap();
    let ready = until(&mut watcher, "web", UnitState::Running);
    assert!(ready.ready_at_ms >= Some(ready.started_at_ms) && ready.pid.is_some());
    supervisor.reply(&Request::UnitStop { id: "web".to_owned() });
    let (seen, last) = states(&mut watcher, "web");
    assert_eq!((seen, last.message), (vec![UnitState::Stopping, UnitState::Stopped], None));
    assert!(
        matches!(supervisor.reply(&Request::UnitStop { id: "web".to_owned() }), Reply::Unit(status) if status.state == UnitState::Stopped)
    );
}

#[test]
fn a_service_that_is_never_ready_fails_and_is_ended() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut watcher = watch(&supervisor);
    start(
        &supervisor,
        UnitSpec {
            ready: Some("false".to_owned()),
            ready_timeout_ms: 300,
            ..unit("never", UnitKind::Service, "exec sleep 65432")
        },
    );
    let (seen, last) = states(&mut watcher, "never");
    assert_eq!(seen, [UnitState::Starting, UnitState::Stopping, UnitState::Failed]);
    assert!(last.message.unwrap().contains("not ready after 300 ms"));
    assert_eq!(supervisor.sh("pgrep -x -f 'sleep 65432'").status, ExitStatus::Code(1));
}

#[test]
fn services_that_end_by_themselves() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut watcher = watch(&supervisor);
    start(&supervisor, unit("detached", UnitKind::Service, "true"));
    assert_eq!(states(&mut watcher, "detached").1.state, UnitState::Stopped);
    start(&supervisor, unit("crashed", UnitKind::Service, "kill -SEGV $$"));
    assert_eq!(states(&mut watcher, "crashed").1.exit, Some(ExitStatus::Signal(11)));
    start(&supervisor, UnitSpec { ready: Some("sleep 1000".to_owned()), ..unit("early", UnitKind::Service, "exit 9") });
    let last = states(&mut watcher, "early").1;
    assert_eq!((last.state, last.exit), (UnitState::Failed, Some(ExitStatus::Code(9))));
}

#[test]
fn stop_commands_and_deadlines() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut watcher = watch(&supervisor);
    // Ready means that its traps are set.
    let trapping = |id: &str| {
        let flag = supervisor.dir().join(id).display().to_string();
        let command = format!("trap '' TERM HUP; : > {flag}; while :; do sleep 1000; done");
        UnitSpec { ready: Some(format!("test -e {flag}")), ..unit(id, UnitKind::Service, &command) }
    };
    let stop = |id: &str| supervisor.reply(&Request::UnitStop { id: id.to_owned() });
    // The stop command does its work, then what is left is killed.
    start(&supervisor, UnitSpec { stop: Some("echo stopping".to_owned()), ..trapping("polite") });
    until(&mut watcher, "polite", UnitState::Running);
    stop("polite");
    assert_eq!(states(&mut watcher, "polite").1.state, UnitState::Stopped);
    assert_eq!(logs(&supervisor, "polite", false, None), "stopping\n");
    // Its failure is the unit's.
    start(&supervisor, UnitSpec { stop: Some("exit 5".to_owned()), ..unit("rude", UnitKind::Service, "sleep 1000") });
    until(&mut watcher, "rude", UnitState::Running);
    stop("rude");
    let last = states(&mut watcher, "rude").1;
    assert!(
        last.state == UnitState::Failed
            && last.message.as_ref().unwrap().contains("stop command ended with exit status 5"),
        "{last:?}"
    );
    // One that hangs is cut off, and so is a command that ignores everything.
    start(
        &supervisor,
        UnitSpec {
            stop: Some("sleep 1000".to_owned()),
            stop_grace_ms: 200,
            ..unit("slow", UnitKind::Service, "sleep 1000")
        },
    );
    until(&mut watcher, "slow", UnitState::Running);
    stop("slow");
    assert!(states(&mut watcher, "slow").1.message.unwrap().contains("longer than 200 ms"));
    start(&supervisor, UnitSpec { stop_grace_ms: 200, ..trapping("deaf") });
    until(&mut watcher, "deaf", UnitState::Running);
    stop("deaf");
    assert_eq!(states(&mut watcher, "deaf").1.exit, Some(ExitStatus::Signal(9)));
    // An interactive shell ignores SIGTERM, not SIGHUP.
    start(&supervisor, unit("interactive", UnitKind::Service, "exec bash --norc -i -c 'sleep 1000; true'"));
    until(&mut watcher, "interactive", UnitState::Running);
    stop("interactive");
    assert_eq!(states(&mut watcher, "interactive").1.state, UnitState::Stopped);
}

#[test]
fn logs_are_followed_and_bounded() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let gate = supervisor.dir().join("gate");
    assert!(std::process::Command::new("mkfifo").arg(&gate).status().unwrap().success());
    start(
        &supervisor,
        unit("steps", UnitKind::Task, &format!("echo one; cat {} >/dev/null; echo two", gate.display())),
    );
    let text = std::thread::scope(|scope| {
        let follower = scope.spawn(|| logs(&supervisor, "steps", true, None));
        std::fs::write(&gate, "").unwrap();
        follower.join().unwrap()
    });
    assert_eq!(text, "one\ntwo\n");

    let mut watcher = watch(&supervisor);
    start(&supervisor, unit("loud", UnitKind::Task, "head -c 5000000 /dev/zero | tr '\\0' x; echo end"));
    assert_eq!(states(&mut watcher, "loud").1.state, UnitState::Succeeded);
    let kept = logs(&supervisor, "loud", false, None);
    assert_eq!(kept.len(), 1024 * 1024);
    assert!(kept.ends_with("xend\n"));
}

#[test]
fn what_cannot_be_a_unit_is_refused() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    assert_eq!(supervisor.refusal(&Request::UnitStart(unit("../x", UnitKind::Task, "true"))).0, ErrorCode::BadRequest);
    assert_eq!(supervisor.refusal(&Request::UnitStart(unit("x", UnitKind::Task, ""))).0, ErrorCode::BadRequest);
    assert_eq!(supervisor.refusal(&Request::UnitStop { id: "nobody".to_owned() }).0, ErrorCode::NotFound);
    assert_eq!(
        supervisor.refusal(&Request::UnitLogs { id: "nobody".to_owned(), follow: true, tail_bytes: None }).0,
        ErrorCode::NotFound
    );
}

#[test]
fn a_workspace_that_stops_fails_no_unit() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    for (id, kind, command) in [
        ("web", UnitKind::Service, "exec sleep 1000"),
        ("long", UnitKind::Task, "trap 'exit 3' TERM; echo up; while :; do sleep 0.01; done"),
        ("orderly", UnitKind::Task, "trap 'exit 0' TERM; echo up; while :; do sleep 0.01; done"),
    ] {
        start(&supervisor, unit(id, kind, command));
    }
    // Keeps the workspace up until the units' ends were told.
    let mut last = supervisor.client();
    last.request(&Request::Exec(sh("trap '' TERM HUP; echo up; exec sleep 1000"))).unwrap();
    assert!(matches!(last.receive().unwrap(), Some(Incoming::Bytes(..))));
    let mut clients = ["web", "long", "orderly"].map(|id| (id, watch(&supervisor)));
    // Their traps are set when they have spoken.
    for id in ["long", "orderly"] {
        eventually("the task speaks", || logs(&supervisor, id, false, None) == "up\n");
    }
    supervisor.reply(&Request::Shutdown { grace_ms: 1000 });
    let ends = clients.each_mut().map(|(id, client)| {
        let (_, status) = states(client, id);
        (status.state, status.message)
    });
    let stopped = || (UnitState::Stopped, Some("the workspace stopped".to_owned()));
    assert_eq!(ends, [stopped(), stopped(), (UnitState::Succeeded, None)]);
    supervisor.wait();
}
