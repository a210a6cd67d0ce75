//! The same through a real `berth-init`: `BERTH_TEST_INIT`, or the one beside this test's own program.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use berth_api_types::channel::{Control, STDERR, STDIN, STDOUT};
use berth_api_types::public::Phase;
use futures::StreamExt as _;
use reqwest::Method;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::peers::{Socket, World};

/// Process 1 of a pid namespace of its own, on the host's files.
struct Init {
    folder: tempfile::TempDir,
    child: std::process::Child,
}

impl Drop for Init {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

async fn world() -> Option<(World, Init)> {
    let beside = || Some(std::env::current_exe().ok()?.parent()?.parent()?.join("berth-init"));
    let program = std::env::var_os("BERTH_TEST_INIT").map(PathBuf::from).or_else(beside).filter(|path| path.exists());
    let Some(program) = program else {
        println!("skipped: there is no berth-init: build it, or set BERTH_TEST_INIT");
        return None;
    };
    if !std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0) {
        println!("skipped: this test needs to be root");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("supervisor.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let child = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"])
        .args(["exec 3<&0 0</dev/null; exec \"$@\"", "sh"])
        .arg(program)
        .args(["init", "--listen-fd", "3", "--run-dir"])
        .arg(folder.path().join("run"))
        .arg("--cwd")
        .arg(folder.path())
        .stdin(Stdio::from(OwnedFd::from(listener)))
        .spawn()
        .unwrap();
    let world = World::new(Phase::Running).await;
    *world.peers.real.lock().unwrap() = Some(socket);
    Some((world, Init { folder, child }))
}

/// Everything on both outputs, and the last word.
async fn collect(socket: &mut Socket) -> (String, String, Control) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    loop {
        match socket.next().await.unwrap() {
            (STDOUT, bytes) => out.extend(bytes),
            (STDERR, bytes) => err.extend(bytes),
            (_, json) => match serde_json::from_slice(&json).unwrap() {
                Control::Ready { .. } | Control::Window { .. } | Control::Resize { .. } => {}
                last => return (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap(), last),
            },
        }
    }
}

#[tokio::test]
async fn a_command_runs_with_its_streams_its_status_and_signals() {
    let Some((world, init)) = world().await else { return };
    let mut socket = world.socket("/exec?arg=sh&arg=-c&arg=cat;pwd%20%3E%262;exit%207", &[]).await.unwrap();
    let input = "line\n".repeat(50_000);
    socket.send(STDIN, input.as_bytes()).await;
    socket.send(STDIN, b"").await;
    let (out, err, last) = collect(&mut socket).await;
    assert!(out == input);
    assert_eq!(err.trim(), init.folder.path().to_str().unwrap());
    assert_eq!(last, Control::Exit { code: Some(7), signal: None });

    let mut socket = world.socket("/exec?arg=sleep&arg=1000", &[]).await.unwrap();
    let Control::Ready { input_window: Some(window) } = socket.expect_control().await else { panic!("a window") };
    // Whoever keeps to it is heard, whatever the command reads.
    socket.send(STDIN, &vec![0; usize::try_from(window).unwrap()]).await;
    socket.control(&Control::Signal { signal: 15 }).await;
    assert_eq!(collect(&mut socket).await.2, Control::Exit { code: None, signal: Some(15) });

    let mut socket = world.socket("/exec?arg=no-such-program", &[]).await.unwrap();
    assert!(matches!(collect(&mut socket).await.2, Control::Error { code, .. } if code == "not_found"));
}

#[tokio::test]
async fn a_terminal_outlives_its_connection() {
    let Some((world, _init)) = world().await else { return };
    let body = serde_json::json!({ "rows": 30, "cols": 100, "argv": ["sh"], "name": "main" });
    let opened = world.http(Method::POST, "/terminals").json(&body).send().await.unwrap();
    let opened: serde_json::Value = opened.json().await.unwrap();
    let path = format!("/terminals/{}?rows=40&cols=120", opened["id"].as_str().unwrap());

    let mut first = world.socket(&path, &[]).await.unwrap();
    first.send(STDIN, b"keep=safe; stty size\n").await;
    wait_for(&mut first, "40 120").await;
    drop(first);
    let mut second = world.socket(&path, &[]).await.unwrap();
    // Its past is replayed, its present goes on.
    wait_for(&mut second, "40 120").await;
    second.send(STDIN, b"echo still-$keep; exit 5\n").await;
    wait_for(&mut second, "still-safe").await;
    assert_eq!(collect(&mut second).await.2, Control::Exit { code: Some(5), signal: None });
}

async fn wait_for(socket: &mut Socket, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        let (channel, bytes) = socket.next().await.unwrap_or_else(|| panic!("ended after {seen:?}"));
        if channel == STDOUT {
            seen.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
}

#[tokio::test]
async fn a_port_is_reached_with_half_close() {
    let Some((world, _init)) = world().await else { return };
    // The namespace is the host's here: what listens on our loopback listens on its.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serve = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        all.reverse();
        stream.write_all(&all).await.unwrap();
    });
    let mut socket = world.socket(&format!("/ports/{port}/connect"), &[]).await.unwrap();
    assert!(matches!(socket.expect_control().await, Control::Ready { input_window: Some(_) }));
    socket.send(STDIN, b"abc").await;
    socket.send(STDIN, b"").await;
    assert_eq!(socket.next().await, Some((STDOUT, b"cba".to_vec())));
    assert_eq!(socket.next().await, Some((STDOUT, Vec::new())));
    serve.await.unwrap();
}

/// Whoever keeps to the window is noticed when they go, also by a server that never reads.
#[tokio::test]
async fn a_port_that_takes_nothing_is_let_go_with_its_client() {
    let Some((world, _init)) = world().await else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut socket = world.socket(&format!("/ports/{port}/connect"), &[]).await.unwrap();
    let Control::Ready { input_window: Some(window) } = socket.expect_control().await else { panic!("a window") };
    let (mut server, _) = listener.accept().await.unwrap();
    let mut room = window;
    // Until the port takes no more: what it took is told of, and nothing comes any more.
    loop {
        socket.send(STDIN, &vec![0; usize::try_from(room).unwrap()]).await;
        match tokio::time::timeout(std::time::Duration::from_secs(2), socket.0.next()).await {
            Ok(Some(Ok(Message::Binary(bytes)))) => match serde_json::from_slice(&bytes[1..]).unwrap() {
                Control::Window { bytes } => room = bytes,
                other => panic!("{other:?}"),
            },
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
    }
    drop(socket);
    // It has not read a byte, and learns that nobody is there: writing fails once the other end is closed.
    let gone = async {
        while server.write_all(b"x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone).await.expect("the connection outlives its client");
}

fn archive_of(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("tree.tar")
}

#[tokio::test]
async fn files_there_and_back() {
    let Some((world, init)) = world().await else { return };
    let here = tempfile::tempdir().unwrap();
    std::fs::create_dir(here.path().join("tree")).unwrap();
    std::fs::write(here.path().join("tree/file"), "content".repeat(100_000)).unwrap();
    let made =
        Command::new("tar").args(["-c", "-C"]).arg(here.path()).arg("-f").arg(archive_of(&here)).arg("tree").status();
    assert!(made.unwrap().success());
    let tar = std::fs::read(archive_of(&here)).unwrap();

    let answer = world.http(Method::PUT, "/files?path=copy").body(tar).send().await.unwrap();
    assert_eq!(answer.status(), 204, "{}", answer.text().await.unwrap());
    let arrived = std::fs::read(init.folder.path().join("copy/file")).unwrap();
    assert!(arrived == "content".repeat(100_000).as_bytes());

    let folder = std::fs::read(archive_of(&here)).unwrap();
    let answer = world.http(Method::PUT, "/files?path=copy").body(folder).send().await.unwrap();
    assert_eq!(answer.status(), 204, "into the folder that is there now");
    assert!(init.folder.path().join("copy/tree/file").exists());

    let answer = world.http(Method::GET, "/files?path=copy").send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-tar");
    let tar = answer.bytes().await.unwrap();
    let archive = here.path().join("back.tar");
    std::fs::write(&archive, &tar).unwrap();
    let listed = Command::new("tar").arg("-tf").arg(&archive).output().unwrap();
    assert!(listed.status.success(), "{} bytes: {}", tar.len(), String::from_utf8_lossy(&listed.stderr));
    let listed = listed.stdout;
    let listed = String::from_utf8(listed).unwrap();
    let mut names: Vec<_> = listed.lines().map(|name| name.trim_end_matches('/')).collect();
    names.sort_unstable();
    assert_eq!(names, ["copy", "copy/file", "copy/tree", "copy/tree/file"]);
    let missing = world.http(Method::GET, "/files?path=nothing-here").send().await.unwrap();
    assert_eq!(missing.status(), 404);
}
