//! What is timed: starts, entries, questions.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::Bench;
use crate::bundles::{self, Kind};
use crate::meter::Taken;
use crate::runtimes::Runtime;

/// Longer than the kernel stays prepared for processes that move between cgroups.
const REST: Duration = Duration::from_millis(100);

/// One kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Run(Kind),
    /// The runtime has never seen the seccomp profile.
    RunCold,
    /// systemd makes the cgroup, and no process has moved between cgroups for a while.
    RunRested,
    CreateStartDelete(Kind),
    Exec(Kind),
    State(Kind),
}

impl Work {
    /// Everything that this machine can be asked for.
    pub(crate) fn all() -> Vec<Work> {
        let mut all = vec![
            Work::Run(Kind::Default),
            Work::Run(Kind::NoNetwork),
            Work::Run(Kind::User),
            Work::RunCold,
            Work::Run(Kind::Seccomp),
            Work::CreateStartDelete(Kind::Default),
            Work::CreateStartDelete(Kind::User),
            Work::Exec(Kind::Default),
            Work::Exec(Kind::NoNetwork),
            Work::Exec(Kind::User),
            Work::Exec(Kind::Seccomp),
            Work::State(Kind::Default),
            Work::State(Kind::User),
        ];
        if Path::new("/run/systemd/system").exists() {
            let kind = Kind::Systemd;
            all.extend([Work::Run(kind), Work::RunRested, Work::CreateStartDelete(kind), Work::Exec(kind)]);
        }
        all
    }

    /// As the table calls it.
    pub(crate) fn name(self) -> String {
        let (command, kind) = match self {
            Work::RunRested => {
                return "`run /bin/true`, systemd makes the cgroup, the first move for a while".to_owned();
            }
            Work::Run(kind) => ("`run /bin/true`", kind),
            Work::RunCold => return "`run /bin/true`, Docker's seccomp profile, seen for the first time".to_owned(),
            Work::CreateStartDelete(kind) => ("`create`, `start`, `delete --force`", kind),
            Work::Exec(kind) => ("`exec /bin/true`", kind),
            Work::State(kind) => ("`state`", kind),
        };
        let which = match (self, kind) {
            (_, Kind::Default) => "",
            (_, Kind::NoNetwork) => ", no network namespace",
            (_, Kind::User) => ", user namespace",
            (Work::Run(_), Kind::Seccomp) => ", Docker's seccomp profile, seen before",
            (_, Kind::Seccomp) => ", Docker's seccomp profile",
            (_, Kind::Systemd) => ", systemd makes the cgroup",
        };
        format!("{command}{which}")
    }
}

/// What everything took: by work, column (the floor first, then the runtimes) and round.
#[derive(Debug)]
pub(crate) struct Samples {
    pub(crate) taken: Vec<(Work, Vec<Vec<Taken>>)>,
}

/// A container that the questions are about.
#[derive(Debug)]
struct Idle {
    kind: Kind,
    id: String,
    /// Of its first process, on the host.
    pid: String,
}

/// All rounds. A peer that fails at something has no figure for it; hull must not fail.
pub(crate) fn measure(bench: &Bench) -> Result<Samples> {
    let work = Work::all();
    let mut kinds: Vec<Kind> = Vec::new();
    for kind in work.iter().filter_map(|work| if let Work::Exec(kind) = work { Some(*kind) } else { None }) {
        kinds.push(kind);
    }
    let mut idle = Vec::new();
    let result = start_all(bench, &kinds, &mut idle).and_then(|()| rounds(bench, &work, &idle));
    for (runtime, containers) in bench.runtimes.iter().zip(&idle) {
        for container in containers {
            let _ = remove(bench, runtime, &container.id);
        }
    }
    result
}

fn start_all(bench: &Bench, kinds: &[Kind], idle: &mut Vec<Vec<Idle>>) -> Result<()> {
    for (index, runtime) in bench.runtimes.iter().enumerate() {
        idle.push(Vec::new());
        for kind in kinds {
            let id = id(&format!("{}-idle-{kind:?}", runtime.label)).to_lowercase();
            match create_and_start(bench, runtime, *kind, &id) {
                Ok(pid) => idle[index].push(Idle { kind: *kind, id, pid }),
                Err(error) if index == 0 => return Err(error),
                Err(error) => complain(&error),
            }
        }
    }
    Ok(())
}

fn complain(error: &anyhow::Error) {
    let _ = writeln!(std::io::stderr(), "hull-bench: left out: {error:#}");
}

fn rounds(bench: &Bench, work: &[Work], idle: &[Vec<Idle>]) -> Result<Samples> {
    let columns = bench.runtimes.len().saturating_add(1);
    let mut taken: Vec<(Work, Vec<Vec<Taken>>)> = work.iter().map(|work| (*work, vec![Vec::new(); columns])).collect();
    let mut failed = vec![vec![false; columns]; work.len()];
    for round in 0..bench.rounds.saturating_add(2) {
        for (at, (work, samples)) in taken.iter_mut().enumerate() {
            for turn in 0..columns {
                // The first place rotates, so that nobody always finds the caches as the same other runtime left them.
                let column = turn.wrapping_add(round) % columns;
                if failed[at][column] {
                    continue;
                }
                let one = match column.checked_sub(1) {
                    None => floor(bench, *work, &idle[0]),
                    Some(index) => once(bench, *work, &bench.runtimes[index], &idle[index]),
                };
                let one = match one {
                    Err(error) if column > 1 => {
                        complain(&error);
                        samples[column].clear();
                        failed[at][column] = true;
                        continue;
                    }
                    other => other?,
                };
                // Two rounds to warm up.
                if let Some(one) = one.filter(|_| round >= 2) {
                    samples[column].push(one);
                }
            }
        }
    }
    Ok(Samples { taken })
}

/// The kernel's share. The floor has no filter to compile and no commands to divide the work into.
fn floor(bench: &Bench, work: Work, idle: &[Idle]) -> Result<Option<Taken>> {
    let program = bench.meter.program.as_str();
    match work {
        Work::Run(kind @ (Kind::Default | Kind::NoNetwork | Kind::User)) => {
            let words = floor_run(bench, kind)?;
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            bench.meter.run(&words).map(Some)
        }
        Work::Exec(kind @ Kind::Default) => {
            let Some(idle) = idle.iter().find(|idle| idle.kind == kind) else { return Ok(None) };
            let cgroups = bundles::cgroups(&idle.id)?;
            let mut words = vec![program, "exec", idle.pid.as_str()];
            words.extend(cgroups.iter().map(String::as_str));
            bench.meter.run(&words).map(Some)
        }
        Work::State(Kind::Default) => bench.meter.run(&[program, "nop"]).map(Some),
        _ => Ok(None),
    }
}

/// The floor's command line for a kind of container.
pub(crate) fn floor_run(bench: &Bench, kind: Kind) -> Result<Vec<String>> {
    let switch = |on: bool| if on { "1" } else { "0" }.to_owned();
    let mut words = vec![
        bench.meter.program.clone(),
        "run".to_owned(),
        bench.bundles.rootfs(kind),
        switch(kind == Kind::User),
        switch(kind != Kind::NoNetwork),
    ];
    words.extend(bundles::cgroups(&id("floor"))?);
    Ok(words)
}

/// An id that no other run of this program has.
pub(crate) fn id(name: &str) -> String {
    format!("hb-{}-{name}", std::process::id())
}

/// The first words of a command of a runtime.
pub(crate) fn command(bench: &Bench, runtime: &Runtime, kind: Kind) -> Vec<String> {
    let mut words = vec![runtime.program(), "--root".to_owned(), bench.root(runtime)];
    if kind == Kind::Systemd {
        words.push("--systemd-cgroup".to_owned());
    }
    words
}

#[expect(clippy::disallowed_methods, reason = "that nothing happens is what is waited for")]
fn rest() {
    std::thread::sleep(REST);
}

fn once(bench: &Bench, work: Work, runtime: &Runtime, idle: &[Idle]) -> Result<Option<Taken>> {
    let call = |kind: Kind, args: &[&str]| {
        let mut words = command(bench, runtime, kind);
        words.extend(args.iter().map(|arg| (*arg).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bench.meter.run(&words)
    };
    let id = id(&runtime.label);
    match work {
        Work::RunRested => rest(),
        Work::Run(Kind::Systemd) | Work::CreateStartDelete(Kind::Systemd) => bench.mover.move_one()?,
        _ => {}
    }
    let taken = match work {
        Work::Run(_) | Work::RunRested => {
            let kind = if let Work::Run(kind) = work { kind } else { Kind::Systemd };
            let bundle = bench.bundles.write(&id, kind, &["/bin/true"])?;
            call(kind, &["run", "--bundle", &bundle, &id])?
        }
        Work::RunCold => {
            let bundle = bench.bundles.write(&id, Kind::Seccomp, &["/bin/true"])?;
            let fresh = tempfile::Builder::new().prefix("cold-").tempdir_in(&bench.state)?;
            let root = fresh.path().to_string_lossy().into_owned();
            bench.meter.run(&[&runtime.program(), "--root", &root, "run", "--bundle", &bundle, &id])?
        }
        Work::CreateStartDelete(kind) => {
            let bundle = bench.bundles.write(&id, kind, &["/bin/sleep", "60"])?;
            let create = call(kind, &["create", "--bundle", &bundle, &id])?;
            let start = call(kind, &["start", &id])?;
            create.then(start).then(call(kind, &["delete", "--force", &id])?)
        }
        Work::Exec(kind) | Work::State(kind) => {
            let Some(idle) = idle.iter().find(|idle| idle.kind == kind) else { return Ok(None) };
            match work {
                Work::State(_) => call(kind, &["state", &idle.id])?,
                _ => call(kind, &["exec", &idle.id, "/bin/true"])?,
            }
        }
    };
    Ok(Some(taken))
}

/// Starts a container that sleeps, and gives the id of its process.
pub(crate) fn create_and_start(bench: &Bench, runtime: &Runtime, kind: Kind, id: &str) -> Result<String> {
    let bundle = bench.bundles.write(id, kind, &["/bin/sleep", "100000"])?;
    let pid_file = bench.state.join(format!("{id}.pid")).to_string_lossy().into_owned();
    let call = |args: &[&str]| {
        let mut words = command(bench, runtime, kind);
        words.extend(args.iter().map(|arg| (*arg).to_owned()));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        bench.meter.run(&words)
    };
    call(&["create", "--pid-file", &pid_file, "--bundle", &bundle, id])?;
    call(&["start", id])?;
    Ok(fs::read_to_string(pid_file)?.trim().to_owned())
}

/// Ends a container.
pub(crate) fn remove(bench: &Bench, runtime: &Runtime, id: &str) -> Result<()> {
    let (program, root) = (runtime.program(), bench.root(runtime));
    bench.meter.run(&[&program, "--root", &root, "delete", "--force", id]).map(drop)
}
