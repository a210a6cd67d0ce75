//! How many system calls a command makes, counted by strace.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result};

use crate::Bench;
use crate::bundles::Kind;
use crate::table::{Cell, Row};
use crate::workload::{command, create_and_start, floor_run, id, remove};

/// The rows of this file; `None` if there is no strace.
pub(crate) fn measure(bench: &Bench) -> Result<Vec<Row>> {
    if Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return Ok(Vec::new());
    }
    let mut run = vec![count(bench, &floor_run(bench, Kind::Default)?)?];
    let mut exec = vec![Cell::None];
    for runtime in &bench.runtimes {
        let with = |args: &[&str]| {
            let mut words = command(bench, runtime, Kind::Default);
            words.extend(args.iter().map(|arg| (*arg).to_owned()));
            words
        };
        let once = id(&runtime.label);
        let bundle = bench.bundles.write(&once, Kind::Default, &["/bin/true"])?;
        run.push(count(bench, &with(&["run", "--bundle", &bundle, &once]))?);
        let idle = id(&format!("{}-traced", runtime.label));
        create_and_start(bench, runtime, Kind::Default, &idle)?;
        let counted = count(bench, &with(&["exec", &idle, "/bin/true"]));
        let _ = remove(bench, runtime, &idle);
        exec.push(counted?);
    }
    Ok(vec![
        Row { name: "system calls of `run`, all processes".to_owned(), cells: run },
        Row { name: "system calls of `exec`, all processes".to_owned(), cells: exec },
    ])
}

fn count(bench: &Bench, words: &[String]) -> Result<Cell> {
    let file = bench.state.join("calls");
    let status = Command::new("strace")
        .args(["-f", "-qq", "-c", "-U", "calls,name", "-o"])
        .arg(&file)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()?;
    if !status.success() {
        return Ok(Cell::None);
    }
    let text = fs::read_to_string(&file)?;
    let total = text.lines().rev().find(|line| line.trim_end().ends_with("total")).context("strace gave no total")?;
    Ok(Cell::Text(total.split_whitespace().next().unwrap_or_default().to_owned()))
}
