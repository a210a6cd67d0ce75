//! Tunnels.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::time::Duration;

use berth_supervisor_protocol::client::{Client, Incoming};
use berth_supervisor_protocol::{ErrorCode, Event, Kind, Reply, Request};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::harness::{Supervisor, skip_unless_root};

#[test]
fn bytes_both_ways_with_half_close_on_both_families() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(listener) = TcpListener::bind(address) else {
            println!("skipped for {address}: not there");
            continue;
        };
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut socket, _) = listener.accept().unwrap();
            let mut got = Vec::new();
            // Only after the client's end does the answer come.
            socket.read_to_end(&mut got).unwrap();
            socket.write_all(&got).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
        });
        let mut client = supervisor.client();
        assert!(matches!(
            client.request(&Request::Tunnel { port }).unwrap(),
            Reply::Connected { input_window: Some(_) }
        ));
        let sent = vec![42u8; 2_000_000];
        client.bytes(Kind::Data, &sent).unwrap();
        client.bytes(Kind::Data, b"").unwrap();
        let mut got = Vec::new();
        loop {
            match client.receive().unwrap() {
                Some(Incoming::Bytes(Kind::Data, bytes)) if bytes.is_empty() => break,
                Some(Incoming::Bytes(Kind::Data, bytes)) => got.extend(bytes),
                Some(Incoming::Event(Event::Window { .. })) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(got == sent, "{} bytes", got.len());
        assert!(client.receive().unwrap().is_none(), "closed both ways");
        server.join().unwrap();
    }
}

#[test]
fn a_port_without_a_listener_is_refused() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (code, message) = supervisor.refusal(&Request::Tunnel { port });
    assert_eq!(code, ErrorCode::ConnectionRefused);
    assert!(message.contains(&port.to_string()), "{message}");
}

#[test]
fn a_server_that_reads_nothing_learns_that_its_client_has_gone() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let stream = supervisor.stream();
    stream.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let mut client = Client::new(stream);
    let connected = client.request(&Request::Tunnel { port: listener.local_addr().unwrap().port() }).unwrap();
    let Reply::Connected { input_window: Some(mut room) } = connected else { panic!("{connected:?}") };
    let (server, _) = listener.accept().unwrap();
    // Until nothing is taken any more.
    loop {
        client.bytes(Kind::Data, &vec![0; usize::try_from(room).unwrap()]).unwrap();
        match client.receive() {
            Ok(Some(Incoming::Event(Event::Window { bytes }))) => room = bytes,
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    drop(client);
    let timeout = Timespec { tv_sec: 20, tv_nsec: 0 };
    let told = poll(&mut [PollFd::new(&server, PollFlags::empty())], Some(&timeout)).unwrap();
    assert_eq!(told, 1, "it waits for more");
}
