//! git-credential, class, usage, image, support-bundle, server.

use std::process::Command;

use super::{SECRET, World};
use crate::support::{Ran, Remains, berth, wait_for};

pub(super) fn a_private_repository_is_worked_on_and_its_secret_stays_hidden(world: &World) {
    let server = &world.server;
    let host = world.hidden.url.split('/').nth(2).unwrap();
    // Without a credential: what to do.
    let refused = server.fails(&["up", &world.hidden.url], 1);
    assert!(refused.contains("git-credential add"), "{refused}");

    let wrong = server.run_with(&["git-credential", "add", host, "--username", "ada"], "wrong\n");
    assert_eq!(wrong.status, 0, "{wrong}");
    let refused = server.fails(&["up", &world.hidden.url], 1);
    assert!(refused.contains("git-credential add"), "{refused}");
    let added = server.run_with(&["-o", "json", "git-credential", "add", host, "--username", "ada"], SECRET);
    assert!(added.status == 0 && !added.stdout.contains(SECRET), "{added}");
    let listed = server.json(&["git-credential", "list"]);
    assert_eq!((&listed[0]["host"], &listed[0]["username"]), (&host.into(), &"ada".into()), "{listed}");
    assert!(!listed.to_string().contains(SECRET) && server.ok(&["git-credential", "list"]).contains(host));
    assert_eq!(server.run_with(&["git-credential", "add", host], "").status, 1);

    let opened = server.json(&["up", &world.hidden.url, "--name", "hidden"]);
    assert_eq!(opened["phase"], "Running");
    assert_eq!(server.ok(&["exec", "hidden", "--", "cat", "README.md"]), "for ada only\n");
    server.ok(&[
        "exec",
        "hidden",
        "--",
        "sh",
        "-c",
        "git switch -qc work && echo mine > mine && git add . && git commit -qm mine && git push -q origin work",
    ]);
    assert_eq!(world.hidden.git(&["log", "-1", "--format=%s", "work"]).unwrap(), "mine");

    // The secret is in no file, environment or argument inside, in no process' environment or arguments outside, and in no log.
    let find = "grep -rsl \"$1\" /workspace /root /home /etc /tmp /run /.berth 2>/dev/null; cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' '\\n' | grep \"$1\"; true";
    // The first letter in brackets: so the search does not find itself.
    let (first, rest) = SECRET.split_at(1);
    let found = server.ok(&["exec", "hidden", "--", "sh", "-c", find, "find", &format!("[{first}]{rest}")]);
    assert_eq!(
        found.lines().filter(|line| line.contains(SECRET) || line.starts_with('/')).collect::<Vec<_>>(),
        Vec::<&str>::new()
    );
    for pid in Remains::processes(server.path()) {
        for file in ["cmdline", "environ"] {
            let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
            assert!(!String::from_utf8_lossy(&bytes).contains(SECRET), "the {file} of {pid} has the secret");
        }
    }
    let outside = Ran::of(
        Command::new("grep")
            .args(["-rslF", "--binary-files=text", SECRET])
            .args(["server.log", "run", "postgres", "keys", "berth.toml"].map(|name| server.path().join(name))),
    );
    assert_eq!(outside.stdout, "", "files with the secret");
    let log = server.ok(&["logs", "hidden"]);
    assert!(!log.contains(SECRET));

    assert_eq!(server.json(&["git-credential", "remove", host])["removed"], host);
    assert_eq!(server.json(&["git-credential", "list"]).as_array().unwrap().len(), 0);
    // From now on git inside has none either.
    let push = server.run(&["exec", "hidden", "--", "git", "push", "origin", "HEAD:refs/heads/again"]);
    assert_ne!(push.status, 0, "{push}");
    server.ok(&["delete", "hidden"]);
}

pub(super) fn lists_are_shown(world: &World) {
    let server = &world.server;
    let classes = server.json(&["class", "list"]);
    let names: Vec<&str> = classes.as_array().unwrap().iter().filter_map(|class| class["name"].as_str()).collect();
    assert_eq!(names, ["small", "medium", "large"]);
    assert!(classes[0]["memory_bytes"].is_u64() && classes[0]["credits_per_hour"].is_string());
    assert!(server.ok(&["class", "list"]).contains("GiB"));

    // hello was stopped more than once: those runs are over and counted.
    let usage = wait_for("usage", || {
        let usage = server.json(&["usage"]);
        usage["items"].as_array().is_some_and(|items| items.len() >= 2).then_some(usage)
    });
    assert!(usage["totals"]["credits"].is_string() || usage["totals"]["credits"].is_number(), "{usage}");
    assert!(server.ok(&["usage"]).contains("total:"));
    let csv = server.ok(&["usage", "--csv", "--class", "small"]);
    let mut lines = csv.lines();
    assert!(lines.next().unwrap().starts_with("started_at,"), "{csv}");
    assert!(lines.clone().count() >= 2 && lines.all(|line| line.contains(",small,")), "{csv}");
    assert!(!server.ok(&["usage", "--csv", "--class", "large"]).contains(",large,"));
    let count = |args: &[&str]| server.json(&[&["usage"], args].concat())["items"].as_array().unwrap().len();
    assert_eq!(count(&["--to", "2020-01-01T00:00:00Z"]), 0);
    let nobody = "01a21bb6-b600-702b-9b24-7dfb56630623";
    assert!(count(&["--user", "me"]) >= 2 && count(&["--user", nobody]) == 0);
    let other = world.hello.url.replace("hello", "other");
    assert!(count(&["--project", &world.hello.url]) >= 2 && count(&["--project", &other]) == 0);
}

/// The image store may be used while the server runs.
pub(super) fn images_are_listed_and_imported_beside_the_server(world: &World) {
    let server = &world.server;
    let images = server.json(&["image", "list"]);
    assert!(images.to_string().contains("berth/base"), "{images}");
    assert!(server.json(&["image", "build-base"])["digest"].as_str().unwrap().starts_with("sha256:"));
    let archive = tempfile::NamedTempFile::new().unwrap();
    // The store is an OCI layout itself.
    let store = server.path().join("node/images");
    let tar = Command::new("tar")
        .arg("--create")
        .arg("--file")
        .arg(archive.path())
        .arg("--directory")
        .arg(&store)
        .args(["blobs", "index.json", "oci-layout"])
        .status();
    assert!(tar.unwrap().success());
    let imported = server.json(&["image", "import", archive.path().to_str().unwrap(), "berth/mine:1"]);
    assert_eq!(imported["reference"], "berth/mine:1");
    let opened = server.json(&["up", &world.hello.url, "--name", "mine", "--image", "berth/mine:1"]);
    assert_eq!((&opened["phase"], &opened["image"]), (&"Running".into(), &"berth/mine:1".into()));
    server.ok(&["delete", "mine"]);
    std::fs::write(archive.path(), "no archive").unwrap();
    assert!(
        server.fails(&["image", "import", archive.path().to_str().unwrap(), "berth/mine:2"], 1).contains("docker save")
    );
    assert!(server.fails(&["image", "import", "/no/such", "berth/mine:2"], 1).contains("/no/such"));
}

pub(super) fn a_support_bundle_has_no_secrets(world: &World) {
    let server = &world.server;
    let file = server.path().join("bundle.tar");
    let written = server.json(&["support-bundle", "--file", file.to_str().unwrap()]);
    assert_eq!(written["file"], file.to_str().unwrap());
    let list = Ran::of(Command::new("tar").arg("--list").arg("--file").arg(&file));
    for name in ["version.txt", "doctor.json", "server.json", "workspaces.json", "server.log", "berth.toml"] {
        assert!(list.stdout.contains(name), "no {name}: {list}");
    }
    let text = Ran::of(Command::new("tar").args(["--extract", "--to-stdout", "--file"]).arg(&file));
    assert_eq!(text.status, 0);
    for secret in ["kube.token", "master.key"] {
        let secret = std::fs::read(server.path().join("keys").join(secret)).unwrap();
        let secret = String::from_utf8_lossy(&secret).trim().to_owned();
        assert!(secret.is_empty() || !text.stdout.contains(&secret));
    }
    assert!(!text.stdout.contains(SECRET) && !text.stdout.contains("berth_pat_"));
}

pub(super) fn the_server_is_stopped_and_started(world: &World) {
    let server = &world.server;
    let status = server.json(&["server", "status"]);
    let pid = status["pid"].as_i64().unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists() && status["version"].is_string());
    assert!(server.ok(&["server", "status"]).contains(&pid.to_string()));
    // A second one on the same home finds the first; in the foreground it is refused.
    assert_eq!(server.json(&["server", "--detach"])["pid"], pid);
    let second = Ran::of(&mut berth(server.path(), &["server", "--output", "json"]));
    assert_eq!(second.status, 5, "{second}");
    assert!(server.ok(&["server", "setup-link"]).starts_with("https://127.0.0.1:"));

    let before = server.first_process("hello");
    assert_eq!(server.json(&["server", "stop"])["stopped"], pid);
    assert_eq!(server.run(&["server", "status"]).status, 6);
    assert!(std::path::Path::new(&format!("/proc/{before}")).exists(), "a workspace goes on running without a server");
    // `up` starts one where none runs.
    let opened = server.run(&["up", &world.hello.url, "--name", "hello"]);
    assert!(opened.status == 0 && opened.stderr.contains("starting one"), "{opened}");
    server.ok(&["server", "stop"]);
    server.up();
    assert_ne!(server.json(&["server", "status"])["pid"], pid);
    assert_eq!(server.wait_phase("hello", "Running")["name"], "hello");
    assert_eq!(server.first_process("hello"), before, "it is the same one still");
    assert_eq!(server.ok(&["exec", "hello", "--", "echo", "adopted"]), "adopted\n");
}
