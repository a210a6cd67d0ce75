//! Control groups of version 2: what only this version has, and what version 1 does otherwise.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::command::{patience, run, wait};
use crate::context::{Cgroups, Context};
use crate::suite::{Test, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("shares", "cpu.shares becomes cpu.weight by the quadratic formula, under which 1024 is 100", shares),
    test(
        "limits",
        "memory.max, memory.swap.max, memory.low, cpu.max, pids.max hold what the configuration says",
        limits,
    ),
    test("update", "update changes all of these in a running container", update),
    test("io-max", "blockIO.throttle*: one line of io.max with all four limits of a device", io_max),
    test("io-weight", "blockIO.weight 10 to 1000 becomes io.weight or io.bfq.weight", io_weight),
    test("unified", "unified: each key is a file of the container's cgroup", unified),
    test("partition", "unified: cpuset.cpus.partition makes a partition of the container's CPUs", partition),
    test("hugetlb-reserved", "hugepageLimits limits reservations too (hugetlb.*.rsvd.max)", hugetlb),
    test("rdma-unknown", "rdma: limits of a device that is not there are an error, not ignored", rdma),
    test("pressure", "events --stats has the pressure stall information of the container", pressure),
    test("oom-event", "events tells of a process that was killed for want of memory", oom_event),
    test("freeze", "pause returns when cgroup.events says frozen 1, resume when it says 0", freeze),
    test("kill-forks", "kill --all reaches processes that fork meanwhile", kill_forks),
    test("delete-forks", "delete --force of a container full of forking processes leaves no cgroup", delete_forks),
    test("delegation", "the container can divide its own cgroup when it is mounted writable", delegation),
    test(
        "exec-into-divided",
        "exec works when the container has moved its processes below its cgroup",
        exec_into_divided,
    ),
    test(
        "exec-into-moved",
        "exec goes to where the container's first process is, when that was moved and the container's cgroup removed",
        exec_into_moved,
    ),
    test(
        "exec-beside-others",
        "exec goes to where the container's first process is, when that moved to one of several groups below",
        exec_beside_others,
    ),
    test(
        "exec-waits",
        "exec runs nothing before it is in the container's cgroup, also where it is moved there",
        exec_waits,
    ),
    test("exec-cgroup", "exec --cgroup puts the process into a group below the container's", exec_cgroup),
    test(
        "ownership",
        "Cgroup ownership: a user namespace with a writable cgroup mount owns its group's files",
        ownership,
    ),
    test("no-ownership", "Cgroup ownership: with a read-only cgroup mount nothing changes hands", no_ownership),
    test("devices-after-update", "update leaves the device filter as it was", devices_after_update),
    test("clone-into", "the process is started in its cgroup (CLONE_INTO_CGROUP), not moved there", clone_into),
];

/// Skips where version 2 is not all there is.
fn unified_only(context: &Context) -> Result<()> {
    if context.cgroups == Cgroups::V2 { Ok(()) } else { Err(skip("cgroups of version 1")) }
}

/// Skips but where version 2 has these controllers.
fn unified_with(context: &Context, controllers: &[&str]) -> Result<()> {
    unified_only(context)?;
    controllers.iter().try_for_each(|controller| context.needs(controller))
}

fn folder(bundle: &Bundle<'_>) -> Result<PathBuf> {
    bundle.cgroup("", bundle.pid()?)
}

fn read(folder: &Path, file: &str) -> Result<String> {
    let path = folder.join(file);
    Ok(fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?.trim().to_owned())
}

fn holds(folder: &Path, wanted: &[(&str, &str)]) -> Result<()> {
    for (file, wanted) in wanted {
        let got = read(folder, file)?;
        ensure!(got == *wanted, "{file} is {got:?} instead of {wanted:?}");
    }
    Ok(())
}

/// Waits until a file of the cgroup has a line.
fn has_line(folder: &Path, file: &str, line: &str) -> Result<()> {
    let deadline = Instant::now() + patience();
    loop {
        let text = read(folder, file)?;
        if text.lines().any(|one| one == line) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{file} is {text:?} without {line:?}");
        std::thread::yield_now();
    }
}

/// The first disk's number, as io.max has it.
fn disk() -> Result<(u32, u32)> {
    let text = fs::read_to_string("/proc/partitions")?;
    for line in text.lines().skip(2) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        if let [major, minor, _, name] = fields[..]
            && ["vd", "sd", "nvme"].iter().any(|kind| name.starts_with(kind))
        {
            return Ok((major.parse()?, minor.parse()?));
        }
    }
    Err(skip("no disk"))
}

fn update_resources(bundle: &Bundle<'_>, resources: &Value) -> Result<()> {
    let file = bundle.path.join("resources.json");
    fs::write(&file, resources.to_string())?;
    bundle.runtime(&["update", "-r", &file.to_string_lossy(), &bundle.id])?.ok().map(drop)
}

fn shares(context: &Context) -> Result<()> {
    unified_with(context, &["cpu"])?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/cpu", json!({"shares": 1024}));
    bundle.started()?;
    let folder = folder(&bundle)?;
    holds(&folder, &[("cpu.weight", "100")])?;
    for (shares, weight) in [(2, "1"), (512, "59"), (2048, "174"), (262_144, "10000")] {
        update_resources(&bundle, &json!({"cpu": {"shares": shares}}))?;
        holds(&folder, &[("cpu.weight", weight)]).with_context(|| format!("{shares} shares"))?;
    }
    Ok(())
}

fn limits(context: &Context) -> Result<()> {
    unified_with(context, &["memory", "cpu", "pids"])?;
    let mut bundle = context.bundle()?;
    let resources = json!({
        "memory": {"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20},
        "cpu": {"quota": 50000, "period": 200_000},
        "pids": {"limit": 50}
    });
    for (key, value) in resources.as_object().into_iter().flatten() {
        bundle.set(&format!("/linux/resources/{key}"), value.clone());
    }
    bundle.started()?;
    let folder = folder(&bundle)?;
    holds(
        &folder,
        &[("memory.max", "67108864"), ("memory.low", "33554432"), ("cpu.max", "50000 200000"), ("pids.max", "50")],
    )?;
    // Absent without swap accounting.
    if folder.join("memory.swap.max").exists() {
        holds(&folder, &[("memory.swap.max", "33554432")])?;
    }
    Ok(())
}

fn update(context: &Context) -> Result<()> {
    unified_with(context, &["memory", "cpu", "cpuset", "pids"])?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20}));
    bundle.started()?;
    let folder = folder(&bundle)?;
    update_resources(
        &bundle,
        &json!({
            "memory": {"limit": 80 << 20, "reservation": 16 << 20},
            "cpu": {"quota": 30000, "period": 100_000, "shares": 1024, "cpus": "0"},
            "pids": {"limit": 33}
        }),
    )?;
    holds(
        &folder,
        &[
            ("memory.max", "83886080"),
            ("memory.low", "16777216"),
            ("cpu.max", "30000 100000"),
            ("cpu.weight", "100"),
            ("cpuset.cpus", "0"),
            ("pids.max", "33"),
        ],
    )?;
    bundle.runtime(&["update", "--cpu-quota", "-1", "--memory", "-1", "--memory-swap", "-1", &bundle.id])?.ok()?;
    let quota = read(&folder, "cpu.max")?;
    ensure!(quota.starts_with("max "), "cpu.max is {quota:?} without a quota");
    holds(&folder, &[("memory.max", "max")])
}

fn io_max(context: &Context) -> Result<()> {
    unified_with(context, &["blkio"])?;
    let (major, minor) = disk()?;
    let limit = |rate: u64| json!([{"major": major, "minor": minor, "rate": rate}]);
    let mut bundle = context.bundle()?;
    bundle.set(
        "/linux/resources/blockIO",
        json!({
            "throttleReadBpsDevice": limit(1 << 20),
            "throttleWriteBpsDevice": limit(2 << 20),
            "throttleReadIOPSDevice": limit(300),
            "throttleWriteIOPSDevice": limit(400)
        }),
    );
    bundle.started()?;
    let wanted = format!("{major}:{minor} rbps=1048576 wbps=2097152 riops=300 wiops=400");
    holds(&folder(&bundle)?, &[("io.max", &wanted)])
}

fn io_weight(context: &Context) -> Result<()> {
    unified_with(context, &["blkio"])?;
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let there = |name: &str| folder(&bundle).is_ok_and(|folder| folder.join(name).exists());
    let (file, wanted) = match (there("io.bfq.weight"), there("io.weight")) {
        (true, _) => ("io.bfq.weight", "default 500"),
        (_, true) => ("io.weight", "default 4950"),
        _ => return Err(skip("this kernel has neither io.bfq.weight nor io.weight")),
    };
    drop(bundle);
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/blockIO", json!({"weight": 500}));
    bundle.started()?;
    holds(&folder(&bundle)?, &[(file, wanted)])
}

fn unified(context: &Context) -> Result<()> {
    unified_with(context, &["memory", "cpu", "pids"])?;
    let mut bundle = context.bundle()?;
    bundle.set(
        "/linux/resources/unified",
        json!({"memory.high": "50331648", "memory.min": "1048576", "pids.max": "44", "cpu.weight": "77", "cgroup.max.depth": "3"}),
    );
    bundle.started()?;
    holds(
        &folder(&bundle)?,
        &[
            ("memory.high", "50331648"),
            ("memory.min", "1048576"),
            ("pids.max", "44"),
            ("cpu.weight", "77"),
            ("cgroup.max.depth", "3"),
        ],
    )
}

fn partition(context: &Context) -> Result<()> {
    unified_with(context, &["cpuset"])?;
    if context.systemd() {
        return Err(skip("a partition needs one as its parent, and systemd's slices are none"));
    }
    context.several_cpus()?;
    let mut bundle = context.bundle()?;
    // Below the root, which is a partition: those further down need a parent that is one.
    bundle.set("/linux/cgroupsPath", json!(format!("/{}", bundle.id)));
    bundle.set("/linux/resources/cpu", json!({"cpus": "1"}));
    bundle.set("/linux/resources/unified", json!({"cpuset.cpus.partition": "root"}));
    bundle.started()?;
    let folder = folder(&bundle)?;
    let result = holds(&folder, &[("cpuset.cpus", "1"), ("cpuset.cpus.partition", "root")]);
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!(!folder.exists(), "{} is still there", folder.display());
    result
}

fn hugetlb(context: &Context) -> Result<()> {
    unified_with(context, &["hugetlb"])?;
    if !fs::exists("/sys/kernel/mm/hugepages/hugepages-2048kB")? {
        return Err(skip("no huge pages of 2 MiB"));
    }
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 4_194_304}]));
    bundle.started()?;
    holds(&folder(&bundle)?, &[("hugetlb.2MB.max", "4194304"), ("hugetlb.2MB.rsvd.max", "4194304")])
}

fn rdma(context: &Context) -> Result<()> {
    unified_only(context)?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/rdma", json!({"no_such_device": {"hcaHandles": 3}}));
    bundle.refused().map(drop)
}

fn pressure(context: &Context) -> Result<()> {
    unified_only(context)?;
    let mut bundle = context.bundle()?;
    bundle.started()?;
    if read(&folder(&bundle)?, "cpu.pressure").is_err() {
        return Err(skip("this kernel does not count pressure"));
    }
    let output = bundle.runtime(&["events", "--stats", &bundle.id])?.ok()?;
    let stats: Value = serde_json::from_str(&output.stdout)?;
    for part in ["cpu", "memory", "blkio"] {
        let pressure = &stats["data"][part]["psi"];
        ensure!(pressure["some"]["total"].is_u64() && pressure["some"]["avg10"].is_number(), "{part}: {pressure}");
    }
    Ok(())
}

fn oom_event(context: &Context) -> Result<()> {
    unified_with(context, &["memory"])?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/memory", json!({"limit": 20 << 20, "swap": 20 << 20}));
    bundle.script("trap 'exit 0' TERM; while ! [ -e /go ]; do usleep 20000; done; tail -c 90000000 /dev/zero; while :; do sleep 60 & wait $!; done");
    bundle.created()?;
    bundle.start()?.ok()?;
    let mut events = bundle.command(&["events", &bundle.id]);
    let mut events = events.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let lines = events.stdout.take().context("no output")?;
    let reader = std::thread::spawn(move || {
        BufReader::new(lines).lines().map_while(Result::ok).find(|line| line.contains("oom"))
    });
    fs::write(bundle.rootfs().join("go"), "")?;
    has_line(&folder(&bundle)?, "memory.events", "oom_kill 1")?;
    // It ends with the container; until then it has told.
    let told = |reader: &std::thread::JoinHandle<_>| reader.is_finished();
    let deadline = Instant::now() + patience();
    while !told(&reader) && Instant::now() < deadline {
        std::thread::yield_now();
    }
    let _ = events.kill();
    let _ = wait(&mut events, patience());
    let line = reader.join().ok().flatten().context("no oom event")?;
    let event: Value = serde_json::from_str(&line)?;
    ensure!(event["type"] == "oom" && event["id"] == bundle.id.as_str(), "{event}");
    Ok(())
}

fn freeze(context: &Context) -> Result<()> {
    unified_only(context)?;
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let folder = folder(&bundle)?;
    let frozen = |wanted: &str| -> Result<()> {
        let text = read(&folder, "cgroup.events")?;
        ensure!(text.lines().any(|line| line == wanted), "{text:?}");
        Ok(())
    };
    bundle.runtime(&["pause", &bundle.id])?.ok()?;
    frozen("frozen 1")?;
    ensure!(bundle.state()?["status"] == "paused", "{}", bundle.state()?);
    bundle.runtime(&["resume", &bundle.id])?.ok()?;
    frozen("frozen 0")
}

/// A container whose processes fork and end without a pause; its first one waits.
fn forking<'a>(context: &'a Context, change: impl Fn(&mut Bundle<'a>)) -> Result<Bundle<'a>> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/pids", json!({"limit": 100}));
    change(&mut bundle);
    bundle.script("fork() { while :; do true & done; }; for i in 1 2 3 4 5; do fork 2>/dev/null & done; wait");
    bundle.created()?;
    bundle.start()?.ok()?;
    let procs = folder(&bundle)?.join("cgroup.procs");
    bundle.wait_for_file(&procs, |text| text.lines().count() > 5)?;
    Ok(bundle)
}

fn kill_forks(context: &Context) -> Result<()> {
    unified_with(context, &["pids"])?;
    // Without a PID namespace, whose end would take all with it.
    let bundle = forking(context, |bundle| {
        bundle.without_namespace("pid");
    })?;
    let folder = folder(&bundle)?;
    bundle.runtime(&["kill", "--all", &bundle.id, "KILL"])?.ok()?;
    has_line(&folder, "cgroup.events", "populated 0")
}

fn delete_forks(context: &Context) -> Result<()> {
    unified_with(context, &["pids"])?;
    let bundle = forking(context, |_| {})?;
    let folder = folder(&bundle)?;
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!(!folder.exists(), "{} is still there", folder.display());
    Ok(())
}

/// A container that may write to its cgroup.
fn writable<'a>(context: &'a Context, script: &str) -> Result<Bundle<'a>> {
    let mut bundle = context.bundle()?;
    bundle.without_mount("/sys/fs/cgroup");
    bundle.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "relatime", "rw"]);
    bundle.script(script);
    Ok(bundle)
}

const DIVIDE: &str = "cd /sys/fs/cgroup && mkdir -p inner && echo 0 > inner/cgroup.procs && echo +pids > cgroup.subtree_control && echo 20 > inner/pids.max && cat inner/pids.max";

fn delegation(context: &Context) -> Result<()> {
    unified_with(context, &["pids"])?;
    let bundle = writable(context, DIVIDE)?;
    let said = bundle.output()?;
    ensure!(said == "20", "{said:?}");
    Ok(())
}

/// A container that has passed controllers on to groups below its own, so that its own takes no process.
fn divided<'a>(context: &'a Context, divide: &str) -> Result<Bundle<'a>> {
    unified_with(context, &["pids"])?;
    let bundle = writable(context, &format!("{divide} && touch /divided; while :; do sleep 60; done"))?;
    bundle.created()?;
    bundle.start()?.ok()?;
    bundle.wait_for_file(&bundle.rootfs().join("divided"), |_| {
        fs::exists(bundle.rootfs().join("divided")).unwrap_or(false)
    })?;
    Ok(bundle)
}

fn exec_beside_others(context: &Context) -> Result<()> {
    // Groups that are found before and after the right one, and one that takes no process.
    let divide = "cd /sys/fs/cgroup && mkdir -p a/a b z y/deep && echo 0 > y/deep/cgroup.procs \
                  && for group in . a y; do echo +pids > $group/cgroup.subtree_control || exit; done";
    let bundle = divided(context, divide)?;
    let said = bundle.exec(&[], "cat /proc/self/cgroup")?.ok()?;
    ensure!(said.text().ends_with("/y/deep"), "{:?}", said.text());
    Ok(())
}

fn exec_waits(context: &Context) -> Result<()> {
    let bundle = divided(context, DIVIDE)?;
    // Each is a race between the program's first step and the move.
    for _ in 0..10 {
        let said = bundle.exec(&[], "read -r line < /proc/self/cgroup; echo $line")?.ok()?;
        ensure!(said.text().ends_with("/inner"), "{:?}", said.text());
    }
    Ok(())
}

fn exec_into_divided(context: &Context) -> Result<()> {
    let bundle = divided(context, DIVIDE)?;
    let said = bundle.exec(&[], "cat /proc/self/cgroup")?.ok()?;
    ensure!(said.text().ends_with("/inner"), "{:?}", said.text());
    Ok(())
}

fn exec_into_moved(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let pid = bundle.pid()?;
    let own = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| *path != "/");
    let Some(own) = own.map(str::to_owned) else { return Err(skip("no cgroup of version 2 of its own")) };
    let hybrid = Path::new("/sys/fs/cgroup/unified");
    let mount = if hybrid.is_dir() { hybrid } else { Path::new("/sys/fs/cgroup") };
    let group = mount.join(own.trim_start_matches('/'));
    let moved = group.with_file_name(format!("{}-moved", group.file_name().unwrap_or_default().to_string_lossy()));
    fs::create_dir(&moved)?;
    empty_into(&group, &moved)?;
    let said = bundle.exec(&[], "cat /proc/self/cgroup");
    // As it was, for whoever deletes the container.
    fs::create_dir(&group)?;
    empty_into(&moved, &group)?;
    let said = said?.ok()?;
    let there = said.text().lines().any(|line| line.starts_with("0::") && line.ends_with("-moved"));
    ensure!(there, "{:?}", said.text());
    Ok(())
}

/// Moves all processes of a cgroup to another and removes it; one that was just made, or is about to end, keeps it busy.
fn empty_into(from: &Path, to: &Path) -> Result<()> {
    let deadline = Instant::now() + patience();
    loop {
        for process in fs::read_to_string(from.join("cgroup.procs")).unwrap_or_default().lines() {
            // One that has ended meanwhile cannot be moved; another one keeps the cgroup busy.
            let _ = fs::write(to.join("cgroup.procs"), process);
        }
        match fs::remove_dir(from) {
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::yield_now();
            }
            // systemd removes a scope's when it is empty.
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            removed => return Ok(removed?),
        }
    }
}

fn exec_cgroup(context: &Context) -> Result<()> {
    unified_only(context)?;
    let mut bundle = context.bundle()?;
    bundle.started()?;
    fs::create_dir(folder(&bundle)?.join("side"))?;
    let said = bundle.exec(&["--cgroup", "side"], "cat /proc/self/cgroup")?.ok()?;
    ensure!(said.text().ends_with("/side"), "{:?}", said.text());
    Ok(())
}

fn owner_of(context: &Context, options: &[&str]) -> Result<(u32, u32, u32)> {
    let mut bundle = context.bundle()?;
    bundle.user_namespace()?;
    bundle.without_mount("/sys/fs/cgroup");
    bundle.mount("cgroup", "cgroup", "/sys/fs/cgroup", options);
    bundle.started()?;
    let folder = folder(&bundle)?;
    let uid = |name: &str| Ok::<_, anyhow::Error>(fs::metadata(folder.join(name))?.uid());
    Ok((uid("")?, uid("cgroup.procs")?, uid("memory.max")?))
}

fn ownership(context: &Context) -> Result<()> {
    unified_with(context, &["memory"])?;
    let (group, procs, limit) = owner_of(context, &["nosuid", "noexec", "nodev"])?;
    ensure!((group, procs) == (100_000, 100_000), "the group is {group}'s, cgroup.procs {procs}'s");
    ensure!(limit == 0, "memory.max is {limit}'s: the container could raise its own limit");
    Ok(())
}

fn no_ownership(context: &Context) -> Result<()> {
    unified_with(context, &["memory"])?;
    let owners = owner_of(context, &["nosuid", "noexec", "nodev", "ro"])?;
    ensure!(owners == (0, 0, 0), "{owners:?}");
    Ok(())
}

fn devices_after_update(context: &Context) -> Result<()> {
    unified_with(context, &["pids"])?;
    let mut bundle = context.bundle()?;
    for set in ["bounding", "effective", "permitted"] {
        bundle.push(&format!("/process/capabilities/{set}"), json!("CAP_MKNOD"));
    }
    bundle.started()?;
    bundle.runtime(&["update", "--pids-limit", "40", &bundle.id])?.ok()?;
    // The kernel's log: not among the devices of a container.
    let denied = bundle.exec(&["--cap", "CAP_MKNOD"], "mknod /tmp/kmsg c 1 11; head -c 1 /tmp/kmsg")?;
    ensure!(!denied.success() && denied.stderr.contains("not permitted"), "{}{}", denied.stdout, denied.stderr);
    let allowed = bundle.exec(&[], "head -c 1 /dev/zero >/dev/null && echo ok")?.ok()?;
    ensure!(allowed.text() == "ok");
    Ok(())
}

fn clone_into(context: &Context) -> Result<()> {
    unified_only(context)?;
    if context.systemd() {
        return Err(skip("systemd moves the process into the scope that it makes around it"));
    }
    let mut bundle = context.bundle()?;
    bundle.set("/process/args", json!(["true"])).save()?;
    let trace = bundle.path.join("trace");
    let mut command = context.traced(&["-e", "trace=clone3"], &trace)?;
    command.args(["run", "--bundle", &bundle.path.to_string_lossy(), &bundle.id]).current_dir(&bundle.path);
    run(&mut command, None)?.ok()?;
    let calls = fs::read_to_string(trace)?;
    ensure!(calls.contains("CLONE_INTO_CGROUP"), "{calls}");
    Ok(())
}
