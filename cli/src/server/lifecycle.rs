//! The life of one server: lock, database, parts, ready, stop.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use berth_clock::{SystemClock, SystemEntropy};
use berth_http::hosts::Hosts;
use berth_http::{ServeOptions, serve};
use rustix::fs::{FlockOperation, flock};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::assemble;
use super::config::Config;
use super::database::Database;
use super::detach::{self, READY_LINE, READY_VARIABLE};
use super::keys::{self, Keys};
use super::listeners::{self, Listeners};
use crate::args::Global;
use crate::exit::{self, Exit};
use crate::home::Home;
use crate::output;

/// Runs the server until SIGTERM or SIGINT, or until one of its parts dies.
pub(crate) async fn run(home: Home, config: Config) -> anyhow::Result<()> {
    let _lock = lock(&home)?;
    let progress = Progress::new(&home);
    std::fs::write(home.private_hosts(), config.scm.allow_private_hosts.join("\n"))
        .context("the folder of what runs")?;
    let keys = keys::load_or_make(&home, &SystemEntropy)?;
    let listeners = listeners::bind(&home, &config, &keys).await?;

    progress.line("database");
    let mut database = Database::open(&home, &config).await?;
    // However that ends, the database is stopped last: a start that fails leaves nothing behind.
    let ended = serve_all(&home, &config, &keys, listeners, &mut database, progress).await;
    database.close().await?;
    if ended.is_ok() {
        tracing::info!("stopped");
    }
    ended
}

/// Builds the parts and serves until SIGTERM or SIGINT, or until one of them dies.
async fn serve_all(
    home: &Home,
    config: &Config,
    keys: &Keys,
    listeners: Listeners,
    database: &mut Database,
    progress: Progress,
) -> anyhow::Result<()> {
    progress.line("services");
    let stop = CancellationToken::new();
    let parts = assemble::assemble(config, keys, database.pool.clone()).await?;
    let mut tasks: JoinSet<(&'static str, anyhow::Result<()>)> = JoinSet::new();
    // Before anything is served: a running server downloads nothing but what its users name.
    let image = progress.clone();
    if let Err(error) = parts.node.prepare_base_image(Arc::new(move |text: String| image.line(&text))).await {
        let error = berth_http::problem::chain(&error);
        progress.line(&format!("no base image, so that only workspaces with an image of their own start: {error}"));
    }
    parts.spawn(&mut tasks, &stop);
    let serving = CancellationToken::new();
    let hosts = Hosts::of(&config.gateway.allowed_origins);
    for (name, listener, router) in [
        ("socket", listeners.socket, parts.public.clone()),
        ("public", listeners.public, hosts.only(parts.public.clone())),
        ("kubernetes", listeners.kubernetes, parts.kubernetes.clone()),
    ] {
        let token = serving.clone();
        tasks.spawn(async move {
            serve(listener, router, ServeOptions::default(), token).await;
            (name, Ok(()))
        });
    }
    if let Some(link) = parts.setup_link.as_deref() {
        progress.line(&format!("first administrator: {link}"));
    }
    tracing::info!(version = env!("CARGO_PKG_VERSION"), listen = %config.server.listen, home = %home.path().display(), "serving");
    progress.ready();

    let died = tokio::select! {
        result = wait_for_signal() => {
            result?;
            None
        }
        ended = tasks.join_next() => ended,
        ended = database.died() => Some(Ok(("database", ended))),
    };
    // Clients first, so that nothing new comes; then the parts.
    serving.cancel();
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        report(ended);
    }
    parts.shutdown().await;
    match died {
        None => Ok(()),
        Some(ended) => {
            let (part, result) = ended.context("a part of the server panicked")?;
            result.with_context(|| format!("{part} failed"))?;
            anyhow::bail!("{part} ended by itself");
        }
    }
}

fn report(ended: Result<(&'static str, anyhow::Result<()>), tokio::task::JoinError>) {
    match ended {
        Ok((_, Ok(()))) => {}
        Ok((part, Err(error))) => tracing::error!(part, error = %format!("{error:#}"), "a part ended with an error"),
        Err(error) => tracing::error!(%error, "a part panicked"),
    }
}

async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: stopping"),
        _ = interrupt.recv() => tracing::info!("SIGINT: stopping"),
    }
    Ok(())
}

/// Locks the home for this process; the kernel releases the lock when we die, however we die.
fn lock(home: &Home) -> anyhow::Result<std::fs::File> {
    let path = home.lock();
    let mut file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .with_context(|| format!("cannot open {}: are you its user?", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        let holder = std::fs::read_to_string(&path).unwrap_or_default();
        return Err(Exit::new(
            exit::CONFLICT,
            format!(
                "another server runs on {} (pid {}): stop it with `berth server stop`",
                home.path().display(),
                holder.trim()
            ),
        )
        .into());
    }
    file.set_len(0)?;
    write!(file, "{}", std::process::id())?;
    Ok(file)
}

/// The process that holds the lock; `None` if nobody does.
pub(crate) fn lock_holder(home: &Home) -> Option<u32> {
    let path = home.lock();
    let file = std::fs::File::open(&path).ok()?;
    if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    std::fs::read_to_string(&path).ok()?.trim().parse().ok()
}

/// Reports progress to whoever started us in the background, and to commands that wait for an answer.
#[derive(Clone)]
struct Progress {
    told: bool,
    starting: PathBuf,
}

impl Progress {
    fn new(home: &Home) -> Self {
        Self { told: std::env::var_os(READY_VARIABLE).is_some(), starting: home.starting() }
    }

    fn line(&self, text: &str) {
        // Replaced whole: nobody reads half a line. Without it commands wait in silence, which is no reason to end.
        let fresh = self.starting.with_extension("new");
        let _ = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, &self.starting));
        if self.told {
            // They may have been interrupted; we go on.
            let _ = output::write(format!("{text}\n").as_bytes());
        } else {
            tracing::info!("{text}");
        }
    }

    fn ready(&self) {
        if self.told {
            self.line(READY_LINE);
        }
        let _ = std::fs::remove_file(&self.starting);
        if self.told {
            // From here on nobody reads it.
            if let Ok(null) = std::fs::OpenOptions::new().write(true).open("/dev/null")
                && let Err(error) = rustix::stdio::dup2_stdout(&null)
            {
                tracing::warn!(%error, "standard output could not be let go");
            }
        }
    }
}

/// `berth server setup-link`.
pub(crate) fn setup_link(global: &Global) -> anyhow::Result<()> {
    let home = Home::find(global.home.as_deref())?;
    let mut config = Config::load_default(&home)?;
    // A running server may know its address from options that are not in the configuration.
    let running = detach::ask(&home)?;
    let runs = running.is_some();
    if let Some(running) = running.filter(|running| !running.public_url.is_empty()) {
        config.api.public_url = running.public_url;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let database = Database::open(&home, &config).await?;
        let nobody = |name| berth_http::InternalClient::in_process(name, axum::Router::new());
        let api = berth_api::Api::new(
            config.api.clone(),
            database.pool.clone(),
            SystemClock::shared(),
            Arc::new(SystemEntropy),
            nobody("scm"),
            nobody("ws-manager"),
        );
        let link = api.setup_link().await;
        // That of a server that runs is its own.
        if !runs {
            database.close().await?;
        }
        match link? {
            Some(link) => output::result(global.output, &serde_json::json!({ "setup_link": link }), |_| link.clone()),
            None => {
                Err(Exit::new(exit::CONFLICT, "the first administrator was made already: sign in, or ask them").into())
            }
        }
    })
}
