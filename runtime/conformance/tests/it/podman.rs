//! Podman, which has no daemon, with hull as its runtime.

use std::path::PathBuf;

use anyhow::{Result, ensure};

use crate::support::{CGROUP, Folder, Said, client, hull, missing, skip};

/// A Podman with folders of its own.
struct Podman {
    hull: String,
    rootfs: PathBuf,
    folder: Folder,
}

impl Podman {
    fn call(&self, args: &[&str]) -> Result<Said> {
        let [root, runroot, tmp] = ["root", "runroot", "tmp"].map(|name| self.folder.text(name));
        let own = ["--root", &root, "--runroot", &runroot, "--tmpdir", &tmp, "--storage-driver", "vfs"];
        let driver = ["--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", self.hull.as_str()];
        client("podman", own.iter().chain(&driver).chain(args))
    }

    fn run(&self, options: &[&str], program: &[&str]) -> Result<Said> {
        // Its own default limits are above what a machine without CAP_SYS_RESOURCE may set.
        let mut args = vec!["run", "--network", "none", "--cgroup-parent", CGROUP];
        args.extend_from_slice(&["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]);
        args.extend_from_slice(options);
        let rootfs = self.rootfs.to_string_lossy().into_owned();
        args.extend_from_slice(&["--rootfs", &rootfs]);
        args.extend_from_slice(program);
        self.call(&args)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.call(&["rm", "--all", "--force", "--time", "0"]);
        // conmon's, which Podman leaves.
        for hierarchy in std::fs::read_dir("/sys/fs/cgroup").into_iter().flatten().flatten() {
            let _ = std::fs::remove_dir(hierarchy.path().join(CGROUP.trim_start_matches('/')).join("conmon"));
        }
    }
}

#[test]
fn containers_of_podman() -> Result<()> {
    if let Some(reason) = missing(&["podman", "conmon"]) {
        skip!("{reason}");
    }
    let hull = match hull() {
        Ok(hull) => hull.to_string_lossy().into_owned(),
        Err(reason) => skip!("{reason}"),
    };
    let folder = Folder::new("podman")?;
    let podman = Podman { hull, rootfs: folder.rootfs()?, folder };
    let info = podman.call(&["info", "--format", "{{.Host.OCIRuntime.Path}}"])?;
    if info.code != 0 {
        skip!("podman does not work here: {}", info.stderr);
    }
    ensure!(info.stdout.trim() == podman.hull, "podman uses {}", info.stdout);
    ensure!(podman.run(&["--rm"], &["echo", "works"])?.ok()? == "works");
    ensure!(podman.run(&["--rm"], &["sh", "-c", "exit 3"])?.code == 3, "the exit status is lost");
    ensure!(podman.run(&["--rm"], &["/no/such/program"])?.code == 127, "a missing program has another status");
    ensure!(podman.run(&["--rm", "--user", "1000:1000"], &["id", "-u"])?.ok()? == "1000");
    podman.run(&["--detach", "--name", "lives", "--memory", "64m"], &["sleep", "1000"])?.ok()?;
    ensure!(podman.call(&["exec", "lives", "echo", "inside"])?.ok()? == "inside");
    ensure!(podman.call(&["exec", "lives", "sh", "-c", "exit 5"])?.code == 5);
    podman.call(&["pause", "lives"])?.ok()?;
    ensure!(podman.call(&["inspect", "--format", "{{.State.Status}}", "lives"])?.ok()? == "paused");
    podman.call(&["unpause", "lives"])?.ok()?;
    podman.call(&["kill", "lives"])?.ok()?;
    ensure!(podman.call(&["wait", "lives"])?.ok()? == "137");
    podman.call(&["rm", "lives"])?.ok()?;
    Ok(())
}
