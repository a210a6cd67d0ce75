//! What is timed: starts, entries, questions.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::Bench;
use crate::bundles::{self, Kind};
use crate::meter::Taken;
use crate::runtimes::Runtime;
use crate::table::{Cell, Row, percentiles};

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Run(Kind),
    /// The runtime has never seen the seccomp profile.
    RunCold,
    CreateStartDelete,
    Exec,
    State,
}

const WORK: &[(Work, &str)] = &[
    (Work::Run(Kind::Default), "`run /bin/true`"),
    (Work::Run(Kind::NoNetwork), "the same without a network namespace"),
    (Work::Run(Kind::User), "the same with a user namespace"),
    (Work::RunCold, "the same with Docker's seccomp profile, seen for the first time"),
    (Work::Run(Kind::Seccomp), "the same, seen before"),
    (Work::CreateStartDelete, "`create`, `start`, `delete --force`"),
    (Work::Exec, "`exec /bin/true`"),
    (Work::State, "`state`"),
];

/// A container that the questions are about.
struct Idle {
    id: String,
    /// Of its first process, on the host.
    pid: String,
}

/// All rounds; one row a kind of work, and the rows of CPU time and memory.
pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    let mut idle = Vec::new();
    for runtime in &bench.runtimes {
        idle.push(start_idle(bench, runtime)?);
    }
    let result = rounds(bench, &idle);
    for (runtime, idle) in bench.runtimes.iter().zip(&idle) {
        let _ = remove(bench, runtime, &idle.id);
    }
    let samples = result?;
    let columns = bench.runtimes.len().saturating_add(1);
    let mut rows = Vec::new();
    for (at, (_, name)) in WORK.iter().enumerate() {
        let cells = (0..columns).map(|column| {
            let taken = &samples[at][column];
            Cell::Times(percentiles(taken.iter().map(|one| one.wall_ns)))
        });
        rows.push(Row { name: format!("{name}, ms"), cells: cells.collect() });
    }
    for (what, of) in [("`run`", 0), ("`exec`", 6)] {
        let cells = (0..columns).map(|column| {
            Cell::Times(percentiles(samples[of][column].iter().map(|one| one.cpu_us.saturating_mul(1000))))
        });
        rows.push(Row { name: format!("CPU time of {what}, all processes, ms"), cells: cells.collect() });
    }
    for (what, of) in [("`run`", 0), ("`exec`", 6)] {
        let cells = (0..columns).map(|column| match samples[of][column].iter().map(|one| one.rss_kib).max() {
            Some(most) => Cell::Text(most.to_string()),
            None => Cell::None,
        });
        rows.push(Row { name: format!("resident memory of {what}, at most, KiB"), cells: cells.collect() });
    }
    Ok(rows)
}

/// Work, then column, then round.
type Samples = Vec<Vec<Vec<Taken>>>;

fn rounds(bench: &Bench, idle: &[Idle]) -> Result<Samples> {
    let columns = bench.runtimes.len().saturating_add(1);
    let mut samples: Samples = vec![vec![Vec::new(); columns]; WORK.len()];
    for round in 0..bench.rounds.saturating_add(2) {
        for (at, (work, _)) in WORK.iter().enumerate() {
            for turn in 0..columns {
                // Who comes first changes, so that nobody always finds the caches of the same other.
                let column = turn.wrapping_add(round) % columns;
                let taken = match column.checked_sub(1) {
                    None => floor(bench, *work, &idle[0])?,
                    Some(index) => Some(once(bench, *work, &bench.runtimes[index], &idle[index])?),
                };
                // Two rounds to warm up.
                if let Some(taken) = taken.filter(|_| round >= 2) {
                    samples[at][column].push(taken);
                }
            }
        }
    }
    Ok(samples)
}

/// The kernel's share. It has no filter to compile and no commands to divide the work into.
fn floor(bench: &Bench, work: Work, idle: &Idle) -> Result<Option<Taken>> {
    let program = bench.meter.program.as_str();
    let Some((user, network)) = (match work {
        Work::Run(Kind::Default) => Some(("0", "1")),
        Work::Run(Kind::NoNetwork) => Some(("0", "0")),
        Work::Run(Kind::User) => Some(("1", "1")),
        _ => None,
    }) else {
        return match work {
            Work::Exec => {
                let mut cgroups = bundles::cgroups(&idle.id)?;
                // Not every runtime makes one in the hierarchy without controllers.
                cgroups.retain(|folder| std::path::Path::new(folder).exists());
                let mut words = vec![program, "exec", idle.pid.as_str()];
                words.extend(cgroups.iter().map(String::as_str));
                bench.meter.run(&words).map(Some)
            }
            Work::State => bench.meter.run(&[program, "nop"]).map(Some),
            _ => Ok(None),
        };
    };
    let rootfs = bench.bundles.rootfs(if user == "1" { Kind::User } else { Kind::Default });
    let cgroups = bundles::cgroups(&id("floor"))?;
    let mut words = vec![program, "run", &rootfs, user, network];
    words.extend(cgroups.iter().map(String::as_str));
    bench.meter.run(&words).map(Some)
}

/// An id that no other run of this program has.
pub(crate) fn id(name: &str) -> String {
    format!("hb-{}-{name}", std::process::id())
}

fn once(bench: &Bench, work: Work, runtime: &Runtime, idle: &Idle) -> Result<Taken> {
    let (program, root) = (runtime.program(), bench.root(runtime));
    let call = |args: &[&str]| {
        let mut words = vec![program.as_str(), "--root", root.as_str()];
        words.extend_from_slice(args);
        bench.meter.run(&words)
    };
    let id = id(&runtime.label);
    match work {
        Work::Run(kind) => {
            let bundle = bench.bundles.write(&id, kind, &["/bin/true"])?;
            call(&["run", "--bundle", &bundle, &id])
        }
        Work::RunCold => {
            let bundle = bench.bundles.write(&id, Kind::Seccomp, &["/bin/true"])?;
            let fresh = tempfile::Builder::new().prefix("cold-").tempdir_in(&bench.state)?;
            let root = fresh.path().to_string_lossy().into_owned();
            bench.meter.run(&[&program, "--root", &root, "run", "--bundle", &bundle, &id])
        }
        Work::CreateStartDelete => {
            let bundle = bench.bundles.write(&id, Kind::Default, &["/bin/sleep", "60"])?;
            let create = call(&["create", "--bundle", &bundle, &id])?;
            let start = call(&["start", &id])?;
            Ok(create.then(start).then(call(&["delete", "--force", &id])?))
        }
        Work::Exec => call(&["exec", &idle.id, "/bin/true"]),
        Work::State => call(&["state", &idle.id]),
    }
}

fn start_idle(bench: &Bench, runtime: &Runtime) -> Result<Idle> {
    let id = id(&format!("{}-idle", runtime.label));
    create_and_start(bench, runtime, &id)?;
    let file = fs::read_to_string(bench.state.join(format!("{id}.pid")))?;
    Ok(Idle { id, pid: file.trim().to_owned() })
}

/// Starts a container that sleeps; its process id is in a file.
pub(crate) fn create_and_start(bench: &Bench, runtime: &Runtime, id: &str) -> Result<()> {
    let bundle = bench.bundles.write(id, Kind::Default, &["/bin/sleep", "100000"])?;
    let (program, root) = (runtime.program(), bench.root(runtime));
    let pid_file = bench.state.join(format!("{id}.pid")).to_string_lossy().into_owned();
    bench.meter.run(&[&program, "--root", &root, "create", "--pid-file", &pid_file, "--bundle", &bundle, id])?;
    bench.meter.run(&[&program, "--root", &root, "start", id]).map(drop)
}

/// Ends a container.
pub(crate) fn remove(bench: &Bench, runtime: &Runtime, id: &str) -> Result<()> {
    let (program, root) = (runtime.program(), bench.root(runtime));
    bench.meter.run(&[&program, "--root", &root, "delete", "--force", id]).map(drop)
}

/// Calls of the kernel, by strace.
pub(crate) fn system_calls(bench: &Bench) -> Result<Option<Row>> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Ok(None);
    }
    let count = |words: &[&str]| -> Result<Cell> {
        let file = bench.state.join("calls");
        let status = Command::new("strace")
            .args(["-f", "-qq", "-c", "-U", "calls,name", "-o"])
            .arg(&file)
            .args(words)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            return Ok(Cell::None);
        }
        let text = fs::read_to_string(&file)?;
        let total =
            text.lines().rev().find(|line| line.trim_end().ends_with("total")).context("strace gave no total")?;
        Ok(Cell::Text(total.split_whitespace().next().unwrap_or_default().to_owned()))
    };
    let (program, rootfs) = (bench.meter.program.as_str(), bench.bundles.rootfs(Kind::Default));
    let cgroups = bundles::cgroups(&id("floor"))?;
    let mut words = vec![program, "run", &rootfs, "0", "1"];
    words.extend(cgroups.iter().map(String::as_str));
    let mut cells = vec![count(&words)?];
    for runtime in &bench.runtimes {
        let id = id(&runtime.label);
        let bundle = bench.bundles.write(&id, Kind::Default, &["/bin/true"])?;
        cells.push(count(&[&runtime.program(), "--root", &bench.root(runtime), "run", "--bundle", &bundle, &id])?);
    }
    Ok(Some(Row { name: "system calls of `run`".to_owned(), cells }))
}

/// Milliseconds of the slowest of those that ran at once.
pub(crate) fn at_once(bench: &Bench, runtime: &Runtime, many: usize) -> Result<u64> {
    let (program, root) = (runtime.program(), bench.root(runtime));
    let ids: Vec<String> = (0..many).map(|number| id(&format!("{}-{number}", runtime.label))).collect();
    let mut commands = Vec::new();
    for id in &ids {
        let bundle = bench.bundles.write(id, Kind::Default, &["/bin/true"])?;
        commands.push(vec![
            program.clone(),
            "--root".into(),
            root.clone(),
            "run".into(),
            "--bundle".into(),
            bundle,
            id.clone(),
        ]);
    }
    let from = std::time::Instant::now();
    let mut running = Vec::new();
    for (slot, words) in commands.iter().enumerate() {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        running.push(bench.meter.spawn(&words, &slot.to_string())?);
    }
    for ((child, file), words) in running.iter_mut().zip(&commands) {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bench.meter.finish(child, file, &words)?;
    }
    Ok(u64::try_from(from.elapsed().as_nanos()).unwrap_or(u64::MAX))
}
