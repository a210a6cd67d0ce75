//! Seccomp programs of processes: compiled once a profile, then read from a cache beside the containers' records.

use std::path::PathBuf;

use crate::error::{Code, Error, Result};
use crate::seccomp::{self, Cache, Program, Unsaved};
use crate::spec::Seccomp;

/// The cache below the runtime's root. No container has this name, for ids do not begin with a dot.
const DIRECTORY: &str = ".seccomp";

/// Compiles for one command or session.
#[derive(Debug)]
pub(crate) struct Filters {
    directory: PathBuf,
    unsaved: Option<(Cache, Unsaved)>,
}

impl Filters {
    /// With the cache of a runtime's root.
    pub(crate) fn below(root: &str) -> Self {
        Self { directory: PathBuf::from(root).join(DIRECTORY), unsaved: None }
    }

    /// The program of a profile.
    pub(crate) fn program(&mut self, seccomp: &Seccomp) -> Result<Program> {
        let failed = |error: seccomp::CompileError| Error::new(Code::Seccomp, error.to_string());
        let cache = match Cache::open(&self.directory) {
            Ok(cache) => cache,
            // It only saves time.
            Err(error) => {
                crate::log::debug(&error.to_string());
                return seccomp::compile(seccomp).map_err(failed);
            }
        };
        let (program, unsaved) = cache.find(seccomp).map_err(failed)?;
        self.unsaved = unsaved.map(|unsaved| (cache, unsaved));
        Ok(program)
    }

    /// Keeps a program that was new. To be called when a process has been made and has its own work: nobody waits then.
    pub(crate) fn save(&mut self) {
        if let Some((cache, unsaved)) = self.unsaved.take() {
            cache.save(&unsaved);
        }
    }
}
