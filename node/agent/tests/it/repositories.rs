//! Repositories as strangers have them: submodules, files in Git LFS, names and links of every kind, many files.

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use berth_node::instance::{StartRequest, Steps};
use berth_testkit::{GitServer, Repository};

use crate::support::{TestNode, output, request, run, steps};

/// What the receipt says of the checkout.
fn told(steps: &Steps) -> String {
    steps.list().into_iter().find(|step| step.name == "checkout").unwrap().detail
}

/// Replaces the tree of `main` by this one, as `git fast-import` reads it.
fn import(repository: &Repository, files: &[u8]) {
    let mut child = Command::new("git")
        .args(["fast-import", "--quiet", "--force"])
        .current_dir(&repository.path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin
        .write_all(b"commit refs/heads/main\ncommitter Eve <eve@example.com> 1700000000 +0000\ndata 3\nodd\n")
        .unwrap();
    stdin.write_all(files).unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
}

/// One file of a tree: its mode, its path (in git's quotes where it needs them), its content.
fn entry(mode: &str, path: &str, content: &str) -> String {
    format!("M {mode} inline {path}\ndata {}\n{content}\n", content.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_are_left_out_and_the_user_is_told_how_to_fetch_them() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    // Nobody has opened this one.
    let closed = GitServer::start().await.unwrap();
    let library = server.repository("acme", "library", &[("library.txt", "library\n")]).unwrap();
    closed.repository("acme", "library", &[("library.txt", "library\n")]).unwrap();
    let commit = library.git(&["rev-parse", "main"]).unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let evil = "--upload-pack=touch /root/pwned";
    let urls = [
        ("near", "../library.git".to_owned()),
        ("closed", format!("http://{}/acme/library.git", closed.address())),
        ("file", "file:///etc".to_owned()),
        ("ext", "ext::touch /root/pwned".to_owned()),
        ("option", evil.to_owned()),
        ("-option", "../library.git".to_owned()),
    ];
    let modules = urls.iter().map(|(path, url)| format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n"));
    let modules: String =
        modules.chain([format!("[submodule \"{evil}\"]\n\tpath = named\n\turl = ../library.git\n")]).collect();
    let mut tree = entry("100644", ".gitmodules", &modules);
    for path in urls.iter().map(|(path, _)| *path).chain(["named"]) {
        tree.push_str(&format!("M 160000 {commit} {path}\n"));
    }
    import(&repository, tree.as_bytes());

    let (wanted, steps) = (request(1, &repository, "main"), steps());
    let id = wanted.instance_id.clone();
    t.node.start(wanted, &steps, &Default::default()).await.unwrap();
    assert_eq!(told(&steps), "submodules are not fetched: `git submodule update --init --recursive`");
    assert_eq!(run(&t.node, &id, &["git", "status", "--short", "--branch"]).await.unwrap(), "## main...origin/main");
    let fetch =
        async |path: &str| output(&t.node, &id, &["git", "submodule", "update", "--init", "--", path]).await.unwrap();
    // Relative to where the repository is; a name is nothing but a name.
    for path in ["near", "named"] {
        fetch(path).await;
        let file = format!("{path}/library.txt");
        assert_eq!(run(&t.node, &id, &["cat", &file]).await.unwrap(), "library");
    }
    for (path, reason) in [
        ("closed", "Failed to connect"),
        ("file", "transport 'file' not allowed"),
        ("ext", "transport 'ext' not allowed"),
        ("option", "No url found"),
        ("-option", "No url found"),
    ] {
        let failed = fetch(path).await;
        let said = String::from_utf8_lossy(&failed.stderr).into_owned();
        assert!(
            failed.status != berth_supervisor_protocol::ExitStatus::Code(0) && said.contains(reason),
            "{path}: {said}"
        );
    }
    assert_eq!(
        run(&t.node, &id, &["sh", "-c", "ls -A /root closed file ext option ./-option named | grep pwned; true"])
            .await
            .unwrap(),
        ""
    );
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_in_git_lfs_are_pointers_and_the_package_can_be_installed() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n";
    let files = [(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n"), ("big.bin", pointer)];
    let repository = server.repository("acme", "hello", &files).unwrap();
    let (wanted, first) = (request(1, &repository, "main"), steps());
    let id = wanted.instance_id.clone();
    t.node.start(wanted.clone(), &first, &Default::default()).await.unwrap();
    let hint = "files in Git LFS are pointers: `git lfs install && git lfs pull`, with the package git-lfs";
    assert_eq!(told(&first), hint);
    assert_eq!(run(&t.node, &id, &["cat", "big.bin"]).await.unwrap(), pointer.trim_end());
    assert_eq!(run(&t.node, &id, &["git", "status", "--short", "--branch"]).await.unwrap(), "## main...origin/main");
    // What the package does when it is installed; it lasts, and what Berth brings goes on working beside it.
    run(&t.node, &id, &["git", "config", "--system", "filter.lfs.required", "true"]).await.unwrap();
    t.node.stop(&id, Duration::from_secs(5)).await.unwrap();
    t.node.forget(&id);
    let again = StartRequest { instance_id: id.replace("000001", "000002"), ..wanted };
    t.node.start(again.clone(), &steps(), &Default::default()).await.unwrap();
    let config = ["git", "config", "--get-regexp", "^filter.lfs.required$|^user.name$|^credential.helper$"];
    let lines = run(&t.node, &again.instance_id, &config).await.unwrap();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(
        lines,
        [
            "credential.helper /.berth/bin/berth-init git-credential",
            "user.name Ada Lovelace",
            "filter.lfs.required true"
        ]
    );
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_tree_is_checked_out_as_it_is_or_refused_with_the_reason() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let mut tree: String =
        (0..10_000).map(|n| entry("100644", &format!("many/{}/{n}", n % 100), &format!("{n}"))).collect();
    for (mode, path, content) in [
        ("100644", r#""caf\351""#, "latin"),
        ("100644", r#""two\nlines""#, "lines"),
        ("100644", "Case", "upper"),
        ("100644", "case", "lower"),
        ("100644", "CASE/file", "folder"),
        ("120000", "out", "/etc/shadow"),
        ("120000", "up", "../../../../../../etc"),
        ("120000", "self", "self"),
        // What Berth reads of a checkout by itself.
        ("120000", ".devcontainer.json", "/dev/zero"),
        ("120000", ".gitattributes", "/dev/ptmx"),
    ] {
        tree.push_str(&entry(mode, path, content));
    }
    import(&repository, tree.as_bytes());
    let (wanted, first) = (request(1, &repository, "main"), steps());
    let id = &wanted.instance_id;
    t.node.start(wanted.clone(), &first, &Default::default()).await.unwrap();
    let said = told(&first);
    assert!(said.ends_with("/.devcontainer.json is not a regular file"), "{said}");
    assert_eq!(run(&t.node, id, &["git", "status", "--short", "--branch"]).await.unwrap(), "## main...origin/main");
    let program = "find many -type f | wc -l; cat many/99/9999 \"$(printf 'caf\\351')\" \"$(printf 'two\\nlines')\" Case case CASE/file; echo; readlink out up self";
    let seen = run(&t.node, id, &["sh", "-c", program]).await.unwrap();
    assert_eq!(seen, "10000\n9999latinlinesupperlowerfolder\n/etc/shadow\n../../../../../../etc\nself");

    // A tree that only an enemy makes: git itself takes no such path.
    let hook = repository.path.join("hook");
    std::fs::write(&hook, "#!/bin/sh\ntouch /root/pwned\n").unwrap();
    let hook = repository.git(&["hash-object", "-w", hook.to_str().unwrap()]).unwrap();
    for (number, name) in (2..).zip([".git", ".GIT", "git~1", ".."]) {
        let made = Command::new("sh")
            .args(["-ec", "t=$(printf '100755 blob %s\\tpost-checkout\\n' $1 | git mktree); t=$(printf '040000 tree %s\\thooks\\n' $t | git mktree); \
                printf '040000 tree %s\\t%s\\n' $t $2 | git mktree", "sh", &hook, name])
            .current_dir(&repository.path)
            .output()
            .unwrap();
        let tree = String::from_utf8(made.stdout).unwrap();
        let commit = repository.git(&["commit-tree", tree.trim(), "-m", "evil"]).unwrap();
        repository.git(&["update-ref", "refs/heads/main", &commit]).unwrap();
        let wanted = request(number, &repository, "main");
        let error = t.node.start(wanted.clone(), &steps(), &Default::default()).await.unwrap_err().to_string();
        assert!(error.contains(&format!("invalid path '{name}/hooks/post-checkout'")), "{error}");
        t.node.forget(&wanted.instance_id);
    }
    t.close().await;
}
