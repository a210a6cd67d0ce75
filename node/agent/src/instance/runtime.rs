//! hull's command line: signals, deletion, and what it has. Creating and starting is the monitor's job.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

/// The runtime did not do it.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// It does not run.
    #[error("{} cannot be started", program.display())]
    Spawn {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It failed.
    #[error("hull {command} of container {container} failed: {complaint}")]
    Failed {
        /// What it was to do.
        command: &'static str,
        /// With which container.
        container: String,
        /// What it wrote.
        complaint: String,
    },
    /// It hangs.
    #[error("hull {command} of container {container} did not end in {} seconds", TIMEOUT.as_secs())]
    Hangs {
        /// What it was to do.
        command: &'static str,
        /// With which container.
        container: String,
    },
}

const TIMEOUT: Duration = Duration::from_secs(30);

/// How hull is called.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The program.
    pub program: PathBuf,
    /// Its state.
    pub root: PathBuf,
    /// Further global options.
    pub options: Vec<String>,
}

impl Runtime {
    /// Global options, for the monitor.
    #[must_use]
    pub fn global_arguments(&self) -> Vec<String> {
        let mut arguments = vec!["--root".to_owned(), self.root.display().to_string()];
        arguments.extend(self.options.iter().cloned());
        arguments
    }

    async fn run(
        &self,
        command: &'static str,
        container: &str,
        options: &[&str],
        after: &[&str],
    ) -> Result<(), RuntimeError> {
        let child = Command::new(&self.program)
            .args(self.global_arguments())
            .arg(command)
            .args(options)
            .arg(container)
            .args(after)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(TIMEOUT, child).await {
            Ok(output) => output.map_err(|source| RuntimeError::Spawn { program: self.program.clone(), source })?,
            Err(_) => return Err(RuntimeError::Hangs { command, container: container.to_owned() }),
        };
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr);
        let complaint = text.lines().last().unwrap_or_default().trim().to_owned();
        Err(RuntimeError::Failed { command, container: container.to_owned(), complaint })
    }

    /// Signals the container's first process.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    pub async fn kill(&self, container: &str, signal: &str) -> Result<(), RuntimeError> {
        self.run("kill", container, &[], &[signal]).await
    }

    /// Kills what is left of the container and forgets it. That there is none is no error.
    ///
    /// # Errors
    /// See [`RuntimeError`].
    pub async fn delete(&self, container: &str) -> Result<(), RuntimeError> {
        if !self.root.join(container).exists() {
            return Ok(());
        }
        match self.run("delete", container, &["--force"], &[]).await {
            Err(RuntimeError::Failed { .. }) if !self.root.join(container).exists() => Ok(()),
            other => other,
        }
    }

    /// Containers it knows.
    #[must_use]
    pub fn list(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.root).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .filter(|name| !name.starts_with('.'))
            .collect()
    }
}
