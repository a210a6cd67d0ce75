//! What the administrator says about WebAssembly: `/etc/hull/wasm.json`, or the file of `--wasm-config`.
//!
//! `{"program": "/opt/hull-wasm", "cache": "/var/cache/hull/wasm", "rules": [{"suffix": ".wasm"}, {"env": "WASM=1"}]}`
//!
//! `program` is `hull-wasm`; without it the fixed paths are tried. `cache` is where compiled modules are kept, made if
//! its parent is there; an empty text keeps none. `rules` are for engines that pass no annotations on: a container
//! whose first argument has the suffix, or which has the variable, is looked at as with `compat-smart`.

use rustix::fs::{Access, CWD, Mode, OFlags};
use rustix::io::Errno;
use serde::Deserialize;

use crate::error::{Code, Context, Error, Result};
use crate::files;
use crate::spec::Process;

const FILE: &str = "/etc/hull/wasm.json";
/// Where the program is looked for; nothing is looked up in PATH.
const PROGRAMS: &[&str] =
    &["/usr/local/libexec/hull-wasm", "/usr/libexec/hull-wasm", "/usr/local/bin/hull-wasm", "/usr/bin/hull-wasm"];
/// Root's cache. Others have none unless they configure one.
const CACHE: &str = "/var/cache/hull-wasm";

/// The file's content.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Config {
    program: Option<String>,
    cache: Option<String>,
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Rule {
    /// End of the first argument.
    Suffix(String),
    /// `NAME=value` in the environment.
    Env(String),
}

impl Config {
    /// Reads the file; that at the default place may be missing.
    pub(crate) fn load(path: Option<&str>) -> Result<Self> {
        let name = path.unwrap_or(FILE);
        let file = match rustix::fs::openat(CWD, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) if path.is_none() => return Ok(Self::default()),
            Err(e) => return Err(Error::os(Code::InputFile, name, e)),
        };
        let stat = rustix::fs::fstat(&file).context(Code::InputFile, name)?;
        let trusted = stat.st_uid == 0 || stat.st_uid == rustix::process::geteuid().as_raw();
        if !trusted || stat.st_mode & 0o022 != 0 {
            return Err(Error::invalid(name, format!("{name}: others could write to it"))
                .hint("it must belong to root and be writable by nobody else"));
        }
        let bytes = files::read_all(&file, 1 << 20).context(Code::InputFile, name)?;
        let config: Self = crate::spec::read(&bytes, name, "")?;
        for path in [&config.program, &config.cache].into_iter().flatten() {
            if !path.is_empty() && !path.starts_with('/') {
                return Err(Error::invalid(path.as_str(), format!("{name}: {path:?} must be absolute")));
            }
        }
        Ok(config)
    }

    /// Whether a rule names the process.
    pub(super) fn names(&self, process: &Process) -> bool {
        self.rules.iter().any(|rule| match rule {
            Rule::Suffix(end) => process.args.first().is_some_and(|name| name.ends_with(end.as_str())),
            Rule::Env(variable) => process.env.contains(variable),
        })
    }

    /// Path of the installed program.
    pub(crate) fn program(&self) -> Result<String> {
        let usable = |path: &&str| rustix::fs::access(*path, Access::EXEC_OK).is_ok();
        match &self.program {
            Some(path) if usable(&path.as_str()) => Ok(path.clone()),
            Some(path) => Err(Error::new(Code::Wasm, path)
                .says(format!("{path} cannot be executed"))
                .hint(format!("it is the program of {FILE} or --wasm-config"))),
            None => PROGRAMS.iter().copied().find(usable).map(str::to_owned).ok_or_else(|| {
                let [first, ..] = PROGRAMS else { return Error::new(Code::Wasm, "hull-wasm") };
                Error::new(Code::Wasm, "hull-wasm")
                    .says("the container is a WebAssembly program and hull-wasm is not installed")
                    .hint(format!("install it as {first}, or name it in {FILE}"))
            }),
        }
    }

    /// Directory of compiled modules.
    pub(super) fn cache(&self) -> Option<&str> {
        match self.cache.as_deref() {
            Some(path) => Some(path).filter(|p| !p.is_empty()),
            None => Some(CACHE).filter(|_| rustix::process::geteuid().is_root()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_that_others_write_to_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), r#"{"rules":[{"suffix":".wasm"},{"env":"WASM=1"}],"cache":""}"#).unwrap();
        let path = file.path().to_str();
        let config = Config::load(path).unwrap();
        assert_eq!(config.cache(), None);
        let process =
            |arg: &str, env: &str| Process { args: vec![arg.into()], env: vec![env.into()], ..<_>::default() };
        assert!(config.names(&process("/a.wasm", "A=1")) && config.names(&process("/a", "WASM=1")));
        assert!(!config.names(&process("/a.wasm.sh", "WASM=10")));

        std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o666)).unwrap();
        assert!(Config::load(path).unwrap_err().to_string().contains("others could write"));
    }

    #[test]
    fn a_missing_program_is_named() {
        let config = Config { program: Some("/nonexistent/hull-wasm".into()), ..Config::default() };
        assert!(config.program().unwrap_err().to_string().contains("/nonexistent/hull-wasm cannot be executed"));
    }
}
