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
    for (workspace, ..) in t.node.disks().list() {
        t.node.disks().delete(&workspace).unwrap();
    }
    t.assert_clean();
    t.close().await;
}
