//! The agent killed at each step of a start, the monitor killed, the machine restarted: nothing is leaked, nothing of a user is lost.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use berth_clock::SystemClock;
use berth_node::NoCredentials;
use berth_node::instance::{Node, StartRequest};
use berth_sandbox::monitor::{self, Outcome};
use berth_testkit::GitServer;

use crate::moments::until;
use crate::support::{TestHome, request, run, steps};

const ROLE: &str = "BERTH_NODE_TEST_ROLE";

/// Not a test: the agent that is killed, in a process of its own. Tells each step on its standard output, and stops when it is told to.
#[tokio::test(flavor = "multi_thread")]
async fn agent_role() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (config, request): (berth_node::Config, StartRequest) = serde_json::from_str(&role).unwrap();
    let node = Node::open(config, SystemClock::shared(), Arc::new(NoCredentials)).unwrap();
    let id = request.instance_id.clone();
    let steps = steps();
    let mut list = steps.subscribe();
    tokio::spawn(async move {
        let mut told = 0;
        while list.changed().await.is_ok() {
            let now = list.borrow_and_update().clone();
            for step in now.iter().skip(told) {
                println!("step {}", step.name);
                std::io::stdout().flush().unwrap();
            }
            told = now.len();
        }
    });
    node.start(request, &steps, &Default::default()).await.unwrap();
    println!("READY");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    println!("STOPPING");
    node.stop(&id, Duration::from_secs(1)).await;
    println!("STOPPED");
    std::io::stdin().read_line(&mut line).unwrap();
}

pub struct Agent {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Agent {
    pub fn spawn(config: &berth_node::Config, request: &StartRequest) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::agent_role", "--nocapture", "--test-threads=1"])
            .env(ROLE, serde_json::to_string(&(config, request)).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    pub fn wait_for(&mut self, wanted: &str) {
        for line in self.lines.by_ref().map_while(Result::ok) {
            if line.ends_with(wanted) {
                return;
            }
        }
        panic!("the agent ended before it said {wanted}");
    }

    pub fn tell(&mut self) {
        self.child.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

pub fn open(home: &TestHome) -> Node {
    Node::open(home.config.clone(), SystemClock::shared(), Arc::new(NoCredentials)).unwrap()
}

pub async fn clear(home: &TestHome, node: Node) {
    for instance in node.instances() {
        let id = instance.record().request.instance_id;
        node.stop(&id, Duration::ZERO).await;
        node.forget(&id);
    }
    for (workspace, ..) in node.disks().list() {
        node.disks().delete(&workspace).unwrap();
    }
    node.close().unwrap();
    node.detach();
    drop(node);
    home.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_step_of_a_start_is_replaced() {
    let Some(home) = TestHome::lock(|_| {}).await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    for (number, step) in
        ["step image", "step disk", "step network", "step container", "step checkout", "step ready", "READY"]
            .into_iter()
            .enumerate()
    {
        let request = request(100 + u32::try_from(number).unwrap(), &repository, "main");
        let id = request.instance_id.clone();
        let mut agent = Agent::spawn(&home.config, &request);
        agent.wait_for(step);
        agent.kill();

        let node = open(&home);
        let adopted = node.instance(&id).is_some();
        eprintln!("killed at {step:?}: adopted {adopted}");
        assert!(adopted || step != "READY", "a running workspace was lost");
        node.start(request.clone(), &steps(), &Default::default())
            .await
            .unwrap_or_else(|error| panic!("after {step}: {error}"));
        assert_eq!(
            run(&node, &id, &["git", "status", "--short", "--branch"]).await.unwrap(),
            "## main...origin/main",
            "after {step}"
        );
        clear(&home, node).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_monitor_and_a_reboot_are_told_as_what_they_are() {
    let Some(home) = TestHome::lock(|_| {}).await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let node = open(&home);
    let request = request(300, &repository, "main");
    let ready = node.start(request.clone(), &steps(), &Default::default()).await.unwrap();
    run(&node, &request.instance_id, &["sh", "-c", "echo work > note"]).await.unwrap();
    monitor::adopt(&ready.instance.folder).unwrap().unwrap().kill_monitor().unwrap();
    let ended = ready.instance.wait_ended().await;
    assert_eq!(ended.exit.outcome, Outcome::Unknown);
    assert!(!ended.node_restarted);
    node.forget(&request.instance_id);

    // After a reboot the record is of another boot, and nothing of what it names exists.
    let mut again = request.clone();
    again.instance_id = request.instance_id.replace("-7000-", "-7001-");
    let ready = node.start(again.clone(), &steps(), &Default::default()).await.unwrap();
    let record = ready.instance.folder.join("instance.json");
    node.stop(&again.instance_id, Duration::from_secs(1)).await;
    node.detach();
    drop((node, ready));
    let mut written: serde_json::Value = serde_json::from_slice(&std::fs::read(&record).unwrap()).unwrap();
    written["boot_id"] = "another".into();
    written["ended"] = serde_json::Value::Null;
    std::fs::write(&record, written.to_string()).unwrap();
    for name in ["monitor.json", "exit.json"] {
        let path = record.with_file_name(name);
        if name == "exit.json" {
            std::fs::remove_file(path).unwrap();
        }
    }
    let node = open(&home);
    let ended = node.instance(&again.instance_id).unwrap().ended().unwrap();
    assert!(ended.node_restarted && ended.disk_error.is_none(), "{ended:?}");
    node.forget(&again.instance_id);
    again.instance_id = request.instance_id.replace("-7000-", "-7002-");
    node.start(again.clone(), &steps(), &Default::default()).await.unwrap();
    assert_eq!(run(&node, &again.instance_id, &["cat", "note"]).await.unwrap(), "work");
    clear(&home, node).await;
}

/// hull finds the container's user namespace by a descriptor of the agent: it fails when that was killed first. Nobody but the next agent
/// learns of it, and that was no fault of the user's.
#[tokio::test(flavor = "multi_thread")]
async fn a_container_that_failed_for_want_of_an_agent_is_made_again() {
    let Some(home) = TestHome::lock(|_| {}).await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let request = request(120, &repository, "main");
    let id = request.instance_id.clone();
    let folder = tempfile::tempdir().unwrap();
    let (began, go_on, slow) = (folder.path().join("began"), folder.path().join("go-on"), folder.path().join("hull"));
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in *' create '*) : > {began}; while ! [ -e {go_on} ]; do sleep 0.01; done ;; esac\nexec {hull} \"$@\"\n",
        began = began.display(),
        go_on = go_on.display(),
        hull = home.config.hull.as_ref().unwrap().display(),
    );
    std::fs::write(&slow, script).unwrap();
    std::fs::set_permissions(&slow, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let config = berth_node::Config { hull: Some(slow), ..home.config.clone() };
    let agent = Agent::spawn(&config, &request);
    until("hull to begin", || began.exists());
    agent.kill();
    std::fs::write(&go_on, "").unwrap();
    let end = home.config.home.join("run/instances").join(&id).join(berth_sandbox::monitor::EXIT_FILE);
    until("hull to fail", || end.exists());

    let node = open(&home);
    assert!(node.instance(&id).is_none());
    node.start(request.clone(), &steps(), &Default::default()).await.unwrap();
    assert_eq!(run(&node, &id, &["cat", "README.md"]).await.unwrap(), "hi");
    clear(&home, node).await;
}
