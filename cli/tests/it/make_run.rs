//! The last steps of `make run` and `make stop`, as the Makefile calls them.

use std::path::Path;
use std::process::Command;

use berth_testkit::GitServer;

use crate::support::{Ran, Server, bin, free_port};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_repository_is_opened_once_and_found_again() {
    let git = GitServer::start().await.unwrap();
    let app = git.repository("acme", "app", &[("README.md", "hi\n")]).unwrap();
    let namesake = git.repository("other", "app", &[("README.md", "ho\n")]).unwrap();
    let Some(server) = Server::start("ready_networks = 0\nblank_disks = 0\n", "", &[git.address()]) else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let listen = format!("127.0.0.1:{}", free_port());
    let script = |name: &str, argument: &Path| {
        let mut command = server.environment(Command::new(root.join("deploy").join(name)));
        Ran::of(command.arg(argument).current_dir(root).env("BERTH_BIN", bin()).env("GIT_LISTEN", &listen))
    };
    let run = |url: &str| {
        let ran = script("run", Path::new(url));
        assert_eq!(ran.status, 0, "{ran}");
        for told in ["ready", "total", "berth shell"] {
            assert!(ran.stdout.contains(told), "{told} is not told: {ran}");
        }
    };
    let names = || -> Vec<String> {
        let list = server.json(&["list"]);
        list.as_array().unwrap().iter().map(|workspace| workspace["name"].as_str().unwrap().to_owned()).collect()
    };

    // The server that runs was started without the loopback git server's address: it is replaced.
    let before = server.pid();
    run(&app.url);
    let replaced = server.pid();
    assert_ne!(before, replaced);
    run(&app.url);
    assert_eq!((server.pid(), names()), (replaced, vec!["app".to_owned()]), "nothing new the second time");
    server.ok(&["stop", "app"]);
    run(&app.url);
    assert_eq!(server.ok(&["exec", "app", "--", "cat", "README.md"]), "hi\n");
    run(&namesake.url);
    assert_eq!(names().len(), 2, "another repository of that name is another workspace");
    if root.join(".git").exists() {
        run("");
        run("");
        assert_eq!(names().len(), 3);
        server.ok(&["exec", "berth", "--", "test", "-e", "deploy/run"]);
    } else {
        eprintln!("skipped: Berth's own repository, this is no checkout of it");
    }

    let stopped = script("stop", &bin());
    assert_eq!(stopped.status, 0, "{stopped}");
    assert_eq!(server.run(&["server", "status"]).status, 6);
    assert!(std::net::TcpStream::connect(&listen).is_err(), "its git server is stopped too");
    server.up();
    server.close();
}
