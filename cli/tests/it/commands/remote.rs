//! Over TLS: login, tokens, kubectl.

use std::path::Path;
use std::process::Command;

use super::{World, assert_workspace};
use crate::support::{Ran, berth};

/// A certificate for 127.0.0.1 that is its own CA, and its key.
pub(super) fn certificate() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().self_signed(&key).unwrap();
    std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    folder
}

pub(super) fn a_token_signs_in_over_tls(world: &World) {
    let server = &world.server;
    let created = server.json(&["token", "create", "laptop", "--expires-in-days", "2"]);
    let (id, secret) = (created["id"].as_str().unwrap(), created["secret"].as_str().unwrap().to_owned());
    assert!(secret.starts_with("berth_pat_"), "{created}");
    let listed = server.json(&["token", "list"]);
    assert!(listed.as_array().unwrap().iter().any(|token| token["id"] == id));
    assert!(!listed.to_string().contains(&secret) && server.ok(&["token", "list"]).contains("laptop"));

    // Another machine: a home without a server, and only the URL.
    let elsewhere = tempfile::tempdir().unwrap();
    let user = elsewhere.path().join("user");
    let remote = |args: &[&str]| {
        let mut command = berth(Path::new("/nonexistent"), args);
        command.env_remove("BERTH_HOME").env("HOME", &user);
        command
    };
    let ca = world.tls.path().join("cert.pem");
    let ca = ca.to_str().unwrap();
    let login = Ran::with_input(&mut remote(&["login", &world.url]), &secret);
    assert!(login.status == 6 && login.stderr.contains("certificate"), "an unknown CA is not trusted: {login}");
    let wrong = Ran::with_input(&mut remote(&["login", &world.url, "--ca-cert", ca]), "berth_pat_wrong");
    assert!(wrong.status == 4, "{wrong}");
    let login = Ran::with_input(&mut remote(&["login", &world.url, "--ca-cert", ca, "-o", "json"]), &secret);
    assert_eq!(login.status, 0, "{login}");
    assert!(login.json()["id"].is_string() && !login.stdout.contains(&secret));
    let kept = user.join(".config/berth/credentials.json");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&kept).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);

    let list = Ran::of(&mut remote(&["list", "-o", "json"]));
    assert_eq!(list.status, 0, "{list}");
    assert_workspace(&list.json()[0]);
    let ran = Ran::of(&mut remote(&["exec", "hello", "--", "sh", "-c", "cat README.md; exit 5"]));
    assert!(ran.status == 5 && ran.stdout.starts_with("hi\n"), "{ran}");

    assert_eq!(server.json(&["token", "revoke", id])["revoked"], id);
    let refused = Ran::of(&mut remote(&["list", "-o", "json"]));
    assert_eq!(refused.status, 4, "{refused}");
    assert!(refused.error()["message"].as_str().unwrap().contains("berth login"), "{refused}");
    assert!(Ran::of(&mut remote(&["logout", "-o", "json"])).json()["signed_out"] == true && !kept.exists());
    // Nobody gets in without one.
    let nobody = Ran::of(&mut remote(&["list", "--server", &world.url, "--ca-cert", ca]));
    assert_eq!(nobody.status, 4, "{nobody}");
}

pub(super) fn a_setup_link_signs_in_without_a_browser(world: &World) {
    // Without a server too, of whose Postgres nothing is left then.
    world.server.ok(&["server", "stop"]);
    world.server.ok(&["server", "setup-link"]);
    assert!(!world.server.path().join("postgres/postmaster.pid").exists());
    world.server.up();
    let link = world.server.ok(&["server", "setup-link"]);
    let link = link.trim();
    assert!(link.starts_with(&world.url), "{link}");
    let elsewhere = tempfile::tempdir().unwrap();
    let ca = world.tls.path().join("cert.pem");
    let ca = ca.to_str().unwrap();
    let remote = |args: &[&str]| {
        let mut command = berth(Path::new("/nonexistent"), args);
        command.env_remove("BERTH_HOME").env("HOME", elsewhere.path());
        command
    };
    let setup = |link: &str, password: &str| {
        let args = ["setup", link, "--name", "Ada", "--email", "ada@example.com", "--ca-cert", ca, "-o", "json"];
        Ran::with_input(&mut remote(&args), password)
    };
    let short = setup(link, "short\n");
    assert!(short.status == 1 && short.stderr.contains("12"), "{short}");
    let wrong = setup(&format!("{}/setup#nonsense", world.url), "correct horse battery\n");
    assert!(wrong.status == 4 && wrong.stderr.contains("setup-link"), "{wrong}");
    let none = setup(&world.url, "correct horse battery\n");
    assert!(none.status == 1 && none.stderr.contains("no set-up link"), "{none}");
    let made = setup(link, "correct horse battery\n");
    assert!(made.status == 0 && made.json()["email"] == "ada@example.com", "{made}");
    let list = Ran::of(&mut remote(&["list", "--all", "-o", "json"]));
    assert!(list.status == 0 && list.json()[0]["id"].is_string(), "an administrator sees all: {list}");
    let tokens = Ran::of(&mut remote(&["token", "list", "-o", "json"])).json();
    assert_eq!(tokens[0]["name"], "berth setup");
    let again = setup(link, "correct horse battery\n");
    assert_eq!(again.status, 5, "{again}");
}

pub(super) fn kubectl_gets_in(world: &World) {
    let server = &world.server;
    let folder = tempfile::tempdir().unwrap();
    let (yaml, json) = (folder.path().join("yaml"), folder.path().join("json"));
    std::fs::write(&yaml, server.ok(&["kubeconfig"])).unwrap();
    std::fs::write(&json, server.json(&["kubeconfig"]).to_string()).unwrap();
    for file in [yaml, json] {
        let Ok(output) = Command::new("kubectl")
            .arg("--kubeconfig")
            .arg(&file)
            .args(["get", "workspaces.berth.dev", "--output", "name"])
            .env("HOME", folder.path())
            .output()
        else {
            eprintln!("skipped: no kubectl in the path");
            return;
        };
        let ran = Ran::from(output);
        assert!(ran.status == 0 && ran.stdout.contains("workspace.berth.dev/"), "{ran}");
    }
}
