//! A private Postgres from the installed binaries: unix socket only, data checksums, fsync on, an unprivileged user of its own.
//!
//! The server outlives us when we are killed; [`Postgres::start`] then adopts it instead of starting a second one on the same folder.

mod install;
mod process;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_util::sync::CancellationToken;

pub use install::{InstallError, Installation};
use process::Server;

/// Database and role that Berth uses.
const NAME: &str = "berth";

/// Where things lie.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cluster's files.
    pub data: PathBuf,
    /// Folder of the unix socket; only root and the server's user may enter.
    pub socket: PathBuf,
    /// Folder with `postgres` and `initdb`; `None`: `PATH`, then Debian's versioned folders.
    pub binaries: Option<PathBuf>,
    /// Operating system user to run as when we are root; it is made when it is missing.
    pub user: String,
}

/// The database cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No binaries, or no user.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// The files are of another major version.
    #[error(
        "{data} was made by Postgres {found}, the installed one is {installed}: install postgresql-{found}, or move the data with pg_upgrade"
    )]
    Version {
        /// The folder.
        data: String,
        /// What `PG_VERSION` says.
        found: String,
        /// What `postgres --version` says.
        installed: String,
    },
    /// A program failed.
    #[error("{program} failed: {output}")]
    Program {
        /// Which.
        program: String,
        /// The end of what it printed.
        output: String,
    },
    /// A file or process operation failed.
    #[error("cannot {action} {path}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A folder above the files is closed to the user that the server runs as.
    #[error(
        "the user {user}, whom Postgres runs as, cannot go through {folder}: run `chmod o+x {folder}`, or choose a BERTH_HOME that all users can reach"
    )]
    NoWay {
        /// The user.
        user: String,
        /// The folder.
        folder: String,
    },
    /// The socket's path is longer than the kernel accepts.
    #[error("the socket folder {0} is too long for a unix socket (90 bytes at most): choose a shorter BERTH_HOME")]
    SocketPath(String),
    /// It did not come up.
    #[error("Postgres did not become ready within {seconds} s; the end of its log: {log}")]
    NotReady {
        /// How long we waited.
        seconds: u64,
        /// The end of the log.
        log: String,
    },
}

/// A running server, under supervision.
#[derive(Debug)]
pub struct Postgres {
    config: Config,
    installation: Installation,
    server: Server,
    restarts: tokio::sync::watch::Sender<u64>,
}

impl Postgres {
    /// Makes the cluster if there is none, then adopts the server that runs on it or starts one.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn start(config: Config) -> Result<Self, PostgresError> {
        let socket = config.socket.display().to_string();
        if socket.len() > 90 {
            return Err(PostgresError::SocketPath(socket));
        }
        let installation = Installation::find(config.binaries.as_deref(), &config.user).await?;
        installation.check_way(&config.data)?;
        installation.prepare_folder(&config.socket)?;
        if !config.data.join("PG_VERSION").exists() {
            installation.initdb(&config.data, NAME).await?;
        }
        installation.check_version(&config.data)?;
        installation.write_settings(&config.data, &config.socket)?;
        let server = match Server::adopt(&config.data) {
            Some(server) => server,
            None => Server::spawn(&installation, &config.data).await?,
        };
        let this = Self { config, installation, server, restarts: tokio::sync::watch::Sender::new(0) };
        this.wait_ready().await?;
        this.installation.create_database(&this.config.socket, NAME).await?;
        Ok(this)
    }

    /// The URL to connect with: peer authentication over the socket.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres:///{NAME}?user={NAME}&host={}", self.config.socket.display())
    }

    /// Process id of the server.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.server.pid()
    }

    /// How often the server was restarted after a crash.
    #[must_use]
    pub fn restarts(&self) -> tokio::sync::watch::Receiver<u64> {
        self.restarts.subscribe()
    }

    /// Restarts the server whenever it dies, until `shutdown`; then stops it (fast: transactions are rolled back, files are clean).
    ///
    /// # Errors
    /// When it cannot be stopped or its log not be read.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), PostgresError> {
        let mut failures: u32 = 0;
        loop {
            tokio::select! {
                () = self.server.exited() => {}
                () = shutdown.cancelled() => return self.server.stop(Duration::from_secs(20)).await,
            }
            tracing::error!(pid = self.server.pid(), log = %self.log_tail(), "Postgres ended by itself; starting it again");
            loop {
                match Server::spawn(&self.installation, &self.config.data).await {
                    Ok(server) => self.server = server,
                    Err(error) => {
                        tracing::error!(error = &error as &dyn std::error::Error, "Postgres cannot be started")
                    }
                }
                match self.wait_ready().await {
                    Ok(()) => break,
                    Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "Postgres is not ready"),
                }
                failures += 1;
                // Back-off between attempts: there is no event to wait for when a server refuses to start.
                let pause = Duration::from_millis(200 * u64::from(failures.min(50)));
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = shutdown.cancelled() => return self.server.stop(Duration::from_secs(20)).await,
                }
            }
            failures = 0;
            self.restarts.send_modify(|count| *count += 1);
            tracing::info!(pid = self.server.pid(), "Postgres is back");
        }
    }

    async fn wait_ready(&self) -> Result<(), PostgresError> {
        const SECONDS: u64 = 60;
        let ready = async {
            // The postmaster reports its state only in the last line of postmaster.pid; there is no descriptor to wait on.
            while !process::is_ready(&self.config.data, self.server.pid()) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            () = ready => Ok(()),
            () = self.server.exited() => {
                Err(PostgresError::Program { program: "postgres".to_owned(), output: self.log_tail() })
            }
            () = tokio::time::sleep(Duration::from_secs(SECONDS)) => {
                Err(PostgresError::NotReady { seconds: SECONDS, log: self.log_tail() })
            }
        }
    }

    fn log_tail(&self) -> String {
        tail(&self.config.data.join("server.log"))
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(5)..].join(" | ")
}
