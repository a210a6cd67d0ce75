//! From a repository to a command in its checkout, and back to nothing.

use std::time::Duration;

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
    t.node.stop(&id, Duration::from_secs(5)).await.unwrap();
    t.node.forget(&id);
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
    let own = t.node.networks().network(a.instance.record().slot);
    let neighbour = t.node.networks().network(b.instance.record().slot);
    for address in [own.gateway, neighbour.address, neighbour.gateway, std::net::Ipv4Addr::new(169, 254, 169, 254)] {
        assert_eq!(reach(format!("http://{address}:{}/", server.address().port() + 1)).await, "000", "{address}");
    }
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
