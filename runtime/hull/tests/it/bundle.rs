//! Bundles on a busybox root file system.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use hull::spec::{Capabilities, Linux, Mount, Namespace, NamespaceType, Process, Root, Spec};

/// A bundle of its own with a directory for the runtime's records; everything goes when it is dropped.
pub(crate) struct Bundle {
    dir: tempfile::TempDir,
    pub(crate) id: String,
    pub(crate) spec: Spec,
}

/// What a program printed, without space around it.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

fn busybox() -> Option<PathBuf> {
    ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|p| p.exists())
}

/// A bundle, or nothing with a printed reason where containers cannot be made.
pub(crate) fn bundle(name: &str, script: &str) -> Option<Bundle> {
    let Some(busybox) = busybox() else {
        println!("skipped: there is no busybox (package busybox-static)");
        return None;
    };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let rootfs = dir.path().join("rootfs");
    for d in ["bin", "proc", "sys", "dev", "etc", "tmp"] {
        std::fs::create_dir_all(rootfs.join(d)).unwrap();
    }
    std::fs::copy(busybox, rootfs.join("bin/busybox")).unwrap();
    for applet in ["sh", "cat", "sleep", "id", "true", "grep", "echo", "ls"] {
        std::os::unix::fs::symlink("busybox", rootfs.join("bin").join(applet)).unwrap();
    }
    let id = format!("{name}-{}", std::process::id());
    let spec = spec(&id, script);
    Some(Bundle { dir, id, spec })
}

fn spec(id: &str, script: &str) -> Spec {
    let strings = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
    let mount = |destination: &str, kind: &str, options: &[&str]| Mount {
        destination: destination.to_owned(),
        r#type: Some(kind.to_owned()),
        source: Some(kind.to_owned()),
        options: strings(options),
        ..Mount::default()
    };
    let kinds =
        [NamespaceType::Pid, NamespaceType::Network, NamespaceType::Ipc, NamespaceType::Uts, NamespaceType::Mount];
    Spec {
        oci_version: "1.3.0".to_owned(),
        process: Some(Process {
            args: strings(&["/bin/sh", "-c", script]),
            env: strings(&["PATH=/bin"]),
            cwd: "/".to_owned(),
            capabilities: Some(Capabilities::default()),
            no_new_privileges: true,
            ..Process::default()
        }),
        root: Some(Root { path: "rootfs".to_owned(), readonly: false }),
        hostname: Some("hull-test".to_owned()),
        mounts: vec![
            mount("/proc", "proc", &[]),
            mount("/dev", "tmpfs", &["nosuid", "mode=755"]),
            mount("/dev/pts", "devpts", &["newinstance", "ptmxmode=0666"]),
        ],
        linux: Some(Linux {
            namespaces: kinds.into_iter().map(|r#type| Namespace { r#type, path: None }).collect(),
            cgroups_path: Some(format!("/berth-test/{id}")),
            masked_paths: strings(&["/proc/kcore", "/proc/keys"]),
            readonly_paths: strings(&["/proc/sys"]),
            ..Linux::default()
        }),
        ..Spec::default()
    }
}

impl Bundle {
    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn records(&self) -> PathBuf {
        self.dir.path().join("records")
    }

    pub(crate) fn write(&self) {
        std::fs::write(self.path().join("config.json"), serde_json::to_vec(&self.spec).unwrap()).unwrap();
    }

    /// Runs the program with its records in this bundle.
    pub(crate) fn hull(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_hull"))
            .arg("--root")
            .arg(self.records())
            .args(args)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// The same without waiting for ends of pipes that a container holds.
    pub(crate) fn hull_detached(&self, args: &[&str]) -> bool {
        Command::new(env!("CARGO_BIN_EXE_hull"))
            .arg("--root")
            .arg(self.records())
            .args(args)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap()
            .success()
    }
}

impl Drop for Bundle {
    fn drop(&mut self) {
        let _ = self.hull(&["delete", "--force", &self.id]);
    }
}
