//! Content: private repositories, bad ones, and images of devcontainer.json.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use berth_node::{Credential, CredentialQuery, CredentialSource};
use berth_supervisor_protocol::Secret;
use berth_testkit::GitServer;

use crate::support::{TestNode, request, run, steps};

#[derive(Debug)]
struct One(&'static str);

#[async_trait]
impl CredentialSource for One {
    async fn lookup(&self, query: CredentialQuery) -> Result<Option<Credential>, String> {
        assert_eq!(query.owner_id, "owner");
        assert_eq!(query.host, query.repository_host);
        Ok((!self.0.is_empty()).then(|| Credential { username: "ada".to_owned(), password: Secret::new(self.0) }))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_private_repository_is_cloned_and_pushed_to_with_the_owners_credential() {
    let Some(t) = TestNode::with(|_| {}, Arc::new(One("s3cret-token"))).await else { return };
    let server = GitServer::start_private("ada", "s3cret-token").await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let wanted = request(1, &repository, "main");
    let id = wanted.instance_id.clone();
    t.node.start(wanted, &steps(), &Default::default()).await.unwrap();
    run(&t.node, &id, &["sh", "-c", "echo more >> README.md && git commit -qam more && git push -q"]).await.unwrap();
    assert!(repository.git(&["log", "-1", "--format=%an %s", "main"]).unwrap().contains("Ada Lovelace more"));
    // The token is nowhere inside.
    let found = run(
        &t.node,
        &id,
        &[
            "sh",
            "-c",
            "grep -rl s3cret-token /workspace /root /etc /proc/1/environ 2>/dev/null; env | grep -c s3cret; true",
        ],
    )
    .await
    .unwrap();
    assert_eq!(found, "0");
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn content_that_cannot_be_had_says_why_and_leaves_nothing() {
    let Some(t) = TestNode::with(|config| config.checkout_timeout_seconds = 20, Arc::new(One(""))).await else {
        return;
    };
    let private = GitServer::start_private("ada", "token").await.unwrap();
    let hidden = private.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let open = GitServer::start().await.unwrap();
    let repository = open.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let mut cases = Vec::new();
    cases.push((request(1, &hidden, "main"), "git-credential add"));
    let mut case = request(2, &repository, "main");
    case.checkout.reference = Some("refs/heads/gone".to_owned());
    case.checkout.branch = Some("gone".to_owned());
    cases.push((case, "has no gone any more"));
    let mut case = request(3, &repository, "main");
    case.checkout.repository.clone_url = "--upload-pack=touch /tmp/x".to_owned();
    cases.push((case, "cannot be cloned"));
    let mut case = request(4, &repository, "main");
    case.checkout.commit = Some("f".repeat(40));
    cases.push((case, "is not in"));
    let mut case = request(5, &repository, "main");
    case.image = Some("berth/nothing".to_owned());
    cases.push((case, "is not on this node"));
    let mut case = request(6, &repository, "main");
    case.image = Some("127.0.0.1:9/no/such:1".to_owned());
    cases.push((case, "cannot be called"));
    for (case, part) in cases {
        let id = case.instance_id.clone();
        let error = t.node.start(case, &steps(), &Default::default()).await.unwrap_err();
        let mut text = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            text.push_str(&format!(": {inner}"));
            cause = inner.source();
        }
        assert!(text.contains(part), "{part}: {text}");
        assert!(!error.may_pass());
        t.node.forget(&id);
    }
    // An empty repository is no mistake.
    let empty = open.repository("acme", "empty", &[]).unwrap();
    let mut wanted = request(7, &empty, "main");
    wanted.checkout.commit = None;
    wanted.checkout.reference = None;
    let id = wanted.instance_id.clone();
    t.node.start(wanted, &steps(), &Default::default()).await.unwrap();
    let status = run(&t.node, &id, &["git", "status", "--short", "--branch"]).await.unwrap();
    assert!(status.starts_with("## No commits yet on main"), "{status}");
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_devcontainer_json_that_cannot_be_used_leads_to_the_base_image_and_says_so_in_the_receipt() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let base = t.node.prepare(Arc::new(|_| {})).await.unwrap().digest.to_string();
    let cases = [
        ("syntax", ".devcontainer.json", "{\n  \"image\": debian\n}", "expected value at line 2 column 12"),
        ("build", ".devcontainer/devcontainer.json", "{ \"build\": {} }", "wants its image built (`build`)"),
        ("folder", ".devcontainer.json/a", "", "cannot be read: "),
    ];
    for (number, (name, path, content, part)) in (1..).zip(cases) {
        let repository = server.repository("acme", name, &[(path, content)]).unwrap();
        let (wanted, steps) = (request(number, &repository, "main"), steps());
        let ready = t.node.start(wanted, &steps, &Default::default()).await.unwrap();
        assert_eq!(ready.image, base, "{name}");
        let detail = steps.list().into_iter().find(|step| step.name == "checkout").unwrap().detail;
        assert!(
            detail.starts_with("in the base image, since .devcontainer") && detail.contains(part),
            "{name}: {detail}"
        );
    }
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_image_of_devcontainer_json_is_used_and_a_workspace_that_ignores_sigterm_is_killed() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let files =
        [(".devcontainer/devcontainer.json", "{ // ours\n \"image\": \"berth/other:1\", }"), ("README.md", "hi\n")];
    let repository = server.repository("acme", "hello", &files).unwrap();
    // The base image under another name, with another user.
    let other = crate::support::derive(&t.node, "berth/other:1", "nobody").await;
    let wanted = request(1, &repository, "main");
    let id = wanted.instance_id.clone();
    let ready = t.node.start(wanted, &steps(), &Default::default()).await.unwrap();
    assert_eq!(ready.image, other.to_string());
    assert_eq!(run(&t.node, &id, &["id", "-un"]).await.unwrap(), "nobody");
    run(&t.node, &id, &["sh", "-c", "echo mine > note"]).await.unwrap();
    // A process that ignores every polite signal does not hold the stop up.
    run(&t.node, &id, &["sh", "-c", "trap '' TERM HUP INT; (while :; do sleep 1; done) >/dev/null 2>&1 &"])
        .await
        .unwrap();
    let began = std::time::Instant::now();
    t.node.stop(&id, Duration::from_secs(1)).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(8));
    t.close().await;
}
