//! The server itself: its database, what it tells about itself, what it keeps to itself, its end, and the next version of it.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_testkit::{GitServer, OnTerminal};
use rustix::process::{Pid, Signal, kill_process};
use tokio::sync::Semaphore;

use crate::support::{Ran, Server, berth, beside, bin, serve_held, wait_for};

const NODE: &str = "ready_networks = 0\nblank_disks = 0\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_keeps_its_house_in_order() {
    let git = GitServer::start().await.unwrap();
    let hello = git.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let Some(server) = Server::start(NODE, "[log]\nformat = \"json\"\n", &[git.address()]) else { return };
    server.ok(&["up", &hello.url, "--name", "hello"]);

    postgres_is_private_and_safe(&server);
    metrics_are_for_administrators(&server);
    internal_routes_are_not_served(&server);
    options_for_a_server_that_runs_are_refused(&server);
    sigterm_ends_it_with_clients(&server);
    postgres_was_shut_down(&server);
    logs_are_json(&server);
    a_taken_port_of_the_kubernetes_api_is_passed_over(&server);
    server.close();
}

fn options_for_a_server_that_runs_are_refused(server: &Server) {
    server.ok(&["server", "--detach"]);
    let refused = server.run(&["server", "--detach", "--listen", "127.0.0.1:1"]);
    assert_eq!(refused.status, 5, "{refused}");
    assert!(refused.stderr.contains("without `--listen 127.0.0.1:1`: stop it"), "{refused}");
}

fn a_taken_port_of_the_kubernetes_api_is_passed_over(server: &Server) {
    let path = server.path().join("berth.toml");
    let settings = std::fs::read_to_string(&path).unwrap();
    let (before, after) = settings.split_once("[kubernetes]\n").unwrap();
    std::fs::write(&path, format!("{before}{}", after.split_once('\n').unwrap().1)).unwrap();
    std::fs::remove_file(server.path().join("run/kubernetes")).unwrap();
    // Ours, or somebody else's already.
    let _taken = std::net::TcpListener::bind("127.0.0.1:7443");
    server.up();
    let address = |server: &Server| {
        let config = server.json(&["kubeconfig"]);
        config["clusters"][0]["cluster"]["server"].as_str().unwrap().strip_prefix("https://").unwrap().to_owned()
    };
    let chosen = address(server);
    assert_ne!(chosen, "127.0.0.1:7443");
    std::net::TcpStream::connect(&chosen).unwrap();
    server.ok(&["server", "stop"]);
    server.up();
    assert_eq!(address(server), chosen, "a kubeconfig stays right");
}

fn postgres_is_private_and_safe(server: &Server) {
    let data = server.path().join("postgres");
    let file = std::fs::read_to_string(data.join("postmaster.pid")).unwrap();
    let lines: Vec<&str> = file.lines().map(str::trim).collect();
    let (pid, socket) = (lines[0], lines[4]);
    let uid = std::fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    assert_ne!(uid, 0, "Postgres runs as root");
    let folder = std::fs::metadata(&data).unwrap();
    assert_eq!((folder.uid(), folder.mode() & 0o777), (uid, 0o700), "its files are its own");
    let program = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    let show = |setting: &str| {
        let mut psql = Command::new(program.with_file_name("psql"));
        psql.args(["-h", socket, "-U", "berth", "-d", "berth", "-XAtqc", &format!("SHOW {setting}")]);
        let ran = Ran::of(&mut psql);
        assert_eq!(ran.status, 0, "{setting}: {ran}");
        ran.stdout.trim_end().to_owned()
    };
    let wanted = [
        ("data_checksums", "on"),
        ("fsync", "on"),
        ("full_page_writes", "on"),
        ("synchronous_commit", "on"),
        ("listen_addresses", ""),
        ("unix_socket_permissions", "0700"),
    ];
    for (setting, value) in wanted {
        assert_eq!(show(setting), value, "{setting}");
    }
    assert_eq!(lines[5], "", "it listens on TCP");
}

/// A plain request; the status and everything that came.
fn ask(mut stream: impl Read + Write, method: &str, path: &str, host: &str) -> (u16, String) {
    let head = "Connection: close\r\nContent-Type: application/json\r\nContent-Length: 2";
    write!(stream, "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{head}\r\n\r\n{{}}").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("no answer but {text:?}")), text)
}

fn at_the_socket(server: &Server, method: &str, path: &str) -> (u16, String) {
    ask(UnixStream::connect(server.path().join("run/api.sock")).unwrap(), method, path, "localhost")
}

fn over_tcp(server: &Server, method: &str, path: &str) -> (u16, String) {
    let url = server.json(&["server", "status"])["public_url"].as_str().unwrap().to_owned();
    let host = url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    ask(TcpStream::connect(&host).unwrap(), method, path, &host)
}

fn metrics_are_for_administrators(server: &Server) {
    let (status, text) = at_the_socket(server, "GET", "/metrics");
    assert_eq!(status, 200, "{text}");
    for line in [
        "content-type: application/openmetrics-text",
        "berth_build_info{version=",
        "berth_http_requests_total{method=\"POST\",route=\"/api/v1/workspaces\",status=\"201\"} 1",
        "berth_instances{phase=\"Running\"} 1",
        "# EOF",
    ] {
        assert!(text.contains(line), "no {line:?} in {text}");
    }
    let resident = text.lines().find_map(|line| line.strip_prefix("berth_process_resident_memory_bytes "));
    assert!(resident.unwrap().parse::<u64>().unwrap() > 1 << 20);
    let (status, text) = over_tcp(server, "GET", "/metrics");
    assert!(status == 401 && !text.contains("berth_build_info"), "{text}");
}

fn internal_routes_are_not_served(server: &Server) {
    // They exist for the services among themselves: of the API, ws-manager, scm and the node.
    for (method, path) in [
        ("POST", "/internal/authenticate"),
        ("POST", "/internal/authorize"),
        ("GET", "/internal/instances"),
        ("GET", "/internal/instances/watch"),
        ("GET", "/internal/classes"),
        ("POST", "/internal/contexts/resolve"),
        ("POST", "/internal/git-credentials/lookup"),
        ("GET", "/internal/instances/0/logs"),
    ] {
        for (status, text) in [at_the_socket(server, method, path), over_tcp(server, method, path)] {
            assert_eq!(status, 404, "{method} {path}: {text}");
        }
    }
    assert_eq!(at_the_socket(server, "GET", "/api/v1/workspaces").0, 200);
}

/// Open connections do not hold it up.
fn sigterm_ends_it_with_clients(server: &Server) {
    let mut shell = OnTerminal::spawn(&server.command(&["shell", "hello"])).unwrap();
    shell.send("echo ready-$((1+1))\r").unwrap();
    shell.expect("ready-2").unwrap();
    let follow = |args: &[&str]| server.command(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut logs = follow(&["logs", "-f", "hello"]);
    let exec = follow(&["exec", "hello", "--", "sleep", "1000"]);
    wait_for("the command to run", || {
        server.run(&["exec", "hello", "--", "pgrep", "-x", "sleep"]).stdout.contains(char::is_numeric).then_some(())
    });
    assert!(logs.try_wait().unwrap().is_none(), "the log is followed");
    let pid = server.pid();
    let begun = Instant::now();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
    wait_for("the server's end", || (!Path::new(&format!("/proc/{pid}")).exists()).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
    let (status, shown) = shell.finish().unwrap();
    assert_eq!(status.code(), Some(6), "{shown}");
    for client in [logs, exec] {
        let ran = Ran::from(client.wait_with_output().unwrap());
        assert_eq!(ran.status, 6, "{ran}");
    }
}

fn postgres_was_shut_down(server: &Server) {
    assert!(!server.path().join("postgres/postmaster.pid").exists(), "Postgres runs on");
    let log = std::fs::read_to_string(server.path().join("postgres/server.log")).unwrap();
    assert!(log.lines().last().unwrap().contains("database system is shut down"), "{log}");
}

fn logs_are_json(server: &Server) {
    let log = std::fs::read_to_string(server.path().join("server.log")).unwrap();
    assert!(log.lines().count() > 3, "{log}");
    for line in log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["timestamp"].is_string() && value["level"].is_string() && value["message"].is_string(), "{line}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_new_version_takes_over_what_runs() {
    let git = GitServer::start().await.unwrap();
    let hello = git.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let Some(mut server) = Server::start(NODE, "", &[git.address()]) else { return };
    server.ok(&["up", &hello.url, "--name", "hello"]);
    server.ok(&["exec", "hello", "--", "sh", "-c", "echo work > /root/note"]);
    let first = server.first_process("hello");
    let init_bytes =
        |server: &Server| std::fs::metadata(format!("/proc/{}/exe", server.first_process("hello"))).unwrap().len();
    let old = init_bytes(&server);

    // Other programs with the same behaviour: what follows a program's last section does not matter to it.
    let folder = tempfile::tempdir_in("/var/tmp").unwrap();
    for name in ["berth", "hull", "berth-init"] {
        let from = crate::support::beside(name).unwrap_or_else(|| bin().join(name));
        std::fs::copy(from, folder.path().join(name)).unwrap();
        let mut file = std::fs::OpenOptions::new().append(true).open(folder.path().join(name)).unwrap();
        file.write_all(b"another version").unwrap();
    }
    server.ok(&["server", "stop"]);
    server.set_programs(folder.path());
    server.configure(NODE, "");
    server.up();
    let exe = std::fs::read_link(format!("/proc/{}/exe", server.pid())).unwrap();
    assert_eq!(exe, folder.path().join("berth"));
    // What runs is not touched, and can be worked in.
    server.wait_phase("hello", "Running");
    assert_eq!((server.first_process("hello"), init_bytes(&server)), (first, old));
    assert_eq!(server.ok(&["exec", "hello", "--", "cat", "/root/note"]), "work\n");
    // Old and new work together to the end: stopped by the new version what the old one started.
    server.ok(&["stop", "hello"]);
    server.ok(&["start", "hello"]);
    assert_eq!(init_bytes(&server), old + b"another version".len() as u64);
    assert_eq!(server.ok(&["exec", "hello", "--", "cat", "/root/note"]), "work\n");
    server.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_for_a_start_is_told_that_the_server_went() {
    let git = GitServer::start().await.unwrap();
    let hello = git.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    // Gives no content until it is allowed to.
    let gate = Arc::new(Semaphore::new(0));
    let root = hello.path.ancestors().nth(2).unwrap();
    let address = serve_held(root, "command=fetch", gate.clone()).await;
    let Some(server) = Server::start(NODE, "", &[address]) else { return };
    let url = hello.url.replace(&git.address().to_string(), &address.to_string());

    let up = server.command(&["up", &url, "--name", "hello"]).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    wait_for("the checkout to begin", || {
        let shown = server.run(&["-o", "json", "show", "hello"]);
        (shown.status == 0 && shown.json()["receipt"].to_string().contains("checkout")).then_some(())
    });
    server.ok(&["server", "stop"]);
    let told = Ran::from(up.unwrap().wait_with_output().unwrap());
    assert!(told.status == 6 && told.stderr.contains("berth show"), "{told}");
    // It goes on, as it was told.
    server.up();
    gate.add_permits(Semaphore::MAX_PERMITS);
    server.wait_phase("hello", "Running");
    assert_eq!(server.ok(&["exec", "hello", "--", "cat", "README.md"]), "hi\n");
    server.close();
}

#[test]
fn who_waits_for_a_server_that_starts_is_told_what_it_is_at() {
    let home = tempfile::Builder::new().prefix("berth-cli-").tempdir_in("/var/tmp").unwrap();
    let run = home.path().join("run");
    std::fs::create_dir(&run).unwrap();
    std::fs::write(run.join("server.lock"), "1").unwrap();
    std::fs::write(run.join("starting"), "building the base image").unwrap();
    // It listens, and answers nobody yet.
    let socket = std::os::unix::net::UnixListener::bind(run.join("api.sock")).unwrap();
    let mut list = berth(home.path(), &["list"]).stderr(Stdio::piped()).spawn().unwrap();
    let mut told = BufReader::new(list.stderr.take().unwrap()).lines();
    let line = told.next().unwrap().unwrap();
    assert!(line.starts_with("  the server is starting, ") && line.ends_with(" s: building the base image"), "{line}");
    std::fs::write(run.join("starting"), "services").unwrap();
    assert!(told.next().unwrap().unwrap().ends_with(": services"));
    drop(socket);
    assert_eq!(list.wait().unwrap().code(), Some(6));
}

#[test]
fn a_start_that_fails_leaves_no_database() {
    let home = tempfile::Builder::new().prefix("berth-cli-").tempdir_in("/var/tmp").unwrap();
    let Some(server) = Server::prepare(home, &[]) else { return };
    server.configure("", "");
    let settings = std::fs::read_to_string(server.path().join("berth.toml")).unwrap();
    let settings = settings.replace(beside("hull").unwrap().to_str().unwrap(), "/no/such/hull");
    std::fs::write(server.path().join("berth.toml"), settings).unwrap();
    let failed = Ran::of(&mut berth(server.path(), &["server", "--detach"]));
    assert!(failed.status == 1 && failed.stderr.contains("/no/such/hull"), "{failed}");
    assert!(server.path().join("postgres/PG_VERSION").exists(), "it came so far");
    assert!(!server.path().join("postgres/postmaster.pid").exists());
    // The next failure is told without this one.
    let failed = Ran::of(&mut berth(server.path(), &["server", "--detach", "--listen", "nowhere"]));
    assert!(failed.stderr.contains("nowhere") && !failed.stderr.contains("/no/such/hull"), "{failed}");
}

#[test]
fn a_server_is_roots() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let folder = tempfile::Builder::new().prefix("berth-cli-").tempdir_in("/var/tmp").unwrap();
    let program = folder.path().join("berth");
    std::fs::copy(bin().join("berth"), &program).unwrap();
    std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for args in [&["server"][..], &["server", "--detach"], &["up", "https://github.com/o/n"]] {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--clear-groups"]).arg(&program).args(args);
        let ran = Ran::of(command.env_clear().env("HOME", folder.path()));
        assert!(ran.status == 1 && ran.stderr.contains("needs root"), "{ran}");
    }
    assert!(!folder.path().join(".local").exists(), "nothing was made");
}
