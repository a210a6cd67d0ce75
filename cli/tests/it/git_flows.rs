//! What users paste, opened: requests, tags, commits, branches, files and folders on hosts of every kind.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use berth_testkit::{GitServer, OnTerminal, Repository};

use crate::support::{Server, serve_router};

/// Kinds of self-hosted hosts, each with the path of the repository in its clone URLs.
const KINDS: [(&str, &str); 6] = [
    ("github", "acme/hello.git"),
    ("gitlab", "acme/sub/hello.git"),
    ("gitea", "acme/hello.git"),
    ("bitbucket-dc", "scm/ACME/hello.git"),
    ("azure-devops", "acme/project/_git/hello"),
    ("git", "acme/hello.git"),
];

/// One real repository behind every kind of host.
async fn hosts(repository: &Repository) -> BTreeMap<&'static str, SocketAddr> {
    let root = repository.path.ancestors().nth(2).unwrap();
    let mut hosts = BTreeMap::new();
    for (kind, path) in KINDS {
        let at = root.join(path);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        if !at.exists() {
            std::os::unix::fs::symlink(&repository.path, &at).unwrap();
        }
        hosts.insert(kind, serve_router(berth_git_serve::router(root.to_owned(), None, true)).await);
    }
    hosts
}

/// A commit that only this ref leads to, or none at all.
fn commit(repository: &Repository, message: &str, reference: Option<&str>) -> String {
    let tree = repository.git(&["rev-parse", "main^{tree}"]).unwrap();
    let commit = repository.git(&["commit-tree", &tree, "-p", "main", "-m", message]).unwrap();
    if let Some(reference) = reference {
        repository.git(&["update-ref", reference, &commit]).unwrap();
    }
    commit
}

/// What is opened: kind of host, path, and the commit and branch that it comes to.
fn cases(repository: &Repository) -> Vec<(&'static str, String, String, &'static str)> {
    let main = repository.git(&["rev-parse", "main"]).unwrap();
    let topic = repository.commit("topic/with/slashes", "a topic", &[("src/b.txt", "b\n")]).unwrap();
    repository.git(&["tag", "-a", "v1/rc", "-m", "one", &main]).unwrap();
    let requests = [
        ("github", "acme/hello/pull/7", "refs/pull/7/head"),
        ("gitlab", "acme/sub/hello/-/merge_requests/8", "refs/merge-requests/8/head"),
        ("gitea", "acme/hello/pulls/9", "refs/pull/9/head"),
        ("bitbucket-dc", "projects/ACME/repos/hello/pull-requests/10/overview", "refs/pull-requests/10/from"),
        ("azure-devops", "acme/project/_git/hello/pullrequest/11", "refs/pull/11/merge"),
    ];
    let mut cases = Vec::new();
    for (kind, path, reference) in requests {
        cases.push((kind, path.to_owned(), commit(repository, kind, Some(reference)), ""));
    }
    let lost = commit(repository, "lost", None);
    let slashes = "topic/with/slashes";
    for (kind, path, commit, branch) in [
        ("github", "acme/hello", &main, "main"),
        ("github", &*format!("acme/hello/commit/{lost}"), &lost, ""),
        ("github", &*format!("acme/hello/tree/{slashes}"), &topic, slashes),
        ("github", &*format!("acme/hello/blob/{slashes}/src/b.txt#L1"), &topic, slashes),
        ("gitlab", &*format!("acme/sub/hello/-/tree/{slashes}/src"), &topic, slashes),
        ("gitlab", "acme/sub/hello/-/tags/v1/rc", &main, ""),
        ("gitea", "acme/hello/src/tag/v1/rc/src/deep", &main, ""),
        (
            "bitbucket-dc",
            &*format!("projects/ACME/repos/hello/browse/src?at=refs%2Fheads%2F{}", slashes.replace('/', "%2F")),
            &topic,
            slashes,
        ),
        (
            "azure-devops",
            &*format!("acme/project/_git/hello?version=GB{}&path=/src/b.txt", slashes.replace('/', "%2F")),
            &topic,
            slashes,
        ),
        ("git", "acme/hello", &main, "main"),
    ] {
        cases.push((kind, path.to_owned(), commit.clone(), branch));
    }
    cases
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_a_host_shows_can_be_opened() {
    let git = GitServer::start().await.unwrap();
    let repository = git.repository("acme", "hello", &[("README.md", "hi\n"), ("src/deep/a.txt", "a\n")]).unwrap();
    let hosts = hosts(&repository).await;
    let kinds = hosts.iter().filter(|(kind, _)| **kind != "git");
    let kinds: String = kinds.map(|(kind, address)| format!("\"{address}\" = \"{kind}\"\n")).collect();
    let allowed: Vec<SocketAddr> = hosts.values().copied().collect();
    let node = "ready_networks = 0\nblank_disks = 0\n";
    let Some(server) = Server::start(node, &format!("[scm.hosts]\n{kinds}"), &allowed) else { return };
    for (kind, path, commit, branch) in cases(&repository) {
        let url = format!("http://{}/{path}", hosts[kind]);
        let opened = server.json(&["up", &url, "--name", "opened"]);
        assert_eq!(
            (&opened["phase"], &opened["commit"]),
            (&"Running".into(), &commit.as_str().into()),
            "{url}: {opened}"
        );
        let program = "pwd; git rev-parse HEAD; echo \"[$(git branch --show-current)]\"; git status --porcelain";
        let said = server.ok(&["exec", "opened", "--", "sh", "-c", program]);
        assert_eq!(said, format!("/workspace/hello\n{commit}\n[{branch}]\n"), "{url}");
        if path.contains("src/b.txt#L1") {
            the_shell_starts_in_the_checkout(&server);
        }
        // What was opened is where work goes on.
        if path.contains("merge_requests") {
            let push = "git switch -qc mine && git commit -q --allow-empty -m mine && git push -q origin mine";
            server.ok(&["exec", "opened", "--", "sh", "-c", push]);
            assert_eq!(repository.git(&["log", "-1", "--format=%s", "mine"]).unwrap(), "mine");
        }
        server.ok(&["delete", "opened"]);
    }
    server.close();
}

fn the_shell_starts_in_the_checkout(server: &Server) {
    let mut shell = OnTerminal::spawn(&server.command(&["shell", "opened"])).unwrap();
    shell.send("echo at-$PWD; exit\r").unwrap();
    shell.expect("at-/workspace/hello").unwrap();
    shell.finish().unwrap();
}
