//! `berth-bench`: measures a real server on this machine, with a home of its own, and writes a table of what it found.

mod api;
mod controller;
mod cpu;
mod figures;
mod many;
mod memory;
mod server;
mod start;

use std::path::PathBuf;

use clap::Parser;

use figures::Report;
use server::Server;

/// Measures Berth on this machine.
#[derive(Debug, Parser)]
struct Args {
    /// Folder with berth, hull and berth-init
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
    /// Starts to measure
    #[arg(long, default_value_t = 50)]
    starts: usize,
    /// Workspaces to start at once
    #[arg(long, default_value_t = 100)]
    at_once: usize,
    /// Workspaces in the database for the API's figure
    #[arg(long, default_value_t = 10_000)]
    api_workspaces: usize,
    /// Requests per second of the API's figure
    #[arg(long, default_value_t = 3_000)]
    api_rate: u32,
    /// Seconds of the API's figure
    #[arg(long, default_value_t = 10)]
    api_seconds: u32,
    /// Only these: start, restart, many, memory, api
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Home of the measured server; it may hold the base image already
    #[arg(long, default_value = "/var/lib/berth-bench")]
    home: PathBuf,
    /// Figures of the controller alone, as the test `figures_of_the_controller` of ws-manager writes them
    #[arg(long)]
    controller: Option<PathBuf>,
    /// File whose part between `<!-- bench -->` and `<!-- /bench -->` is replaced
    #[arg(long)]
    write: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let runs_workspaces = ["start", "restart", "memory", "many"].into_iter().any(&wanted);
    let server = runtime.block_on(Server::start(&args.bin, &args.home, runs_workspaces))?;
    let mut report = Report::default();
    if wanted("start") {
        start::measure(&server, args.starts, &mut report)?;
    }
    if wanted("restart") {
        start::restart(&server, args.starts, &mut report)?;
    }
    if wanted("memory") {
        memory::measure(&server, &mut report)?;
    }
    if wanted("many") {
        many::measure(&server, args.at_once, &mut report)?;
    }
    if wanted("api") {
        runtime.block_on(api::measure(&server, args.api_workspaces, args.api_rate, args.api_seconds, &mut report))?;
    }
    if let Some(file) = &args.controller {
        controller::tell(file, &mut report)?;
    }
    server.stop()?;
    if wanted("api") {
        server.empty()?;
    }
    report.print()?;
    if let Some(file) = &args.write {
        report.write(file)?;
    }
    Ok(())
}
