//! The whole server killed with -9 at many moments of a start and of a stop: it goes on where it was, and nothing is lost or left.

use std::process::Stdio;
use std::time::Duration;

use berth_testkit::GitServer;

use crate::support::{Server, kill, wait_for};

const NODE: &str = "ready_networks = 0\nblank_disks = 0\n";

/// Milliseconds after the command began: through every step of it, which takes some hundreds.
const START_MOMENTS_MS: [u64; 10] = [5, 20, 40, 70, 100, 140, 190, 250, 350, 500];
const STOP_MOMENTS_MS: [u64; 7] = [2, 10, 25, 50, 90, 150, 300];

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_killed_at_any_moment_of_a_start_finishes_it() {
    let git = GitServer::start().await.unwrap();
    let hello = git.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let Some(server) = Server::start(NODE, "", &[git.address()]) else { return };
    for moment in START_MOMENTS_MS {
        let name = format!("at-{moment}");
        let told = killed_during(&server, &["up", &hello.url, "--name", &name], moment);
        let accepted = server.run(&["show", &name]).status == 0;
        eprintln!("killed {moment} ms after the command began: it ended with {told}, accepted: {accepted}");
        assert!(accepted || told == 6, "the command said {told} of a workspace that is not there");
        // Whoever got no answer asks again, and gets the same workspace.
        server.ok(&["up", &hello.url, "--name", &name]);
        assert_eq!(server.json(&["list"]).as_array().unwrap().len(), 1, "one workspace, not two");
        assert_eq!(
            server.ok(&["exec", &name, "--", "git", "status", "--short", "--branch"]),
            "## main...origin/main\n"
        );
        server.clear();
    }
    server.close();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_server_killed_at_any_moment_of_a_stop_loses_no_file() {
    let git = GitServer::start().await.unwrap();
    let hello = git.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let Some(server) = Server::start(NODE, "", &[git.address()]) else { return };
    server.ok(&["up", &hello.url, "--name", "hello"]);
    for moment in STOP_MOMENTS_MS {
        server.ok(&["exec", "hello", "--", "sh", "-c", &format!("echo {moment} >> /root/note")]);
        let told = killed_during(&server, &["stop", "hello"], moment);
        let phase = wait_for("a phase that stays", || {
            let shown = server.json(&["show", "hello"]);
            let phase = shown["phase"].as_str().unwrap().to_owned();
            (phase == "Stopped" || phase == "Running").then_some(phase)
        });
        eprintln!("killed {moment} ms after the command began: it ended with {told}, then {phase}");
        assert!(told != 0 || phase == "Stopped", "the command said that it is stopped");
        server.ok(&["stop", "hello"]);
        server.ok(&["start", "hello"]);
    }
    let expected: String = STOP_MOMENTS_MS.iter().map(|moment| format!("{moment}\n")).collect();
    assert_eq!(server.ok(&["exec", "hello", "--", "cat", "/root/note"]), expected);
    server.close();
}

/// Kills the server this long after a command began, and starts another; what the command ended with.
fn killed_during(server: &Server, command: &[&str], moment_ms: u64) -> i32 {
    let pid = server.pid();
    let mut command = server.command(command);
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut running = quiet.spawn().unwrap();
    // The moment itself is what is tested: no condition can be waited for.
    std::thread::park_timeout(Duration::from_millis(moment_ms));
    kill(pid);
    let told = running.wait().unwrap().code().unwrap();
    server.up();
    told
}
