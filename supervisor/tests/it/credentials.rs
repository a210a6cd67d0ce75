//! The credential helper, from git's side and the host's.

use berth_supervisor_protocol::client::Incoming;
use berth_supervisor_protocol::{Control, CredentialRequest, Event, Exec, Kind, Reply, Request, Secret};

use crate::harness::{Supervisor, berth_init, collect, skip_unless_root};

/// Starts the helper in the workspace, as git does; then: what git would get, and what the user would see.
fn helper(supervisor: &Supervisor, user: &str) -> impl FnOnce() -> (String, String) + use<> {
    let run_dir = supervisor.run_dir().to_str().unwrap().to_owned();
    let program = berth_init();
    let argv = [program.as_str(), "git-credential", "--run-dir", &run_dir, "get"].map(str::to_owned).to_vec();
    let mut client = supervisor.client();
    let exec = Exec { argv, stdin: true, user: Some(user.to_owned()), cwd: Some("/".to_owned()), ..Exec::default() };
    client.request(&Request::Exec(exec)).unwrap();
    client.bytes(Kind::Stdin, b"protocol=https\nhost=git.example.com\npath=o/r.git\n\n").unwrap();
    move || {
        let output = collect(&mut client);
        (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn git_is_given_what_the_host_answers() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut server = supervisor.client();
    assert!(matches!(server.request(&Request::CredentialsServe).unwrap(), Reply::Ready));
    let mut question = || -> CredentialRequest {
        match server.receive().unwrap() {
            Some(Incoming::Event(Event::CredentialRequest(question))) => question,
            other => panic!("{other:?}"),
        }
    };
    let asked = helper(&supervisor, "0");
    let request = question();
    assert_eq!(
        (request.protocol.as_str(), request.host.as_str(), request.path.as_deref()),
        ("https", "git.example.com", Some("o/r.git"))
    );
    server
        .control(&Control::CredentialReply { id: request.id, username: "u".to_owned(), password: Secret::new("p=1") })
        .unwrap();
    assert_eq!(asked(), ("username=u\npassword=p=1\n".to_owned(), String::new()));

    let mut question = || match server.receive().unwrap() {
        Some(Incoming::Event(Event::CredentialRequest(question))) => question.id,
        other => panic!("{other:?}"),
    };
    let asked = helper(&supervisor, "0");
    let id = question();
    server
        .control(&Control::CredentialDeny { id, reason: "add one with: berth git-credential add".to_owned() })
        .unwrap();
    let (out, err) = asked();
    assert!(out.is_empty() && err.contains("berth git-credential add"), "{err}");

    // A line end would smuggle a field in.
    let mut question = || match server.receive().unwrap() {
        Some(Incoming::Event(Event::CredentialRequest(question))) => question.id,
        other => panic!("{other:?}"),
    };
    let asked = helper(&supervisor, "0");
    let id = question();
    server
        .control(&Control::CredentialReply { id, username: "u\nhost=evil".to_owned(), password: Secret::new("p") })
        .unwrap();
    assert_eq!(asked().0, "");
}

#[test]
fn other_users_are_not_served() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start_with(&["--user", "nobody"]);
    let mut server = supervisor.client();
    server.request(&Request::CredentialsServe).unwrap();
    let (out, err) = helper(&supervisor, "1:1")();
    assert!(out.is_empty() && err.contains("only the workspace's user"), "{err}");
    let asked = helper(&supervisor, "nobody");
    let Some(Incoming::Event(Event::CredentialRequest(question))) = server.receive().unwrap() else {
        panic!("no question")
    };
    server
        .control(&Control::CredentialReply { id: question.id, username: "u".to_owned(), password: Secret::new("p") })
        .unwrap();
    assert_eq!(asked().0, "username=u\npassword=p\n");
}

#[test]
fn a_server_that_comes_late_is_still_asked() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let mut gone = supervisor.client();
    gone.request(&Request::CredentialsServe).unwrap();
    let asked = helper(&supervisor, "0");
    assert!(matches!(gone.receive().unwrap(), Some(Incoming::Event(Event::CredentialRequest(_)))));
    // The server restarts in the middle of the question.
    drop(gone);
    let mut server = supervisor.client();
    server.request(&Request::CredentialsServe).unwrap();
    let Some(Incoming::Event(Event::CredentialRequest(question))) = server.receive().unwrap() else {
        panic!("no question")
    };
    server
        .control(&Control::CredentialReply { id: question.id, username: "u".to_owned(), password: Secret::new("p") })
        .unwrap();
    assert_eq!(asked().0, "username=u\npassword=p\n");
}
