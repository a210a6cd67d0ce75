//! A module or component that is ready to be instantiated.

use std::fs::File;
use std::io::Read as _;

use hull_sys_wasm::FixedFile;
use rustix::fs::{CWD, Mode, OFlags};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

use crate::artifact;

/// The two binary formats, by their first eight bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Core module: WASI 0.1.
    Module,
    /// Component: WASI 0.2.
    Component,
}

impl Kind {
    /// The format of some bytes.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        match bytes.get(..8)? {
            b"\0asm\x01\0\0\0" => Some(Self::Module),
            // Version 13 of layer 1.
            b"\0asm\x0d\0\x01\0" => Some(Self::Component),
            _ => None,
        }
    }
}

/// What is run.
pub(crate) enum Program {
    /// Core module.
    Module(Module),
    /// Component.
    Component(Component),
}

/// Why there is no program.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    #[error("{path}: {error}")]
    Read { path: String, error: std::io::Error },
    #[error("{path}: not a WebAssembly module or component (the text format has to be assembled first)")]
    Format { path: String },
    #[error("{path}: {error:#}")]
    Invalid { path: String, error: wasmtime::Error },
}

/// Loads the program: the compiled form if it belongs to what the file holds now, else compiled here.
pub(crate) fn load(engine: &Engine, path: &str, compiled: Option<&FixedFile>) -> Result<Program, LoadError> {
    let bytes = read(path).map_err(|error| LoadError::Read { path: path.to_owned(), error })?;
    let kind = Kind::of(&bytes).ok_or_else(|| LoadError::Format { path: path.to_owned() })?;
    if let Some(program) = compiled.and_then(|file| artifact::load(engine, file, kind, &artifact::digest(&bytes))) {
        return Ok(program);
    }
    match kind {
        Kind::Module => Module::from_binary(engine, &bytes).map(Program::Module),
        Kind::Component => Component::from_binary(engine, &bytes).map(Program::Component),
    }
    .map_err(|error| LoadError::Invalid { path: path.to_owned(), error })
}

fn read(path: &str) -> std::io::Result<Vec<u8>> {
    // A named pipe in the module's place must not hang the container.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::from(rustix::fs::openat(CWD, path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_by_their_version() {
        assert_eq!(Kind::of(b"\0asm\x01\0\0\0rest"), Some(Kind::Module));
        assert_eq!(Kind::of(b"\0asm\x0d\0\x01\0"), Some(Kind::Component));
        for other in [&b"\0asm\x0c\0\x01\0"[..], b"\0asm", b"\x7fELF\x02\x01\x01\0", b"(module)"] {
            assert_eq!(Kind::of(other), None, "{other:?}");
        }
    }
}
