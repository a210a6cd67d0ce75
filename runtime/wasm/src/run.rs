//! Being the process of a container.

use std::io::ErrorKind;

use hull_sys_wasm::FixedFile;
use wasmtime::component::{Linker as ComponentLinker, ResourceTable};
use wasmtime::{Engine, Linker, Store, Trap};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::{FsPerms, I32Exit, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use crate::options::Run;
use crate::program::{self, LoadError, Program};
use crate::{engine, errno, files};

/// Exit status of a program that trapped: that of a native one that aborted.
const TRAPPED: i32 = 134;
/// The program exists and cannot be run, as in shells.
const NOT_RUNNABLE: i32 = 126;
/// The program is not there.
const NOT_FOUND: i32 = 127;

/// Why the program did not run to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("cannot set up wasmtime: {0:#}")]
    Engine(wasmtime::Error),
    #[error("cannot set up the event loop: {0}")]
    Runtime(std::io::Error),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("cannot open {path} for the program: {error:#}")]
    Directory { path: String, error: wasmtime::Error },
    #[error("{module}: cannot be started: {error:#}")]
    Start { module: String, error: wasmtime::Error },
    #[error("{module}: {error:?}")]
    Trapped { module: String, error: wasmtime::Error },
}

impl RunError {
    /// Exit status of the container.
    pub(crate) fn status(&self) -> i32 {
        match self {
            Self::Load(LoadError::Read { error, .. }) if error.kind() == ErrorKind::NotFound => NOT_FOUND,
            Self::Trapped { .. } => TRAPPED,
            _ => NOT_RUNNABLE,
        }
    }
}

/// Runs the program and returns its exit status.
pub(crate) fn run(options: &Run) -> Result<i32, RunError> {
    // By a descriptor of its own, `ps` and the like would show a number.
    let _ = rustix::thread::set_name(c"hull-wasm");
    leave_on_signals();
    errno::listen();
    let engine = engine::new().map_err(RunError::Engine)?;
    let compiled = options.compiled.and_then(|number| hull_sys::fd::duplicate(number).ok());
    let compiled = compiled.and_then(|fd| FixedFile::new(fd.into()));
    let program = program::load(&engine, &options.module, compiled.as_ref())?;
    drop(compiled);
    let mut context = context(options)?;
    // One thread: what blocks the program may block the process, and a limit of processes counts threads.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(RunError::Runtime)?;
    let ended = match program {
        Program::Module(module) => runtime.block_on(run_module(&engine, &module, context.build_p1())),
        Program::Component(component) => runtime.block_on(run_component(
            &engine,
            &component,
            Host { context: context.build(), table: ResourceTable::new() },
        )),
    };
    // A thread may still be waiting for standard input.
    runtime.shutdown_background();
    status(ended, &options.module)
}

/// The kernel keeps signals without a handler from the first process of a PID namespace, and WebAssembly has no handlers: without these,
/// stopping such a container would always take the engine's whole grace period.
fn leave_on_signals() {
    if rustix::process::getpid().is_init() {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            // Only fails for numbers that are no signal.
            let _ = hull_sys::signal::exit_on(signal);
        }
    }
}

/// Standard streams, arguments, environment, directories and network of the container.
fn context(options: &Run) -> Result<WasiCtxBuilder, RunError> {
    let mut context = WasiCtxBuilder::new();
    context.inherit_stdio().inherit_network().allow_ip_name_lookup(true).allow_blocking_current_thread(true);
    context.args(&options.args);
    for (key, value) in std::env::vars_os() {
        // What is not text cannot be passed on.
        if let (Ok(key), Ok(value)) = (key.into_string(), value.into_string()) {
            context.env(key, value);
        }
    }
    if let Some(directory) = std::env::current_dir().ok().and_then(|path| path.into_os_string().into_string().ok()) {
        if std::env::var_os("PWD").is_none() {
            context.env("PWD", &directory);
        }
        context.initial_cwd(directory);
    }
    let mut open = |path: &str| {
        context
            .preopened_dir(path, path, FsPerms::ReadWrite)
            .map(|_| ())
            .map_err(|error| RunError::Directory { path: path.to_owned(), error })
    };
    open("/")?;
    for path in &options.directories {
        // Mounted files are reached through their folder.
        if std::fs::metadata(path).is_ok_and(|metadata| metadata.is_dir()) {
            open(path)?;
        }
    }
    Ok(context)
}

/// How a program ended.
enum Ended {
    /// It could not be started.
    Refused(wasmtime::Error),
    /// It returned; for components, whether it reports success.
    Returned(bool),
    /// It exited or trapped.
    Stopped(wasmtime::Error),
}

async fn run_module(engine: &Engine, module: &wasmtime::Module, context: WasiP1Ctx) -> Ended {
    let start = async {
        let mut linker: Linker<WasiP1Ctx> = Linker::new(engine);
        wasmtime_wasi::p1::add_to_linker_async(&mut linker, |context| context)?;
        // wasmtime's own traps on 126 and above; a container may end with any status.
        linker.allow_shadowing(true);
        linker.func_wrap("wasi_snapshot_preview1", "proc_exit", |status: i32| -> wasmtime::Result<()> {
            Err(I32Exit(status).into())
        })?;
        files::add_to_linker(&mut linker)?;
        let mut store = Store::new(engine, context);
        let instance = linker.instantiate_async(&mut store, module).await?;
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
        Ok::<_, wasmtime::Error>((store, start))
    };
    let (mut store, start) = match start.await {
        Ok(ready) => ready,
        Err(error) => return Ended::Refused(error),
    };
    match start.call_async(&mut store, ()).await {
        Ok(()) => Ended::Returned(true),
        Err(error) => Ended::Stopped(error),
    }
}

/// State of a component's instance.
pub(crate) struct Host {
    context: WasiCtx,
    table: ResourceTable,
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.context, table: &mut self.table }
    }
}

async fn run_component(engine: &Engine, component: &wasmtime::component::Component, host: Host) -> Ended {
    let start = async {
        let mut linker: ComponentLinker<Host> = ComponentLinker::new(engine);
        wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
        linker.allow_shadowing(true);
        files::add_to_component_linker(&mut linker)?;
        let mut store = Store::new(engine, host);
        let command = Command::instantiate_async(&mut store, component, &linker).await?;
        Ok::<_, wasmtime::Error>((store, command))
    };
    let (mut store, command) = match start.await {
        Ok(ready) => ready,
        Err(error) => return Ended::Refused(error),
    };
    match command.wasi_cli_run().call_run(&mut store).await {
        Ok(result) => Ended::Returned(result.is_ok()),
        Err(error) => Ended::Stopped(error),
    }
}

fn status(ended: Ended, module: &str) -> Result<i32, RunError> {
    match ended {
        Ended::Returned(success) => Ok(i32::from(!success)),
        // The start function of a module may exit before `_start` is called.
        Ended::Stopped(error) | Ended::Refused(error) if error.is::<I32Exit>() => {
            Ok(error.downcast_ref::<I32Exit>().map_or(0, |exit| exit.0 & 0xff))
        }
        Ended::Refused(error) if !error.is::<Trap>() => Err(RunError::Start { module: module.to_owned(), error }),
        Ended::Refused(error) | Ended::Stopped(error) => Err(RunError::Trapped { module: module.to_owned(), error }),
    }
}
