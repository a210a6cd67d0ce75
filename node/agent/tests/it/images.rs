//! Images that come from a file, and images that nobody uses any more.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_node::image::{Digest, ImageError, Progress};
use berth_testkit::GitServer;
use serde_json::json;

use crate::registry::archive;
use crate::support::{TestNode, request, run, steps};

/// A tar file as `docker save` writes it: layers in folders, one of them a link to another with the same content.
fn saved(word: &str) -> tempfile::NamedTempFile {
    let file = tar::EntryType::Regular;
    let layers = [archive(&[("first", file, "", b"1\n")]), archive(&[("word", file, "", word.as_bytes())])];
    let diff_ids = [&layers[0], &layers[1], &layers[1]].map(|layer| Digest::of(layer));
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Env": [format!("SAVED={word}")] },
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
