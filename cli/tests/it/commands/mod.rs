//! Every command, on one server.

mod automations;
mod everyday;
mod inside;
mod remote;
mod settings;

use berth_testkit::GitServer;
use serde_json::Value;

use crate::support::Server;

/// What the commands work with.
struct World {
    server: Server,
    /// `http://127.0.0.1:PORT/acme/hello.git`, with the branch `feature` beside `main`.
    hello: berth_testkit::Repository,
    /// Wants `ada` and [`SECRET`].
    hidden: berth_testkit::Repository,
    /// The folder of a certificate for 127.0.0.1 (`cert.pem`, which is its own CA) and its key (`key.pem`).
    tls: tempfile::TempDir,
    /// Where the server listens with it.
    url: String,
}

/// The password of the private repository.
const SECRET: &str = "s3cret-of-ada-0815";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_command_does_what_it_says() {
    let open = GitServer::start().await.unwrap();
    let private = GitServer::start_private("ada", SECRET).await.unwrap();
    let hello = open
        .repository("acme", "hello", &[("README.md", "hi\n"), (".berth/automations.yaml", automations::FILE)])
        .unwrap();
    hello.commit("feature", "a feature", &[("feature.txt", "new\n")]).unwrap();
    let hidden = private.repository("acme", "hidden", &[("README.md", "for ada only\n")]).unwrap();
    let tls = remote::certificate();

    let home = tempfile::Builder::new().prefix("berth-cli-").tempdir_in("/var/tmp").unwrap();
    let Some(mut server) = Server::prepare(home, &[open.address(), private.address()]) else { return };
    server.configure(
        "ready_networks = 0\nblank_disks = 0",
        &format!("[scm.hosts]\n\"{}\" = \"gitea\"\n", open.address()),
    );
    let address = format!("127.0.0.1:{}", crate::support::free_port());
    let (certificate, key) = (tls.path().join("cert.pem"), tls.path().join("key.pem"));
    server.set_args(&[
        "--listen",
        &address,
        "--tls-cert",
        certificate.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ]);
    server.up();
    let world = World { server, hello, hidden, tls, url: format!("https://{address}") };

    // One workspace serves most of what follows.
    everyday::a_workspace_is_opened(&world);
    inside::commands_run(&world);
    inside::shells_outlive_their_terminals(&world);
    inside::files_are_copied(&world);
    inside::ports_are_listed_and_forwarded(&world);
    automations::tasks_and_services_run(&world);
    everyday::a_workspace_stops_and_starts_with_its_files(&world);
    automations::output_outlives_the_run(&world);
    everyday::ways_to_open(&world);
    everyday::mistakes_have_their_status(&world);
    settings::a_private_repository_is_worked_on_and_its_secret_stays_hidden(&world);
    settings::lists_are_shown(&world);
    settings::images_are_listed_and_imported_beside_the_server(&world);
    remote::a_token_signs_in_over_tls(&world);
    remote::kubectl_gets_in(&world);
    settings::a_support_bundle_has_no_secrets(&world);
    settings::the_server_is_stopped_and_started(&world);
    remote::a_setup_link_signs_in_without_a_browser(&world);
    world.server.close();
}

/// Every field that programs rely on is there.
fn assert_workspace(value: &Value) {
    let fields = [
        "id",
        "name",
        "phase",
        "reason",
        "repository",
        "ref",
        "commit",
        "class",
        "created_at",
        "started_at",
        "receipt",
    ];
    for field in fields {
        assert!(value.get(field).is_some(), "no {field} in {value}");
    }
}
