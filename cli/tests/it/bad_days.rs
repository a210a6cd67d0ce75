//! What goes wrong while workspaces run: in them, and under them.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_testkit::{GitServer, OnTerminal};

use crate::support::{Ran, Remains, Server, class, kill, wait_for};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_bad_day_ends_well() {
    let git = GitServer::start().await.unwrap();
    let hello = git.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let node = "ready_networks = 0\nblank_disks = 0\n";
    // Small enough to be filled at once.
    let sections = class("small", 256, 1024) + "[ws_manager.policy]\ntermination_grace_seconds = 2\n";
    let Some(server) = Server::start(node, &sections, &[git.address()]) else { return };
    server.ok(&["up", &hello.url, "--name", "hello"]);
    server.ok(&["exec", "hello", "--", "sh", "-c", "echo work > /root/note"]);

    ten_thousand_forks(&server);
    memory_is_filled(&server);
    sigterm_is_ignored(&server);
    the_main_process_ends(&server);
    postgres_is_killed_under_load(&server);
    the_server_restarts_under_open_connections(&server, "the server stops", |server| {
        drop(server.ok(&["server", "stop"]));
    });
    the_server_restarts_under_open_connections(&server, "connection to the workspace", Server::kill);
    the_machine_reboots(&server);
    assert_eq!(server.ok(&["exec", "hello", "--", "cat", "/root/note", "README.md"]), "work\nhi\n");
    server.close();
}

fn ten_thousand_forks(server: &Server) {
    let before = processes_on_the_machine();
    let ran = server.run(&["exec", "hello", "--", "bash", "-c", "for i in $(seq 10000); do sleep 60 & done"]);
    assert!(ran.stderr.contains("Resource temporarily unavailable"), "{ran}");
    assert!(processes_on_the_machine() < before + 1000, "the limit of 256 processes did not hold");
    server.ok(&["stop", "hello"]);
    server.ok(&["start", "hello"]);
}

fn processes_on_the_machine() -> usize {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok()).count()
}

fn memory_is_filled(server: &Server) {
    let ran = server.run(&["exec", "hello", "--", "perl", "-e", "my @a; push @a, 'x' x 1_000_000 while 1"]);
    assert_eq!(ran.status, 137, "the one who fills it is killed: {ran}");
    assert_eq!(server.ok(&["exec", "hello", "--", "echo", "alive"]), "alive\n");
}

fn sigterm_is_ignored(server: &Server) {
    let stubborn = "trap '' TERM HUP INT; (while :; do sleep 1; done) >/dev/null 2>&1 &";
    server.ok(&["exec", "hello", "--", "sh", "-c", stubborn]);
    let begun = Instant::now();
    assert_eq!(server.json(&["stop", "hello"])["phase"], "Stopped");
    assert!(begun.elapsed() < Duration::from_secs(20), "it took {:?}", begun.elapsed());
    server.ok(&["start", "hello"]);
}

fn the_main_process_ends(server: &Server) {
    let first = server.first_process("hello");
    kill(first);
    let shown = server.wait_phase("hello", "Stopped");
    assert!(shown["reason"].as_str().unwrap().contains("killed by signal 9"), "{shown}");
    assert!(server.ok(&["list"]).contains("killed by signal 9"));
    assert_eq!(server.json(&["start", "hello"])["reason"], "");
}

/// What was acknowledged is there afterwards; the server comes back by itself.
fn postgres_is_killed_under_load(server: &Server) {
    let file = std::fs::read_to_string(server.path().join("postgres/postmaster.pid")).unwrap();
    let postmaster: i32 = file.lines().next().unwrap().trim().parse().unwrap();
    let (made, refused) = (Mutex::new(BTreeSet::new()), Mutex::new(Vec::new()));
    let enough = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (made, refused, enough) = (&made, &refused, &enough);
            scope.spawn(move || {
                for number in 0.. {
                    if enough.load(Ordering::Relaxed) {
                        return;
                    }
                    let name = format!("load-{worker}-{number}");
                    let ran = server.run(&["-o", "json", "token", "create", &name]);
                    if ran.status == 0 {
                        made.lock().unwrap().insert(name);
                    } else {
                        refused.lock().unwrap().push(ran);
                    }
                }
            });
        }
        let count = || made.lock().unwrap().len();
        wait_for("load", || (count() >= 20).then_some(()));
        kill(postmaster);
        let at_the_kill = count();
        wait_for("the database to be back", || (count() >= at_the_kill + 20).then_some(()));
        enough.store(true, Ordering::Relaxed);
    });
    for ran in refused.lock().unwrap().iter() {
        let message = ran.error()["message"].as_str().unwrap().to_owned();
        assert!(ran.status == 6 && message.contains("database"), "a reason to understand: {ran}");
    }
    let listed = server.json(&["token", "list"]);
    let listed: BTreeSet<&str> = listed.as_array().unwrap().iter().filter_map(|token| token["name"].as_str()).collect();
    let lost: Vec<String> = made.lock().unwrap().iter().filter(|name| !listed.contains(&***name)).cloned().collect();
    assert_eq!(lost, Vec::<String>::new(), "acknowledged and gone");
    assert_eq!(server.json(&["show", "hello"])["phase"], "Running");
    // What follows the cluster follows it again.
    server.ok(&["stop", "hello"]);
    server.ok(&["start", "hello"]);
}

/// Clients are told; sessions of shells go on in the workspace.
fn the_server_restarts_under_open_connections(server: &Server, told: &str, end: fn(&Server)) {
    let mut shell = OnTerminal::spawn(&server.command(&["shell", "hello"])).unwrap();
    shell.send("X=kept; echo ready-$((1+1))\r").unwrap();
    shell.expect("ready-2").unwrap();
    let id = server.json(&["shell", "hello", "--list"])[0]["id"].clone();
    let id = id.as_str().map_or_else(|| id.to_string(), str::to_owned);
    let mut logs =
        server.command(&["logs", "-f", "hello"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Only what has begun can break off.
    let mut said = BufReader::new(logs.stdout.take().unwrap());
    assert!(said.read_line(&mut String::new()).unwrap() > 0, "the log says nothing");
    end(server);
    let (status, shown) = shell.finish().unwrap();
    assert!(status.code() == Some(6) && shown.contains(told), "{status}: {shown}");
    let logs = Ran::from(logs.wait_with_output().unwrap());
    assert!(logs.status == 6 && logs.stderr.contains("broke off"), "{logs}");
    server.up();
    let mut again = OnTerminal::spawn(&server.command(&["shell", "hello", "--attach", &id])).unwrap();
    again.send("echo still-$X; exit\r").unwrap();
    again.expect("still-kept").unwrap();
    again.finish().unwrap();
}

/// Everything that runs is gone at once, and the kernel has another boot id: what a start after a reboot finds.
fn the_machine_reboots(server: &Server) {
    server.ok(&["exec", "hello", "--", "sync"]);
    let instance = server.json(&["show", "hello"])["instance_id"].as_str().unwrap().to_owned();
    server.kill();
    // Monitors first: at a reboot nobody is left to write down how the others ended.
    for pid in Remains::processes(server.path()) {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        if line.split('\0').nth(1) == Some("monitor") {
            kill(pid);
        }
    }
    Remains::end(server.path());
    wait_for("the disk to be free", || (!Remains::of(server.path()).holds_disks()).then_some(()));
    let folder = server.path().join("run/instances").join(instance);
    for name in ["instance.json", "monitor.json"] {
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
        assert!(text.contains(boot_id.trim()), "{name}: {text}");
        let other = "00000000-1111-4222-8333-444444444444";
        std::fs::write(folder.join(name), text.replace(boot_id.trim(), other)).unwrap();
    }
    server.up();
    let shown = server.wait_phase("hello", "Stopped");
    assert!(shown["reason"].as_str().unwrap().contains("restarted"), "{shown}");
    server.assert_disks_left(1);
    server.ok(&["start", "hello"]);
}
