//! Compiled programs on disk.
//!
//! A file contains the profile that it was made from, and is used only if that equals the requested one byte by byte: nothing depends on a
//! hash. The hash only picks one of a fixed number of slots, which bounds the cache. Anything unexpected about a file (owner, mode, size,
//! content) means "compile and write it anew"; an unexpected directory is refused once, on opening. Files are written in place: a writer that
//! is killed leaves one that fails the checks, and no temporary name behind.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, fstat, mkdir, open, openat, unlinkat};
use rustix::io::Errno;

use super::{Arch, CompileError, Program, compile_for};
use crate::spec::Seccomp;

const SLOTS: u64 = 64;
/// Changes with the layout below and with what the compiler writes for a profile.
const MAGIC: &[u8; 8] = b"hullbpf2";
const MAX_FILE: u64 = 4 << 20;
const GROUP_OR_OTHERS_WRITE: u32 = 0o022;

/// A directory of compiled programs.
///
/// ```no_run
/// let cache = hull::seccomp::Cache::open(std::path::Path::new("/var/cache/my-program"))?;
/// # Ok::<(), hull::seccomp::CacheError>(())
/// ```
#[derive(Debug)]
pub struct Cache {
    directory: OwnedFd,
}

/// Why a directory cannot be the cache.
///
/// ```
/// use hull::seccomp::{Cache, CacheError};
///
/// // Whoever could write there could let containers make any system call.
/// let refused = Cache::open(std::path::Path::new("/tmp")).unwrap_err();
/// assert!(matches!(refused, CacheError::Foreign { .. }));
/// ```
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be made or opened.
    #[error("seccomp cache: cannot open the directory {}: {errno}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        errno: Errno,
    },
    /// Someone else could put programs there.
    #[error("seccomp cache: {} belongs to user {owner} with mode {mode:o}; it must be ours and writable by nobody else", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Its permissions.
        mode: u32,
    },
}

impl Cache {
    /// Opens the directory at `path`, which is made if its parent exists.
    ///
    /// # Errors
    /// It cannot be opened, or another user could write to it.
    ///
    /// ```no_run
    /// let cache = hull::seccomp::Cache::open(std::path::Path::new("/var/cache/my-program"))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn open(path: &Path) -> Result<Cache, CacheError> {
        let failed = |errno| CacheError::Open { path: path.to_owned(), errno };
        match mkdir(path, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(failed(errno)),
        }
        let directory =
            open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
                .map_err(failed)?;
        let stat = fstat(&directory).map_err(failed)?;
        let mode = stat.st_mode & 0o7777;
        if stat.st_uid != rustix::process::geteuid().as_raw() || mode & GROUP_OR_OTHERS_WRITE != 0 {
            return Err(CacheError::Foreign { path: path.to_owned(), owner: stat.st_uid, mode });
        }
        Ok(Cache { directory })
    }

    /// The program for `seccomp`, from the cache or compiled now. A cache that cannot be read or written only costs time.
    ///
    /// # Errors
    /// The profile asks for something impossible; see [`CompileError`].
    ///
    /// ```no_run
    /// let cache = hull::seccomp::Cache::open(std::path::Path::new("/var/cache/my-program"))?;
    /// let profile = serde_json::from_str(r#"{"defaultAction": "SCMP_ACT_ALLOW"}"#)?;
    /// assert_eq!(cache.compile(&profile)?, hull::seccomp::compile(&profile)?);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn compile(&self, seccomp: &Seccomp) -> Result<Program, CompileError> {
        let (program, unsaved) = self.find(seccomp)?;
        if let Some(unsaved) = unsaved {
            self.save(&unsaved);
        }
        Ok(program)
    }

    /// As [`Cache::compile`], but leaves it to the caller when a new program is saved.
    pub(crate) fn find(&self, seccomp: &Seccomp) -> Result<(Program, Option<Unsaved>), CompileError> {
        let native = Arch::native().ok_or(CompileError::Machine)?;
        let Some(key) = key(native, seccomp) else {
            return Ok((compile_for(native, seccomp)?, None));
        };
        let slot = format!("{:02}", sum(&key) % SLOTS);
        if let Some(program) = self.read(&slot, &key) {
            return Ok((program, None));
        }
        let program = compile_for(native, seccomp)?;
        Ok((program.clone(), Some(Unsaved { slot, key, program })))
    }

    /// Only later starts would gain from it, so a failure does not matter to this one.
    pub(crate) fn save(&self, unsaved: &Unsaved) {
        let _ = self.write(&unsaved.slot, &encode(&unsaved.key, &unsaved.program));
    }

    fn read(&self, slot: &str, key: &[u8]) -> Option<Program> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = openat(&self.directory, slot, flags, Mode::empty()).ok()?;
        let stat = fstat(&file).ok()?;
        let ours = stat.st_uid == rustix::process::geteuid().as_raw() && stat.st_mode & GROUP_OR_OTHERS_WRITE == 0;
        let size = u64::try_from(stat.st_size).ok().filter(|size| *size <= MAX_FILE)?;
        if !ours || !rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file() {
            return None;
        }
        let mut bytes = Vec::with_capacity(usize::try_from(size).ok()?);
        std::fs::File::from(file).take(MAX_FILE).read_to_end(&mut bytes).ok()?;
        decode(key, &bytes)
    }

    fn write(&self, slot: &str, bytes: &[u8]) -> std::io::Result<()> {
        // Whatever is there may be somebody else's, or open for writing.
        match unlinkat(&self.directory, slot, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(&self.directory, slot, flags, Mode::RUSR | Mode::WUSR)?;
        std::fs::File::from(file).write_all(bytes)
    }
}

/// A program that the cache did not have.
#[derive(Debug)]
pub(crate) struct Unsaved {
    slot: String,
    key: Vec<u8>,
    program: Program,
}

/// What the program depends on.
fn key(native: Arch, seccomp: &Seccomp) -> Option<Vec<u8>> {
    let mut key = format!("{} {native:?} ", env!("CARGO_PKG_VERSION")).into_bytes();
    serde_json::to_writer(&mut key, seccomp).ok()?;
    Some(key)
}

/// FNV-1a over words of eight bytes: picks a slot, and detects a file that was not completely written. It does not stop a forger.
fn sum(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    last.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let words = words.iter().chain([&last]).map(|word| u64::from_le_bytes(*word)).chain([length]);
    // Multiplication carries differences upwards only; the rotation brings them down to the bits that select the slot.
    words.fold(0xcbf2_9ce4_8422_2325, |hash: u64, word| (hash ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29))
}

/// `MAGIC`, key length, key, the program, and a sum over all of it against torn writes.
fn encode(key: &[u8], program: &Program) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend_from_slice(key);
    program.write(&mut bytes);
    bytes.extend_from_slice(&sum(&bytes).to_le_bytes());
    bytes
}

fn decode(key: &[u8], bytes: &[u8]) -> Option<Program> {
    let (content, written) = bytes.split_last_chunk::<8>()?;
    let rest = content.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    if usize::try_from(u32::from_le_bytes(*length)).ok()? != key.len() {
        return None;
    }
    let rest = rest.strip_prefix(key)?;
    if u64::from_le_bytes(*written) != sum(content) {
        return None;
    }
    Program::read(rest)
}
