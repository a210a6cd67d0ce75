//! WebAssembly programs: hull starts `hull-wasm` in their place, and links nothing of it.
//!
//! The annotations are those of crun and youki, a closed list: `run.oci.handler: wasm` and
//! `module.wasm.image/variant: compat` say that the process is WebAssembly; `module.wasm.image/variant: compat-smart`
//! says to look, so that the other containers of a pod that is annotated as a whole run as ever. So do the rules of the
//! administrator ([`config`]), and every `exec`.
//!
//! What the annotations change is what is executed, as the same user with the same limits. Which program that is, no
//! container decides: its path is fixed or the administrator's, it is opened before the root changes, and the
//! descriptor is of a read-only mount wherever a container could write to the file (CVE-2019-5736).

pub(crate) mod cache;
pub(crate) mod config;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use hull_sys::process::{StringVector, execveat};
use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use self::config::Config;
use super::launch::DEFAULT_PATH;
use super::own_binary;
use crate::container::sync::{self, Message};
use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::{Process, Spec};

/// The annotation of crun's handlers.
pub(crate) const HANDLER: &str = "run.oci.handler";
/// The annotation of images.
pub(crate) const VARIANT: &str = "module.wasm.image/variant";

/// How a process is told to be WebAssembly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    /// It is said to be.
    Said,
    /// By the first bytes of its file.
    ByContent,
}

/// What may run the process.
#[derive(Debug)]
pub(crate) struct Handler {
    choice: Choice,
    /// `hull-wasm`, or why there is none.
    program: Result<OwnedFd>,
    /// Destinations of bind mounts.
    directories: Vec<String>,
    chosen: Option<Module>,
}

/// A module that takes the place of a native program.
#[derive(Debug)]
pub(crate) struct Module {
    /// As the container sees it.
    path: String,
    compiled: Option<OwnedFd>,
}

/// What the annotations say.
fn annotated(spec: &Spec) -> Result<Option<Choice>> {
    let value = |name| spec.annotations.get(name).map(String::as_str).filter(|v| !v.is_empty());
    let unknown = |name, value, known| {
        Err(Error::new(Code::Unsupported, format!("annotations[{name}]"))
            .says(format!("annotation {name}: {value:?}; this runtime knows {known}")))
    };
    let handler = match value(HANDLER) {
        None => None,
        Some("wasm") => Some(Choice::Said),
        Some(other) => return unknown(HANDLER, other, "wasm"),
    };
    let variant = match value(VARIANT) {
        None => None,
        Some("compat") => Some(Choice::Said),
        Some("compat-smart") => Some(Choice::ByContent),
        Some(other) => return unknown(VARIANT, other, "compat and compat-smart"),
    };
    Ok(variant.or(handler))
}

/// What `hull explain` says of the first process: lines without line ends.
pub(crate) fn explain(spec: &Spec, process: &Process, config: &Config) -> Vec<String> {
    let choice = match annotated(spec) {
        Ok(choice) => choice,
        Err(error) => return vec![format!("refused: {error}")],
    };
    let annotation = [VARIANT, HANDLER].into_iter().find_map(|name| {
        let value = spec.annotations.get(name).filter(|value| !value.is_empty())?;
        Some(format!("annotation {name}={value}"))
    });
    let reason = match annotation {
        Some(annotation) => annotation,
        None if config.names(process) => "a rule of the administrator".to_owned(),
        None => return vec!["runs natively".to_owned()],
    };
    let program = match config.program() {
        Ok(path) => path,
        Err(error) => format!("hull-wasm, which cannot be used ({error})"),
    };
    let text = match choice {
        Some(Choice::Said) => format!("WebAssembly: {program} runs it in the process' place ({reason})"),
        _ => format!("{program} runs it if its file is WebAssembly, else it runs natively ({reason})"),
    };
    let compiled = match config.cache() {
        Some(directory) => format!("its compiled form is taken from {directory}, or made there"),
        None => "compiled inside at every start: there is no cache".to_owned(),
    };
    vec![text, compiled]
}

impl Handler {
    /// The handler of a container's first process, if it may need one.
    pub(crate) fn of_container(spec: &Spec, process: &Process, config: &Config) -> Result<Option<Self>> {
        let choice = match annotated(spec)? {
            Some(choice) => choice,
            None if config.names(process) => Choice::ByContent,
            None => return Ok(None),
        };
        Self::new(choice, spec, config).map(Some)
    }

    /// The handler of a further process: a container of WebAssembly may have native tools, so the file decides.
    pub(crate) fn of_exec(spec: &Spec, process: &Process, config: &Config) -> Result<Option<Self>> {
        if annotated(spec)?.is_none() && !config.names(process) {
            return Ok(None);
        }
        Self::new(Choice::ByContent, spec, config).map(Some)
    }

    fn new(choice: Choice, spec: &Spec, config: &Config) -> Result<Self> {
        let program = config
            .program()
            .and_then(|path| own_binary::open_program(&path, spec.linux.as_ref()))
            .and_then(|fd| files::move_high(&fd).context(Code::Wasm, "descriptor"));
        if let (Choice::Said, Err(error)) = (choice, &program) {
            return Err(error.clone());
        }
        let bound = spec.mounts.iter().filter(|m| m.options.iter().any(|o| o == "bind" || o == "rbind"));
        Ok(Self { choice, program, directories: bound.map(|m| m.destination.clone()).collect(), chosen: None })
    }

    /// Descriptors that the process needs until its execve.
    pub(crate) fn raw_fd(&self) -> Option<i32> {
        self.program.as_ref().ok().map(AsRawFd::as_raw_fd)
    }

    /// Looks at the program's file, inside the container, and asks the runtime for its compiled form.
    pub(crate) fn choose(&mut self, process: &Process, sync: impl AsFd) -> Result<()> {
        let path = match locate(process) {
            Ok(path) => path,
            Err(error) if self.choice == Choice::Said => return Err(error),
            // Whatever is wrong, the search for a native program reports it.
            Err(_) => return Ok(()),
        };
        let file = match open(&path) {
            Ok(Some(file)) => file,
            Ok(None) | Err(_) if self.choice == Choice::ByContent => return Ok(()),
            Ok(None) => {
                return Err(Error::os(Code::Exec, path.as_str(), Errno::NOEXEC).says(format!("{path:?}")).hint(
                    format!(
                        "neither a WebAssembly module nor a component; with {VARIANT}=compat-smart it runs natively"
                    ),
                ));
            }
            Err(e) => return Err(Error::os(Code::Exec, path.as_str(), e).says(format!("{path:?}"))),
        };
        if let Err(error) = &self.program {
            return Err(error.clone());
        }
        sync::send(&sync, &Message::Module(file)).context(Code::Internal, "sync")?;
        let compiled = match sync::receive(&sync)? {
            Message::Compiled(compiled) => compiled,
            _ => return Err(Error::new(Code::Internal, "sync").says("the runtime ended during set-up")),
        };
        // Moved away from the numbers that the caller passes on.
        let compiled = compiled.map(|fd| files::move_high(&fd).context(Code::Wasm, "descriptor")).transpose()?;
        self.chosen = Some(Module { path, compiled });
        Ok(())
    }

    /// Whether the process is WebAssembly.
    pub(crate) fn takes(&self) -> bool {
        self.chosen.is_some()
    }

    /// `hull-wasm`, if it runs the process.
    pub(crate) fn program(&self) -> Option<BorrowedFd<'_>> {
        self.chosen.as_ref().and(self.program.as_ref().ok()).map(AsFd::as_fd)
    }

    /// The module's path and the arguments of `hull-wasm`, once the process has its final identity.
    pub(crate) fn arm(&self, process: &Process) -> Result<Option<(CString, Vec<String>)>> {
        let Some(module) = &self.chosen else { return Ok(None) };
        rustix::fs::accessat(CWD, module.path.as_str(), Access::READ_OK, AtFlags::EACCESS).map_err(|e| {
            Error::os(Code::Exec, module.path.as_str(), e)
                .says(format!("{:?}", module.path))
                .hint("the process' user must be able to read a WebAssembly module")
        })?;
        let mut args = vec!["hull-wasm".to_owned(), "run".to_owned()];
        if let Some(fd) = &module.compiled {
            args.extend(["--compiled".to_owned(), fd.as_raw_fd().to_string()]);
        }
        for directory in &self.directories {
            args.extend(["--dir".to_owned(), directory.clone()]);
        }
        args.push(module.path.clone());
        args.extend(process.args.iter().cloned());
        let path = CString::new(module.path.as_str())
            .map_err(|_| Error::invalid("process.args", "process.args: null byte"))?;
        Ok(Some((path, args)))
    }

    /// Keeps the compiled form open across the execve.
    pub(crate) fn keep_compiled(&self) -> Result<()> {
        match self.chosen.as_ref().and_then(|m| m.compiled.as_ref()) {
            Some(fd) => hull_sys::fd::keep_over_exec(fd.as_raw_fd()).context(Code::Wasm, "descriptor"),
            None => Ok(()),
        }
    }
}

/// Becomes `hull-wasm`. Returns only on failure.
pub(crate) fn execute(program: BorrowedFd<'_>, argv: &StringVector, envp: &StringVector) -> Error {
    Error::os(Code::Wasm, "hull-wasm", execveat(program, argv, envp))
}

/// The module's absolute path. It need not be executable: images of modules seldom say so.
fn locate(process: &Process) -> Result<String> {
    let name = process.args.first().map_or("", String::as_str);
    let cwd = process.cwd.trim_end_matches('/');
    if name.starts_with('/') {
        return Ok(name.to_owned());
    }
    if name.contains('/') {
        return Ok(format!("{cwd}/{name}"));
    }
    let path = process.env.iter().rev().find_map(|v| v.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let regular = |path: &str| rustix::fs::stat(path).is_ok_and(|s| FileType::from_raw_mode(s.st_mode).is_file());
    // The working directory last: `ENTRYPOINT ["app.wasm"]` is common.
    path.split(':')
        .filter(|dir| dir.starts_with('/'))
        .chain([cwd])
        .map(|dir| format!("{dir}/{name}"))
        .find(|candidate| !name.is_empty() && regular(candidate))
        .ok_or_else(|| Error::new(Code::Exec, name).says(format!("{name:?}: executable file not found in $PATH")))
}

/// The file, if it is a module or component.
fn open(path: &str) -> Result<Option<OwnedFd>, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
        return Err(Errno::ACCESS);
    }
    let mut magic = [0; 8];
    let read = rustix::io::pread(&file, &mut magic, 0)?;
    Ok((read == magic.len() && is_wasm(magic)).then_some(file))
}

/// A core module of version 1, or a component.
fn is_wasm(magic: [u8; 8]) -> bool {
    matches!(&magic, b"\0asm\x01\0\0\0" | b"\0asm\x0d\0\x01\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice(annotations: &str) -> Result<Option<Choice>> {
        let spec = format!(r#"{{"ociVersion":"1.0.0","annotations":{annotations}}}"#);
        annotated(&serde_json::from_str(&spec).unwrap())
    }

    #[test]
    fn annotations_are_a_closed_list() {
        assert_eq!(choice("{}").unwrap(), None);
        assert_eq!(choice(r#"{"run.oci.handler":"wasm"}"#).unwrap(), Some(Choice::Said));
        assert_eq!(choice(r#"{"module.wasm.image/variant":"compat"}"#).unwrap(), Some(Choice::Said));
        assert_eq!(choice(r#"{"module.wasm.image/variant":"compat-smart"}"#).unwrap(), Some(Choice::ByContent));
        let both = r#"{"run.oci.handler":"wasm","module.wasm.image/variant":"compat-smart"}"#;
        assert_eq!(choice(both).unwrap(), Some(Choice::ByContent));
        for unknown in [r#"{"run.oci.handler":"krun"}"#, r#"{"module.wasm.image/variant":"other"}"#] {
            assert_eq!(choice(unknown).unwrap_err().code(), Code::Unsupported, "{unknown}");
        }
    }

    #[test]
    fn the_explanation_names_the_annotation_and_the_program() {
        let said = |annotations: &str, config: &str| {
            let spec = format!(r#"{{"ociVersion":"1.0.0","annotations":{annotations}}}"#);
            let process = Process { args: vec!["/app.wasm".into()], ..Process::default() };
            explain(&serde_json::from_str(&spec).unwrap(), &process, &serde_json::from_str(config).unwrap())
        };
        let config = r#"{"program":"/bin/sh","cache":"/cache","rules":[{"suffix":".wasm"}]}"#;
        assert_eq!(said("{}", r#"{"program":"/bin/sh"}"#), ["runs natively"]);
        assert_eq!(
            said(r#"{"run.oci.handler":"wasm"}"#, config),
            [
                "WebAssembly: /bin/sh runs it in the process' place (annotation run.oci.handler=wasm)",
                "its compiled form is taken from /cache, or made there"
            ]
        );
        let looks = said(r#"{"module.wasm.image/variant":"compat-smart"}"#, r#"{"program":"/none/x","cache":""}"#);
        assert!(
            looks[0].contains("/none/x cannot be executed") && looks[0].contains("else it runs natively"),
            "{looks:?}"
        );
        assert!(looks[1].contains("no cache"), "{looks:?}");
        assert!(said("{}", config)[0].contains("a rule of the administrator"));
        assert!(said(r#"{"run.oci.handler":"krun"}"#, config)[0].starts_with("refused: "));
    }

    #[test]
    fn modules_are_found_like_programs_then_in_the_working_directory() {
        let directory = tempfile::tempdir().unwrap();
        let cwd = directory.path().to_str().unwrap().to_owned();
        std::fs::write(directory.path().join("app.wasm"), "").unwrap();
        let process = |name: &str| Process { args: vec![name.into()], cwd: cwd.clone(), ..Process::default() };
        assert_eq!(locate(&process("/a.wasm")).unwrap(), "/a.wasm");
        assert_eq!(locate(&process("./a.wasm")).unwrap(), format!("{cwd}/./a.wasm"));
        assert_eq!(locate(&process("app.wasm")).unwrap(), format!("{cwd}/app.wasm"));
        assert!(locate(&process("none.wasm")).unwrap_err().to_string().contains("not found in $PATH"));
    }
}
