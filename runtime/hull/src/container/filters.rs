//! Seccomp programs of processes: compiled once per profile, then read from a cache beside the containers' records.

use std::path::PathBuf;

use crate::error::{Code, Error, Result};
use crate::process::filter::{Delivery, Filter};
use crate::seccomp::{self, Cache, Program, Unsaved};
use crate::spec::Seccomp;

/// The cache below the runtime's root. No container has this name, for ids do not begin with a dot.
const DIRECTORY: &str = ".seccomp";

/// Compiles for one command or session.
#[derive(Debug)]
pub(crate) struct Filters {
    directory: PathBuf,
    delivers: bool,
    delivery: Option<Delivery>,
    unsaved: Option<(Cache, Unsaved)>,
}

impl Filters {
    /// With the cache of a runtime's root.
    pub(crate) fn below(root: &str) -> Self {
        Self { directory: PathBuf::from(root).join(DIRECTORY), delivers: false, delivery: None, unsaved: None }
    }

    /// The same, for a process that gets its program by [`Filters::deliver`].
    pub(crate) fn delivered_below(root: &str) -> Self {
        Self { delivers: true, ..Self::below(root) }
    }

    /// The filter of a process that is to be made.
    pub(crate) fn filter(&mut self, seccomp: &Seccomp) -> Result<Filter> {
        if !self.delivers {
            return self.program(seccomp).map(Filter::Ready);
        }
        let (delivery, filter) = Delivery::new()?;
        self.delivery = Some(delivery);
        Ok(filter)
    }

    /// Sends the program of the profile that [`Filters::filter`] was asked for, if any, and saves it if it was new. To be called once the
    /// process has been made and is busy with its own work.
    pub(crate) fn deliver(&mut self, seccomp: Option<&Seccomp>) -> Result<()> {
        if let (Some(delivery), Some(seccomp)) = (self.delivery.take(), seccomp) {
            delivery.send(&self.program(seccomp)?);
            self.save();
        }
        Ok(())
    }

    fn program(&mut self, seccomp: &Seccomp) -> Result<Program> {
        let failed = |error| failure(seccomp, &error);
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

    /// Saves a program that was new. To be called once a process has been made and is busy with its own work: then nobody waits for it.
    pub(crate) fn save(&mut self) {
        if let Some((cache, unsaved)) = self.unsaved.take() {
            cache.save(&unsaved);
        }
    }
}

/// A profile that cannot be compiled, with the property that is why.
pub(crate) fn failure(profile: &Seccomp, error: &seccomp::CompileError) -> Error {
    let property = format!("linux.seccomp{}", seccomp::culprit(profile, error));
    Error::new(Code::Seccomp, property.as_str()).says(format!("{property}: {error}"))
}
