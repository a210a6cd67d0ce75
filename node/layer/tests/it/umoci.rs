//! Beside umoci: layers over layers, with deletions.

use std::path::{Path, PathBuf};
use std::process::Command;

use berth_layer::{Limits, unpack};
use sha2::Digest as _;

use super::can_compare;
use super::random::{Marks, Random, archive};
use super::tree::{FolderTimes, describe};

/// Unmounted again at the end.
struct Overlay(PathBuf);

impl Overlay {
    /// Of folders, topmost first.
    fn mount(layers: &[PathBuf], at: &Path) -> Self {
        let lower: Vec<&str> = layers.iter().map(|path| path.to_str().unwrap()).collect();
        let options = format!("ro,userxattr,lowerdir={}", lower.join(":"));
        let mount = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(at).output().unwrap();
        assert!(mount.status.success(), "{}", String::from_utf8_lossy(&mount.stderr));
        Self(at.to_owned())
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, rustix::mount::UnmountFlags::empty());
    }
}

/// An OCI layout of these layers.
fn image(layers: &[Vec<u8>], at: &Path) {
    let blobs = at.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = sha2::Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        std::fs::write(blobs.join(&digest), bytes).unwrap();
        let size = bytes.len();
        format!(r#""mediaType":"application/vnd.oci.image.{media_type}","digest":"sha256:{digest}","size":{size}"#)
    };
    let descriptors: Vec<String> = layers.iter().map(|layer| format!("{{{}}}", put("layer.v1.tar", layer))).collect();
    let ids: Vec<String> = descriptors
        .iter()
        .map(|descriptor| format!("\"sha256:{}\"", &descriptor.split("sha256:").nth(1).unwrap()[..64]))
        .collect();
    let rootfs = format!(r#"{{"type":"layers","diff_ids":[{}]}}"#, ids.join(","));
    let config =
        put("config.v1+json", format!(r#"{{"architecture":"amd64","os":"linux","rootfs":{rootfs}}}"#).as_bytes());
    let manifest = format!(r#"{{"schemaVersion":2,"config":{{{config}}},"layers":[{}]}}"#, descriptors.join(","));
    let manifest = put("manifest.v1+json", manifest.as_bytes());
    let tag = r#""annotations":{"org.opencontainers.image.ref.name":"latest"}"#;
    std::fs::write(at.join("index.json"), format!(r#"{{"schemaVersion":2,"manifests":[{{{manifest},{tag}}}]}}"#))
        .unwrap();
    std::fs::write(at.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

/// How many images are compared: more find more, a hundred take ten seconds.
const SEEDS: u64 = 100;

#[test]
fn layers_made_by_chance_are_merged_as_umoci_merges_them() {
    if !can_compare("umoci") {
        return;
    }
    let mut compared = 0;
    for seed in 0..SEEDS {
        let random = &mut Random::new(seed);
        let (listings, layers): (Vec<_>, Vec<_>) = (0..3).map(|_| archive(random, Marks::Deletions)).unzip();
        let place = tempfile::tempdir().unwrap();
        image(&layers, &place.path().join("image"));
        let mut umoci = Command::new("umoci");
        umoci
            .args(["raw", "unpack", "--image"])
            .arg(place.path().join("image:latest"))
            .arg(place.path().join("theirs"));
        // Nearly always a link to nothing, or a file where a folder should be.
        if !umoci.output().unwrap().status.success() {
            continue;
        }
        let mut folders = Vec::new();
        for (number, layer) in layers.iter().enumerate() {
            let folder = place.path().join(number.to_string());
            std::fs::create_dir(&folder).unwrap();
            unpack(&layer[..], &folder, &folders, Limits::default()).unwrap_or_else(|error| {
                panic!("seed {seed}, layer {number}: {error}: {listings:#?}");
            });
            folders.insert(0, folder);
        }
        let merged = place.path().join("ours");
        std::fs::create_dir(&merged).unwrap();
        let overlay = Overlay::mount(&folders, &merged);
        let (ours, theirs) =
            (describe(&merged, FolderTimes::Ignored), describe(&place.path().join("theirs"), FolderTimes::Ignored));
        drop(overlay);
        assert_eq!(ours, theirs, "seed {seed}: {listings:#?}");
        compared += 1;
    }
    assert!(compared > SEEDS / 10, "{compared}");
}
