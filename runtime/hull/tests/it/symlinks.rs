//! Mount options for symlinks, as crun has them.

use std::os::unix::fs::symlink;

use hull::spec::Mount;

use crate::bundle::{Bundle, bundle, text};

/// A bundle that shows a folder of its own at /tmp, and then makes one bind mount.
fn mounting(name: &str, script: &str, source: &str, destination: &str, option: &str) -> Option<Bundle> {
    let mut b = bundle(name, script)?;
    std::fs::create_dir(b.path().join("outside")).unwrap();
    let bind = |source: &str, destination: &str, options: &[&str]| Mount {
        destination: destination.to_owned(),
        source: Some(source.to_owned()),
        options: options.iter().map(|o| (*o).to_owned()).collect(),
        ..Mount::default()
    };
    b.spec.mounts.push(bind("outside", "/tmp", &["bind"]));
    b.spec.mounts.push(bind(source, destination, &["bind", option]));
    b.write();
    Some(b)
}

#[test]
fn a_symlink_is_copied_where_nothing_else_is() {
    let Some(b) = mounting("copied", "ls -l /tmp/link", "link", "/tmp/link", "copy-symlink") else { return };
    symlink("somewhere", b.path().join("link")).unwrap();
    for time in ["made", "found"] {
        let said = text(&b.hull(&["run", &b.id]).stdout);
        assert!(said.ends_with("/tmp/link -> somewhere"), "{time}: {said}");
    }
    let copy = b.path().join("outside/link");
    std::fs::remove_file(&copy).unwrap();
    symlink("elsewhere", &copy).unwrap();
    let output = b.hull(&["run", &b.id]);
    assert!(!output.status.success() && text(&output.stderr).contains("/tmp/link"), "{}", text(&output.stderr));
}

#[test]
fn a_mount_covers_a_symlink_instead_of_following_it() {
    let Some(b) = mounting("covered", "cat /tmp/link /etc/file", "file", "/tmp/link", "dest-nofollow") else { return };
    std::fs::write(b.path().join("file"), "mounted\n").unwrap();
    std::fs::write(b.path().join("rootfs/etc/file"), "untouched\n").unwrap();
    symlink("/etc/file", b.path().join("outside/link")).unwrap();
    let output = b.hull(&["run", &b.id]);
    assert_eq!(text(&output.stdout), "mounted\nuntouched", "{}", text(&output.stderr));
}
