//! A disk survives stop and start whole: whatever a file can be, in the checkout, at home and all over the image.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_node::instance::Node;
use berth_supervisor_client::SupervisorClient;
use berth_supervisor_protocol::{Exec, ExitStatus};
use berth_testkit::GitServer;

use crate::support::{TestNode, request, run, steps};

/// Makes one of everything in `/root/kept`, changes the image in every way, and installs a package. `$1` is the number of `setxattr`.
const FILL: &str = r#"set -eu
mkdir /root/kept; cd /root/kept; export TZ=UTC

# Owners and modes.
n=0
for mode in 0000 0444 0640 1777 2755 4755 6711 7777; do
  echo $mode > file$mode; mkdir folder$mode
  chown $((n * 9362)):$((65535 - n)) file$mode folder$mode
  chmod $mode file$mode folder$mode
  n=$((n + 1))
done

# Names, links, and what is no file.
echo latin > "$(printf 'caf\351')"; echo lines > "$(printf 'two\nlines')"; echo long > $(printf %0255d 0)
ln -s nowhere/at/all dangling; ln -s / way; ln -s $(printf %04000d 0) far; chown -h 1:2 far
ln file0640 second; ln second third; ln -P dangling dangling-too
mkfifo -m 0622 fifo; chown 3:4 fifo
perl -e 'use Socket; socket my $s, PF_UNIX, SOCK_STREAM, 0 or die; bind $s, sockaddr_un("socket") or die'
truncate -s 300M sparse; echo middle | dd of=sparse bs=1 seek=200000000 conv=notrunc status=none

# Extended attributes: the user's own, a capability, access lists.
cp /usr/bin/chown may-chown; cp /usr/bin/chown listed; touch noted; mkdir noted-folder
perl -e '
  sub set { my ($path, $name, $value) = @_; syscall('$1', $path, $name, $value, length $value, 0) == 0 or die "$path $name: $!" }
  set("noted", "user.note", "x" x 3000); set("noted-folder", "user.empty", ""); set("noted-folder", "user.overlay.opaque", "y");
  set("may-chown", "security.capability", pack "V5", 0x02000001, 1, 0, 0, 0);
  set("listed", "system.posix_acl_access", pack "V" . "vvV" x 5, 2, 1, 7, 0xffffffff, 2, 5, 1000, 4, 0, 0xffffffff, 16, 5, 0xffffffff, 32, 0, 0xffffffff);
  set("noted-folder", "system.posix_acl_default", pack "V" . "vvV" x 3, 2, 1, 7, 0xffffffff, 4, 5, 0xffffffff, 32, 4, 0xffffffff);
'

# The image: removed, renamed, there again as something else, changed in nothing but its owner, mode or times.
rm -r /usr/share/common-licenses; mkdir /usr/share/common-licenses; echo mine > /usr/share/common-licenses/GPL
rm -r /etc/skel; mkdir /etc/skel
rm /etc/debian_version; rm -r /usr/share/bug; echo file > /usr/share/bug
rm /etc/issue; mkdir /etc/issue; echo anew > /etc/issue/x
rm /etc/issue.net; ln -s issue /etc/issue.net
mv /etc/shells /etc/shells.renamed; mv /etc/cron.daily /etc/cron.renamed
chown 7:8 /etc/login.defs; chmod 0700 /usr/share/perl; touch -d @1.5 /usr/share/terminfo /etc/profile
ln /etc/host.conf of-the-image

# A package.
mkdir -p /tmp/package/DEBIAN /tmp/package/usr/bin /tmp/package/etc
printf 'Package: mine\nVersion: 1\nArchitecture: all\nMaintainer: Ada <ada@example.com>\nDescription: mine\n' > /tmp/package/DEBIAN/control
echo /etc/mine.conf > /tmp/package/DEBIAN/conffiles; echo set > /tmp/package/etc/mine.conf
printf '#!/bin/sh\necho mine\n' > /tmp/package/usr/bin/mine; chmod 755 /tmp/package/usr/bin/mine
dpkg-deb --build --root-owner-group /tmp/package /tmp/mine.deb > /dev/null; dpkg --install /tmp/mine.deb > /dev/null

# Times, of files, folders and links.
for time in old:'1931-05-05 03:02:01.123456789' late:'2233-01-02 03:04:05.000000001'; do
  name=${time%%:*}; touch $name; mkdir in-$name; ln -s x to-$name
  touch -h -d "${time#*:}" $name in-$name to-$name
done
sync
"#;

/// Everything below the root: type, mode, owner, links, size, blocks, times, target, path.
const FIND: &str = r"find / -xdev -printf '%y %m %U:%G %n %s %b %T@ %C@ %l|%p\0'";

/// Extended attributes and content of what [`FILL`] has touched. `$1` and `$2` are the numbers of `listxattr` and `getxattr`.
const CONTENT: &str = r#"set -eu
find /root/kept /etc /usr/share -xdev ! -type l -print0 | perl -0lne '
  my $names = " " x 65536; my $length = syscall('$1', "$_", $names, length $names);
  for my $name (sort split /\0/, substr $names, 0, $length < 0 ? 0 : $length) {
    my $value = " " x 65536; my $length = syscall('$2', "$_", "$name", $value, length $value);
    print "$_ $name ", $length < 0 ? "$!" : unpack "H*", substr $value, 0, $length
  }'
find /root/kept /etc/cron.renamed /etc/shells.renamed /etc/issue /etc/mine.conf /usr/share/common-licenses /usr/share/bug /workspace -type f -print0 | xargs -0 sha256sum
cd /root/kept; test file0640 -ef second; test second -ef third; test /etc/host.conf -ef of-the-image"#;

/// `setxattr`, `listxattr`, `getxattr`.
const NUMBERS: [&str; 3] = if cfg!(target_arch = "x86_64") { ["188", "194", "191"] } else { ["5", "11", "8"] };

/// What a program inside writes, however long.
async fn written(node: &Node, id: &str, argv: &[&str]) -> Vec<u8> {
    let client = SupervisorClient::new(node.connect(id).await.unwrap());
    let exec = Exec { argv: argv.iter().map(|a| (*a).to_owned()).collect(), ..Exec::default() };
    let output = client.run(exec, &[], 64 << 20).await.unwrap();
    assert_eq!(output.status, ExitStatus::Code(0), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Everything on the disk, a line each.
async fn manifest(node: &Node, id: &str) -> BTreeSet<String> {
    let mounted = run(node, id, &["cut", "-d", " ", "-f", "5", "/proc/self/mountinfo"]).await.unwrap();
    let mounted: BTreeSet<&str> = mounted.lines().filter(|path| *path != "/").collect();
    let found = written(node, id, &["sh", "-c", FIND]).await;
    let found = found.split(|byte| *byte == 0).map(|entry| entry.escape_ascii().to_string());
    // What is mounted into the workspace is made for each run.
    found.filter(|line| line.split_once('|').is_some_and(|(_, path)| !mounted.contains(path))).collect()
}

/// Extended attributes and content, a line each.
async fn content(node: &Node, id: &str) -> BTreeSet<String> {
    let lines = written(node, id, &["sh", "-c", CONTENT, "sh", NUMBERS[1], NUMBERS[2]]).await;
    lines.split(|byte| *byte == b'\n').map(|line| line.escape_ascii().to_string()).collect()
}

/// What only works if all that belongs to it is there.
async fn works(node: &Node, id: &str) {
    let program = "cd /root/kept; chmod 755 /root; as() { setpriv --reuid=$1 --regid=1000 --clear-groups sh -c \"$2\" 2>&1; }; \
        as 1000 './may-chown 5:6 old && stat -c %u:%g old'; chown 0:0 old; touch -d '1931-05-05 03:02:01.123456789' old; \
        as 1000 './listed --version > /dev/null && echo runs'; as 1001 ./listed; \
        mine; dpkg --verify mine; dpkg-query --show mine; git -C /workspace/hello status --short";
    let said = run(node, id, &["sh", "-c", program]).await.unwrap();
    assert_eq!(said, "5:6\nruns\nsh: 1: ./listed: Permission denied\nmine\nmine\t1\n M README.md\n?? new");
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_on_a_disk_survives_stop_and_start() {
    let Some(t) =
        TestNode::with(|config| config.ready_networks = 0, std::sync::Arc::new(berth_node::NoCredentials)).await
    else {
        return;
    };
    let server = GitServer::start().await.unwrap();
    let repository = server.repository("acme", "hello", &[("README.md", "hi\n")]).unwrap();
    let wanted = request(1, &repository, "main");
    let first = t.node.start(wanted.clone(), &steps(), &Default::default()).await.unwrap();
    let id = &wanted.instance_id;
    run(&t.node, id, &["sh", "-c", FILL, "sh", NUMBERS[0]]).await.unwrap();
    run(&t.node, id, &["sh", "-c", "echo more >> README.md; echo new > new"]).await.unwrap();
    works(&t.node, id).await;
    let (files, inside) = (manifest(&t.node, id).await, content(&t.node, id).await);
    for named in ["kept/noted user.note", "security.capability", "posix_acl_access", "posix_acl_default"] {
        assert!(inside.iter().any(|line| line.contains(named)), "no {named}");
    }
    assert!(
        files.iter().any(|line| line.contains(" 314572800 8 ") && line.ends_with("kept/sparse")),
        "no sparse file: {files:?}"
    );

    t.node.stop(id, Duration::from_secs(5)).await.unwrap();
    t.node.forget(id);
    // Takes the first one's range of uids: it gets another.
    t.node.start(request(2, &repository, "main"), &steps(), &Default::default()).await.unwrap();
    let again = berth_node::instance::StartRequest { instance_id: id.replace("000001", "000003"), ..wanted };
    let second = t.node.start(again.clone(), &steps(), &Default::default()).await.unwrap();
    assert_ne!(first.instance.record().slot, second.instance.record().slot);

    let id = &again.instance_id;
    let none = Vec::<&String>::new();
    assert_eq!(files.symmetric_difference(&manifest(&t.node, id).await).collect::<Vec<_>>(), none);
    assert_eq!(inside.symmetric_difference(&content(&t.node, id).await).collect::<Vec<_>>(), none);
    works(&t.node, id).await;
    t.close().await;
}
