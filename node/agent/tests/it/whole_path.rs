//! From a repository to a command in its checkout, and back to nothing.

use std::time::Duration;

use berth_sandbox::monitor::LOG_FILE;
use berth_testkit::GitServer;

use crate::support::{TestNode, request, run, steps};

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_starts_stops_and_starts_again() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let request = request(1, &repository, "main");
    let id = request.instance_id.clone();
    let times = steps();
    t.node.start(request.clone(), &times, &Default::default()).await.unwrap();
    for step in times.list() {
        eprintln!("{:10} {:>8} us {}", step.name, step.duration_micros.unwrap_or(0), step.detail);
    }
    assert_eq!(run(&t.node, &id, &["cat", "README.md"]).await.unwrap(), "hi");
    assert_eq!(run(&t.node, &id, &["git", "status", "--short", "--branch"]).await.unwrap(), "## main...origin/main");
    assert_eq!(run(&t.node, &id, &["git", "config", "user.name"]).await.unwrap(), "Ada Lovelace");
    assert_eq!(run(&t.node, &id, &["hostname"]).await.unwrap(), "hello");
    run(&t.node, &id, &["sh", "-c", "echo kept > /root/note; echo more >> README.md"]).await.unwrap();
    // Things that were installed, and things that were removed: a file, a folder, and a folder that is there again with nothing in it.
    let program = "echo mine > /usr/local/bin/x; rm /etc/debian_version; rm -r /usr/share/perl5; rm -r /etc/skel; mkdir /etc/skel";
    run(&t.node, &id, &["sh", "-ec", program]).await.unwrap();

    let ended = t.node.stop(&id, Duration::from_secs(5)).await.unwrap();
    assert_eq!(ended.disk_error, None);
    t.node.forget(&id);

    let mut again = request.clone();
    again.instance_id = id.replace("000001", "000002");
    let times = steps();
    t.node.start(again.clone(), &times, &Default::default()).await.unwrap();
    let id = again.instance_id;
    for step in times.list() {
        eprintln!("{:10} {:>8} us {}", step.name, step.duration_micros.unwrap_or(0), step.detail);
    }
    assert_eq!(run(&t.node, &id, &["cat", "/root/note", "README.md"]).await.unwrap(), "kept\nhi\nmore");
    let program = "cat /usr/local/bin/x; ls -A /etc/skel; ls -d /etc/debian_version /usr/share/perl5 2>/dev/null; true";
    assert_eq!(run(&t.node, &id, &["sh", "-c", program]).await.unwrap(), "mine");
    t.node.stop(&id, Duration::from_secs(5)).await.unwrap();
    let log = std::fs::read(t.node.instance(&id).unwrap().folder.join(LOG_FILE)).unwrap();
    // The reconciler and whoever reported the end, at once.
    let (node, id) = (&t.node, &id);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| node.forget(id));
        }
    });
    let kept = t.node.config().home.join("node/disks").join(&again.workspace_id).join(format!("log-{id}"));
    assert_eq!(std::fs::read(kept.join(LOG_FILE)).unwrap(), log);
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workspace_is_closed_in_and_its_root_is_nobody() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    // Listens on the host's loopback too, but is not opened.
    let other = GitServer::start().await.unwrap();
    let one = request(1, &repository, "main");
    let two = request(2, &repository, "main");
    let (steps_one, steps_two, never) = (steps(), steps(), Default::default());
    let (a, b) =
        tokio::join!(t.node.start(one.clone(), &steps_one, &never), t.node.start(two.clone(), &steps_two, &never));
    let (a, b) = (a.unwrap(), b.unwrap());
    let id = &one.instance_id;
    let uid = |instance: &berth_node::instance::Instance| instance.record().slot.uid_base();
    assert_ne!(uid(&a.instance), uid(&b.instance));

    // Root inside, nobody outside.
    let map = run(&t.node, id, &["cat", "/proc/self/uid_map"]).await.unwrap();
    let map: Vec<u32> = map.split_ascii_whitespace().map(|word| word.parse().unwrap()).collect();
    assert_eq!(map, [0, uid(&a.instance), 65_536]);
    assert_eq!(run(&t.node, id, &["sudo", "-n", "id", "-u"]).await.unwrap(), "0");
    // The opened service and nothing else.
    let reach = async |url: String| {
        let argv = ["curl", "-s", "-o", "/dev/null", "-m", "5", "-w", "%{http_code}", &url];
        crate::support::output(&t.node, id, &argv)
            .await
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap()
    };
    let smart = "/info/refs?service=git-upload-pack";
    assert_eq!(reach(format!("{}{smart}", repository.url)).await, "200");
    assert_eq!(reach(format!("http://{}/", other.address())).await, "000");
    // Files of the node are not to be seen, and what protects it is in force.
    for path in ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern"] {
        assert!(run(&t.node, id, &["sh", "-c", &format!("echo x > {path}")]).await.is_err(), "{path}");
    }
    assert!(run(&t.node, id, &["mount", "-t", "tmpfs", "none", "/mnt"]).await.is_err());
    assert!(run(&t.node, id, &["unshare", "-Ur", "true"]).await.is_err());
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_hold() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let mut wanted = request(1, &repository, "main");
    wanted.limits.disk_bytes = 128 << 20;
    wanted.limits.pids = 32;
    wanted.limits.memory_bytes = 128 << 20;
    let id = wanted.instance_id.clone();
    t.node.start(wanted, &steps(), &Default::default()).await.unwrap();
    let full = run(&t.node, &id, &["sh", "-c", "head -c 300000000 /dev/zero > big"]).await.unwrap_err();
    assert!(full.to_string().contains("No space left"), "{full}");
    run(&t.node, &id, &["rm", "big"]).await.unwrap();
    let forks =
        crate::support::output(&t.node, &id, &["bash", "-c", "for i in $(seq 300); do sleep 3 & done"]).await.unwrap();
    assert!(String::from_utf8_lossy(&forks.stderr).contains("Resource temporarily unavailable"));
    let memory = crate::support::output(
        &t.node,
        &id,
        &["bash", "-c", "x=$(head -c 400000000 /dev/zero | tr '\\0' x); echo ${#x}"],
    )
    .await
    .unwrap();
    assert_ne!(memory.status, berth_supervisor_protocol::ExitStatus::Code(0));
    // It lives on.
    assert_eq!(run(&t.node, &id, &["echo", "alive"]).await.unwrap(), "alive");
    let ended = t.node.stop(&id, Duration::from_secs(2)).await.unwrap();
    assert_eq!(ended.disk_error, None);
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_class_asks_for_is_in_force() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let plain = request(1, &repository, "main");
    let mut strict = request(2, &repository, "main");
    strict.limits.no_new_privileges = true;
    strict.limits.cpu_millis = 250;
    strict.limits.io_bytes_per_second = Some(16 << 20);
    for wanted in [&plain, &strict] {
        t.node.start(wanted.clone(), &steps(), &Default::default()).await.unwrap();
    }
    // Open files do not depend on who started us: as many as a login on Debian has, where we may give them.
    let ours = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    let hard = ours.map_or(524_288, |ours| ours.min(524_288));
    let limits = run(&t.node, &plain.instance_id, &["sh", "-c", "ulimit -Sn; ulimit -Hn"]).await.unwrap();
    assert_eq!(limits, format!("1024\n{hard}"));

    // In the one nobody becomes another by what he executes; in the other sudo works.
    let someone = "setpriv --reuid=65534 --regid=65534 --clear-groups sudo -n id -u 2>/dev/null";
    let privileges = ["sh", "-c", &format!("grep NoNewPrivs /proc/self/status; {someone}; true")];
    assert_eq!(run(&t.node, &plain.instance_id, &privileges).await.unwrap(), "NoNewPrivs:\t0\n0");
    assert_eq!(run(&t.node, &strict.instance_id, &privileges).await.unwrap(), "NoNewPrivs:\t1");

    // A quarter of a processor: of a second of work, the process got at most a little more. Unless the machine is busy, the other got more.
    let work = "use Time::HiRes 'time'; my $end = time + 1; 1 while time < $end; my ($user, $system) = times; print int(1000 * ($user + $system))";
    let milliseconds =
        async |id: &str| -> u32 { run(&t.node, id, &["perl", "-e", work]).await.unwrap().parse().unwrap() };
    let (free, limited) = (milliseconds(&plain.instance_id).await, milliseconds(&strict.instance_id).await);
    eprintln!("of a second: {free} ms, and {limited} ms with a limit of 250");
    assert!(limited <= 400, "{limited} ms");

    // 48 MiB past the cache, at 16 MiB a second.
    let write = ["dd", "if=/dev/zero", "of=/root/big", "bs=1M", "count=48", "oflag=direct"];
    let seconds = async |id: &str| {
        let begun = std::time::Instant::now();
        run(&t.node, id, &write).await.unwrap();
        begun.elapsed().as_secs_f64()
    };
    let (free, limited) = (seconds(&plain.instance_id).await, seconds(&strict.instance_id).await);
    eprintln!("48 MiB: {free:.2} s, and {limited:.2} s with a limit of 16 MiB/s");
    assert!(limited > 2.0, "{limited} s");
    t.close().await;
}
