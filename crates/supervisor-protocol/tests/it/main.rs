//! The JSON on the wire, literally: what an older or newer workspace also speaks.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail by panicking")]

use berth_supervisor_protocol::client::{Client, Incoming};
use berth_supervisor_protocol::{
    Control, ErrorCode, Event, Exec, ExitStatus, Kind, Reply, Request, SignalName, TtySize, encode_frame, encode_json,
};
use serde_json::{Value, json};

fn request(json: Value) -> Request {
    serde_json::from_value(json).unwrap()
}

#[test]
fn requests_have_this_json() {
    assert!(matches!(request(json!({"type": "hello"})), Request::Hello));
    assert!(matches!(request(json!({"type": "hello", "of_a_newer_host": 1})), Request::Hello));
    let Request::Exec(exec) = request(json!({"type": "exec", "argv": ["ls"], "tty": {"rows": 3, "cols": 9}})) else {
        panic!("not exec")
    };
    assert_eq!((exec.argv, exec.tty, exec.stdin), (vec!["ls".to_owned()], Some(TtySize { rows: 3, cols: 9 }), false));
    let resize = request(json!({"type": "terminal_resize", "id": "t1", "rows": 5, "cols": 6}));
    assert!(matches!(resize, Request::TerminalResize { size: TtySize { rows: 5, cols: 6 }, .. }));
    assert!(matches!(
        request(json!({"type": "unit_start", "id": "a", "kind": "task", "command": "x"})),
        Request::UnitStart(_)
    ));
    assert!(serde_json::from_value::<Request>(json!({"type": "tunnel", "port": 65536})).is_err());
    assert!(serde_json::from_value::<Request>(json!({"type": "what"})).is_err());
}

#[test]
fn events_and_controls_round_trip() {
    for (event, wire) in [
        (Event::Exited(ExitStatus::Code(3)), json!({"type": "exited", "code": 3})),
        (Event::Exited(ExitStatus::Signal(9)), json!({"type": "exited", "signal": 9})),
        (Event::Resized(TtySize { rows: 1, cols: 2 }), json!({"type": "resized", "rows": 1, "cols": 2})),
        (
            Event::Failed { code: ErrorCode::NotFound, message: "no".to_owned() },
            json!({"type": "failed", "code": "not_found", "message": "no"}),
        ),
    ] {
        assert_eq!(serde_json::to_value(&event).unwrap(), wire);
        let back: Event = serde_json::from_value(wire.clone()).unwrap();
        assert_eq!(serde_json::to_value(&back).unwrap(), wire);
    }
    let control: Control = serde_json::from_value(json!({"type": "signal", "signal": "INT"})).unwrap();
    assert!(matches!(control, Control::Signal { signal: SignalName::Int }));
}

/// A stream that answers with what was prepared.
struct Script {
    answer: std::io::Cursor<Vec<u8>>,
    sent: Vec<u8>,
}

impl std::io::Read for Script {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.answer.read(buffer)
    }
}

impl std::io::Write for Script {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.sent.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn the_blocking_client_follows_an_exec() {
    let mut answer = Vec::new();
    encode_json(&Reply::Started { pid: 7, input_window: Some(9) }, &mut answer).unwrap();
    encode_frame(Kind::Stdout, b"hi", &mut answer).unwrap();
    encode_json(&Event::Exited(ExitStatus::Code(0)), &mut answer).unwrap();
    let mut client = Client::new(Script { answer: std::io::Cursor::new(answer), sent: Vec::new() });
    let reply = client.request(&Request::Exec(Exec { argv: vec!["echo".to_owned()], ..Exec::default() })).unwrap();
    assert!(matches!(reply, Reply::Started { pid: 7, input_window: Some(9) }));
    client.bytes(Kind::Stdin, b"").unwrap();
    assert!(matches!(client.receive().unwrap(), Some(Incoming::Bytes(Kind::Stdout, bytes)) if bytes == b"hi"));
    assert!(matches!(client.receive().unwrap(), Some(Incoming::Event(Event::Exited(ExitStatus::Code(0))))));
    assert!(client.receive().unwrap().is_none());
    assert!(client.get_ref().sent.ends_with(&[1, 0, 0, 0, 1]));
}
