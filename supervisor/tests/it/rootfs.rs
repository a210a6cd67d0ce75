//! The root file system helper, on real mounts.

use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use berth_sandbox::rootfs::{Request, Rootfs, RootfsError, build};

use crate::harness::{berth_init, skip_unless_root};

/// First uid of the range that stands for a workspace's.
const BASE: u32 = 1_500_000;

/// A tmpfs with a layer and a disk, unmounted at the end. Not every file system can be id-mapped: tmpfs can since Linux 6.3.
struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The folders above belong to the host's root alone, as they do under `/var/lib/berth`.
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o700)).unwrap();
        let ground = Self { dir };
        assert!(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(ground.path("")).status().unwrap().success());
        for name in ["bottom", "top", "disk", "mnt"] {
            std::fs::create_dir(ground.path(name)).unwrap();
        }
        Request::prepare_disk(&ground.path("disk")).unwrap();
        ground
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn request(&self) -> Request {
        Request {
            uid_base: BASE,
            gid_base: BASE,
            id_count: 65536,
            layers: vec![self.path("top"), self.path("bottom")],
            disk: self.path("disk"),
            upper: "upper".to_owned(),
            work: "work".to_owned(),
        }
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for name in ["mnt", ""] {
            let _ = Command::new("umount").arg("-l").arg(self.path(name)).stderr(std::process::Stdio::null()).status();
        }
    }
}

/// Runs a shell line as root of the workspace's user namespace, in the mounted root file system.
fn inside(rootfs: &Rootfs, at: &Path, uid: u32, line: &str) -> (String, bool) {
    let output = Command::new("nsenter")
        .arg(format!("--user=/proc/{}/fd/{}", std::process::id(), rootfs.userns.as_raw_fd()))
        .args(["--setuid", &uid.to_string(), "--setgid", &uid.to_string()])
        .args(["sh", "-c", line])
        .env("R", at)
        .current_dir(at)
        .output()
        .unwrap();
    (
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
            .trim()
            .to_owned(),
        output.status.success(),
    )
}

#[test]
fn owners_inside_and_on_the_disk_are_the_containers() {
    if skip_unless_root() {
        return;
    }
    let ground = Ground::new();
    std::fs::write(ground.path("bottom/lower"), "from the image").unwrap();
    std::fs::create_dir(ground.path("bottom/home")).unwrap();
    std::os::unix::fs::chown(ground.path("bottom/home"), Some(1000), Some(1000)).unwrap();
    std::fs::write(ground.path("top/lower"), "from the top layer").unwrap();
    let rootfs = build(berth_init().as_ref(), &ground.request()).unwrap();
    let mnt = ground.path("mnt");
    rootfs.attach(&mnt).unwrap();

    // From the host, everything belongs to the workspace's range.
    assert_eq!(std::fs::metadata(mnt.join("lower")).unwrap().uid(), BASE);
    assert_eq!(std::fs::metadata(mnt.join("home")).unwrap().uid(), BASE + 1000);
    assert_eq!(std::fs::read_to_string(mnt.join("lower")).unwrap(), "from the top layer");

    // The folders above are 0700 of the host's root: the current directory is inherited instead.
    let (text, _) = inside(&rootfs, &mnt, 0, "id -u; stat -c %u lower home");
    assert_eq!(text, "0\n0\n1000");
    let (text, good) = inside(
        &rootfs,
        &mnt,
        0,
        "echo new > made && chown 1000:1000 made && echo more >> lower && mkdir -p d/e && chown 33 d",
    );
    assert!(good, "{text}");
    let (text, good) = inside(&rootfs, &mnt, 1000, "echo mine > home/file && echo no > lower");
    assert!(!good && text.contains("ermission denied"), "{text}");

    // On the disk: the container's own numbers, so that layers need no rewriting.
    let owner =
        |name: &str| std::fs::metadata(ground.path("disk/upper").join(name)).map(|metadata| metadata.uid()).unwrap();
    assert_eq!((owner("made"), owner("lower"), owner("d"), owner("d/e"), owner("home/file")), (1000, 0, 33, 0, 1000));
    assert_eq!(
        std::fs::read_to_string(ground.path("top/lower")).unwrap(),
        "from the top layer",
        "layers stay as they are"
    );
    let (text, good) = inside(&rootfs, &mnt, 0, "rm lower && ! test -e lower");
    assert!(good, "{text}");
}

#[test]
fn what_an_image_leaves_out_is_made_and_what_it_has_stays() {
    if skip_unless_root() {
        return;
    }
    let ground = Ground::new();
    let mnt = ground.path("mnt");
    let look = |rootfs: &Rootfs| inside(rootfs, &mnt, 0, "stat -c '%n %a %u %g %F' tmp root").0;
    let rootfs = build(berth_init().as_ref(), &ground.request()).unwrap();
    rootfs.attach(&mnt).unwrap();
    assert_eq!(look(&rootfs), "tmp 1777 0 0 directory\nroot 700 0 0 directory");
    let (text, good) = inside(&rootfs, &mnt, 1000, "echo mine > tmp/file");
    assert!(good, "{text}");
    assert!(inside(&rootfs, &mnt, 0, "rmdir root").1);
    drop(rootfs);
    assert!(Command::new("umount").arg(&mnt).status().unwrap().success());
    std::fs::create_dir_all(ground.path("top/root")).unwrap();
    std::fs::set_permissions(ground.path("top/root"), PermissionsExt::from_mode(0o750)).unwrap();
    std::os::unix::fs::chown(ground.path("top/root"), Some(5), Some(6)).unwrap();
    let ground_again = Request { upper: "other".to_owned(), ..ground.request() };
    std::fs::create_dir(ground.path("disk/other")).unwrap();
    std::os::unix::fs::symlink("var/tmp", ground.path("bottom/tmp")).unwrap();
    let rootfs = build(berth_init().as_ref(), &ground_again).unwrap();
    rootfs.attach(&mnt).unwrap();
    assert_eq!(look(&rootfs), "tmp 777 0 0 symbolic link\nroot 750 5 6 directory");
}

#[test]
fn what_a_workspace_wrote_is_there_at_its_next_start_with_other_ids() {
    if skip_unless_root() {
        return;
    }
    let ground = Ground::new();
    let first = build(berth_init().as_ref(), &ground.request()).unwrap();
    let mnt = ground.path("mnt");
    first.attach(&mnt).unwrap();
    assert!(inside(&first, &mnt, 0, "echo kept > file && chown 7:7 file").1);
    drop(first);
    assert!(Command::new("umount").arg(&mnt).status().unwrap().success());
    let second =
        build(berth_init().as_ref(), &Request { uid_base: BASE + 65536, gid_base: BASE + 65536, ..ground.request() })
            .unwrap();
    second.attach(&mnt).unwrap();
    assert_eq!(inside(&second, &mnt, 0, "cat file; stat -c %u file").0, "kept\n7");
    assert_eq!(std::fs::metadata(mnt.join("file")).unwrap().uid(), BASE + 65536 + 7);
}

#[test]
fn setuid_programs_work_inside_and_gain_nothing_outside() {
    if skip_unless_root() {
        return;
    }
    let Ok(program) = std::fs::read("/usr/bin/id") else {
        println!("skipped: no /usr/bin/id to make setuid");
        return;
    };
    let ground = Ground::new();
    std::fs::write(ground.path("bottom/suid-id"), program).unwrap();
    std::fs::set_permissions(ground.path("bottom/suid-id"), PermissionsExt::from_mode(0o4755)).unwrap();
    let rootfs = build(berth_init().as_ref(), &ground.request()).unwrap();
    let mnt = ground.path("mnt");
    rootfs.attach(&mnt).unwrap();
    assert_eq!(inside(&rootfs, &mnt, 1000, "./suid-id -u").0, "0", "as sudo needs it");
    // Run from outside the namespace, the bit is ignored.
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--clear-groups", "./suid-id", "-u"])
        .current_dir(&mnt)
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "65534");
}

#[test]
fn the_namespace_belongs_to_the_workspaces_own_uid() {
    if skip_unless_root() {
        return;
    }
    let ground = Ground::new();
    let rootfs = build(berth_init().as_ref(), &ground.request()).unwrap();
    let output = Command::new("lsns").args(["-t", "user", "-n", "-o", "NS"]).output();
    drop(output);
    // The owner is what the kernel counts inotify instances and the like for.
    let (text, _) = inside(&rootfs, &ground.path("mnt"), 0, "cat /proc/self/uid_map");
    assert_eq!(text.split_whitespace().collect::<Vec<_>>(), ["0", &BASE.to_string(), "65536"]);
    assert_eq!(rustix::fs::fstat(&rootfs.userns).map(|stat| stat.st_uid).unwrap_or(u32::MAX), 0);
}

#[test]
fn failures_name_the_step_and_leave_nothing() {
    if skip_unless_root() {
        return;
    }
    let ground = Ground::new();
    let own = ground.path("").to_str().unwrap().to_owned();
    // Others mount at the same time.
    let mounts = || {
        let all = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        all.lines().filter(|line| line.contains(&own)).count()
    };
    let before = mounts();
    let gone = ground.path("no-such-layer");
    let mut request = ground.request();
    request.layers.insert(0, gone.clone());
    let Err(RootfsError::Step { step, source }) = build(berth_init().as_ref(), &request) else {
        panic!("it was built")
    };
    assert!(step.contains(gone.to_str().unwrap()) && source.kind() == std::io::ErrorKind::NotFound, "{step}");
    let Err(error) = build(berth_init().as_ref(), &Request { upper: "nothing".to_owned(), ..ground.request() }) else {
        panic!("it was built")
    };
    assert!(error.to_string().contains("overlay"), "{error}");
    assert!(matches!(
        build(berth_init().as_ref(), &Request { layers: vec![], ..ground.request() }),
        Err(RootfsError::Layers(0))
    ));
    assert!(matches!(build("/no/such/program".as_ref(), &ground.request()), Err(RootfsError::Spawn { .. })));
    assert_eq!(mounts(), before);
}

#[test]
fn a_hundred_layers_can_be_mounted() {
    if skip_unless_root() {
        return;
    }
    let ground = Ground::new();
    let mut request = ground.request();
    request.layers = (0..100)
        .map(|index| {
            let layer = ground.path(&format!("layer{index}"));
            std::fs::create_dir(&layer).unwrap();
            std::fs::write(layer.join(format!("file{index}")), "").unwrap();
            layer
        })
        .collect();
    let rootfs = build(berth_init().as_ref(), &request).unwrap();
    rootfs.attach(&ground.path("mnt")).unwrap();
    let names = std::fs::read_dir(ground.path("mnt")).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.filter(|name| name.to_string_lossy().starts_with("file")).count(), 100);
}
