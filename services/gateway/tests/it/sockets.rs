//! What goes through the websockets.

use std::sync::atomic::Ordering;
use std::time::Duration;

use berth_api_types::channel::{Control, MAX_MESSAGE_BYTES, STDERR, STDIN, STDOUT};
use berth_api_types::public::Phase;
use berth_gateway::Config;
use berth_supervisor_client::protocol::{Request, TtySize};
use futures::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::peers::World;

#[tokio::test]
async fn a_command_has_its_streams_and_tells_how_it_ended() {
    let world = World::new(Phase::Running).await;
    let path = "/exec?arg=cat&arg=a%20b&env=A%3D1%3D2&cwd=/tmp&user=dev&tty=true&rows=50&cols=132&term=xterm";
    let mut socket = world.socket(path, &[]).await.unwrap();
    assert_eq!(socket.expect_control().await, Control::Ready { input_window: None });
    socket.send(STDIN, b"hello").await;
    assert_eq!(socket.next().await, Some((STDOUT, b"hello".to_vec())));
    socket.control(&Control::Resize { rows: 1, cols: 2 }).await;
    assert_eq!(socket.next().await, Some((STDERR, b"Resize(TtySize { rows: 1, cols: 2 })".to_vec())));
    socket.control(&Control::Signal { signal: 2 }).await;
    assert_eq!(socket.next().await, Some((STDERR, b"Signal { signal: Int }".to_vec())));
    socket.send(STDIN, b"").await;
    assert_eq!(socket.expect_control().await, Control::Exit { code: Some(3), signal: None });
    assert_eq!(socket.next().await, None);

    let Request::Exec(exec) = world.peers.requests.lock().unwrap()[0].clone() else { panic!("an exec") };
    assert_eq!(exec.argv, ["cat", "a b"]);
    assert_eq!((exec.env["A"].as_str(), exec.cwd.as_deref(), exec.user.as_deref()), ("1=2", Some("/tmp"), Some("dev")));
    assert_eq!(exec.tty, Some(TtySize { rows: 50, cols: 132 }));
}

#[tokio::test]
async fn a_command_that_cannot_run_says_why() {
    let world = World::new(Phase::Running).await;
    let mut socket = world.socket("/exec?arg=nonsense", &[]).await.unwrap();
    let error = socket.expect_control().await;
    let expected = Control::Error { code: "not_found".into(), message: "there is no program nonsense".into() };
    assert_eq!(error, expected);
    assert_eq!(world.socket("/exec", &[]).await.unwrap_err(), (400, "missing_command".into()));
    assert_eq!(world.socket("/exec?arg=x&env=novalue", &[]).await.unwrap_err(), (400, "invalid_env".into()));
}

#[tokio::test]
async fn terminals_are_opened_listed_joined_and_closed() {
    let world = World::new(Phase::Running).await;
    let body = serde_json::json!({ "rows": 50, "cols": 132, "term": "xterm" });
    let opened = world.http(reqwest::Method::POST, "/terminals?wait=true").json(&body).send().await.unwrap();
    assert_eq!(opened.status(), 201);
    let opened: serde_json::Value = opened.json().await.unwrap();
    assert_eq!(opened["id"], "t1");
    let list: serde_json::Value =
        world.http(reqwest::Method::GET, "/terminals").send().await.unwrap().json().await.unwrap();
    assert_eq!(list["items"][0]["id"], "t1");

    let mut socket = world.socket("/terminals/t1?rows=10&cols=20", &[]).await.unwrap();
    assert_eq!(socket.expect_control().await, Control::Ready { input_window: None });
    assert_eq!(socket.next().await, Some((STDOUT, b"past\n".to_vec())));
    assert_eq!(socket.next().await, Some((STDERR, b"Resize(TtySize { rows: 10, cols: 20 })".to_vec())));
    let mut socket = world.socket("/terminals/none", &[]).await.unwrap();
    assert!(matches!(socket.expect_control().await, Control::Error { code, .. } if code == "not_found"));

    let closed = world.http(reqwest::Method::DELETE, "/terminals/t1").send().await.unwrap();
    assert_eq!(closed.status(), 204);
}

#[tokio::test]
async fn ports_are_listed_watched_and_connected() {
    let world = World::new(Phase::Running).await;
    let list: serde_json::Value =
        world.http(reqwest::Method::GET, "/ports").send().await.unwrap().json().await.unwrap();
    assert_eq!((&list["items"][0]["port"], &list["items"][0]["address"]), (&8080.into(), &"127.0.0.1".into()));

    let mut watch = world.http(reqwest::Method::GET, "/ports/watch").send().await.unwrap().bytes_stream();
    let mut text = String::new();
    while !text.contains("8080") {
        text.push_str(std::str::from_utf8(&watch.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(text.starts_with("data: {\"items\":[]}"), "{text}");
    world.set(Phase::Stopping, "");
    while watch.next().await.is_some() {}

    world.set(Phase::Running, "");
    let mut socket = loop {
        // The gateway hears of it in its own time.
        match world.socket("/ports/8080/connect", &[]).await {
            Ok(socket) => break socket,
            Err((status, _)) => assert_eq!(status, 409),
        }
    };
    assert_eq!(socket.expect_control().await, Control::Ready { input_window: None });
    let big: Vec<u8> = (0..300_000_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    socket.send(STDIN, &big).await;
    let mut back = Vec::new();
    while back.len() < big.len() {
        let (channel, bytes) = socket.next().await.unwrap();
        assert_eq!(channel, STDOUT);
        back.extend(bytes);
    }
    assert!(back == big);
    socket.send(STDIN, b"").await;
    assert_eq!(socket.next().await, Some((STDOUT, Vec::new())), "the other direction ends for itself");

    let mut socket = world.socket("/ports/9/connect", &[]).await.unwrap();
    assert!(matches!(socket.expect_control().await, Control::Error { code, .. } if code == "connection_refused"));
}

#[tokio::test]
async fn nonsense_ends_the_connection_with_the_reason() {
    let world = World::new(Phase::Running).await;
    for message in [
        Message::Text("hello".into()),
        Message::Binary(vec![].into()),
        Message::Binary(vec![1, 2].into()),
        Message::Binary(vec![3, b'{'].into()),
        Message::Binary([&[3][..], br#"{"type":"signal","signal":64}"#].concat().into()),
    ] {
        let mut socket = world.socket("/exec?arg=cat", &[]).await.unwrap();
        assert_eq!(socket.expect_control().await, Control::Ready { input_window: None });
        socket.0.send(message.clone()).await.unwrap();
        assert!(
            matches!(socket.expect_control().await, Control::Error { code, .. } if code == "bad_message"),
            "{message:?}"
        );
        assert_eq!(socket.next().await, None);
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_named_so() {
    let world = World::new(Phase::Running).await;
    for bytes in [MAX_MESSAGE_BYTES + 1, 2 * MAX_MESSAGE_BYTES, 4 * MAX_MESSAGE_BYTES] {
        let mut socket = world.socket("/exec?arg=sleep", &[]).await.unwrap();
        assert_eq!(socket.expect_control().await, Control::Ready { input_window: None });
        let (mut sink, mut source) = socket.0.split();
        // The gateway may have hung up before everything is sent.
        let send = async { sink.send(Message::Binary(vec![0; bytes].into())).await.is_ok() };
        let read = async {
            let Some(Ok(Message::Binary(said))) = source.next().await else { panic!("{bytes}: a control message") };
            let Some(Ok(Message::Close(Some(close)))) = source.next().await else { panic!("{bytes}: a close") };
            (said, close)
        };
        let (_sent, (said, close)) = tokio::join!(send, read);
        let Ok(Control::Error { code, message }) = serde_json::from_slice(&said[1..]) else { panic!("an error") };
        assert_eq!((code.as_str(), u16::from(close.code)), ("message_too_large", 1009), "{bytes}");
        assert!(message.contains("1048576"), "{message}");
    }
    // What fits goes in.
    let mut socket = world.socket("/exec?arg=cat", &[]).await.unwrap();
    socket.expect_control().await;
    socket.send(STDIN, &vec![b'x'; MAX_MESSAGE_BYTES - 1]).await;
    assert_eq!(socket.next().await.map(|(channel, _)| channel), Some(STDOUT));
}

#[tokio::test]
async fn typing_is_activity_but_not_each_key() {
    let world = World::new(Phase::Running).await;
    let mut socket = world.socket("/exec?arg=cat", &[]).await.unwrap();
    socket.expect_control().await;
    for _ in 0..50 {
        socket.send(STDIN, b"x").await;
        socket.next().await;
    }
    assert_eq!(world.peers.activity.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_writer_and_not_the_gateway() {
    let world = World::new(Phase::Running).await;
    let mut socket = world.socket("/exec?arg=yes", &[]).await.unwrap();
    socket.expect_control().await;
    let sent = || {
        let files = world.peers.files.lock().unwrap();
        files.get("yes").map_or(0, |bytes| usize::from_le_bytes(bytes.as_slice().try_into().unwrap()))
    };
    // Until it stands still: what is under way is what the kernel's and a few small buffers hold.
    let mut last = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = sent();
        if now == last && now > 0 {
            break;
        }
        last = now;
    }
    assert!(last < 32 * 1024 * 1024, "{last} bytes were taken from the program");
    let before = last;
    for _ in 0..200 {
        socket.next().await.unwrap();
    }
    assert!(sent() > before, "it goes on when the reader does");
}

#[tokio::test]
async fn a_client_that_is_gone_without_a_word_is_noticed() {
    let config = Config { ping_seconds: 1, ..Config::default() };
    let world = World::with(Phase::Running, config).await;
    let mut socket = world.socket("/exec?arg=sleep", &[]).await.unwrap();
    socket.expect_control().await;
    // Reading answers pings: alive for longer than three of them.
    let alive = tokio::time::timeout(Duration::from_secs(4), socket.0.next()).await;
    assert!(matches!(alive, Err(_) | Ok(Some(Ok(Message::Ping(_))))), "{alive:?}");
    // Not reading does not: the gateway hangs up.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let mut ended = false;
    for _ in 0..20 {
        match tokio::time::timeout(Duration::from_secs(5), socket.0.next()).await.unwrap() {
            Some(Ok(Message::Ping(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => {
                ended = true;
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(ended);
}

#[tokio::test]
async fn a_server_that_stops_says_so() {
    let world = World::new(Phase::Running).await;
    let mut socket = world.socket("/exec?arg=cat", &[]).await.unwrap();
    assert_eq!(socket.expect_control().await, Control::Ready { input_window: None });
    world.shutdown.cancel();
    let Control::Error { code, message } = socket.expect_control().await else { panic!("an error") };
    assert_eq!(code, "server_stopping");
    assert!(message.contains("go on"), "{message}");
    assert_eq!(socket.next().await, None);
}
