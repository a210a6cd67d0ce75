use rustix::mount::MountPropagationFlags;
use rustix::thread::UnshareFlags;

use super::*;
use crate::instance::UnderWay;

/// Tests that mount need root and loop devices.
#[expect(clippy::print_stderr, reason = "a skipped test says why")]
fn store() -> Option<(tempfile::TempDir, DiskStore)> {
    if !rustix::process::geteuid().is_root() || !Path::new("/dev/loop-control").exists() {
        eprintln!("skipped: needs root and /dev/loop-control");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = DiskStore::open(dir.path().to_owned()).unwrap();
    Some((dir, store))
}

const SIZE: u64 = 64 << 20;

#[test]
fn the_last_log_stays_with_the_disk_and_goes_with_it() {
    let Some((dir, store)) = store() else { return };
    let instance = dir.path().join("instance");
    let end = |id: &str, words: &str| {
        std::fs::create_dir_all(&instance).unwrap();
        std::fs::write(instance.join(START_LOG_FILE), words).unwrap();
        store.keep_log("w1", id, &instance).unwrap();
    };
    end("i0", "no disk, no log");
    assert_eq!(store.kept_log("i0"), None);
    drop(store.take("w1", SIZE).unwrap());
    end("i1", "one");
    end("i2", "two");
    assert_eq!(store.kept_log("i1"), None, "only the last");
    let kept = store.kept_log("i2").unwrap();
    assert_eq!(std::fs::read_to_string(kept.join(START_LOG_FILE)).unwrap(), "two");
    assert_eq!(store.kept_log("../w1/log-i2"), None);
    store.delete("w1").unwrap();
    assert_eq!(store.kept_log("i2"), None);
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the instance's own folder");
}

#[test]
fn what_deleted_files_took_is_given_back() {
    let Some((_dir, store)) = store() else { return };
    let disk = store.take("w1", SIZE).unwrap();
    let cost = || store.list()[0].2;
    let before = cost();
    let file = disk.mount_point().join("upper/file");
    std::fs::write(&file, vec![1; 32 << 20]).unwrap();
    disk.sync().unwrap();
    assert!(cost() >= before + (32 << 20));
    std::fs::remove_file(&file).unwrap();
    disk.sync().unwrap();
    store.trim("w1").unwrap();
    assert!(cost() < before + (8 << 20), "{} after {before}", cost());
    assert!(store.trim("none").is_ok(), "nothing is mounted there");
    drop(disk);
    store.delete("w1").unwrap();
}

#[test]
fn a_disk_is_made_kept_and_bounded() {
    let Some((dir, store)) = store() else { return };
    let mut disk = store.take("w1", SIZE).unwrap();
    assert!(disk.fresh);
    let file = disk.mount_point().join("upper/file");
    std::fs::write(&file, b"kept").unwrap();
    disk.update(|record| record.initialized = true).unwrap();
    disk.sync().unwrap();
    assert!(matches!(store.take("w1", SIZE), Err(DiskError::Locked(_))));
    assert!(matches!(store.delete("w1"), Err(DiskError::Locked(_))));
    // More than it holds is refused by the disk, not by the host.
    let error = std::fs::write(disk.mount_point().join("upper/big"), vec![1; 80 << 20]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(28));
    drop(disk);

    // As after a restart of the agent: still mounted.
    let again = DiskStore::open(dir.path().to_owned()).unwrap();
    let disk = again.take("w1", SIZE).unwrap();
    assert!(!disk.fresh && disk.record.initialized);
    drop(disk);
    // As after a reboot: not mounted.
    filesystem::unmount(&dir.path().join("w1/mnt")).unwrap();
    let disk = again.take("w1", SIZE).unwrap();
    assert_eq!(std::fs::read(disk.mount_point().join("upper/file")).unwrap(), b"kept");
    drop(disk);
    again.delete("w1").unwrap();
    assert!(again.list().is_empty());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn an_image_is_never_behind_two_loop_devices() {
    let Some((dir, store)) = store() else { return };
    drop(store.take("w1", SIZE).unwrap());
    let other = dir.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let error = filesystem::mount(&dir.path().join("w1/disk.img"), &other).unwrap_err();
    assert!(matches!(error, FileSystemError::InUse { .. }), "{error}");
    std::fs::remove_dir(other).unwrap();
    store.delete("w1").unwrap();
}

#[test]
fn without_a_loop_device_the_reason_is_told_and_nothing_is_left() {
    let Some((dir, store)) = store() else { return };
    drop(store.take("old", SIZE).unwrap());
    filesystem::unmount(&dir.path().join("old/mnt")).unwrap();
    let without = store.clone();
    // For one thread the machine has none.
    let told = std::thread::spawn(move || {
        hull_sys::sandbox_process::unshare_namespaces(UnshareFlags::NEWNS | UnshareFlags::FS).unwrap();
        rustix::mount::mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE).unwrap();
        rustix::mount::mount_bind("/dev/null", "/dev/loop-control").unwrap();
        ["new", "new", "old"].map(|name| without.take(name, SIZE).unwrap_err().to_string())
    });
    for told in told.join().unwrap() {
        assert!(told.starts_with("no loop device for ") && told.contains("/dev/loop-control"), "{told}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "the old disk alone");
    for name in ["new", "old"] {
        drop(store.take(name, SIZE).unwrap());
        store.delete(name).unwrap();
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_disk_is_left_as_it_is() {
    let Some((dir, store)) = store() else { return };
    drop(store.take("w1", SIZE).unwrap());
    filesystem::unmount(&dir.path().join("w1/mnt")).unwrap();
    let image = dir.path().join("w1/disk.img");
    let mut bytes = std::fs::read(&image).unwrap();
    // Superblock and every group descriptor after it.
    bytes[1024..64 * 1024].fill(0xff);
    std::fs::write(&image, &bytes).unwrap();
    let error = store.take("w1", SIZE).unwrap_err();
    assert!(matches!(error, DiskError::FileSystem(FileSystemError::Damaged { .. })), "{error}");
    assert_eq!(std::fs::read(&image).unwrap(), bytes);
    store.delete("w1").unwrap();
}

#[tokio::test]
async fn blanks_are_made_ahead_and_survive_a_restart() {
    let Some((dir, store)) = store() else { return };
    store.want_blanks(&[SIZE].into(), 1);
    {
        let keep = store.keep_blanks(UnderWay::default().quiet());
        tokio::pin!(keep);
        while store.inner.blanks.lock().unwrap().get(&SIZE).is_none_or(Vec::is_empty) {
            tokio::select! {
                () = &mut keep => unreachable!(),
                () = tokio::task::yield_now() => {}
            }
        }
    }
    let again = DiskStore::open(dir.path().to_owned()).unwrap();
    let blank = again.inner.blanks.lock().unwrap().get(&SIZE).unwrap()[0].clone();
    let disk = again.take("w1", SIZE).unwrap();
    assert!(disk.fresh && !blank.exists());
    drop(disk);
    again.delete("w1").unwrap();
    again.close().unwrap();
}
