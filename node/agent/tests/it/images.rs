//! Images that come from a file, and images that nobody uses any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_node::image::{Digest, ImageError, Progress};
use berth_testkit::GitServer;
use serde_json::json;

use crate::registry::archive;
use crate::support::{TestNode, derive, request, run, steps};

/// A tar file as `docker save` writes it: layers in folders, one of them a link to another with the same content.
fn saved(word: &str) -> tempfile::NamedTempFile {
    let file = tar::EntryType::Regular;
    let layers = [archive(&[("first", file, "", b"1\n")]), archive(&[("word", file, "", word.as_bytes())])];
    save(word, "amd64", &layers)
}

fn save(word: &str, architecture: &str, layers: &[Vec<u8>; 2]) -> tempfile::NamedTempFile {
    let diff_ids = [&layers[0], &layers[1], &layers[1]].map(|layer| Digest::of(layer));
    let config = json!({
        "architecture": architecture, "os": "linux", "config": { "Env": [format!("SAVED={word}")] },
        "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let manifest = json!([{
        "Config": "config.json", "RepoTags": ["team/app:1"], "Layers": ["a/layer.tar", "b/layer.tar", "c/layer.tar"],
    }]);
    let (config, manifest) = (config.to_string(), manifest.to_string());
    let members: [(&str, &[u8]); 4] = [
        ("a/layer.tar", &layers[0]),
        ("b/layer.tar", &layers[1]),
        ("config.json", config.as_bytes()),
        ("manifest.json", manifest.as_bytes()),
    ];
    let written = tempfile::NamedTempFile::new().unwrap();
    let mut builder = tar::Builder::new(written.reopen().unwrap());
    for (name, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, content).unwrap();
    }
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "c/layer.tar", "../b/layer.tar").unwrap();
    builder.finish().unwrap();
    written
}

#[tokio::test(flavor = "multi_thread")]
async fn saved_images_are_imported_and_unused_ones_are_removed() {
    let Some(t) = TestNode::open().await else { return };
    let images = t.node.images();
    let blobs = t.node.config().home.join("node/images/blobs/sha256");
    let quiet: Progress = Arc::new(|_| {});
    let (used_file, unused_file) = (saved("used"), saved("unused"));
    let used = images.import(used_file.path().to_owned(), "berth/used:1".parse().unwrap()).await.unwrap();
    let unused = images.import(unused_file.path().to_owned(), "berth/unused:1".parse().unwrap()).await.unwrap();
    let image = images.by_digest(used, quiet.clone()).await.unwrap();
    assert_eq!(image.config.env, ["SAVED=used"]);
    // Uppermost first, the linked one twice.
    let words: Vec<String> =
        image.layers[..2].iter().map(|layer| std::fs::read_to_string(layer.join("word")).unwrap()).collect();
    assert_eq!((image.layers.len(), words), (3, vec!["used".to_owned(), "used".to_owned()]));
    assert_eq!(std::fs::read_to_string(image.layers[2].join("first")).unwrap(), "1\n");
    let gone = images.by_digest(unused, quiet.clone()).await.unwrap().layers;

    // While it is young it stays.
    let keep = || BTreeSet::from([used]);
    images.collect(keep(), Duration::from_secs(3600)).await.unwrap();
    images.by_digest(unused, quiet.clone()).await.unwrap();
    assert!(images.collect(keep(), Duration::ZERO).await.unwrap() > 0);
    assert!(!blobs.join(unused.hex()).exists() && !gone[0].exists());
    assert!(matches!(images.by_digest(unused, quiet.clone()).await, Err(ImageError::Lost(_))));
    assert_eq!(images.collect(keep(), Duration::ZERO).await.unwrap(), 0, "nothing more to remove");
    // What is used is whole, also the layer that both had; and so is the base image.
    let image = images.by_digest(used, quiet).await.unwrap();
    assert!(image.layers.iter().all(|layer| layer.exists()) && image.layers[2] == gone[2]);
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let wanted = request(1, &repository, "main");
    t.node.start(wanted.clone(), &steps(), &Default::default()).await.unwrap();
    let status = run(&t.node, &wanted.instance_id, &["git", "status", "--short", "--branch"]).await.unwrap();
    assert_eq!(status, "## main...origin/main");
    t.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_can_start_nowhere_is_refused_at_once_with_the_reason() {
    let Some(t) = TestNode::open().await else { return };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let (file, folder) = (tar::EntryType::Regular, tar::EntryType::Directory);
    let first = archive(&[("first", file, "", b"1\n")]);
    let taken = archive(&[("etc", folder, "", b""), ("etc/resolv.conf", folder, "", b"")]);
    let host = archive(&[("etc", tar::EntryType::Symlink, "/proc/1/root", b"")]);
    let cases = [
        ("host", save("x", "amd64", &[first.clone(), host]), "/etc/hosts is behind a link into the kernel's files"),
        ("taken", save("x", "amd64", &[first.clone(), taken]), "/etc/resolv.conf is a folder"),
        ("foreign", save("x", "s390x", &[first.clone(), first]), "it is for s390x"),
    ];
    for (number, (name, saved, part)) in cases.into_iter().enumerate() {
        let name = format!("berth/{name}:1");
        t.node.images().import(saved.path().to_owned(), name.parse().unwrap()).await.unwrap();
        let mut wanted = request(u32::try_from(number).unwrap(), &repository, "main");
        wanted.image = Some(name.clone());
        let error = t.node.start(wanted, &steps(), &Default::default()).await.unwrap_err();
        assert!(!error.may_pass() && error.to_string().contains(part), "{name}: {error}");
    }
    for (number, user, part) in [(8, "nosuch", "there is no user nosuch"), (9, "70000", "among the ids of a workspace")]
    {
        let name = format!("berth/user-{user}:1");
        derive(&t.node, &name, user).await;
        let mut wanted = request(number, &repository, "main");
        wanted.image = Some(name);
        let error = t.node.start(wanted, &steps(), &Default::default()).await.unwrap_err();
        assert!(!error.may_pass() && error.to_string().contains(part), "{user}: {error}");
    }
    t.close().await;
}
