//! Peers and processes that mean no good.

use std::io::{Read, Write};

use berth_supervisor_protocol::{ExitStatus, Reply, Request};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use crate::harness::{Supervisor, eventually, skip_unless_root};

/// Frames that look right from far, and bytes that do not.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let json = prop_oneof![
        Just(r#"{"type":"hello"}"#.to_owned()),
        Just(r#"{"type":"exec","argv":["true"],"stdin":true}"#.to_owned()),
        Just(r#"{"type":"exec","argv":["cat"],"tty":{"rows":0,"cols":65535},"stdin":true}"#.to_owned()),
        Just(r#"{"type":"terminal_open","argv":["cat"],"attach":true,"close_on_detach":true}"#.to_owned()),
        Just(r#"{"type":"terminal_attach","id":"t18446744073709551616"}"#.to_owned()),
        Just(r#"{"type":"unit_start","id":"fuzz","kind":"task","command":"true"}"#.to_owned()),
        Just(r#"{"type":"unit_watch"}"#.to_owned()),
        Just(r#"{"type":"unit_logs","id":"fuzz","follow":true,"tail_bytes":18446744073709551615}"#.to_owned()),
        Just(r#"{"type":"credentials_serve"}"#.to_owned()),
        Just(r#"{"type":"credential_reply","id":1,"username":"","password":""}"#.to_owned()),
        Just(r#"{"type":"activity_watch","min_interval_ms":18446744073709551615}"#.to_owned()),
        Just(r#"{"type":"ports_watch"}"#.to_owned()),
        Just(r#"{"type":"tunnel","port":1}"#.to_owned()),
        Just(r#"{"type":"read_file","path":"/etc/hostname","max_bytes":18446744073709551615}"#.to_owned()),
        Just(r#"{"type":"copy_in","path":"/no/such"}"#.to_owned()),
        Just(r#"{"type":"resize","rows":65535,"cols":0}"#.to_owned()),
        Just("[".repeat(5000)),
        ".*",
    ];
    let frame = (0u8..6, prop_oneof![json.prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..200)])
        .prop_map(|(kind, payload)| {
            let mut frame = u32::try_from(payload.len() + 1).unwrap().to_le_bytes().to_vec();
            frame.push(kind);
            frame.extend(payload);
            frame
        });
    prop::collection::vec(prop_oneof![9 => frame, 1 => prop::collection::vec(any::<u8>(), 0..50)], 0..8)
        .prop_map(|parts| parts.concat())
}

#[test]
fn noise_costs_a_connection_and_nothing_else() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut runner = TestRunner::new(ProptestConfig { cases: 300, ..ProptestConfig::default() });
    let outcome = runner.run(&(noise(), any::<bool>()), |(noise, wait)| {
        let mut stream = supervisor.stream();
        let _ = stream.write_all(&noise);
        if wait {
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        }
        drop(stream);
        prop_assert!(matches!(supervisor.reply(&Request::Hello), Reply::Hello(_)));
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn after_the_noise_nothing_is_left() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let before = std::fs::read_dir(format!("/proc/{}/fd", supervisor.pid())).unwrap().count();
    for round in 0..200 {
        let mut stream = supervisor.stream();
        let open = br#"{"type":"terminal_open","argv":["cat"],"attach":true,"close_on_detach":true}"#;
        let exec = br#"{"type":"exec","argv":["cat"],"stdin":true}"#;
        let payload: &[u8] = if round % 2 == 0 { open } else { exec };
        let mut frame = u32::try_from(payload.len() + 1).unwrap().to_le_bytes().to_vec();
        frame.push(0);
        frame.extend(payload);
        stream.write_all(&frame).unwrap();
    }
    eventually("every descriptor is closed", || {
        std::fs::read_dir(format!("/proc/{}/fd", supervisor.pid())).unwrap().count() <= before
    });
    eventually("every process is gone", || supervisor.sh("pgrep -x cat").status == ExitStatus::Code(1));
}

#[test]
fn thousands_of_orphans_are_reaped() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    // 10,000 double forks: each child's child is an orphan, and a zombie until process 1 takes it in.
    let script = "i=0; while [ $i -lt 10000 ]; do ( : & ) ; i=$((i+1)); done; echo forked";
    assert_eq!(supervisor.sh(script).text(), "forked");
    let zombies =
        || supervisor.sh("grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l").text().parse::<u32>().unwrap();
    eventually("no zombie is left", || zombies() == 0);
    assert!(supervisor.status_kib("VmRSS") < 8 * 1024);
}

#[test]
fn many_connections_at_once_are_served() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let idle: Vec<_> = (0..700).map(|_| supervisor.stream()).collect();
    // The limit is 512: the rest waits in the backlog, and is served when others have gone.
    drop(idle);
    assert!(matches!(supervisor.reply(&Request::Hello), Reply::Hello(_)));
}
