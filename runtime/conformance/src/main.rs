//! Tests an OCI runtime against the specification: `hull-conformance --runtime /usr/bin/crun`.
//!
//! Each test names the sentence or the advisory that it proves, builds a bundle around a static busybox and looks at what the runtime made of
//! it, from inside and from outside. Nothing but root and busybox is needed.

mod bundle;
mod cleanup;
mod command;
mod console;
mod context;
mod default_config;
mod paced;
mod probe;
mod suite;
mod topics;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use clap::{Parser, ValueEnum};
use serde_json::json;

use crate::context::Context;
use crate::suite::{Outcome, Report, Results};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Holds an OCI runtime to the specification.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// The runtime's binary.
    #[arg(long, default_value = "hull")]
    runtime: PathBuf,
    /// Only tests whose name (topic.test) contains this; may be repeated.
    #[arg(long)]
    filter: Vec<String>,
    /// How the results are written.
    #[arg(long, value_enum, default_value = "text")]
    output: Format,
    /// Also write the JSON results to this file.
    #[arg(long)]
    results: Option<PathBuf>,
    /// A global option for the runtime, such as `--systemd-cgroup`; may be repeated.
    #[arg(long, allow_hyphen_values = true)]
    option: Vec<String>,
    /// A static busybox, if it is not in its usual place.
    #[arg(long)]
    busybox: Option<PathBuf>,
    /// Tests at a time.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// How long any command may take before it counts as hanging.
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    patience: u64,
    /// Results of another run of this runtime: tests that passed or failed there are taken from it, the others are run here.
    #[arg(long, value_name = "FILE")]
    complete: Option<PathBuf>,
    /// Tests of these names may fail; with it, any other failure or an unexpected success fails the run.
    #[arg(long)]
    known: Option<PathBuf>,
    /// Only name the tests and what they prove.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match real_main(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "hull-conformance: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn real_main(args: &Args) -> Result<bool> {
    if args.list {
        let mut out = std::io::stdout().lock();
        for topic in topics::ALL {
            for test in topic.tests {
                writeln!(out, "{}.{}: {}", topic.name, test.name, test.proves)?;
            }
        }
        return Ok(true);
    }
    if !rustix::process::geteuid().is_root() {
        bail!("must be root: containers are made with and without user namespaces");
    }
    command::be_patient(args.patience);
    let runtime = find(&args.runtime)?;
    leave_hybrid_cgroups(&runtime)?;
    // Kept on disk if a mount is left below it, see `cleanup::bundle`.
    let work = tempfile::Builder::new().prefix("hull-conformance-").disable_cleanup(true).tempdir()?;
    // Containers with mapped ids must be able to pass through.
    std::fs::set_permissions(work.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let context = Context::new(&runtime, args.option.clone(), args.busybox.clone(), work.path().to_owned())?;
    let tell = |report: &Report| {
        if args.output == Format::Text {
            let mut out = std::io::stdout().lock();
            let word = match report.outcome {
                Outcome::Passed => "ok  ",
                Outcome::Failed => "FAIL",
                Outcome::Skipped => "skip",
            };
            let detail = report.detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
            let _ = writeln!(out, "{word} {} ({} ms){detail}", report.test, report.milliseconds);
            if report.outcome == Outcome::Failed {
                let _ = writeln!(out, "     {}", report.proves);
            }
        }
    };
    let mut reports = match &args.complete {
        Some(path) => decided(path, &context)?,
        None => Vec::new(),
    };
    let taken = reports.len();
    let wanted = |name: &str| {
        (args.filter.is_empty() || args.filter.iter().any(|one| name.contains(one.as_str())))
            && !reports.iter().any(|report| report.test == name)
    };
    let made = suite::run(&context, topics::ALL, &wanted, args.jobs, &tell);
    reports.extend(made);
    suite::sort(&mut reports, topics::ALL);
    cleanup::bundle(work.path());
    let count = |outcome| reports.iter().filter(|report| report.outcome == outcome).count();
    let (passed, failed, skipped) = (count(Outcome::Passed), count(Outcome::Failed), count(Outcome::Skipped));
    let document = json!({
        "runtime": context.version,
        "cgroups": context.cgroups,
        "options": context.options,
        "taken": taken,
        "passed": passed,
        "failed": failed,
        "skipped": skipped,
        "tests": reports,
    });
    let document = serde_json::to_string_pretty(&document)? + "\n";
    if let Some(path) = &args.results {
        std::fs::write(path, &document).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let mut out = std::io::stdout().lock();
    match args.output {
        Format::Json => write!(out, "{document}")?,
        Format::Text => writeln!(out, "{}\n{passed} passed, {failed} failed, {skipped} skipped", context.version)?,
    }
    match &args.known {
        None => Ok(failed == 0),
        Some(path) => as_known(path, &reports),
    }
}

/// The tests that passed or failed in a file of results, which must be of the same runtime, options and cgroups.
fn decided(path: &Path, context: &Context) -> Result<Vec<Report>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let earlier: Results = serde_json::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    if (&earlier.runtime, &earlier.options, earlier.cgroups) != (&context.version, &context.options, context.cgroups) {
        bail!(
            "{} is of {} with options {:?} on cgroups {:?}",
            path.display(),
            earlier.runtime,
            earlier.options,
            earlier.cgroups
        );
    }
    let names = suite::names(topics::ALL);
    let still = |report: &Report| report.outcome != Outcome::Skipped && names.contains(&report.test);
    Ok(earlier.tests.into_iter().filter(still).collect())
}

/// Compares the failures with a file of expected ones, one name a line.
fn as_known(path: &Path, reports: &[Report]) -> Result<bool> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let known: Vec<&str> =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let mut as_expected = true;
    let mut out = std::io::stdout().lock();
    for report in reports {
        let expected = known.contains(&report.test.as_str());
        let what = match report.outcome {
            Outcome::Failed if !expected => "fails, and is not in the list",
            Outcome::Passed if expected => "passes, but is in the list",
            _ => continue,
        };
        as_expected = false;
        writeln!(out, "{} {what}", report.test)?;
    }
    Ok(as_expected)
}

fn find(runtime: &Path) -> Result<PathBuf> {
    if runtime.components().count() > 1 {
        return runtime.canonicalize().with_context(|| format!("no runtime at {}", runtime.display()));
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|folder| folder.join(runtime))
        .find(|candidate| candidate.is_file())
        .with_context(|| format!("no {} on the PATH; name it with --runtime", runtime.display()))
}

/// crun refuses machines that have v1 controllers and a v2 hierarchy beside them. For crun, this program re-executes itself in a mount
/// namespace without the latter.
fn leave_hybrid_cgroups(runtime: &Path) -> Result<()> {
    let hybrid = Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
    let crun = command::run(Command::new(runtime).arg("--version"), None)?.stdout.starts_with("crun");
    if !hybrid || !crun {
        return Ok(());
    }
    let error = Command::new("unshare")
        .args(["--mount", "sh", "-c", "umount /sys/fs/cgroup/unified && exec \"$0\" \"$@\""])
        .args(std::env::args_os())
        .exec();
    Err(error).context("cannot run unshare")
}
