//! The last steps of `make run` and `make stop`, as the Makefile calls them.

use std::path::Path;
use std::process::Command;

use berth_testkit::GitServer;

use crate::support::{Ran, Server, berth, bin, free_port};

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

#[test]
fn the_branch_of_the_folder_is_served_also_where_a_tag_has_its_name_or_none_is_checked_out() {
    let folder = tempfile::tempdir().unwrap();
    let git = |args: &[&str]| {
        let ran = Ran::of(Command::new("git").args(args).current_dir(folder.path()));
        assert_eq!(ran.status, 0, "git {args:?}: {ran}");
        ran.stdout
    };
    git(&["init", "--quiet", "--initial-branch=work", "."]);
    let identity = ["-c", "user.name=Ada", "-c", "user.email=ada@example.com"];
    git(&[&identity[..], &["commit", "--quiet", "--allow-empty", "--message=one"]].concat());
    git(&["tag", "work"]);
    let home = tempfile::tempdir().unwrap();
    let serve = |args: &[&str]| {
        let ran = Ran::of(&mut berth(home.path(), &[&["internal", "git-serve"], args].concat()));
        assert_eq!(ran.status, 0, "{ran}");
    };
    let listen = format!("127.0.0.1:{}", free_port());
    let served = |name: &str| {
        let repository = format!("acme/{name}={}", folder.path().display());
        serve(&["--detach", "--listen", &listen, "--repository", &repository]);
        let refs = git(&["ls-remote", "--symref", &format!("http://{listen}/acme/{name}.git")]);
        serve(&["--stop"]);
        refs.lines().map(|line| line.replace('\t', " ")).collect::<Vec<_>>()
    };
    let head = git(&["rev-parse", "HEAD"]).trim().to_owned();
    let named = |names: &[&str]| names.iter().map(|name| format!("{head} {name}")).collect::<Vec<_>>();
    let expected =
        [vec!["ref: refs/heads/work HEAD".to_owned()], named(&["HEAD", "refs/heads/work", "refs/tags/work"])];
    assert_eq!(served("app"), expected.concat());
    // As CI checks out.
    git(&["checkout", "--quiet", "--detach"]);
    let refs = served("other");
    assert!(refs.contains(&"ref: refs/heads/main HEAD".to_owned()) && refs.contains(&named(&["HEAD"])[0]), "{refs:?}");
}
