//! Measures OCI runtimes beside each other: `hull-bench --hull target/release/hull --peers crun,runc`.
//!
//! All runtimes take turns within one run, so that whatever else the machine does affects all of them. A C program that makes the same
//! containers without configuration, state or checks shows the kernel's own cost.

mod bars;
mod bundles;
mod calls;
#[path = "../default_config.rs"]
mod default_config;
mod density;
mod meter;
mod mover;
mod runtimes;
mod table;
mod workload;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::Parser;

use crate::bundles::Bundles;
use crate::meter::Meter;
use crate::mover::Mover;
use crate::runtimes::Runtime;

/// Measures OCI runtimes beside each other.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The hull to measure.
    #[arg(long, default_value = "hull")]
    hull: PathBuf,
    /// Other runtimes: names on the PATH, or paths; those that are missing are left out.
    #[arg(long, value_delimiter = ',', default_value = "crun,runc")]
    peers: Vec<PathBuf>,
    /// How often everything is done.
    #[arg(long, default_value_t = 40)]
    rounds: usize,
    /// Idle containers that are kept at once for the memory of one.
    #[arg(long, default_value_t = 500)]
    idle: usize,
    /// File whose part between `<!-- bench-runtime -->` and `<!-- /bench-runtime -->` is replaced.
    #[arg(long)]
    write: Option<PathBuf>,
    /// The compiled floor; compiled and stored there if it is missing. For machines without a C compiler.
    #[arg(long)]
    floor: Option<PathBuf>,
    /// A static busybox, if it is not in its usual place.
    #[arg(long, default_value = "/bin/busybox")]
    busybox: PathBuf,
}

fn main() -> ExitCode {
    match real_main(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "hull-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn real_main(args: &Args) -> Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("must be root: containers are made with and without user namespaces");
    }
    leave_hybrid_cgroups()?;
    let runtimes = Runtime::find_all(&args.hull, &args.peers)?;
    let work = tempfile::Builder::new().prefix("hull-bench-").tempdir()?;
    // Users that are mapped must be able to pass.
    std::fs::set_permissions(work.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let state = tempfile::Builder::new().prefix("hull-bench-").tempdir_in(in_memory()?)?;
    // Fewer interruptions by other work of the machine; not permitted everywhere.
    let _ = rustix::process::setpriority_process(None, -10);
    let meter = Meter::build(work.path(), args.floor.as_deref())?;
    let bundles = Bundles::new(work.path(), &args.busybox)?;
    let bench =
        Bench { meter, bundles, mover: Mover::start()?, runtimes, state: state.path().to_owned(), rounds: args.rounds };
    let samples = workload::measure(&bench)?;
    let mut rows = table::timed(&samples);
    rows.extend(calls::measure(&bench)?);
    rows.extend(density::measure(&bench, args.idle)?);
    rows.push(runtimes::sizes(&bench.runtimes)?);
    let text = table::markdown(&bench, &rows, &bars::judge(&bench, &samples)?)?;
    match &args.write {
        Some(path) => table::write(path, &text).with_context(|| format!("cannot write {}", path.display()))?,
        None => write!(std::io::stdout(), "{text}")?,
    }
    Ok(())
}

/// Where the runtimes keep their records: in memory, as engines have it in /run. A disk would write and discard for each
/// container, which is no runtime's doing.
fn in_memory() -> Result<&'static str> {
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    ["/run", "/dev/shm"]
        .into_iter()
        .find(|path| rustix::fs::statfs(*path).is_ok_and(|stat| stat.f_type == TMPFS_MAGIC))
        .context("neither /run nor /dev/shm is a tmpfs")
}

/// Everything a measurement needs.
#[derive(Debug)]
struct Bench {
    meter: Meter,
    bundles: Bundles,
    mover: Mover,
    runtimes: Vec<Runtime>,
    /// Folder of the runtimes' records.
    state: PathBuf,
    rounds: usize,
}

impl Bench {
    /// The records of one runtime.
    fn root(&self, runtime: &Runtime) -> String {
        self.state.join(&runtime.label).to_string_lossy().into_owned()
    }
}

/// crun refuses machines that have v1 controllers and a v2 hierarchy beside them; to be fair, all run without the latter.
fn leave_hybrid_cgroups() -> Result<()> {
    if !Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        return Ok(());
    }
    let error = Command::new("unshare")
        .args(["--mount", "sh", "-c", "umount /sys/fs/cgroup/unified && exec \"$0\" \"$@\""])
        .args(std::env::args_os())
        .exec();
    Err(error).context("cannot run unshare")
}
