//! `berth server`: every service, the embedded Kubernetes API, the database and the node in one process.

pub(crate) mod config;
pub(crate) mod detach;
pub(crate) mod kubeconfig;
pub(crate) mod settings;

mod assemble;
mod database;
mod keys;
mod late;
mod lifecycle;
mod listeners;
mod log_file;
mod metrics;

use crate::args::{Global, Server, ServerCommand};
use crate::home::Home;

/// Runs the server, or speaks to the one that runs.
pub(crate) fn run(global: &Global, server: Server) -> anyhow::Result<()> {
    match &server.command {
        Some(ServerCommand::Stop) => detach::stop(global),
        Some(ServerCommand::Status) => detach::status(global),
        Some(ServerCommand::SetupLink) => lifecycle::setup_link(global),
        None if server.detach => detach::run(global, &detach::pass_on(&server)?),
        None => foreground(global, &server),
    }
}

/// A server makes namespaces, disks and cgroups of workspaces.
fn need_root() -> anyhow::Result<()> {
    anyhow::ensure!(
        rustix::process::geteuid().is_root(),
        "a server needs root, for the disks and networks of its workspaces: start it as root, or sign in to one that runs with `berth login URL`"
    );
    Ok(())
}

fn foreground(global: &Global, server: &Server) -> anyhow::Result<()> {
    need_root()?;
    let home = Home::find(global.home.as_deref())?;
    home.prepare()?;
    let config = config::Config::load(&home, server)?;
    berth_telemetry::install_logs(config.log.format, &config.log.filter)?;
    berth_http::install_crypto();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("berth").build()?;
    let log = home.log();
    runtime.spawn(async move { log_file::keep_short(&log).await });
    runtime.block_on(lifecycle::run(home, config))
}

/// The document of every public operation, as the server gives it at `/openapi.json`.
pub(crate) fn openapi() -> anyhow::Result<String> {
    let document = berth_api::openapi(assemble::documents());
    Ok(serde_json::to_string_pretty(&document)? + "\n")
}
