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
    // It is given for its own host, and for no other, whatever git asks for.
    let fill = async |host: &str| {
        let question =
            format!("printf 'protocol=http\\nhost={host}\\n\\n' | GIT_TERMINAL_PROMPT=0 git credential fill");
        crate::support::output(&t.node, &id, &["sh", "-c", &question]).await.unwrap()
    };
    let own = server.address().to_string();
    let given = fill(&own).await;
    assert!(String::from_utf8_lossy(&given.stdout).contains("password=s3cret-token"), "{given:?}");
    for other in ["other.example", "127.0.0.1", &own.replace("127.0.0.1", "localhost"), &format!("{own}.example")] {
        let refused = fill(other).await;
        assert_ne!(refused.status, berth_supervisor_protocol::ExitStatus::Code(0), "{other}");
        assert!(!String::from_utf8_lossy(&refused.stdout).contains("password"), "{other}: {refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("credentials are given for"), "{other}: {refused:?}");
    }
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_branch_that_has_moved_since_is_checked_out_as_it_was() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "old\n")]).unwrap();
    let wanted = request(1, &repository, "main");
    let (id, resolved) = (wanted.instance_id.clone(), repository.git(&["rev-parse", "main"]).unwrap());
    repository.commit("main", "newer", &[("README.md", "new\n"), ("more", "more\n")]).unwrap();
    t.node.start(wanted, &steps(), &Default::default()).await.unwrap();
    let seen = run(&t.node, &id, &["sh", "-c", "git rev-parse HEAD; cat README.md; ls; git status --short --branch"]);
    let expected = format!("{resolved}\nold\nREADME.md\n## main...origin/main [behind 1]");
    assert_eq!(seen.await.unwrap(), expected);
    t.close().await;
}

/// What a repository can bring to make git run its words or call its hosts: none of it happens when it is checked out.
#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_repository_is_checked_out_and_nothing_of_it_runs() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    // Whoever follows the submodule calls here.
    let second = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    second.set_nonblocking(true).unwrap();
    let called = second.local_addr().unwrap();
    let hook = "#!/bin/sh\ntouch /root/pwned\n";
    let module = format!("[submodule \"sub\"]\n\tpath = sub\n\turl = http://{called}/evil/sub.git\n");
    let files = [
        ("README.md", "hi\n"),
        (".gitmodules", &*module),
        (".gitattributes", "* filter=evil diff=evil merge=evil\n"),
        (
            ".gitconfig",
            "[core]\n\tfsmonitor = touch /root/pwned\n\thooksPath = hooks\n[filter \"evil\"]\n\tsmudge = touch /root/pwned\n",
        ),
        ("hooks/post-checkout", hook),
        (".githooks/post-checkout", hook),
    ];
    let repository = server.repository("acme", "hello", &files).unwrap();
    // The server's own hook is the server's.
    std::fs::write(repository.path.join("hooks/post-checkout"), hook).unwrap();
    // What no ordinary client commits: a submodule, folders that lead elsewhere, hooks that may be executed.
    repository.git(&["read-tree", "main"]).unwrap();
    let entry = |mode: &str, object: &str, path: &str| {
        repository.git(&["update-index", "--add", "--cacheinfo", &format!("{mode},{object},{path}")]).unwrap();
    };
    let blob = |content: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        repository.git(&["hash-object", "-w", file.path().to_str().unwrap()]).unwrap()
    };
    entry("160000", &"1".repeat(40), "sub");
    entry("120000", &blob("/root"), "way");
    entry("120000", &blob(".git/hooks"), "to-the-hooks");
    entry("100755", &blob(hook), "hooks/post-checkout");
    entry("100755", &blob(hook), ".githooks/post-checkout");
    let tree = repository.git(&["write-tree"]).unwrap();
    let parent = repository.git(&["rev-parse", "main"]).unwrap();
    let commit = repository.git(&["commit-tree", &tree, "-p", &parent, "-m", "hostile"]).unwrap();
    repository.git(&["update-ref", "refs/heads/main", &commit]).unwrap();

    let mut wanted = request(1, &repository, "main");
    // It could be reached.
    wanted.allow_private_hosts.push(called.to_string());
    let id = wanted.instance_id.clone();
    t.node.start(wanted, &steps(), &Default::default()).await.unwrap();
    let seen =
        run(&t.node, &id, &["sh", "-c", "cat README.md; readlink way; ls -A sub /root/pwned; ls .git/hooks/*e; true"]);
    let seen = seen.await.unwrap();
    assert!(seen.starts_with("hi\n/root\nsub:"), "{seen}");
    assert!(!seen.contains("pwned") && !seen.contains("post-checkout"), "{seen}");
    assert_eq!(run(&t.node, &id, &["git", "status", "--short", "--branch"]).await.unwrap(), "## main...origin/main");
    assert_eq!(second.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "the second server was called");
    // The listener would have seen it, and the hook runs when it is wanted.
    let call = ["curl", "-s", "-m", "2", &format!("http://{called}/")];
    crate::support::output(&t.node, &id, &call).await.unwrap();
    second.accept().unwrap();
    run(&t.node, &id, &["git", "-c", "core.hooksPath=hooks", "checkout", "--quiet", "main"]).await.unwrap();
    run(&t.node, &id, &["ls", "/root/pwned"]).await.unwrap();
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
