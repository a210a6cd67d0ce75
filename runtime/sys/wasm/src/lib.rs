//! Compiled WebAssembly from files that nobody can change.
//!
//! A compiled module is native code that wasmtime executes as it is: loading one is unsafe, whatever is checked about its bytes. What can be
//! checked is the file. hull gives a container a descriptor of a read-only mount, or a sealed memory file, and nothing that a container makes
//! for itself passes for one of these here.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use rustix::fs::{OFlags, SealFlags, StatVfsMountFlags, fcntl_get_seals, fcntl_getfl, fstatvfs};
use wasmtime::component::Component;
use wasmtime::{Engine, Module};

/// A file whose content stays as it is for as long as it is open.
#[derive(Debug)]
pub struct FixedFile(File);

impl FixedFile {
    /// Takes a file that cannot be written to through its mount, or has been sealed; `None` for all others.
    pub fn new(file: File) -> Option<Self> {
        let read_only = fcntl_getfl(&file).ok()? & OFlags::RWMODE == OFlags::RDONLY;
        let mount = fstatvfs(&file).is_ok_and(|about| about.f_flag.contains(StatVfsMountFlags::RDONLY));
        let seals = SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL;
        let sealed = fcntl_get_seals(&file).is_ok_and(|found| found.contains(seals));
        let fixed = file.metadata().ok()?.is_file() && read_only && (mount || sealed);
        fixed.then_some(Self(file))
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.0
    }

    /// A module made by this engine's version with its settings; anything may follow the image. It is mapped, so that processes share its
    /// pages, or read if its mount is noexec.
    pub fn module(&self, engine: &Engine) -> Option<Module> {
        self.mapped(engine).or_else(|| {
            let image = self.content()?;
            // SAFETY: as in `mapped`.
            unsafe { Module::deserialize(engine, image) }.ok()
        })
    }

    /// A component, likewise.
    pub fn component(&self, engine: &Engine) -> Option<Component> {
        let image = self.content()?;
        // SAFETY: as in `mapped`.
        unsafe { Component::deserialize(engine, image) }.ok()
    }

    fn mapped(&self, engine: &Engine) -> Option<Module> {
        let file = self.0.try_clone().ok()?;
        // SAFETY: only hull makes such files for a process that has not run any foreign code yet, of images that
        // wasmtime wrote, in a directory that only hull's own user can write to; files there are replaced, never changed
        // or cut. wasmtime itself checks that version and settings are its own.
        unsafe { Module::deserialize_open_file(engine, file) }.ok()
    }

    fn content(&self) -> Option<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(self.0.metadata().ok()?.len()).ok()?];
        self.0.read_exact_at(&mut bytes, 0).ok()?;
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::fd::AsRawFd as _;

    use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};

    use super::*;

    /// A memory file, opened for reading.
    fn memory(content: &[u8], seals: SealFlags) -> File {
        let mut file = File::from(memfd_create("test", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap());
        file.write_all(content).unwrap();
        fcntl_add_seals(&file, seals).unwrap();
        File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
    }

    fn all() -> SealFlags {
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
    }

    #[test]
    fn files_that_can_be_changed_are_not_taken() {
        assert!(FixedFile::new(memory(b"", all())).is_some());
        for seal in all() {
            assert!(FixedFile::new(memory(b"", all() - seal)).is_none(), "without {seal:?}");
        }
        // The test's own program: it can be read, and nothing else about it is certain.
        assert!(FixedFile::new(File::open(std::env::current_exe().unwrap()).unwrap()).is_none());
        assert!(FixedFile::new(File::open("/").unwrap()).is_none());
    }

    #[test]
    fn what_is_compiled_for_an_engine_is_taken_and_nothing_else() {
        let engine = Engine::default();
        let empty = b"\0asm\x01\0\0\0";
        let mut image = engine.precompile_module(empty).unwrap();
        image.extend_from_slice(b"what follows");
        let file = FixedFile::new(memory(&image, all())).unwrap();
        assert!(file.module(&engine).is_some());
        assert!(file.component(&engine).is_none());
        assert!(FixedFile::new(memory(empty, all())).unwrap().module(&engine).is_none());
    }
}
