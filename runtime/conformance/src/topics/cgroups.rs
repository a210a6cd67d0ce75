//! config-linux.md "Control groups", on whichever version the machine has.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Bundle;
use crate::command::{patience, run};
use crate::context::{Cgroups, Context};
use crate::suite::{Test, case, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test(
        "path-absolute",
        "cgroupsPath: an absolute path is taken to be relative to the cgroups mount point",
        path_absolute,
    ),
    test(
        "path-relative",
        "cgroupsPath: a relative path MAY be interpreted relative to a runtime-determined location",
        path_relative,
    ),
    test("path-absent", "cgroupsPath: if not specified, the runtime MAY define the default", path_absent),
    test("all-controllers", "the process is in a cgroup of its own in each hierarchy", all_controllers),
    test(
        "systemd-hierarchy",
        "version 1: the container sees its own group of systemd's hierarchy, which an init system inside needs",
        sees_systemd,
    ),
    test("members-before-start", "the process is in its cgroup before the program runs", members_before_start),
    case(
        "memory-limit",
        "memory.limit",
        value,
        "memory|/memory/limit|67108864|memory.limit_in_bytes|memory.max|67108864",
    ),
    case(
        "memory-unlimited",
        "memory.limit -1: unlimited",
        value,
        "memory|/memory/limit|-1|memory.limit_in_bytes|memory.max|9223372036854771712/max",
    ),
    case(
        "memory-reservation",
        "memory.reservation",
        value,
        "memory|/memory/reservation|33554432|memory.soft_limit_in_bytes|memory.low|33554432",
    ),
    case(
        "memory-swap",
        "memory.swap: memory and swap together on v1, swap alone on v2",
        value,
        "memory|/memory|{\"limit\":67108864,\"swap\":100663296}|memory.memsw.limit_in_bytes|memory.swap.max|100663296/33554432",
    ),
    case(
        "memory-kernel-tcp",
        "memory.kernelTCP on v1",
        value,
        "memory|/memory/kernelTCP|16777216|memory.kmem.tcp.limit_in_bytes||16777216",
    ),
    case("memory-swappiness", "memory.swappiness on v1", value, "memory|/memory/swappiness|37|memory.swappiness||37"),
    case(
        "memory-oom-killer",
        "memory.disableOOMKiller on v1",
        value,
        "memory|/memory/disableOOMKiller|true|memory.oom_control||oom_kill_disable 1",
    ),
    case("cpu-shares", "cpu.shares", value, "cpu|/cpu/shares|512|cpu.shares|cpu.weight|512/59/20"),
    case("cpu-quota", "cpu.quota", value, "cpu|/cpu/quota|50000|cpu.cfs_quota_us|cpu.max|50000/50000 100000"),
    case("cpu-period", "cpu.period", value, "cpu|/cpu/period|200000|cpu.cfs_period_us|cpu.max|200000/max 200000"),
    case("cpu-burst", "cpu.burst", burst, ""),
    case("cpu-idle", "cpu.idle", value, "cpu|/cpu/idle|1|cpu.idle|cpu.idle|1"),
    test(
        "cpu-realtime",
        "cpu.realtimeRuntime, realtimePeriod: set, and updated in whichever order the kernel takes both",
        realtime,
    ),
    case("cpuset-cpus", "cpu.cpus", value, "cpuset|/cpu/cpus|\"0\"|cpuset.cpus|cpuset.cpus|0"),
    case("cpuset-mems", "cpu.mems", value, "cpuset|/cpu/mems|\"0\"|cpuset.mems|cpuset.mems|0"),
    case("pids-limit", "pids.limit", value, "pids|/pids/limit|50|pids.max|pids.max|50"),
    case("pids-unlimited", "pids.limit -1: unlimited", value, "pids|/pids/limit|-1|pids.max|pids.max|max"),
    case(
        "blkio-weight",
        "blockIO.weight",
        value,
        "blkio|/blockIO/weight|500|blkio.bfq.weight/blkio.weight|io.bfq.weight|500/default 500",
    ),
    test("memory-enforced", "a process over the memory limit is killed", memory_enforced),
    test("pids-enforced", "a fork over the pids limit fails", pids_enforced),
    test(
        "memory-tiny",
        "a container starts under a limit of 4 MiB: the runtime's own memory is not charged (runc#1980)",
        memory_tiny,
    ),
    test("cpu-quota-invalid", "a value that the kernel refuses is an error that names it", quota_invalid),
    test(
        "unified",
        "unified: the runtime MUST generate an error when the file does not exist, or when cgroup v2 is not there",
        unified,
    ),
    case("block-throttle", "blockIO.throttleReadBpsDevice", throttle, "Read Bps read_bps rbps"),
    case("block-throttle-write", "blockIO.throttleWriteBpsDevice", throttle, "Write Bps write_bps wbps"),
    case("block-throttle-reads", "blockIO.throttleReadIOPSDevice", throttle, "Read IOPS read_iops riops"),
    case("block-throttle-writes", "blockIO.throttleWriteIOPSDevice", throttle, "Write IOPS write_iops wiops"),
    test("network-class", "network.classID on v1", network_class),
    test("hugepage-limit", "hugepageLimits", hugepages),
    test("update-live", "update changes the limits of a running container", update_live),
    test("update-failed", "an update that fails changes nothing (as runc's)", update_failed),
    test("update-from-file", "update -r reads the specification's resources", update_from_file),
    test("stats", "events --stats prints memory, cpu and pids", stats),
    test("stats-cpuset", "events --stats prints the CPUs and the memory nodes of the container", stats_cpuset),
    test("stats-v1", "events --stats on v1: time in each mode by CPU, and kernel memory", stats_v1),
    test("removed", "the cgroup is removed with the container", removed),
    test(
        "removed-with-children",
        "cgroups that the container made below its own are removed too",
        removed_with_children,
    ),
    test("removed-though-busy", "a cgroup that is busy for a moment is removed all the same", removed_though_busy),
    test("frozen-delete", "delete --force of a paused container works", frozen_delete),
    test("frozen-exec", "exec into a paused container is an error, not a hang (runc#2753)", frozen_exec),
];

fn v1_or_v2(context: &Context, v1: Value, v2: Value) -> Value {
    if context.cgroups == Cgroups::V1 { v1 } else { v2 }
}

fn path_absolute(context: &Context) -> Result<()> {
    if context.systemd() {
        return Err(skip("systemd places containers by slice"));
    }
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let folder = bundle.cgroup("pids", bundle.pid()?)?;
    ensure!(folder.ends_with(format!("berth-test/{}", bundle.id)), "{}", folder.display());
    Ok(())
}

fn path_relative(context: &Context) -> Result<()> {
    if context.systemd() {
        return Err(skip("systemd places containers by slice"));
    }
    let mut bundle = context.bundle()?;
    let name = format!("relative-{}", bundle.id);
    bundle.set("/linux/cgroupsPath", json!(name));
    bundle.started()?;
    let folder = bundle.cgroup("pids", bundle.pid()?)?;
    ensure!(folder.ends_with(&name), "{}", folder.display());
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!(!folder.exists(), "{} is still there", folder.display());
    Ok(())
}

fn path_absent(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.unset("/linux/cgroupsPath");
    bundle.started()?;
    let folder = bundle.cgroup("pids", bundle.pid()?)?;
    ensure!(folder.to_string_lossy().contains(&bundle.id), "{}", folder.display());
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!(!folder.exists(), "{} is still there", folder.display());
    Ok(())
}

fn all_controllers(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let text = fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid()?))?;
    // Of the hierarchies without controllers only systemd's: one that runs in the container finds its place there.
    let other = |line: &str| line.contains(":name=") && !line.contains(":name=systemd:");
    for line in text.lines().filter(|line| !other(line)) {
        let mut fields = line.splitn(3, ':');
        let (_, controllers, path) = (fields.next(), fields.next().unwrap_or(""), fields.next().unwrap_or(""));
        // Beside the hierarchies of one version, the other's may be there for nobody.
        let others = controllers.is_empty() == (context.cgroups == Cgroups::V1);
        ensure!(others || path.contains(&bundle.id), "{line}");
    }
    Ok(())
}

fn sees_systemd(context: &Context) -> Result<()> {
    if !Path::new("/sys/fs/cgroup/systemd/cgroup.procs").exists() {
        return Err(skip("there is no such hierarchy"));
    }
    let mut bundle = context.bundle()?;
    bundle.without_mount("/sys/fs/cgroup");
    bundle.mount("cgroup", "cgroup", "/sys/fs/cgroup", &["nosuid", "noexec", "nodev", "ro"]);
    let seen = bundle.run_script("cat /sys/fs/cgroup/systemd/cgroup.procs")?;
    ensure!(seen.lines().any(|pid| pid == "1"), "its own process is not in what it sees: {seen:?}");
    Ok(())
}

fn members_before_start(context: &Context) -> Result<()> {
    let bundle = context.bundle()?;
    bundle.created()?;
    let pid = bundle.pid()?;
    let procs = fs::read_to_string(bundle.cgroup("memory", pid)?.join("cgroup.procs"))?;
    ensure!(procs.lines().any(|line| line == pid.to_string()), "{procs:?} lacks {pid}");
    Ok(())
}

/// One resource: controller | place in `resources` | value | v1 files | v2 file | accepted contents.
fn value(context: &Context, row: &str) -> Result<()> {
    let fields: Vec<&str> = row.split('|').collect();
    let [controller, pointer, value, v1, v2, wanted] = fields[..] else { anyhow::bail!("row {row}") };
    context.needs(controller)?;
    if context.cgroups == Cgroups::V2 && v2.is_empty() {
        return Err(skip("cgroups of version 2 have no such limit"));
    }
    let mut bundle = context.bundle()?;
    bundle.set(&format!("/linux/resources{pointer}"), serde_json::from_str(value)?);
    bundle.started()?;
    let folder = bundle.cgroup(controller, bundle.pid()?)?;
    let names = if context.cgroups == Cgroups::V1 { v1 } else { v2 };
    let Some(file) = names.split('/').map(|name| folder.join(name)).find(|path| path.exists()) else {
        return Err(skip(format!("this kernel has no {names}")));
    };
    let got = fs::read_to_string(&file)?.lines().next().unwrap_or_default().to_owned();
    ensure!(wanted.split('/').any(|one| one == got), "{} is {got:?} instead of {wanted}", file.display());
    Ok(())
}

fn burst(context: &Context, _row: &str) -> Result<()> {
    context.needs("cpu")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/cpu", json!({"quota": 50000, "period": 100_000, "burst": 20000}));
    bundle.started()?;
    let got = bundle.cgroup_file("cpu", "cpu.cfs_burst_us", "cpu.max.burst")?;
    ensure!(got == "20000", "{got}");
    Ok(())
}

fn memory_enforced(context: &Context) -> Result<()> {
    context.needs("memory")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/memory", json!({"limit": 20 << 20, "swap": 20 << 20}));
    bundle.script("head -c 100000000 /dev/zero | tail -c 90000000 | wc -c");
    let output = bundle.run()?;
    ensure!(output.text() != "90000000", "90 MB fit into 20 MiB");
    Ok(())
}

fn pids_enforced(context: &Context) -> Result<()> {
    context.needs("pids")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/pids", json!({"limit": 10}));
    let output = bundle.script("for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1 & done 2>&1; true").run()?;
    let said = format!("{}{}", output.stdout, output.stderr);
    ensure!(said.contains("fork") || said.contains("unavailable"), "{said:?}");
    Ok(())
}

fn memory_tiny(context: &Context) -> Result<()> {
    context.needs("memory")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/memory", json!({"limit": 4 << 20}));
    let said = bundle.run_script("echo alive")?;
    ensure!(said == "alive", "{said}");
    Ok(())
}

fn quota_invalid(context: &Context) -> Result<()> {
    context.needs("cpu")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/cpu", json!({"quota": 5}));
    let output = bundle.refused()?;
    ensure!(output.stderr.contains("cpu"), "{:?}", output.stderr);
    Ok(())
}

fn unified(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/unified", json!({"pids.max": "77"}));
    if context.cgroups == Cgroups::V1 {
        return bundle.refused().map(drop);
    }
    context.needs("pids")?;
    bundle.started()?;
    let got = bundle.cgroup_file("pids", "", "pids.max")?;
    ensure!(got == "77", "{got}");
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/unified", json!({"no.such.file": "1"}));
    bundle.refused().map(drop)
}

fn throttle(context: &Context, row: &str) -> Result<()> {
    context.needs("blkio")?;
    let [direction, unit, v1, v2] = row.split(' ').collect::<Vec<_>>()[..] else { anyhow::bail!("row {row}") };
    let text = fs::read_to_string("/proc/partitions")?;
    let disk = text.lines().skip(2).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let Some(disk) = disk
        .into_iter()
        .find(|fields| fields.len() == 4 && (fields[3].starts_with("vd") || fields[3].starts_with("sd")))
    else {
        return Err(skip("no disk"));
    };
    let (major, minor): (u32, u32) = (disk[0].parse()?, disk[1].parse()?);
    let mut bundle = context.bundle()?;
    bundle.set(
        "/linux/resources/blockIO",
        json!({format!("throttle{direction}{unit}Device"): [{"major": major, "minor": minor, "rate": 1_048_576}]}),
    );
    bundle.started()?;
    let got = bundle.cgroup_file("blkio", &format!("blkio.throttle.{v1}_device"), "io.max")?;
    let wanted = if context.cgroups == Cgroups::V1 { "1048576".to_owned() } else { format!("{v2}=1048576") };
    ensure!(got.starts_with(&format!("{major}:{minor} ")) && got.contains(&wanted), "{got:?}");
    Ok(())
}

fn network_class(context: &Context) -> Result<()> {
    context.needs("net_cls")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/network", json!({"classID": 1_048_577}));
    bundle.started()?;
    let got = bundle.cgroup_file("net_cls", "net_cls.classid", "")?;
    ensure!(got == "1048577", "{got}");
    Ok(())
}

fn hugepages(context: &Context) -> Result<()> {
    context.needs("hugetlb")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/hugepageLimits", json!([{"pageSize": "2MB", "limit": 4_194_304}]));
    bundle.started()?;
    let got = bundle.cgroup_file("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max")?;
    ensure!(got == "4194304", "{got}");
    Ok(())
}

/// Whether groups of processes need a part of the machine's real-time to have real-time processes.
pub(super) fn shares_real_time(context: &Context) -> bool {
    !context.systemd() && Path::new("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists()
}

/// Only what the group above has can be given on, and a new one has nothing. All groups share one budget, and others may want the whole of it,
/// so it is given back.
pub(super) fn with_real_time_budget<T>(test: impl FnOnce() -> Result<T>) -> Result<T> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let above = Path::new("/sys/fs/cgroup/cpu/berth-test");
    fs::create_dir_all(above)?;
    let budget = above.join("cpu.rt_runtime_us");
    fs::write(&budget, "200000").context("real-time budget of the group above")?;
    let result = test();
    // The kernel counts the container's group for some time after it was removed.
    let deadline = Instant::now() + patience();
    while let Err(error) = fs::write(&budget, "0") {
        ensure!(Instant::now() < deadline, "giving the real-time budget back: {error}");
        std::thread::yield_now();
    }
    result
}

fn realtime(context: &Context) -> Result<()> {
    if !shares_real_time(context) {
        return Err(skip("no cgroups of version 1 with real-time limits"));
    }
    with_real_time_budget(|| realtime_below(context))
}

fn realtime_below(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/cpu", json!({"realtimeRuntime": 50000, "realtimePeriod": 500_000}));
    bundle.started()?;
    let holds = |runtime: u32, period: u32| -> Result<()> {
        let value = |file| bundle.cgroup_file("cpu", file, "");
        let got = (value("cpu.rt_runtime_us")?, value("cpu.rt_period_us")?);
        ensure!(got == (runtime.to_string(), period.to_string()), "{got:?} instead of {runtime} of {period}");
        Ok(())
    };
    holds(50000, 500_000)?;
    // The first period is below the present runtime, the second runtime above the present period.
    for (runtime, period) in [(5000, 40000), (50000, 500_000)] {
        let file = bundle.path.join("resources.json");
        fs::write(&file, json!({"cpu": {"realtimeRuntime": runtime, "realtimePeriod": period}}).to_string())?;
        bundle.runtime(&["update", "-r", &file.to_string_lossy(), &bundle.id])?.ok()?;
        holds(runtime, period)?;
    }
    Ok(())
}

fn update_live(context: &Context) -> Result<()> {
    context.needs("memory")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20}));
    bundle.started()?;
    bundle.runtime(&["update", "--memory", "33554432", "--pids-limit", "44", &bundle.id])?.ok()?;
    let got = bundle.cgroup_file("memory", "memory.limit_in_bytes", "memory.max")?;
    ensure!(got == "33554432", "memory {got}");
    let got = bundle.cgroup_file("pids", "pids.max", "pids.max")?;
    ensure!(got == "44", "pids {got}");
    Ok(())
}

fn update_failed(context: &Context) -> Result<()> {
    ["memory", "cpu", "cpuset"].iter().try_for_each(|controller| context.needs(controller))?;
    if context.systemd() {
        return Err(skip("systemd keeps what it was told"));
    }
    let mut bundle = context.bundle()?;
    bundle
        .set("/linux/resources/memory", json!({"limit": 64 << 20}))
        .set("/linux/resources/cpu", json!({"shares": 512}));
    bundle.started()?;
    let settings = |bundle: &Bundle<'_>| -> Result<[String; 3]> {
        Ok([
            bundle.cgroup_file("memory", "memory.limit_in_bytes", "memory.max")?,
            bundle.cgroup_file("cpu", "cpu.shares", "cpu.weight")?,
            bundle.cgroup_file("cpuset", "cpuset.cpus", "cpuset.cpus")?,
        ])
    };
    let before = settings(&bundle)?;
    let update = ["update", "--memory", "33554432", "--cpu-share", "100", "--cpuset-cpus", "9999", &bundle.id];
    ensure!(!bundle.runtime(&update)?.success(), "there is no processor 9999");
    let after = settings(&bundle)?;
    ensure!(before == after, "{before:?} became {after:?}");
    Ok(())
}

fn update_from_file(context: &Context) -> Result<()> {
    context.needs("pids")?;
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let file = bundle.path.join("resources.json");
    fs::write(&file, v1_or_v2(context, json!({"pids": {"limit": 33}}), json!({"pids": {"limit": 33}})).to_string())?;
    bundle.runtime(&["update", "-r", &file.to_string_lossy(), &bundle.id])?.ok()?;
    let got = bundle.cgroup_file("pids", "pids.max", "pids.max")?;
    ensure!(got == "33", "{got}");
    Ok(())
}

fn stats(context: &Context) -> Result<()> {
    ["pids", "memory", "cpu"].iter().try_for_each(|controller| context.needs(controller))?;
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let output = bundle.runtime(&["events", "--stats", &bundle.id])?.ok()?;
    let stats: Value = serde_json::from_str(&output.stdout)?;
    ensure!(stats["type"] == "stats" && stats["id"] == bundle.id.as_str(), "{stats}");
    ensure!(stats["data"]["pids"]["current"].as_u64().is_some_and(|pids| pids > 0), "pids: {stats}");
    ensure!(stats["data"]["memory"]["usage"]["usage"].as_u64().is_some_and(|bytes| bytes > 0), "memory: {stats}");
    ensure!(stats["data"]["cpu"]["usage"]["total"].as_u64().is_some_and(|time| time > 0), "cpu: {stats}");
    Ok(())
}

/// What `events --stats` says of a running container.
fn data_of(bundle: &Bundle<'_>) -> Result<Value> {
    let output = bundle.runtime(&["events", "--stats", &bundle.id])?.ok()?;
    let mut stats: Value = serde_json::from_str(&output.stdout)?;
    Ok(stats["data"].take())
}

fn stats_cpuset(context: &Context) -> Result<()> {
    context.needs("cpuset")?;
    let mut bundle = context.bundle()?;
    bundle.set("/linux/resources/cpu", json!({"cpus": "0", "mems": "0"}));
    bundle.started()?;
    let cpuset = &data_of(&bundle)?["cpuset"];
    ensure!(cpuset["cpus"] == json!([0]) && cpuset["mems"] == json!([0]), "{cpuset}");
    ensure!(cpuset["cpu_exclusive"] == 0 && cpuset["sched_relax_domain_level"].is_i64(), "{cpuset}");
    Ok(())
}

fn stats_v1(context: &Context) -> Result<()> {
    if context.cgroups != Cgroups::V1 {
        return Err(skip("cgroups of version 2 do not count this"));
    }
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let folder = bundle.cgroup("cpuacct", bundle.pid()?)?;
    let cpus = fs::read_to_string(folder.join("cpuacct.usage_percpu"))?.split_whitespace().count();
    let data = data_of(&bundle)?;
    for key in ["percpu", "percpu_kernel", "percpu_user"] {
        let list = data["cpu"]["usage"][key].as_array().with_context(|| format!("no {key} in {data}"))?;
        ensure!(list.len() == cpus, "{key}: {list:?} for {cpus} CPUs");
    }
    let memory = &data["memory"];
    let kernel = bundle.cgroup("memory", bundle.pid()?)?.join("memory.kmem.limit_in_bytes");
    let limit: u64 = fs::read_to_string(kernel)?.trim().parse()?;
    ensure!(memory["kernel"]["limit"] == limit && memory["kernelTCP"]["limit"].is_u64(), "{memory}");
    Ok(())
}

fn removed(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let pid = bundle.pid()?;
    let folders: Vec<_> = ["memory", "pids", "cpu", "devices", "freezer"]
        .into_iter()
        .filter_map(|controller| bundle.cgroup(controller, pid).ok())
        .collect();
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    for folder in folders {
        ensure!(!folder.exists(), "{} is still there", folder.display());
    }
    Ok(())
}

fn removed_with_children(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let folder = bundle.cgroup("pids", bundle.pid()?)?;
    fs::create_dir_all(folder.join("child/grandchild"))?;
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!(!folder.exists(), "{} is still there", folder.display());
    Ok(())
}

fn removed_though_busy(context: &Context) -> Result<()> {
    if context.systemd() {
        return Err(skip("systemd removes the cgroup"));
    }
    let mut bundle = context.bundle()?;
    bundle.started()?;
    let folder = bundle.cgroup("pids", bundle.pid()?)?;
    let trace = bundle.path.join("trace");
    // The first two removals of this path fail.
    let path = folder.to_string_lossy();
    let inject = ["-e", "trace=rmdir,unlinkat", "-e", "inject=rmdir,unlinkat:error=EBUSY:when=1..2", "-P", &*path];
    run(context.traced(&inject, &trace)?.args(["delete", "--force", &bundle.id]), None)?.ok()?;
    let calls = fs::read_to_string(trace)?;
    ensure!(calls.contains("EBUSY") && calls.contains("INJECTED"), "nothing was busy: {calls}");
    ensure!(!folder.exists(), "{} is still there", folder.display());
    Ok(())
}

fn frozen_delete(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    bundle.runtime(&["pause", &bundle.id])?.ok()?;
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "it is still there");
    Ok(())
}

fn frozen_exec(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.started()?;
    bundle.runtime(&["pause", &bundle.id])?.ok()?;
    let output = bundle.exec(&[], "true");
    bundle.runtime(&["resume", &bundle.id])?;
    ensure!(!output?.success(), "exec succeeded");
    Ok(())
}
