//! The host's file system is full.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_testkit::GitServer;

use crate::support::{Server, class, wait_for};

const MIB: u64 = 1 << 20;

/// A small file system of its own, mounted; gone when it is dropped.
struct Small {
    image: PathBuf,
    at: PathBuf,
}

impl Small {
    fn mount(bytes: u64) -> Option<(Self, tempfile::TempDir)> {
        let at = tempfile::Builder::new().prefix("berth-small-").tempdir_in("/var/tmp").unwrap().keep();
        let image = at.with_extension("img");
        std::fs::File::create(&image).unwrap().set_len(bytes).unwrap();
        let quiet = |program: &str, args: &[&str]| {
            Command::new(program).args(args).arg(&image).output().is_ok_and(|output| output.status.success())
        };
        let made = quiet("mkfs.ext4", &["-q", "-m", "0"]);
        let mounted = made
            && Command::new("mount")
                .args(["-o", "loop"])
                .arg(&image)
                .arg(&at)
                .status()
                .is_ok_and(|status| status.success());
        let this = Self { image, at };
        if !mounted {
            eprintln!("skipped: no loop-mounted file system can be had (root, mkfs.ext4 and mount are needed)");
            return None;
        }
        let home = tempfile::tempdir_in(&this.at).unwrap();
        Some((this, home))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.at).output();
        let _ = std::fs::remove_file(&self.image);
        let _ = std::fs::remove_dir(&self.at);
    }
}

/// Writes until nothing fits any more.
fn fill(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 1 << 12] {
        let block = vec![1_u8; size];
        while file.write_all(&block).is_ok() {}
    }
}

fn free_bytes(path: &Path) -> u64 {
    let stat = rustix::fs::statvfs(path).unwrap();
    stat.f_bavail * stat.f_frsize
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_full_disk_is_told_and_nothing_is_lost() {
    let git = GitServer::start().await.unwrap();
    let hello = git.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let Some((_small, home)) = Small::mount(1536 * MIB) else { return };
    let Some(server) = Server::prepare(home, &[git.address()]) else { return };
    server.configure(
        &format!("ready_networks = 0\nblank_disks = 0\nmin_free_disk_bytes = {}\n", 200 * MIB),
        &class("small", 256, 256),
    );
    server.up();
    server.ok(&["up", &hello.url, "--name", "first"]);
    server.ok(&["exec", "first", "--", "sh", "-c", "echo work > /root/note && sync"]);

    // Too little is left for one more: it waits in sight, and starts when there is room.
    let ballast = server.path().join("ballast");
    let size = free_bytes(server.path()).saturating_sub(120 * MIB);
    let status = Command::new("fallocate").arg("--length").arg(size.to_string()).arg(&ballast).status().unwrap();
    assert!(status.success());
    server.ok(&["up", &hello.url, "--name", "second", "--no-wait"]);
    let reason = wait_for("the reason to be shown", || {
        let shown = server.json(&["show", "second"]);
        let reason = format!("{} {}", shown["reason"], shown["receipt"]);
        reason.contains("free").then_some(reason)
    });
    assert!(reason.contains("disk"), "{reason}");
    std::fs::remove_file(&ballast).unwrap();
    server.wait_phase("second", "Running");

    // Nothing fits at all: reading goes on, writing is refused with the reason, and nothing breaks.
    fill(&ballast);
    assert_eq!(server.json(&["list"]).as_array().unwrap().len(), 2);
    assert_eq!(server.ok(&["exec", "first", "--", "cat", "/root/note"]), "work\n");
    let inside =
        server.run(&["exec", "first", "--", "sh", "-c", "head -c 200000000 /dev/zero > /root/big && sync /root/big"]);
    assert_ne!(inside.status, 0, "there was room for 200 MB: {inside}");
    std::fs::remove_file(&ballast).unwrap();

    server.ok(&["exec", "second", "--", "cat", "README.md"]);
    for name in ["first", "second"] {
        server.ok(&["stop", name]);
        server.ok(&["start", name]);
    }
    assert_eq!(server.ok(&["exec", "first", "--", "cat", "/root/note", "README.md"]), "work\nhi\n");

    // A server that starts on a full disk does not serve, says why, and leaves nothing in the next one's way.
    server.ok(&["server", "stop"]);
    fill(&ballast);
    let ran = server.run(&["server", "--detach"]);
    assert!(ran.status == 1 && ran.stderr.contains("No space left on device"), "{ran}");
    assert_eq!(server.run(&["server", "status"]).status, 6);
    std::fs::remove_file(&ballast).unwrap();
    server.up();
    assert_eq!(server.wait_phase("first", "Running")["name"], "first");
    server.close();
}
