//! exec, shell, cp, logs, ports, port-forward.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use berth_testkit::OnTerminal;
use rustix::process::{Pid, Signal, kill_process};

use super::World;
use crate::support::{free_port, wait_for};

pub(super) fn commands_run(world: &World) {
    let server = &world.server;
    assert_eq!(server.ok(&["exec", "hello", "--", "pwd"]), "/workspace/hello\n");
    let ran = server.run(&["exec", "hello", "--", "sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((ran.status, &*ran.stdout, &*ran.stderr), (7, "out\n", "err\n"));
    assert_eq!(server.run(&["exec", "hello", "--", "sh", "-c", "kill -9 $$"]).status, 137);
    let missing = server.run(&["exec", "hello", "--", "no-such-program"]);
    assert!(missing.status == 127 && missing.stderr.contains("no-such-program"), "{missing}");
    // Input of every byte, and more than any buffer on the way.
    let input = "0123456789abcdef".repeat(64 * 1024);
    let counted = server.run_with(&["exec", "hello", "--", "wc", "-c"], &input);
    assert_eq!((counted.status, counted.stdout.trim()), (0, "1048576"), "{}", counted.stderr);
    // Both directions at once, and more than all of them hold.
    let input = input.repeat(16);
    assert!(server.run_with(&["exec", "hello", "--", "cat"], &input).stdout == input);
    // Nobody reads any more what a program writes: it ends, as it would here.
    for program in ["exec yes only-once-54321", "exec yes only-once-54321 >&2"] {
        let mut command = server.command(&["exec", "hello", "--", "sh", "-c", program]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        drop((child.stdout.take(), child.stderr.take()));
        assert_eq!(child.wait().unwrap().code(), Some(141));
    }
    wait_for("the program has ended with its reader", || {
        (server.run(&["exec", "hello", "--", "pgrep", "-f", "^yes only-once-54321"]).status == 1).then_some(())
    });
    interrupted_while_nobody_reads(world, Signal::INT, Some(130));
    interrupted_while_nobody_reads(world, Signal::KILL, None);
    // A shell without a terminal ends where its input does.
    for (input, status) in [("", 0), ("echo got-$((40+2))", 0), ("(exit 7)\n", 7)] {
        let ran = server.run_with(&["shell", "hello"], input);
        assert_eq!(ran.status, status, "{input:?}: {ran}");
        assert!(input.is_empty() || status > 0 || ran.stdout.contains("got-42"), "{ran}");
    }
    let placed = server.ok(&[
        "exec",
        "hello",
        "-w",
        "/tmp",
        "-e",
        "A=b c",
        "-u",
        "nobody",
        "--",
        "sh",
        "-c",
        "pwd; echo $A; id -un",
    ]);
    assert_eq!(placed, "/tmp\nb c\nnobody\n");

    // A signal to us is one to it.
    let mut child = server
        .command(&[
            "exec",
            "hello",
            "--",
            "sh",
            "-c",
            "trap 'echo caught; exit 9' TERM; echo on; while :; do sleep 0.1; done",
        ])
        .stdout(Stdio::piped())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "on");
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "caught");
    assert_eq!(child.wait().unwrap().code(), Some(9));

    // With a terminal: ours is raw, its size is theirs.
    let mut terminal =
        OnTerminal::spawn(&server.command(&["exec", "-t", "hello", "--", "sh", "-c", "tty; read x; echo got $x"]))
            .unwrap();
    terminal.expect("/dev/pts/").unwrap();
    terminal.send("word\r").unwrap();
    terminal.expect("got word").unwrap();
    assert!(terminal.finish().unwrap().0.success());

    // How it started; the main process, our supervisor, has nothing to say while all is well.
    let logs = server.ok(&["logs", "hello"]);
    assert!(logs.contains(" checkout ") && logs.ends_with("the workspace is ready\n"), "{logs}");
    let mut follow = server.command(&["logs", "hello", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    lines.find(|line| line.as_ref().unwrap().ends_with("the workspace is ready")).unwrap().unwrap();
    assert!(follow.try_wait().unwrap().is_none(), "it follows");
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(server.ok(&["logs", "hello", "--tail", "1"]).ends_with("the workspace is ready\n"));
    let as_json = server.json(&["logs", "hello"]);
    assert!(as_json[0]["line"].as_str().unwrap().contains(" place "), "{as_json}");
    // Whose reader has left is done, although nothing more is written.
    let mut follow =
        server.command(&["-o", "json", "logs", "hello", "--follow"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let line: serde_json::Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert!(line["line"].is_string(), "{line}");
    drop(lines);
    assert_eq!(follow.wait().unwrap().code(), Some(0));
}

/// What waits to be sent must not keep back the signal that is to end the command, nor hide that its client has gone.
fn interrupted_while_nobody_reads(world: &World, signal: Signal, status: Option<i32>) {
    let mut command = world.server.command(&["exec", "hello", "--", "sh", "-c", "echo on; exec sleep 54321"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    assert_eq!(BufReader::new(child.stdout.take().unwrap()).lines().next().unwrap().unwrap(), "on");
    let mut stdin = child.stdin.take().unwrap();
    let written = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&written);
    let writer = std::thread::spawn(move || {
        while let Ok(length) = stdin.write(&[0; 64 * 1024]) {
            count.fetch_add(length, Ordering::Relaxed);
        }
    });
    let mut before = 0;
    wait_for("everything on the way is full", || {
        let last = std::mem::replace(&mut before, written.load(Ordering::Relaxed));
        (last > 0 && last == before).then_some(())
    });
    kill_process(Pid::from_child(&child), signal).unwrap();
    assert_eq!(child.wait().unwrap().code(), status);
    writer.join().unwrap();
    wait_for("the command has ended with its client", || {
        (world.server.run(&["exec", "hello", "--", "pgrep", "-f", "^sleep 54321"]).status == 1).then_some(())
    });
}

pub(super) fn shells_outlive_their_terminals(world: &World) {
    let server = &world.server;
    let mut shell = OnTerminal::spawn(&server.command(&["shell", "hello"])).unwrap();
    shell.send("echo begin-$((20+3)); X=remembered\r").unwrap();
    shell.expect("begin-23").unwrap();
    let open = server.json(&["shell", "hello", "--list"]);
    let id = open[0]["id"].as_str().map_or_else(|| open[0]["id"].to_string(), str::to_owned);
    assert_eq!(open.as_array().unwrap().len(), 1, "{open}");
    // The window is closed; the shell goes on.
    shell.hang_up().unwrap();
    let mut again = OnTerminal::spawn(&server.command(&["shell", "hello", "--attach", &id])).unwrap();
    again.expect("begin-23").unwrap();
    again.send("echo $X-$((40+2)); exit 4\r").unwrap();
    again.expect("remembered-42").unwrap();
    assert_eq!(again.finish().unwrap().0.code(), Some(4));
    // What it showed last stays to be seen.
    wait_for("the shell to have ended", || server.ok(&["shell", "hello", "--list"]).contains("exited").then_some(()));
    assert!(server.fails(&["shell", "hello", "--attach", "999"], 3).contains("terminal"));
}

pub(super) fn files_are_copied(world: &World) {
    let server = &world.server;
    let here = tempfile::tempdir().unwrap();
    let folder = here.path().join("folder");
    std::fs::create_dir_all(folder.join("below")).unwrap();
    std::fs::write(folder.join("below/file"), vec![7_u8; 3_000_000]).unwrap();
    std::os::unix::fs::symlink("below/file", folder.join("link")).unwrap();
    server.ok(&["cp", folder.to_str().unwrap(), "hello:/root/"]);
    let seen = server.ok(&[
        "exec",
        "hello",
        "--",
        "sh",
        "-c",
        "cd /root/folder && wc -c < below/file && readlink link && stat -c %U below/file",
    ]);
    assert_eq!(seen, "3000000\nbelow/file\nroot\n");
    // A name relative to the checkout; a new name.
    std::fs::write(here.path().join("note"), "new words\n").unwrap();
    server.ok(&["cp", here.path().join("note").to_str().unwrap(), "hello:"]);
    assert_eq!(server.ok(&["exec", "hello", "--", "cat", "note"]), "new words\n");

    let back = here.path().join("back");
    std::fs::create_dir(&back).unwrap();
    let copied = server.json(&["cp", "hello:/root/folder", back.to_str().unwrap()]);
    assert_eq!(copied["from"], "hello:/root/folder");
    assert_eq!(std::fs::read(back.join("folder/below/file")).unwrap(), vec![7_u8; 3_000_000]);
    assert_eq!(std::fs::read_link(back.join("folder/link")).unwrap().to_str(), Some("below/file"));
    let renamed = here.path().join("hosts-of-it");
    server.ok(&["cp", "hello:README.md", renamed.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(&renamed).unwrap(), "hi\n");
    // What is there already gets what is new; a link leads to what it says; nothing behind the colon is the checkout.
    std::fs::write(back.join("folder/kept"), "mine").unwrap();
    server.ok(&["cp", "hello:/root/folder", back.to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(back.join("folder/kept")).unwrap(), "mine");
    server.ok(&["cp", "hello:/root/folder/link", back.join("content").to_str().unwrap()]);
    assert_eq!(std::fs::symlink_metadata(back.join("content")).unwrap().len(), 3_000_000);
    server.ok(&["cp", "hello:", back.join("checkout").to_str().unwrap()]);
    assert_eq!(std::fs::read_to_string(back.join("checkout/README.md")).unwrap(), "hi\n");
    // One file as a stream.
    let ran = server.run_with(&["cp", "-", "hello:from-stdin"], "piped\n");
    assert_eq!(ran.status, 0, "{ran}");
    assert_eq!(server.ok(&["cp", "hello:from-stdin", "-"]), "piped\n");
    assert!(server.fails(&["cp", "hello:/root/folder", "-"], 1).contains("is not a file"));
    assert!(
        server.fails(&["cp", "hello:README.md", &format!("{}/", back.join("none").display())], 3).contains("no folder")
    );
    assert!(server.fails(&["cp", "hello:/no/such", back.to_str().unwrap()], 3).contains("/no/such"));
    // Files without a size have their content; one that cannot be read is named, and the others come.
    assert!(server.ok(&["cp", "hello:/proc/self/status", "-"]).starts_with("Name:"));
    let some = server.fails(&["cp", "hello:/proc/1", back.to_str().unwrap()], 1);
    assert!(some.contains("could not be read, the first: ") && some.contains("everything else"), "{some}");
    assert!(std::fs::read_to_string(back.join("1/status")).unwrap().starts_with("Name:"));
    let socket = server.fails(&["cp", "hello:/.berth/run/credentials.sock", back.to_str().unwrap()], 1);
    assert!(socket.contains("a socket") && socket.contains("only files"), "{socket}");
    assert!(server.fails(&["cp", "/no/such/here", "hello:"], 1).contains("/no/such/here"));
    assert!(server.fails(&["cp", "hello:/etc/hostname", "/no/such/folder/x"], 1).contains("is not a folder"));
}

pub(super) fn ports_are_listed_and_forwarded(world: &World) {
    let server = &world.server;
    // perl is in the base image: an echo server of its own words.
    let program = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8123, Listen => 5, ReuseAddr => 1) or die; while (my $c = $s->accept) { my $l = <$c>; print $c \"you said $l\"; close $c }";
    let mut listening =
        server.command(&["exec", "hello", "--", "perl", "-e", program]).stdin(Stdio::null()).spawn().unwrap();
    let port = wait_for("the port to be listed", || {
        let ports = server.json(&["ports", "hello"]);
        ports.as_array().unwrap().iter().find(|port| port["port"] == 8123).cloned()
    });
    assert_eq!(port["process"], "perl", "{port}");
    assert!(server.ok(&["ports", "hello"]).contains("8123"));

    let local = free_port();
    let mut forward = server
        .command(&["port-forward", "hello", &format!("{local}:8123"), &format!("{}:8124", free_port())])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut notes = BufReader::new(forward.stderr.take().unwrap()).lines();
    assert_eq!(notes.next().unwrap().unwrap(), format!("127.0.0.1:{local} -> hello:8123"));
    let other = notes.next().unwrap().unwrap();
    for word in ["one", "two"] {
        let mut stream = TcpStream::connect(("127.0.0.1", local)).unwrap();
        stream.write_all(format!("{word}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, format!("you said {word}\n"));
    }
    let mut json = server.command(&["-o", "json", "port-forward", "hello", &format!("{}:8123", free_port())]);
    let mut json = json.stdout(Stdio::piped()).spawn().unwrap();
    let told: serde_json::Value =
        serde_json::Deserializer::from_reader(json.stdout.take().unwrap()).into_iter().next().unwrap().unwrap();
    assert_eq!(told[0]["remote"], 8123, "{told}");
    assert!(TcpStream::connect(told[0]["local"].as_str().unwrap()).is_ok());
    json.kill().unwrap();
    json.wait().unwrap();
    // Nobody listens there: the connection ends, the reason is told, the others go on.
    let nobody: u16 = other.split([':', ' ']).nth(1).unwrap().parse().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", nobody)).unwrap();
    assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    let told = notes.next().unwrap().unwrap();
    assert!(told.starts_with("port 8124: "), "{told}");
    a_port_that_takes_nothing_is_let_go(world);
    assert!(server.fails(&["port-forward", "hello", &local.to_string()], 1).contains("choose another with LOCAL:"));
    kill_process(Pid::from_child(&forward), Signal::INT).unwrap();
    assert_eq!(forward.wait().unwrap().code(), Some(0), "Ctrl-C ends it well");
    kill_process(Pid::from_child(&listening), Signal::TERM).unwrap();
    assert_eq!(listening.wait().unwrap().code(), Some(143));
}

/// A server that reads nothing keeps neither the client's connection nor ours.
fn a_port_that_takes_nothing_is_let_go(world: &World) {
    let server = &world.server;
    let program = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalAddr => '127.0.0.1', LocalPort => 8125, Listen => 5) or die; \
        my $c = $s->accept; $SIG{TERM} = sub { exit }; sleep 1 while getpeername($c) && syswrite($c, '.'); print \"let go\\n\"";
    let mut deaf =
        server.command(&["exec", "hello", "--", "perl", "-e", &format!("$SIG{{PIPE}} = 'IGNORE'; {program}")]);
    let deaf = deaf.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    wait_for("the port to be listed", || {
        server.json(&["ports", "hello"]).as_array().unwrap().iter().any(|port| port["port"] == 8125).then_some(())
    });
    let local = free_port();
    let mut forward =
        server.command(&["port-forward", "hello", &format!("{local}:8125")]).stderr(Stdio::piped()).spawn().unwrap();
    BufReader::new(forward.stderr.take().unwrap()).lines().next().unwrap().unwrap();
    let mut stream = TcpStream::connect(("127.0.0.1", local)).unwrap();
    stream.set_write_timeout(Some(std::time::Duration::from_secs(1))).unwrap();
    // Until nothing is taken any more.
    while stream.write(&[0; 64 * 1024]).is_ok() {}
    kill_process(Pid::from_child(&forward), Signal::INT).unwrap();
    assert_eq!(forward.wait().unwrap().code(), Some(0));
    let output = deaf.wait_with_output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "let go\n");
}
