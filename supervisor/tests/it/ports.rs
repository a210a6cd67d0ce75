//! Listening ports.

use berth_supervisor_protocol::client::Incoming;
use berth_supervisor_protocol::{Event, Reply, Request};

use crate::harness::{Supervisor, sh, skip_unless_root};

/// A server in the workspace, so that its process can be seen there.
const SERVER: &str = "import socket,sys; s=socket.socket(); s.bind(('127.0.0.1',0)); s.listen(); print(s.getsockname()[1],flush=True); sys.stdin.read()";

#[test]
fn watchers_learn_of_a_port_that_opens_and_closes() {
    if skip_unless_root() {
        return;
    }
    if std::process::Command::new("python3").arg("--version").output().is_err() {
        println!("skipped: no python3 to listen with");
        return;
    }
    let supervisor = Supervisor::start();
    let mut watcher = supervisor.client();
    assert!(matches!(watcher.request(&Request::PortsWatch).unwrap(), Reply::Ports { .. }));
    let mut server = supervisor.client();
    let exec = berth_supervisor_protocol::Exec { stdin: true, ..sh(&format!("exec python3 -c \"{SERVER}\"")) };
    server.request(&Request::Exec(exec)).unwrap();
    let Some(Incoming::Bytes(_, line)) = server.receive().unwrap() else { panic!("no port") };
    let port: u16 = String::from_utf8(line).unwrap().trim().parse().unwrap();
    let mut next = || match watcher.receive().unwrap() {
        Some(Incoming::Event(Event::Ports { ports })) => ports,
        other => panic!("{other:?}"),
    };
    // Others listen and leave on this machine as well: wait for ours.
    let found =
        std::iter::repeat_with(&mut next).find_map(|ports| ports.into_iter().find(|found| found.port == port)).unwrap();
    assert_eq!(found.addresses, ["127.0.0.1"]);
    assert_eq!(found.process.as_deref(), Some("python3"));
    assert!(found.pid.is_some());
    drop(server);
    assert!(std::iter::repeat_with(&mut next).any(|ports| ports.iter().all(|found| found.port != port)));
}
