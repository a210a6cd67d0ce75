//! Berth on a whole machine of its own, Debian as it comes: its kernel, cgroups of version 2, systemd with our unit; and what is left when
//! the power goes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::support::{Ran, base_image, beside, bin};

/// What both boots begin with. The folder that is shared with the machine is slow and knows no user namespaces: the home is on a disk in it.
const PREPARE: &str = r#"
set -eu
mount -o loop home.ext4 /mnt
mkdir -p /var/lib/berth
mount --bind /mnt/berth /var/lib/berth
install -m 755 berth hull berth-init /usr/local/bin/
cp -a hello /root/hello
install -m 644 berth.service /etc/systemd/system/
mkdir -p /etc/systemd/system/berth.service.d
printf '[Service]\nEnvironment=BERTH_ALLOW_PRIVATE_HOSTS=127.0.0.1:7171\n' >/etc/systemd/system/berth.service.d/hosts.conf
systemctl daemon-reload
systemctl start berth || { journalctl -u berth --no-pager; exit 1; }
berth internal git-serve --detach --listen 127.0.0.1:7171 --repository acme/hello=/root/hello
until berth server status >/dev/null 2>&1; do sleep 1; done
"#;

/// Three workspaces: one stopped, one at rest with its file written out, one that writes when the power goes.
const FIRST: &str = r#"
for name in stopped idle busy; do
    berth up http://127.0.0.1:7171/acme/hello.git --name $name </dev/null
    berth exec $name -- sh -c "echo $name >/root/note; sync"
done
echo "limits: $(berth exec idle -- cat /sys/fs/cgroup/cpu.max /sys/fs/cgroup/pids.max | tr '\n' ' ')"
berth stop stopped
berth exec busy -- sh -c 'while :; do echo line >>/root/lines; sync; done' &
sleep 5
echo "the power goes"
echo b >/proc/sysrq-trigger
"#;

const SECOND: &str = r#"
# The server answers before the node has looked at what it finds.
until [ "$(berth --output json list | grep -o '"phase": *"Stopped"' | wc -l)" = 3 ]; do sleep 1; done
berth --output json list >after.json
for name in stopped idle busy; do
    berth start $name
    echo "$name: $(berth exec $name -- cat /root/note README.md | tr '\n' ' ')"
done
berth exec busy -- sh -c 'sort -u /root/lines'
for name in stopped idle busy; do berth delete $name; done
systemctl stop berth
pkill -f git-serve
echo "disks: $(ls /var/lib/berth/node/disks)"
# Not the Postgres that Debian itself starts.
echo "processes: $(pgrep -f '/var/lib/berth|berth server' || true)"
echo "groups: $(find /sys/fs/cgroup/berth -mindepth 1 -type d 2>/dev/null || true)"
echo "devices: $(losetup --noheadings --output NAME | grep -vc '^/dev/loop0$' || true)"
"#;

#[test]
fn a_machine_of_debian_loses_its_power() {
    // It emulates a processor: some ten minutes, so only when it is asked for.
    let Some(vm_run) = std::env::var_os("VM_RUN") else {
        eprintln!("skipped: VM_RUN names no program that runs a virtual machine");
        return;
    };
    let (Some(hull), Some(init)) = (beside("hull"), beside("berth-init")) else {
        eprintln!("skipped: build hull and berth-init first (make build)");
        return;
    };
    let stage = tempfile::Builder::new().prefix("berth-cli-").tempdir_in("/var/tmp").unwrap();
    let folder = stage.path();
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/systemd/berth.service");
    for (name, from) in [("berth", bin().join("berth")), ("hull", hull), ("berth-init", init), ("berth.service", unit)]
    {
        std::fs::copy(from, folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("first"), [PREPARE, FIRST].concat()).unwrap();
    std::fs::write(folder.join("second"), [PREPARE, SECOND].concat()).unwrap();
    let home = folder.join("home/berth");
    std::fs::create_dir_all(&home).unwrap();
    base_image(&home);
    sh(
        folder,
        "git init -q hello && cd hello && echo hi >README.md && git add . && git -c user.name=t -c user.email=t@example.com commit -qm first",
    );
    sh(folder, "truncate -s 40G home.ext4 && mke2fs -q -t ext4 -d home home.ext4 && rm -r home");

    // The machine has no time to say how it ended.
    let first = boot(&vm_run, folder, "first");
    assert!(first.stdout.contains("the power goes"), "{first}");
    assert!(first.stdout.contains("limits: 100000 100000 2048"), "{first}");

    let second = boot(&vm_run, folder, "second");
    assert_eq!(second.status, 0, "{second}");
    let after = std::fs::read(folder.join("after.json")).unwrap();
    let after: serde_json::Value = serde_json::from_slice(&after).unwrap();
    for workspace in after.as_array().unwrap() {
        let reason = if workspace["name"] == "stopped" { "stopped by its owner" } else { "the machine was restarted" };
        assert!(workspace["reason"].as_str().unwrap().starts_with(reason), "{after}");
    }
    for text in [
        "stopped: stopped hi",
        "idle: idle hi",
        "busy: busy hi",
        "\nline\n",
        "disks: \n",
        "processes: \n",
        "groups: \n",
        "devices: 0\n",
    ] {
        assert!(second.stdout.contains(text), "{text:?} is missing: {second}");
    }
}

fn sh(folder: &Path, script: &str) {
    let ran = Ran::of(Command::new("sh").args(["-c", script]).current_dir(folder));
    assert_eq!(ran.status, 0, "{ran}");
}

/// Runs a script of the folder in the machine, from power on to power off. On a busy host the machine's kernel may find that no timer works, and
/// stop before any command.
fn boot(vm_run: &std::ffi::OsStr, folder: &Path, script: &str) -> Ran {
    let packages = "postgresql-15 git nftables e2fsprogs ca-certificates openssl curl";
    let mut ran = None;
    for _ in 0..3 {
        let mut command = Command::new(vm_run);
        command.env("VM_RUN_PACKAGES", packages).args(["-q", "-m", "3072", "-t", "1200", "-s"]).arg(folder);
        let this = Ran::of(command.args(["--", "bash", script]));
        let booted = !this.stdout.is_empty();
        ran = Some(this);
        if booted {
            break;
        }
    }
    ran.unwrap()
}
