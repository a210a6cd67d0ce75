//! A new container, from its configuration to the created state.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::{Container, Executor, Runtime, logged};
use crate::error::{Code, Error, Result};
use crate::spec::Spec;

/// A container in the making.
///
/// ```no_run
/// use std::io::Read;
///
/// let runtime = hull::Runtime::new("/usr/bin/hull");
/// let (mut output, end) = std::io::pipe().unwrap();
/// let container = runtime.create("web", "/srv/bundles/web").stdout(end.into()).create()?;
/// container.start()?.wait()?;
/// let mut said = String::new();
/// output.read_to_string(&mut said).unwrap();
/// # Ok::<(), hull::Error>(())
/// ```
#[derive(Debug)]
pub struct ContainerBuilder {
    runtime: Runtime,
    id: String,
    bundle: PathBuf,
    spec: Option<Spec>,
    streams: [Option<OwnedFd>; 3],
    console_socket: Option<PathBuf>,
}

impl ContainerBuilder {
    pub(super) fn new(runtime: Runtime, id: String, bundle: PathBuf) -> Self {
        Self { runtime, id, bundle, spec: None, streams: [None, None, None], console_socket: None }
    }

    /// The configuration by value: written to the bundle as `config.json`.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// let spec = hull::spec::Spec { hostname: Some("web".into()), ..Default::default() };
    /// runtime.create("web", "/srv/bundles/web").spec(spec).create()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    #[must_use]
    pub fn spec(mut self, spec: Spec) -> Self {
        self.spec = Some(spec);
        self
    }

    /// Lets the first executor that takes the configuration change it.
    ///
    /// # Errors
    /// Of the executor; and [`Code::ConfigInvalid`] without an earlier [`ContainerBuilder::spec`]: a workload must not run as
    /// if there were no executors.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// struct Wasm;
    /// impl hull::Executor for Wasm {
    ///     fn takes(&self, spec: &hull::spec::Spec) -> bool {
    ///         spec.annotations.get("module.wasm.image/variant").is_some_and(|variant| variant == "compat")
    ///     }
    ///     fn prepare(&self, spec: &mut hull::spec::Spec) -> hull::Result<()> {
    ///         if let Some(process) = &mut spec.process {
    ///             process.args.insert(0, "/opt/engine".into());
    ///         }
    ///         Ok(())
    ///     }
    /// }
    /// let builder = runtime.create("module", "/srv/bundles/module").spec(Default::default());
    /// builder.executors(&[&Wasm])?.create()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn executors(mut self, executors: &[&dyn Executor]) -> Result<Self> {
        let spec = self.spec.as_mut().ok_or_else(|| {
            Error::new(Code::ConfigInvalid, "spec")
                .says("executors change a configuration that is given as a value, before them")
        })?;
        if let Some(executor) = executors.iter().find(|e| e.takes(spec)) {
            executor.prepare(spec)?;
        }
        Ok(self)
    }

    standard_streams!(r#"hull::Runtime::new("/usr/bin/hull").create("web", "/srv/bundles/web")"#, "create");

    /// Unix socket that gets the terminal's master, for a process with a terminal.
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// runtime.create("shell", "/srv/bundles/shell").console_socket("/run/my-program/console.sock").create()?;
    /// # Ok::<(), hull::Error>(())
    /// ```
    #[must_use]
    pub fn console_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.console_socket = Some(path.into());
        self
    }

    /// Creates the container; its process waits for [`Container::start`].
    ///
    /// ```no_run
    /// let runtime = hull::Runtime::new("/usr/bin/hull");
    /// match runtime.create("web", "/srv/bundles/web").create() {
    ///     Ok(container) => println!("{} waits for its start", container.id()),
    ///     Err(error) => eprintln!("{} ({}): {error}", error.code().as_str(), error.code().phase().as_str()),
    /// }
    /// # Ok::<(), hull::Error>(())
    /// ```
    pub fn create(self) -> Result<Container> {
        if let Some(spec) = &self.spec {
            write_spec(&self.bundle, spec)?;
        }
        let (mut command, log) = self.runtime.command()?;
        command.arg("create").arg("--bundle").arg(&self.bundle);
        if let Some(path) = &self.console_socket {
            command.arg("--console-socket").arg(path);
        }
        let [stdin, stdout, stderr] = self.streams.map(|fd| fd.map_or_else(Stdio::null, Stdio::from));
        command.arg(&self.id).stdin(stdin).stdout(stdout).stderr(stderr);
        let status = command.status().map_err(|e| self.runtime.not_started(&e))?;
        if status.success() { Ok(Container { runtime: self.runtime, id: self.id }) } else { Err(logged(&log, status)) }
    }
}

fn write_spec(bundle: &Path, spec: &Spec) -> Result<()> {
    let path = bundle.join("config.json");
    let bytes =
        serde_json::to_vec_pretty(spec).map_err(|e| Error::new(Code::Internal, "config.json").says(e.to_string()))?;
    std::fs::write(&path, bytes).map_err(|e| Error::of_io(Code::Output, path.display().to_string(), &e))
}
