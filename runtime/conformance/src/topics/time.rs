//! config-linux.md "Offset for Time Namespace".

use std::fs;

use anyhow::{Result, ensure};
use serde_json::json;

use crate::context::Context;
use crate::suite::{Test, test};

pub(crate) const TESTS: &[Test] = &[
    test("new", "time: the container has time namespace-specific offsets", new),
    test("boottime", "timeOffsets: boottime in seconds and nanoseconds", boottime),
    test("monotonic", "timeOffsets: monotonic", monotonic),
    test("exec-too", "a process that joins the container has its clocks too", exec_too),
    test("path", "a time namespace by path is joined, and its offsets are left alone", by_path),
    test("offsets-without-namespace", "timeOffsets without a time namespace are an error", without_namespace),
    test("unknown-clock", "an offset for an unknown clock is an error", unknown_clock),
];

fn uptime(text: &str) -> Result<f64> {
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

fn ours() -> Result<f64> {
    uptime(&fs::read_to_string("/proc/uptime")?)
}

fn new(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.namespace("time", None);
    let said = bundle.run_script("readlink /proc/self/ns/time")?;
    ensure!(said.starts_with("time:") && said != fs::read_link("/proc/self/ns/time")?.to_string_lossy(), "{said}");
    Ok(())
}

fn boottime(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.namespace("time", None).set("/linux/timeOffsets", json!({"boottime": {"secs": 7_000_000, "nanosecs": 5}}));
    let inside = uptime(&bundle.run_script("cat /proc/uptime")?)?;
    ensure!((inside - ours()? - 7_000_000.0).abs() < 60.0, "uptime is {inside}");
    Ok(())
}

fn monotonic(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.namespace("time", None).set("/linux/timeOffsets", json!({"monotonic": {"secs": 1234, "nanosecs": 0}}));
    let said = bundle.run_script("cat /proc/self/timens_offsets")?;
    let line = said.lines().find(|line| line.starts_with("monotonic")).unwrap_or_default();
    ensure!(line.split_whitespace().nth(1) == Some("1234"), "{said}");
    Ok(())
}

fn exec_too(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.namespace("time", None).set("/linux/timeOffsets", json!({"boottime": {"secs": 7_000_000}}));
    bundle.started()?;
    let inside = uptime(&bundle.exec(&[], "cat /proc/uptime")?.ok()?.stdout)?;
    ensure!(inside > 7_000_000.0, "uptime is {inside}");
    Ok(())
}

fn by_path(context: &Context) -> Result<()> {
    let mut first = context.bundle()?;
    first.namespace("time", None).set("/linux/timeOffsets", json!({"boottime": {"secs": 7_000_000}}));
    first.started()?;
    let mut second = context.bundle()?;
    second.namespace("time", Some(&format!("/proc/{}/ns/time", first.pid()?)));
    let inside = uptime(&second.run_script("cat /proc/uptime")?)?;
    ensure!(inside > 7_000_000.0, "uptime is {inside}");
    Ok(())
}

fn without_namespace(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.set("/linux/timeOffsets", json!({"boottime": {"secs": 5}}));
    bundle.refused().map(drop)
}

fn unknown_clock(context: &Context) -> Result<()> {
    let mut bundle = context.bundle()?;
    bundle.namespace("time", None).set("/linux/timeOffsets", json!({"lunchtime": {"secs": 5}}));
    bundle.refused().map(drop)
}
