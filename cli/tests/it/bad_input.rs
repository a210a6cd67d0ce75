//! What users can get wrong, and what hosts can do to them: each has its reason, its status, and leaves nothing.

use std::path::Path;
use std::sync::Arc;

use berth_testkit::GitServer;
use tokio::sync::Semaphore;

use crate::support::{Server, class, serve_held};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_cannot_be_opened_says_why_and_leaves_nothing() {
    let open = GitServer::start().await.unwrap();
    let private = GitServer::start_private("ada", "token").await.unwrap();
    let hello = open.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let hidden = private.repository("acme", "hidden", &[("README.md", "hi\n")]).unwrap();
    let empty = open.repository("acme", "empty", &[]).unwrap();
    let huge = open.repository("acme", "huge", &[("noise", &noise(48 << 20))]).unwrap();
    let root = hello.path.ancestors().nth(2).unwrap();
    let never = Arc::new(Semaphore::new(0));
    let slow = serve_held(root, "command=fetch", never.clone()).await;
    let silent = serve_held(root, "service=git-upload-pack", never).await;

    let hosts = [open.address(), private.address(), slow, silent];
    let classes = class("small", 512, 1024) + &class("tiny", 512, 64);
    let sections = format!("{classes}\n[scm]\ntimeout_seconds = 3\n[scm.hosts]\n\"{}\" = \"gitea\"\n", open.address());
    let node = "checkout_timeout_seconds = 5\nready_networks = 0\nblank_disks = 0\n";
    let Some(server) = Server::start(node, &sections, &hosts) else { return };

    // Refused before anything is made.
    let credentials = hello.url.replace("http://", "http://me:pa55word@");
    let gone = hello.url.replace(".git", "/src/branch/gone");
    let nothing = hello.url.replace("hello", "nothing");
    for (url, part) in [
        ("https://no-such-host.invalid/acme/app.git", "no-such-host.invalid"),
        ("http://127.0.0.1:9/acme/app.git", "allow_private_hosts"),
        ("https://169.254.169.254/acme/app.git", "169.254.169.254"),
        (&*hidden.url, "git-credential add"),
        (&*gone, "gone"),
        (&*nothing, "nothing"),
        (&*credentials, "git-credential"),
        ("https://github.com/acme/app\u{7}", "control"),
        ("https://github.com/acme/app\nHost: x", "control"),
        ("--upload-pack=touch /tmp/pwned", "command-line option"),
        ("--upload-pack=/tmp/pwned", "URL"),
        ("ext::sh -c 'touch /tmp/pwned'", "scheme"),
        ("file:///etc/passwd", "http"),
        ("", "empty"),
    ] {
        let told = server.fails(&["up", "--no-shell", "--", url], 1);
        assert!(told.contains(part), "{url:?}: no {part:?} in {told}");
        assert!(!told.contains("pa55word"), "{told}");
    }
    let silent = hello.url.replace(&open.address().to_string(), &silent.to_string());
    let told = server.fails(&["up", &silent], 1);
    assert!(told.contains("took longer than 3 s"), "{told}");
    assert!(!Path::new("/tmp/pwned").exists());
    assert_eq!(server.json(&["list"]).as_array().unwrap().len(), 0);
    server.assert_nothing_left();

    // Found out while it starts: the workspace stays, stopped, with the reason.
    let slow = hello.url.replace(&open.address().to_string(), &slow.to_string());
    for (name, args, part) in [
        ("slow", &[&*slow][..], "checkout"),
        ("huge", &[&*huge.url, "--class", "tiny"], "disk"),
        ("image", &[&*hello.url, "--image", "berth/nothing"], "berth/nothing"),
        ("registry", &[&*hello.url, "--image", "127.0.0.1:9/no/such:1"], "127.0.0.1:9"),
    ] {
        let ran = server.run(&[&["up", "--name", name], args].concat());
        assert_eq!(ran.status, 7, "{name}: {ran}");
        assert!(ran.stderr.contains("did not start") && ran.stderr.contains(part), "{name}: no {part:?} in {ran}");
        let shown = server.wait_phase(name, "Stopped");
        assert!(shown["reason"].as_str().unwrap().contains(part), "{shown}");
        server.ok(&["delete", name]);
        server.assert_nothing_left();
    }

    // An empty repository is no mistake.
    let opened = server.json(&["up", &empty.url, "--name", "empty"]);
    assert_eq!((&opened["phase"], &opened["commit"]), (&"Running".into(), &serde_json::Value::Null));
    assert!(server.ok(&["exec", "empty", "--", "git", "status"]).contains("No commits yet"));
    server.close();
}

/// Text that compresses badly.
fn noise(bytes: usize) -> String {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let letters = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
    (0..bytes)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(letters[usize::try_from(state >> 58).unwrap()])
        })
        .collect()
}
