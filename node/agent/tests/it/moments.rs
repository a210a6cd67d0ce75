//! The agent killed at each moment of a stop, and monitors at each moment of a start and of a stop: nothing is leaked, nothing of a user is lost.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use berth_node::instance::{Node, StartRequest};
use berth_sandbox::monitor::{self, MonitorHandle, MonitorInfo, Outcome};
use berth_testkit::GitServer;

use crate::crash::{Agent, clear, open};
use crate::support::{TestHome, request, run, steps};

/// What of an instance can be seen from outside, while it comes and goes.
#[derive(Clone)]
struct Traces {
    /// The instance's own folder.
    folder: PathBuf,
    /// What the workspace wrote of `/root`.
    root: PathBuf,
    /// Where its cgroups may be: version 1 for the number of processes, and version 2 beside it or alone.
    cgroups: Vec<PathBuf>,
}

impl Traces {
    fn of(home: &TestHome, request: &StartRequest) -> Self {
        let path = &home.config.home;
        let ours = berth_node::container::config::cgroup(path);
        Self {
            folder: path.join("run/instances").join(&request.instance_id),
            root: path.join("node/disks").join(&request.workspace_id).join("mnt/upper/root"),
            cgroups: ["/sys/fs/cgroup/pids", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
                .map(|hierarchy| PathBuf::from(format!("{hierarchy}{ours}/{}", request.instance_id)))
                .into(),
        }
    }

    fn monitor(&self) -> Option<MonitorInfo> {
        MonitorHandle::info_in(&self.folder).ok().flatten()
    }

    fn container_lives(&self) -> bool {
        let Some(pid) = self.monitor().and_then(|info| info.container_pid) else { return false };
        // Without a monitor it is collected by someone else, when he finds the time.
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
    }

    fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    fn has_cgroup(&self) -> bool {
        self.cgroups.iter().any(|path| path.exists())
    }

    fn is_recorded_as_ended(&self) -> bool {
        let text = std::fs::read_to_string(self.folder.join("instance.json")).unwrap_or_default();
        text.contains("\"finished_at_ms\"")
    }

    /// Something ran that ended when it was asked to, and something that will have to be killed.
    fn were_asked_to_end(&self) -> bool {
        self.root.join("asked").exists()
    }
}

/// Waits for a moment that may be short.
pub fn until(what: &str, reached: impl Fn() -> bool) {
    let begun = Instant::now();
    while !reached() {
        assert!(begun.elapsed() < Duration::from_secs(60), "waited a minute: {what}");
        std::thread::yield_now();
    }
}

/// A process that notes that it was asked to end, and does not.
async fn something_stubborn(node: &Node, id: &str) {
    let program =
        "trap 'echo > /root/asked' TERM; echo work > note; echo > /root/trapped; while :; do sleep 0.05; done";
    let script = format!(
        "rm -f /root/asked /root/trapped; ({program}) >/dev/null 2>&1 & until [ -e /root/trapped ]; do :; done"
    );
    run(node, id, &["sh", "-c", &script]).await.unwrap();
}

/// The same workspace once more: it runs, and its content is there. What is beside it in `/workspace`.
async fn starts_again(home: &TestHome, node: Node, request: &StartRequest, after: &str) -> String {
    let mut again = request.clone();
    again.instance_id = request.instance_id.replace("-7000-", "-7001-");
    node.start(again.clone(), &steps(), &Default::default())
        .await
        .unwrap_or_else(|error| panic!("after {after}: {error}"));
    let id = &again.instance_id;
    assert_eq!(run(&node, id, &["cat", "README.md"]).await.unwrap(), "hi", "after {after}");
    assert_eq!(
        run(&node, id, &["git", "status", "--short", "--untracked-files=no"]).await.unwrap(),
        "",
        "after {after}"
    );
    let beside = run(&node, id, &["ls", "/workspace"]).await.unwrap();
    clear(home, node).await;
    beside
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_at_any_moment_of_a_stop_loses_nothing() {
    let Some(home) = TestHome::lock(|_| {}).await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    type Reached = fn(&Traces) -> bool;
    let moments: [(&str, Reached); 7] = [
        ("the stop began", |_| true),
        ("processes were asked to end", Traces::were_asked_to_end),
        ("the first process is gone", |traces| !traces.container_lives()),
        ("the end is known", |traces| traces.has("exit.json")),
        ("the cgroup is gone", |traces| !traces.has_cgroup()),
        ("the end is written down", Traces::is_recorded_as_ended),
        ("STOPPED", |_| true),
    ];
    for (number, (moment, reached)) in moments.into_iter().enumerate() {
        let first = request(200 + u32::try_from(number).unwrap(), &repository, "main");
        let (id, traces) = (first.instance_id.clone(), Traces::of(&home, &first));
        // Prepared by one agent, stopped by the next.
        let node = open(&home);
        node.start(first.clone(), &steps(), &Default::default()).await.unwrap();
        something_stubborn(&node, &id).await;
        assert!(traces.container_lives() && traces.has_cgroup() && !traces.were_asked_to_end(), "{moment}");
        node.detach();
        drop(node);
        let mut agent = Agent::spawn(&home.config, &first);
        agent.wait_for("READY");
        agent.tell();
        agent.wait_for(if moment == "STOPPED" { moment } else { "STOPPING" });
        until(moment, || reached(&traces));
        agent.kill();

        let node = open(&home);
        let ended = node.stop(&id, Duration::from_secs(1)).await.unwrap();
        eprintln!("killed when {moment}: {ended:?}");
        assert_eq!(ended.disk_error, None);
        assert!(!ended.node_restarted && !traces.container_lives() && !traces.has_cgroup(), "{moment}");
        node.forget(&id);
        assert_eq!(
            std::fs::read_to_string(traces.root.with_file_name("workspace/hello/note")).unwrap(),
            "work\n",
            "{moment}"
        );
        assert_eq!(starts_again(&home, node, &first, moment).await, "hello", "{moment}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_killed_at_any_moment_of_a_start_is_no_harm() {
    let Some(home) = TestHome::lock(|_| {}).await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    type Reached = fn(&Traces, &[String]) -> bool;
    let moments: [(&str, Reached); 5] = [
        ("it begins", |traces, _| traces.monitor().is_some()),
        ("the cgroup is there", |traces, _| traces.has_cgroup()),
        ("the container is there", |traces, _| traces.container_lives()),
        ("the checkout begins", |_, steps| steps.iter().any(|step| step == "checkout")),
        ("it is almost ready", |_, steps| steps.iter().any(|step| step == "ready")),
    ];
    for (number, (moment, reached)) in moments.into_iter().enumerate() {
        let first = request(400 + u32::try_from(number).unwrap(), &repository, "main");
        let (id, traces) = (first.instance_id.clone(), Traces::of(&home, &first));
        let node = open(&home);
        let times = steps();
        let seen = times.subscribe();
        let watched = traces.clone();
        let killing = std::thread::spawn(move || {
            until(moment, || {
                let steps: Vec<String> = seen.borrow().iter().map(|step| step.name.to_string()).collect();
                reached(&watched, &steps)
            });
            if let Some(monitor) = monitor::adopt(&watched.folder).unwrap() {
                monitor.kill_monitor().unwrap();
            }
        });
        let outcome = node.start(first.clone(), &times, &Default::default()).await;
        killing.join().unwrap();
        match outcome {
            Ok(ready) => {
                let ended = ready.instance.wait_ended().await;
                eprintln!("killed when {moment}: ready, then {ended:?}");
                assert_eq!((ended.exit.outcome, ended.disk_error), (Outcome::Unknown, None), "{moment}");
            }
            Err(error) => {
                eprintln!("killed when {moment}: {error}");
                assert!(error.to_string().contains("monitor"), "{moment}: {error}");
            }
        }
        until("everything of it to be gone", || !traces.container_lives() && !traces.has_cgroup());
        node.forget(&id);
        until("the monitor to be collected", || !has_uncollected_monitor());
        // What a start that was broken off had made may be a user's work already: it is moved, not removed.
        let beside = starts_again(&home, node, &first, moment).await;
        assert!(beside.lines().all(|name| name == "hello" || name.starts_with("hello.interrupted-")), "{beside}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_monitor_killed_at_any_moment_of_a_stop_loses_nothing() {
    let Some(home) = TestHome::lock(|_| {}).await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    type Reached = fn(&Traces) -> bool;
    let moments: [(&str, Reached); 4] = [
        ("the stop begins", |_| true),
        ("processes were asked to end", Traces::were_asked_to_end),
        ("the first process is gone", |traces| !traces.container_lives()),
        ("the end is known", |traces| traces.has("exit.json")),
    ];
    for (number, (moment, reached)) in moments.into_iter().enumerate() {
        let first = request(500 + u32::try_from(number).unwrap(), &repository, "main");
        let (id, traces) = (first.instance_id.clone(), Traces::of(&home, &first));
        let node = open(&home);
        let ready = node.start(first.clone(), &steps(), &Default::default()).await.unwrap();
        something_stubborn(&node, &id).await;
        let handle = monitor::adopt(&ready.instance.folder).unwrap().unwrap();
        let watched = traces.clone();
        let killing = std::thread::spawn(move || {
            until(moment, || reached(&watched));
            handle.kill_monitor().unwrap();
        });
        let ended = node.stop(&id, Duration::from_secs(1)).await.unwrap();
        killing.join().unwrap();
        eprintln!("killed when {moment}: {ended:?}");
        // Whether it saw the end or not: never a guess.
        let known = matches!(ended.exit.outcome, Outcome::Unknown | Outcome::Code(0));
        assert!(known && ended.disk_error.is_none() && !ended.node_restarted, "{moment}: {ended:?}");
        assert!(!traces.container_lives() && !traces.has_cgroup(), "{moment}");
        node.forget(&id);
        assert_eq!(
            std::fs::read_to_string(traces.root.with_file_name("workspace/hello/note")).unwrap(),
            "work\n",
            "{moment}"
        );
        until("the monitor to be collected", || !has_uncollected_monitor());
        assert_eq!(starts_again(&home, node, &first, moment).await, "hello", "{moment}");
    }
}

/// Whether a monitor of this process ended that nobody collected.
fn has_uncollected_monitor() -> bool {
    let me = std::process::id().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let mut stats = entries.filter_map(|entry| std::fs::read_to_string(entry.path().join("stat")).ok());
    stats.any(|stat| {
        let (name, rest) = stat.rsplit_once(") ").unwrap_or_default();
        let mut fields = rest.split(' ');
        name.ends_with("(berth-init") && fields.next() == Some("Z") && fields.next() == Some(&me)
    })
}
