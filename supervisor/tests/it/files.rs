//! Files in and out.

use std::io::{Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use berth_supervisor_protocol::client::{Client, Incoming};
use berth_supervisor_protocol::{
    CopyIn, CopyOut, ErrorCode, Event, Exec, ExitStatus, FileType, Kind, Reply, Request, WriteFile,
};
use std::os::unix::net::UnixStream;

use crate::harness::{Supervisor, berth_init, skip_unless_root};

/// Content up to its end, and the event after it.
fn content(client: &mut Client<UnixStream>) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        match client.receive().unwrap() {
            Some(Incoming::Bytes(Kind::Stdout, bytes)) if bytes.is_empty() => return content,
            Some(Incoming::Bytes(Kind::Stdout, bytes)) => content.extend(bytes),
            other => panic!("{other:?}"),
        }
    }
}

fn end(client: &mut Client<UnixStream>) -> Event {
    match client.receive().unwrap() {
        Some(Incoming::Event(event)) => event,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_file_goes_in_and_out() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let dir = supervisor.dir().join("files");
    let path = dir.join("deep/file").to_str().unwrap().to_owned();
    let bytes: Vec<u8> = (0..500_000u32).map(|index| u8::try_from(index % 241).unwrap()).collect();
    let write = WriteFile { path: path.clone(), mode: Some(0o640), create_dirs: true, user: None };
    // Content may follow at once, before the reply: nothing of it may be lost on the way to the worker.
    let mut wire = Vec::new();
    berth_supervisor_protocol::encode_json(&Request::WriteFile(write), &mut wire).unwrap();
    berth_supervisor_protocol::encode_frame(Kind::Stdin, &bytes, &mut wire).unwrap();
    berth_supervisor_protocol::encode_frame(Kind::Stdin, &[], &mut wire).unwrap();
    let mut stream = supervisor.stream();
    stream.write_all(&wire).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let mut reader = berth_supervisor_protocol::FrameReader::new();
    reader.push(&answer);
    assert!(matches!(reader.next_frame().unwrap().unwrap().json().unwrap(), Reply::Ready));
    assert!(matches!(reader.next_frame().unwrap().unwrap().json().unwrap(), Event::Done));
    assert!(std::fs::read(&path).unwrap() == bytes);
    assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o7777, 0o640);

    let mut client = supervisor.client();
    let Reply::File(info) =
        client.request(&Request::ReadFile { path: path.clone(), max_bytes: 1 << 20, user: None }).unwrap()
    else {
        panic!()
    };
    assert_eq!((info.size_bytes, info.truncated, info.file_type), (500_000, false, FileType::File));
    assert!(content(&mut client) == bytes);
    let mut client = supervisor.client();
    let Reply::File(info) =
        client.request(&Request::ReadFile { path: path.clone(), max_bytes: 10, user: None }).unwrap()
    else {
        panic!()
    };
    assert!(info.truncated);
    assert_eq!(content(&mut client), bytes[..10]);
    assert!(
        matches!(supervisor.reply(&Request::Stat { path: dir.to_str().unwrap().to_owned(), user: None }), Reply::File(info) if info.file_type == FileType::Directory)
    );
}

#[test]
fn a_write_that_breaks_off_leaves_the_old_file() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let path = supervisor.dir().join("kept");
    std::fs::write(&path, "old").unwrap();
    let mut client = supervisor.client();
    client
        .request(&Request::WriteFile(WriteFile { path: path.to_str().unwrap().to_owned(), ..WriteFile::default() }))
        .unwrap();
    client.bytes(Kind::Stdin, b"new, but not all").unwrap();
    drop(client);
    crate::harness::eventually("the temporary file is gone", || {
        std::fs::read_dir(supervisor.dir())
            .unwrap()
            .flatten()
            .all(|entry| !entry.file_name().to_string_lossy().contains("berth-"))
    });
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
}

#[test]
fn errors_name_the_file_and_the_user_counts() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let secret = supervisor.dir().join("secret");
    std::fs::write(&secret, "x").unwrap();
    std::fs::set_permissions(&secret, PermissionsExt::from_mode(0o600)).unwrap();
    let secret = secret.to_str().unwrap();
    let read = |path: &str, user: Option<&str>| {
        supervisor.refusal(&Request::ReadFile { path: path.to_owned(), max_bytes: 1, user: user.map(str::to_owned) })
    };
    let (code, message) = read("/no/such/file", None);
    assert!(code == ErrorCode::NotFound && message.contains("/no/such/file"), "{message}");
    assert_eq!(read(secret, Some("nobody")).0, ErrorCode::PermissionDenied);
    assert_eq!(read("/etc", None).0, ErrorCode::BadRequest);
    assert_eq!(read("/dev/zero", None).0, ErrorCode::BadRequest);
    assert_eq!(read(secret, Some("nosuchuser")).0, ErrorCode::NotFound);
    let pipe = supervisor.dir().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    assert_eq!(read(pipe.to_str().unwrap(), None).0, ErrorCode::BadRequest);
    assert_eq!(read(&"x".repeat(70_000), None).0, ErrorCode::BadRequest);
}

#[test]
fn a_tree_goes_out_and_in_again() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let tree = supervisor.dir().join("tree");
    std::fs::create_dir_all(tree.join("sub")).unwrap();
    std::fs::write(tree.join("sub/file"), "content").unwrap();
    std::fs::set_permissions(tree.join("sub/file"), PermissionsExt::from_mode(0o751)).unwrap();
    std::fs::write(tree.join("x".repeat(150)), "long name").unwrap();
    std::os::unix::fs::symlink("sub/file", tree.join("link")).unwrap();
    std::fs::set_permissions(tree.join("sub"), PermissionsExt::from_mode(0o555)).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(tree.join("socket")).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(tree.join("pipe")).status().unwrap().success());

    let mut client = supervisor.client();
    client
        .request(&Request::CopyOut(CopyOut { path: tree.to_str().unwrap().to_owned(), ..CopyOut::default() }))
        .unwrap();
    let tar = content(&mut client);
    assert!(matches!(end(&mut client), Event::Done));
    // What has no content is told of.
    let mut archive = tar::Archive::new(&tar[..]);
    let entries = archive.entries().unwrap().map(Result::unwrap);
    let pipes: std::collections::BTreeSet<_> = entries
        .filter(|entry| entry.header().entry_type() == tar::EntryType::Fifo)
        .map(|entry| entry.path().unwrap().into_owned())
        .collect();
    assert_eq!(pipes, ["tree/pipe", "tree/socket"].map(Into::into).into());

    let target = supervisor.dir().join("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::set_permissions(&target, PermissionsExt::from_mode(0o777)).unwrap();
    let mut client = supervisor.client();
    let copy = CopyIn {
        path: target.to_str().unwrap().to_owned(),
        rename_to: Some("renamed".to_owned()),
        user: Some("nobody".to_owned()),
        ..CopyIn::default()
    };
    client.request(&Request::CopyIn(copy)).unwrap();
    client.bytes(Kind::Stdin, &tar).unwrap();
    client.bytes(Kind::Stdin, b"").unwrap();
    assert!(matches!(end(&mut client), Event::Done));
    let copied = target.join("renamed");
    assert_eq!(std::fs::read_to_string(copied.join("link")).unwrap(), "content");
    assert_eq!(std::fs::read_to_string(copied.join("x".repeat(150))).unwrap(), "long name");
    let metadata = std::fs::metadata(copied.join("sub/file")).unwrap();
    assert_eq!((metadata.mode() & 0o7777, metadata.uid()), (0o751, 65534));
    assert_eq!(std::fs::metadata(copied.join("sub")).unwrap().mode() & 0o7777, 0o555);
    assert!(!copied.join("socket").exists() && !copied.join("pipe").exists());
}

#[test]
fn a_stream_cannot_climb_out() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let target = supervisor.dir().join("target");
    std::fs::create_dir(&target).unwrap();
    let outside = supervisor.dir().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let entry = |builder: &mut tar::Builder<Vec<u8>>, name: &str, link: Option<&str>| {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_mode(0o644);
        header.set_size(if link.is_some() { 0 } else { 1 });
        if let Some(link) = link {
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_link_name(link).unwrap();
        }
        header.set_cksum();
        builder.append(&header, if link.is_some() { &b""[..] } else { &b"x"[..] }).unwrap();
    };
    let through_link: &dyn Fn(&mut tar::Builder<Vec<u8>>) = &|builder| {
        entry(builder, "link", Some(outside.to_str().unwrap()));
        entry(builder, "link/file", None);
    };
    let upwards: &dyn Fn(&mut tar::Builder<Vec<u8>>) = &|builder| entry(builder, "a/../../outside/file", None);
    for make in [through_link, upwards] {
        let mut builder = tar::Builder::new(Vec::new());
        make(&mut builder);
        let tar = builder.into_inner().unwrap();
        let mut client = supervisor.client();
        client
            .request(&Request::CopyIn(CopyIn { path: target.to_str().unwrap().to_owned(), ..CopyIn::default() }))
            .unwrap();
        client.bytes(Kind::Stdin, &tar).unwrap();
        // It may have refused, and hung up, already.
        drop(client.bytes(Kind::Stdin, b""));
        assert!(matches!(end(&mut client), Event::Failed { code: ErrorCode::BadRequest, .. }));
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    }
}

#[test]
fn git_status_is_counted() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let repository = supervisor.dir().join("repository");
    let path = repository.to_str().unwrap().to_owned();
    assert_eq!(supervisor.refusal(&Request::GitStatus { path: "/proc".to_owned() }).0, ErrorCode::NotFound);
    let made = supervisor.sh(&format!(
        "export HOME=/nowhere; git init -q -b main {path} && cd {path} && echo a > a && git add a && git -c user.name=t -c user.email=t@example.com commit -qm one && echo b >> a && echo c > c"
    ));
    assert!(made.stderr.is_empty(), "{}", String::from_utf8_lossy(&made.stderr));
    let Reply::GitStatus(status) = supervisor.reply(&Request::GitStatus { path }) else { panic!("no status") };
    assert_eq!((status.branch.as_deref(), status.changed, status.untracked), (Some("main"), 1, 1));
    assert!(status.commit.is_some());
}

#[test]
fn the_checkouts_folder_is_made_without_programs_of_the_image() {
    if skip_unless_root() {
        return;
    }
    let supervisor = Supervisor::start();
    let folder = |arguments: &[&str]| {
        let argv = [&*berth_init(), "folder"].iter().chain(arguments).map(|word| (*word).to_owned()).collect();
        let output = supervisor.run(Exec { argv, ..Exec::default() });
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, failed) = (ExitStatus::Code(0), ExitStatus::Code(1));
    let at = supervisor.dir().join("deep/er/folder");
    let path = at.to_str().unwrap();
    assert_eq!(folder(&["make", path, "nobody"]), (done, String::new()));
    let metadata = std::fs::metadata(&at).unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (65534, 65534));
    assert_eq!(std::fs::metadata(at.parent().unwrap()).unwrap().uid(), 0);
    let (status, complaint) = folder(&["make", path, "nosuch"]);
    assert!(status == failed && complaint.contains("no user nosuch in the workspace's /etc/passwd"), "{complaint}");
    std::fs::write(at.join("file"), "x").unwrap();
    let aside = format!("{path}.aside");
    assert_eq!(folder(&["rename", path, &aside]), (done, String::new()));
    assert!(!at.exists() && std::path::Path::new(&aside).join("file").exists());
    for _ in 0..2 {
        assert_eq!(folder(&["remove", &aside]), (done, String::new()));
        assert!(!std::path::Path::new(&aside).exists());
    }
    let (status, complaint) = folder(&["rename", path, &aside]);
    assert!(status == failed && complaint.contains(path), "{complaint}");
    assert_eq!(folder(&["chmod", path]).0, failed);
}
