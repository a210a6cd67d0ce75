//! The systemd driver: containers as transient scopes (`--systemd-cgroup`).

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::bundle::Bundle;
use crate::command::{Output, patience, run, run_within};
use crate::context::{Cgroups, Context};
use crate::suite::{Test, skip, test};

pub(crate) const TESTS: &[Test] = &[
    test("names", "cgroupsPath slice:prefix:name is PREFIX-NAME.scope in the slice", names),
    test("nested-slice", "a slice a-b.slice is below a.slice", nested_slice),
    test("path-invalid", "a cgroupsPath of another form is an error", path_invalid),
    test("properties", "limits are properties of the unit, as far as there are such", properties),
    test("unified-properties", "limits of the unified map are properties too", unified_properties),
    test("update", "update changes the properties with the limits", update),
    test("update-quota", "update of a quota or a period alone leaves the other, in the unit too", update_quota),
    test("update-unlimited", "update --memory -1 takes the limit of swap away too", update_unlimited),
    test("update-used", "checkBeforeUpdate refuses a limit below the use before systemd sets it", update_used),
    test("idle", "an idle group is one in the unit too, and stays one", idle),
    test("frozen", "a unit whose cgroup is there, and frozen, is refused and not waited for", frozen),
    test("taken", "a unit that runs another container is refused", taken),
    test("reload", "a reload of systemd takes no limit and no device rule back", reload),
    test("device-policy", "the device rules are the unit's: DevicePolicy=strict", device_policy),
    test("delegate", "the unit's cgroup is delegated", delegate),
    test("annotations", "org.systemd.property.* annotations are properties", annotations),
    test("annotation-invalid", "an annotation that is no value of a property is an error", annotation_invalid),
    test("exec", "exec joins the container's scope", exec),
    test("deleted", "the unit goes with the container", deleted),
    test("stopped", "a container whose unit was stopped is stopped, and can be deleted", stopped),
    test(
        "failed",
        "a process that fails before systemd has moved it is told of, and nothing happens to the cgroup of who called",
        failed,
    ),
    test("gone", "without systemd, create is an error that says so, and leaves nothing", gone),
    test("silent", "a systemd that does not answer is an error within a deadline", silent),
];

/// A bundle in a slice of the suite's own.
fn bundle(context: &Context) -> Result<Bundle<'_>> {
    if !context.systemd() || context.cgroups == Cgroups::V1 {
        return Err(skip("not the systemd driver on cgroups of version 2"));
    }
    context.bundle()
}

fn unit(bundle: &Bundle<'_>) -> String {
    format!("test-{}.scope", bundle.id)
}

fn systemctl(args: &[&str]) -> Result<Output> {
    run(Command::new("systemctl").args(args), None)?.ok()
}

fn property(unit: &str, name: &str) -> Result<String> {
    Ok(systemctl(&["show", "--value", "--property", name, unit])?.text().to_owned())
}

fn has(unit: &str, wanted: &[(&str, &str)]) -> Result<()> {
    for (name, wanted) in wanted {
        let got = property(unit, name)?;
        ensure!(got == *wanted, "{name} is {got:?} instead of {wanted:?}");
    }
    Ok(())
}

fn names(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.started()?;
    let folder = bundle.cgroup("", bundle.pid()?)?;
    let wanted = format!("/sys/fs/cgroup/hc.slice/{}", unit(&bundle));
    ensure!(folder.starts_with(&wanted), "{} instead of {wanted}", folder.display());
    has(&unit(&bundle), &[("ActiveState", "active"), ("Slice", "hc.slice")])
}

fn nested_slice(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.set("/linux/cgroupsPath", json!(format!("hc-inner.slice:test:{}", bundle.id)));
    bundle.started()?;
    let folder = bundle.cgroup("", bundle.pid()?)?;
    ensure!(folder.starts_with("/sys/fs/cgroup/hc.slice/hc-inner.slice"), "{}", folder.display());
    Ok(())
}

fn path_invalid(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.set("/linux/cgroupsPath", json!("/a/plain/path"));
    bundle.refused().map(drop)
}

fn limited(bundle: &mut Bundle<'_>) {
    bundle.set("/linux/resources/memory", json!({"limit": 64 << 20, "swap": 96 << 20, "reservation": 32 << 20}));
    bundle.set(
        "/linux/resources/cpu",
        json!({"quota": 50000, "period": 200_000, "shares": 1024, "cpus": "0", "mems": "0"}),
    );
    bundle.set("/linux/resources/pids", json!({"limit": 50}));
}

/// Skips where the hierarchy lacks controllers that these tests limit.
fn controllers(context: &Context) -> Result<()> {
    ["cpu", "cpuset", "memory", "pids"].iter().try_for_each(|controller| context.needs(controller))
}

fn properties(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    controllers(context)?;
    limited(&mut bundle);
    bundle.started()?;
    has(
        &unit(&bundle),
        &[
            ("MemoryMax", "67108864"),
            ("MemoryLow", "33554432"),
            ("MemorySwapMax", "33554432"),
            ("CPUQuotaPerSecUSec", "250ms"),
            ("CPUQuotaPeriodUSec", "200ms"),
            ("AllowedCPUs", "0"),
            ("AllowedMemoryNodes", "0"),
            ("TasksMax", "50"),
        ],
    )?;
    let weight = property(&unit(&bundle), "CPUWeight")?;
    // By the formula of 2025, or the older one.
    ensure!(["100", "39"].contains(&weight.as_str()), "CPUWeight is {weight}");
    Ok(())
}

fn unified_properties(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    controllers(context)?;
    context.several_cpus()?;
    bundle.set(
        "/linux/resources/unified",
        json!({"memory.high": "50331648", "memory.min": "1048576", "pids.max": "44", "cpu.weight": "77", "cpuset.cpus": "1"}),
    );
    bundle.started()?;
    has(
        &unit(&bundle),
        &[
            ("MemoryHigh", "50331648"),
            ("MemoryMin", "1048576"),
            ("TasksMax", "44"),
            ("CPUWeight", "77"),
            ("AllowedCPUs", "1"),
        ],
    )
}

fn update(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    controllers(context)?;
    limited(&mut bundle);
    bundle.started()?;
    bundle
        .runtime(&["update", "--memory", "83886080", "--memory-swap", "-1", "--pids-limit", "33", &bundle.id])?
        .ok()?;
    has(&unit(&bundle), &[("MemoryMax", "83886080"), ("MemorySwapMax", "infinity"), ("TasksMax", "33")])
}

fn update_quota(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    controllers(context)?;
    bundle.set("/linux/resources/cpu", json!({"quota": 500_000, "period": 1_000_000}));
    bundle.started()?;
    let folder = bundle.cgroup("", bundle.pid()?)?;
    let now = |file: &str, per_second: &str, period: &str| -> Result<()> {
        has(&unit(&bundle), &[("CPUQuotaPerSecUSec", per_second), ("CPUQuotaPeriodUSec", period)])?;
        systemctl(&["daemon-reload"])?;
        systemctl(&["set-property", "--runtime", &unit(&bundle), "MemoryMin=1M"])?;
        let got = fs::read_to_string(folder.join("cpu.max"))?;
        ensure!(got.starts_with(file), "cpu.max is {got:?} instead of {file:?}");
        Ok(())
    };
    bundle.runtime(&["update", "--cpu-period", "800000", &bundle.id])?.ok()?;
    now("504000 800000", "630ms", "800ms")?;
    bundle.runtime(&["update", "--cpu-quota", "200000", &bundle.id])?.ok()?;
    now("200000 800000", "250ms", "800ms")?;
    bundle.runtime(&["update", "--cpu-quota", "-1", &bundle.id])?.ok()?;
    // The period of no quota means nothing, and systemd writes the usual one when it sets the unit up anew.
    now("max ", "infinity", "800ms")
}

fn update_unlimited(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    controllers(context)?;
    limited(&mut bundle);
    bundle.started()?;
    bundle.runtime(&["update", "--memory", "-1", &bundle.id])?.ok()?;
    has(&unit(&bundle), &[("MemoryMax", "infinity"), ("MemorySwapMax", "infinity")])
}

fn update_used(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    controllers(context)?;
    limited(&mut bundle);
    bundle.started()?;
    let file = bundle.path.join("limits.json");
    fs::write(&file, json!({"memory": {"limit": 4096, "swap": 8192, "checkBeforeUpdate": true}}).to_string())?;
    let said = bundle.runtime(&["update", "--resources", &file.to_string_lossy(), &bundle.id])?;
    ensure!(!said.success(), "the limit was taken");
    has(&unit(&bundle), &[("MemoryMax", "67108864")])?;
    bundle.exec(&[], "true")?.ok().map(drop)
}

fn idle(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    controllers(context)?;
    bundle.started()?;
    let folder = bundle.cgroup("", bundle.pid()?)?;
    let idle = || Ok::<_, anyhow::Error>(fs::read_to_string(folder.join("cpu.idle"))?.trim().to_owned());
    bundle.runtime(&["update", "--cpu-idle", "1", &bundle.id])?.ok()?;
    ensure!(idle()? == "1", "not idle");
    systemctl(&["set-property", "--runtime", &unit(&bundle), "MemoryMin=1M"])?;
    ensure!(idle()? == "1", "not idle after a change of the unit");
    bundle.runtime(&["update", "--cpu-idle", "0", &bundle.id])?.ok()?;
    systemctl(&["set-property", "--runtime", &unit(&bundle), "MemoryMin=2M"])?;
    ensure!(idle()? == "0", "idle again after a change of the unit");
    Ok(())
}

fn frozen(context: &Context) -> Result<()> {
    let bundle = bundle(context)?;
    let folder = Path::new("/sys/fs/cgroup/hc.slice").join(unit(&bundle));
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("cgroup.freeze"), "1")?;
    let refused = bundle.refused();
    fs::remove_dir(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    refused.map(drop)
}

fn taken(context: &Context) -> Result<()> {
    let mut first = bundle(context)?;
    first.started()?;
    let mut second = context.bundle()?;
    second.set("/linux/cgroupsPath", json!(format!("hc.slice:test:{}", first.id)));
    second.refused()?;
    first.exec(&[], "true")?.ok().map(drop)
}

fn reload(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    controllers(context)?;
    limited(&mut bundle);
    bundle.set("/linux/resources/unified", json!({"memory.high": "50331648"}));
    bundle.started()?;
    let folder = bundle.cgroup("", bundle.pid()?)?;
    const FILES: [&str; 7] =
        ["memory.max", "memory.low", "memory.high", "cpu.max", "cpu.weight", "cpuset.cpus", "pids.max"];
    let limits = || FILES.map(|file| fs::read_to_string(folder.join(file)).unwrap_or_default());
    let before = limits();
    systemctl(&["daemon-reload"])?;
    // Makes it write the unit's properties again, as a change of any of them does.
    systemctl(&["set-property", "--runtime", &unit(&bundle), "MemoryMin=1M"])?;
    ensure!(limits() == before, "{before:?} became {:?}", limits());
    let devices = "head -c 1 /dev/zero >/dev/null && mknod /tmp/kmsg c 1 11 && ! head -c 1 /tmp/kmsg 2>/dev/null && echo as before";
    let said = bundle.exec(&["--cap", "CAP_MKNOD"], devices)?.ok()?;
    ensure!(said.text() == "as before", "{}{}", said.stdout, said.stderr);
    Ok(())
}

fn device_policy(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.push(
        "/linux/resources/devices",
        json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"}),
    );
    bundle.started()?;
    has(&unit(&bundle), &[("DevicePolicy", "strict")])?;
    let allowed = property(&unit(&bundle), "DeviceAllow")?;
    for wanted in ["/dev/char/1:3 rwm", "/dev/char/10:229 rw", "char-pts rwm"] {
        ensure!(allowed.contains(wanted), "{wanted} is not in {allowed:?}");
    }
    Ok(())
}

fn delegate(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.started()?;
    has(&unit(&bundle), &[("Delegate", "yes")])
}

fn annotations(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.set(
        "/annotations",
        json!({"org.systemd.property.TimeoutStopUSec": "uint64 7000000", "org.systemd.property.CollectMode": "'inactive-or-failed'"}),
    );
    bundle.started()?;
    has(&unit(&bundle), &[("TimeoutStopUSec", "7s"), ("CollectMode", "inactive-or-failed")])
}

fn annotation_invalid(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.set("/annotations", json!({"org.systemd.property.TimeoutStopUSec": "seven"}));
    bundle.refused().map(drop)
}

fn exec(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.without_namespace("cgroup");
    bundle.started()?;
    let said = bundle.exec(&[], "cat /proc/self/cgroup")?.ok()?;
    ensure!(said.text().contains(&unit(&bundle)), "{:?}", said.text());
    Ok(())
}

fn deleted(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.started()?;
    let folder = bundle.cgroup("", bundle.pid()?)?;
    bundle.runtime(&["delete", "--force", &bundle.id])?.ok()?;
    ensure!(!folder.exists(), "{} is still there", folder.display());
    ensure!(property(&unit(&bundle), "ActiveState")? == "inactive", "the unit is still there");
    Ok(())
}

fn stopped(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.started()?;
    // One whose processes end is gone by itself, often before the second command.
    systemctl(&["kill", "--signal=KILL", &unit(&bundle)])?;
    run(Command::new("systemctl").args(["stop", &unit(&bundle)]), None)?;
    bundle.wait_for("stopped")?;
    bundle.delete()?.ok().map(drop)
}

fn failed(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.set("/linux/sysctl", json!({"net.ipv4.no_such_thing": "1"})).script("sleep 60").save()?;
    let create = bundle.command(&["create", "--bundle", &bundle.path.to_string_lossy(), &bundle.id]);
    for _ in 0..5 {
        // In a cgroup of its own: the suite is a caller too.
        let mut scope = Command::new("systemd-run");
        scope.args(["--quiet", "--scope"]).arg(create.get_program()).args(create.get_args());
        let output = run(scope.current_dir(&bundle.path), None)?;
        ensure!(output.code() < 128, "the caller's cgroup was killed: exit status {}", output.code());
        ensure!(!output.success(), "it was created");
        ensure!(output.stderr.contains("no_such_thing"), "the reason is lost: {}", output.stderr);
        nothing_left(&bundle)?;
    }
    Ok(())
}

/// `create` with a folder of the test's in place of the one with the bus' socket, and of that of systemd's own.
fn create_with_bus(bundle: &Bundle<'_>, bus: &Path) -> Result<Output> {
    bundle.save()?;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", "mount --bind \"$0\" /run/dbus && mount --bind \"$0\" /run/systemd && mkdir -p /run/systemd/system && exec \"$@\""]);
    command.arg(bus).arg(&bundle.context.runtime).arg("--root").arg(bundle.context.work.join("state"));
    command.args(&bundle.context.options).args(["create", "--bundle", &bundle.path.to_string_lossy(), &bundle.id]);
    run_within(command.current_dir(&bundle.path), None, patience() + Duration::from_secs(60))
}

fn nothing_left(bundle: &Bundle<'_>) -> Result<()> {
    ensure!(!bundle.runtime(&["state", &bundle.id])?.success(), "the container is there");
    Ok(())
}

fn gone(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.script("sleep 60");
    let bus = bundle.path.join("bus");
    fs::create_dir(&bus)?;
    let output = create_with_bus(&bundle, &bus)?;
    ensure!(!output.success(), "it was created");
    let word = output.stderr.to_lowercase();
    // crun names its library, sd-bus.
    ensure!(["systemd", "dbus", "sd-bus"].iter().any(|name| word.contains(name)), "{}", output.stderr);
    nothing_left(&bundle)
}

fn silent(context: &Context) -> Result<()> {
    let mut bundle = bundle(context)?;
    bundle.script("sleep 60");
    let bus = bundle.path.join("bus");
    fs::create_dir(&bus)?;
    // The kernel takes connections, and nobody ever answers.
    let _sockets = ["system_bus_socket", "private"]
        .map(|name| UnixListener::bind(bus.join(name)))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()
        .context("a path of the work folder is too long for a socket")?;
    let output = create_with_bus(&bundle, &bus)?;
    ensure!(!output.success(), "it was created");
    nothing_left(&bundle)
}
